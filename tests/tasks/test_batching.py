"""The order of examples, their padding, and what truncation may never take."""

import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.tiny_models import CPU, backbone, choice_data, gpt2_tokenizer, sentences, word_piece

from llm_catalyst.tasks.base import Example, steps_per_epoch
from llm_catalyst.tasks.batching import Encoded, epoch_rows, scoring_rows, training_rows
from llm_catalyst.tasks.tokenization import encode_examples
from llm_catalyst.training.problem import cloze_for


def encoded(n: int, longest: int = 40, choices: int = 1) -> Encoded:
    """n examples of random lengths."""
    rng = random.Random(3)
    tokens = tuple(tuple(range(1, rng.randint(2, longest))) for _ in range(n * choices))
    return Encoded(tokens, None, tuple(i % 2 for i in range(n)), choices, 0)


@pytest.mark.parametrize(("n", "batch_size"), [(1, 8), (8, 8), (10, 4), (1000, 3)])
def test_every_example_comes_once_in_every_epoch(n: int, batch_size: int) -> None:
    data, per_epoch = encoded(n), steps_per_epoch(n, batch_size)
    stream = training_rows(data, batch_size, seed=1, first_step=0)
    for _ in range(3):
        batches = list(itertools.islice(stream, per_epoch))
        assert sorted(itertools.chain(*batches)) == list(range(n))
        assert max(map(len, batches)) <= batch_size


def test_the_order_follows_from_the_seed_and_the_epoch() -> None:
    data = encoded(50)
    assert epoch_rows(data, 4, seed=1, epoch=0) == epoch_rows(data, 4, seed=1, epoch=0)
    orders = [epoch_rows(data, 4, seed, epoch) for seed, epoch in [(1, 0), (2, 0), (1, 1)]]
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]


@pytest.mark.parametrize("first", [1, 12, 13, 14, 40])
def test_the_stream_from_a_step_is_the_stream_from_the_beginning_without_the_steps_before(first: int) -> None:
    data = encoded(50)  # 13 steps an epoch
    whole = list(itertools.islice(training_rows(data, 4, 7, 0), first + 20))
    assert list(itertools.islice(training_rows(data, 4, 7, first), 20)) == whole[first:]


def test_buckets_of_similar_lengths_save_most_of_the_padding() -> None:
    data = encoded(400)

    def padded(batches: list[list[int]]) -> int:
        return sum(len(rows) * max(data.length(i) for i in rows) for rows in batches)

    order = list(range(400))
    shuffled = [order[i : i + 8] for i in range(0, 400, 8)]
    real = sum(data.length(i) for i in order)
    assert padded(epoch_rows(data, 8, 1, 0, bucket=50)) - real < 0.1 * (padded(shuffled) - real)
    assert padded(epoch_rows(data, 8, 1, 0)) - real < 0.25 * (padded(shuffled) - real)


def share_together(data: Encoded, bucket: int | None, epochs: int = 6) -> float:
    """The largest part of a batch that is one batch again in the next epoch, as a mean over batches and epochs."""
    shares = []
    for epoch in range(epochs):
        before, after = (epoch_rows(data, 32, 1, each, bucket) for each in (epoch, epoch + 1))
        at = {row: number for number, rows in enumerate(after) for row in rows}
        shares += [max(Counter(at[row] for row in rows).values()) / len(rows) for rows in before]
    return sum(shares) / len(shares)


def test_in_a_small_task_the_same_examples_do_not_meet_in_every_epoch(real: Callable[[str], Path]) -> None:
    lines = (real("wsc") / "train.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    data = encode_examples(word_piece(), [Example(((text, None),), 0) for text in texts], 120)
    rng = random.Random(1)
    shuffled = replace(data, tokens=tuple((rng.randrange(100),) for _ in texts))
    assert share_together(data, 50) > 0.6
    assert share_together(data, None) < share_together(shuffled, 50) + 0.02 < 0.2


def test_buckets_leave_the_batches_shuffled() -> None:
    data = encoded(400)
    lengths = [data.length(rows[0]) for rows in epoch_rows(data, 8, 1, 0)]
    assert lengths != sorted(lengths)


@pytest.mark.parametrize("choices", [1, 3])
def test_scoring_batches_hold_every_example_once_and_stay_within_the_budget(choices: int) -> None:
    data, budget, prompt = encoded(200, choices=choices), 700, 5
    batches = list(scoring_rows(data, budget, prompt))
    assert sorted(itertools.chain(*batches)) == list(range(200))
    sizes = [len(rows) * choices * (max(data.length(i) for i in rows) + prompt) for rows in batches]
    assert max(sizes) <= budget
    assert sum(sizes) / len(sizes) > 0.7 * budget  # and they use it


def test_an_example_larger_than_the_budget_is_scored_alone() -> None:
    data = encoded(20)
    assert [len(rows) for rows in scoring_rows(data, 1, 5)] == [1] * 20


def test_collating_pads_to_the_longest_and_masks_the_padding() -> None:
    data = Encoded(((5, 6, 7), (8,), (9, 3)), ((0, 1, 1), (0,), (0, 1)), (0, 1, 0), 1, padding=4)
    batch = data.batch([[0, 1], [2, 1]], CPU)
    assert batch.tokens.tolist() == [[[5, 6, 7], [8, 4, 4]], [[9, 3, 4], [8, 4, 4]]]
    assert batch.mask.tolist() == [[[1, 1, 1], [1, 0, 0]], [[1, 1, 0], [1, 0, 0]]]
    assert batch.types is not None
    assert batch.types.tolist() == [[[0, 1, 1], [0, 0, 0]], [[0, 1, 0], [0, 0, 0]]]
    assert batch.labels.tolist() == [[0, 1], [0, 1]]
    wide = data.batch([[1]], CPU, pad_to=5)
    assert wide.tokens.tolist() == [[[8, 4, 4, 4, 4]]]
    assert wide.mask.sum() == 1


@pytest.mark.parametrize("pad_to", [None, 50])
@pytest.mark.parametrize("choices", [1, 3])
def test_batches_are_cut_out_as_they_would_be_put_together_token_by_token(choices: int, pad_to: int | None) -> None:
    data = encoded(60, choices=choices)
    data = replace(data, types=tuple(tuple(t % 2 for t in row) for row in data.tokens), padding=7)
    members = [random.Random(i).sample(range(60), 9) for i in range(4)]
    batch = data.batch(members, CPU, pad_to)
    at = [[i * choices + j for i in rows for j in range(choices)] for rows in members]
    width = pad_to or max(len(data.tokens[s]) for rows in at for s in rows)

    def padded(table: Sequence[Sequence[int]], fill: int) -> list[list[list[int]]]:
        return [[[*table[s], *[fill] * (width - len(table[s]))] for s in rows] for rows in at]

    assert batch.types is not None
    assert batch.tokens.tolist() == padded(data.tokens, 7)
    assert batch.types.tolist() == padded(data.types or (), 0)
    assert batch.mask.tolist() == padded([[1] * len(row) for row in data.tokens], 0)
    assert batch.labels.tolist() == [[data.labels[i] for i in rows] for rows in members]
    assert {tensor.dtype for tensor in (batch.tokens, batch.types, batch.mask, batch.labels)} == {torch.int64}


def test_a_batch_counts_the_tokens_of_all_members_and_the_padding_among_them() -> None:
    data = Encoded(((5, 6, 7), (8,), (), (3, 9)), None, (0, 1), choices=2, padding=0)
    batch = data.batch([[0, 1]], CPU)
    assert batch.token_counts == (4 * 3, 2 + 3 + 1)
    assert batch.expand(5).token_counts == (5 * 12, 5 * 6)
    assert [part.token_counts[1] for part in batch.parts(1)] == [2, 4]
    assert data.batch([[0], [1]], CPU, pad_to=4).token_counts[1] == 1 + 3 + 4 + 2


def test_an_expanded_batch_shows_every_member_the_same_examples() -> None:
    batch = Encoded(((5, 6), (8,)), ((0, 1), (0,)), (0, 1), 1, 0).batch([[0, 1]], CPU).expand(3)
    assert batch.types is not None
    for tensor in (batch.tokens, batch.mask, batch.types, batch.labels):
        assert tensor.shape[0] == 3
        assert torch.equal(tensor[0], tensor[2])


LONG = " ".join(sentences(30))


@pytest.mark.parametrize("name", ["bert", "roberta", "deberta"])
@pytest.mark.parametrize("pair", [None, LONG])
def test_truncation_never_takes_the_clozes_mask(name: str, pair: str | None) -> None:
    tokenizer = backbone(name, words=True).tokenizer
    long, short = Example(((LONG, pair),), 0), Example((("good", pair and "film"),), 1)
    data = encode_examples(tokenizer, [long, short], 20, cloze_of(name))
    assert [row.count(tokenizer.mask_token_id) for row in data.tokens] == [1, 1]
    assert len(data.tokens[0]) == 20
    assert len(data.tokens[1]) < 20


def cloze_of(name: str) -> str:
    return cloze_for(backbone(name, words=True), "It was {mask}.")


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_truncation_never_takes_the_end_of_a_causal_cloze(name: str) -> None:
    tokenizer = backbone(name, words=True).tokenizer
    data = encode_examples(tokenizer, [Example(((LONG, None),), 0)], 20, cloze_of(name))
    assert len(data.tokens[0]) == 20
    assert tokenizer.decode(data.tokens[0]).endswith(" It was")


def test_a_pair_is_told_apart_by_its_types_and_cut_where_it_is_longest() -> None:
    data = encode_examples(word_piece(), [Example(((LONG, "good film"),), 0)], 12)
    assert data.types is not None
    assert len(data.tokens[0]) == 12
    assert word_piece().decode(data.tokens[0]).endswith("[SEP] good film [SEP]")
    assert data.types[0] == (0,) * 9 + (1,) * 3


def test_single_texts_and_tokenizers_without_segments_have_no_types() -> None:
    assert encode_examples(word_piece(), [Example((("good film", None),), 0)], 12).types is None
    assert encode_examples(gpt2_tokenizer(), [Example((("good", "film"),), 0)], 12).types is None
    assert encode_examples(gpt2_tokenizer(), [Example((("good", None),), 0)], 12).padding == 0


def test_choices_keep_their_order_when_they_are_encoded_and_batched() -> None:
    examples = choice_data().train
    data = encode_examples(word_piece(), examples, 40)
    assert (len(data), data.choices, len(data.tokens)) == (6, 2, 12)
    rows = [4, 1]
    batch = data.batch([rows], CPU)
    texts = [
        word_piece().decode(t[m.bool()], skip_special_tokens=True)
        for t, m in zip(batch.tokens[0], batch.mask[0], strict=True)
    ]
    assert texts == [f"{text} {choice}" for i in rows for text, choice in examples[i].sequences]
    assert batch.labels.tolist() == [[examples[i].label for i in rows]]
    assert data.length(0) == max(len(data.tokens[0]), len(data.tokens[1]))
