"""Token ids that are kept for later runs equal those that are made now, and follow from all that makes them."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from helpers.command import no_file_larger_than
from helpers.tiny_models import (
    TOKENIZERS,
    backbone,
    gpt2_tokenizer,
    reloaded_tokenizer,
    sentences,
    toy_data,
    toy_problem,
    word_piece,
)

from llm_catalyst.tasks.base import Example
from llm_catalyst.tasks.batching import Encoded
from llm_catalyst.tasks.tokenization import LARGE, encode_examples, encode_splits
from llm_catalyst.training.problem import cloze_for

TEXTS = list(dict.fromkeys(sentences(3 * LARGE)))[: LARGE + 500]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; the folder of its files."""
    monkeypatch.setenv("CATALYST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


def singles(texts: Sequence[str] = TEXTS) -> list[Example]:
    return [Example(((text, None),), i % 2) for i, text in enumerate(texts)]


def choices(texts: Sequence[str] = TEXTS) -> list[Example]:
    """Two pairs each."""
    return [Example(((text, "good story"), (text, "a bad and long film")), i % 2) for i, text in enumerate(texts)]


def once(tokenizer: Any, examples: Sequence[Example], *rest: Any) -> Encoded:
    """A single split, kept or read back."""
    return encode_splits(tokenizer, [examples], *rest)[0]


def kept(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.arrow"))


@pytest.mark.parametrize("examples", [singles, choices])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_token_ids_read_back_equal_those_made_anew(cache: Path, name: str, examples: Any) -> None:
    tokenizer, split, lines = TOKENIZERS[name](), examples(), list[str]()
    fresh = encode_examples(tokenizer, split, 9)
    assert once(tokenizer, split, 9, None, lines.append) == fresh
    count = len(split) * fresh.choices
    assert lines == [f"tokens: {done:,} of {count:,} texts" for done in range(0, count, 1000)]
    assert once(tokenizer, split, 9, None, lines.append) == fresh
    assert len(lines) == -(-count // 1000)
    assert len(kept(cache)) == 1


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_a_verbalizers_token_ids_keep_their_cloze(cache: Path, name: str) -> None:
    tokenizer, cloze = backbone(name, words=True).tokenizer, cloze_for(backbone(name, words=True), "It was {mask}.")
    for _ in range(2):
        assert once(tokenizer, choices(), 9, cloze) == encode_examples(tokenizer, choices(), 9, cloze)
    assert len(kept(cache)) == 1


def test_labels_are_no_part_of_what_is_kept(cache: Path) -> None:
    other = [Example(example.sequences, 1 - example.label) for example in singles()]
    found = [once(word_piece(), split, 9).labels for split in (singles(), other)]
    assert found == [tuple(example.label for example in split) for split in (singles(), other)]
    assert len(kept(cache)) == 1


def test_the_same_tokenizer_read_from_disk_finds_what_was_kept_whatever_was_encoded_before(cache: Path) -> None:
    once(reloaded_tokenizer("bert"), singles(), 9)
    used = reloaded_tokenizer("bert")
    used(["a film"], truncation=True, padding="max_length", max_length=5)
    once(used, singles(), 9)
    assert len(kept(cache)) == 1


def test_whatever_token_ids_follow_from_makes_them_anew_where_it_changes(cache: Path) -> None:
    changed = reloaded_tokenizer("bert")
    changed.add_tokens(["film"], special_tokens=True)
    left = reloaded_tokenizer("bert")
    left.truncation_side = "left"
    calls: list[tuple[Any, ...]] = [
        (word_piece(), singles(), 9),
        (word_piece(), singles(), 8),
        (word_piece(), singles([*TEXTS[:-1], "another film"]), 9),
        (word_piece(), choices(), 9),
        (word_piece(), choices(), 9, "it was [MASK]"),
        (gpt2_tokenizer(), singles(), 9),
        (changed, singles(), 9),
        (left, singles(), 9),
    ]
    for number, call in enumerate(calls, start=1):
        assert once(*call) == encode_examples(*call)
        assert len(kept(cache)) == number


@pytest.mark.parametrize("examples", [singles, choices])
def test_the_same_texts_are_found_in_whatever_split_and_order_they_stand(cache: Path, examples: Any) -> None:
    rows, lines = examples(), list[str]()
    for splits in ([rows[:900], rows[900:]], [rows[:200], rows[100:], rows[:3]], [rows[::-1]]):
        found = encode_splits(word_piece(), splits, 9, None, lines.append)
        assert found == [encode_examples(word_piece(), split, 9) for split in splits]
    assert len(lines) == 2 * found[0].choices - (found[0].choices > 1)
    assert len(kept(cache)) == 1


def test_few_texts_are_not_kept_and_those_of_a_large_problem_are(cache: Path) -> None:
    assert once(word_piece(), singles()[: LARGE - 1], 9) == encode_examples(word_piece(), singles()[: LARGE - 1], 9)
    assert not cache.exists()
    toy_problem(data=toy_data(train=2 * LARGE))
    assert len(kept(cache)) == 1


# What befalls a cache


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-600])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def without_checksum(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-64])


def foreign(path: Path) -> None:
    once(word_piece(), singles(TEXTS[1:]), 9)
    (other,) = set(kept(path.parent)) - {path}
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("damage", [cut, flipped, without_checksum, foreign, Path.unlink])
def test_a_damaged_or_foreign_file_is_made_anew(cache: Path, damage: Any) -> None:
    fresh, lines = once(word_piece(), singles(), 9), list[str]()
    damage(kept(cache)[0])
    assert once(word_piece(), singles(), 9, None, lines.append) == fresh
    assert len(lines) == 2
    once(word_piece(), singles(), 9, None, lines.append)
    assert len(lines) == 2


def test_several_at_once_make_the_same_file_once(cache: Path) -> None:
    lines: list[str] = []
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda _: once(reloaded_tokenizer("bert"), singles(), 9, None, lines.append), range(4))
    assert set(found) == {encode_examples(word_piece(), singles(), 9)}
    assert len(lines) == 2
    assert sorted(path.suffix for path in cache.iterdir()) == [".arrow", ".lock"]


def test_a_run_goes_on_where_its_cache_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CATALYST_CACHE", str(tmp_path / "file"))
    assert once(word_piece(), singles(), 9) == encode_examples(word_piece(), singles(), 9)


def test_a_run_goes_on_where_its_cache_is_full_and_leaves_nothing_half_written(cache: Path) -> None:
    with no_file_larger_than(20_000):  # the tokenizer is smaller, and the token ids are larger
        assert once(word_piece(), singles(), 9) == encode_examples(word_piece(), singles(), 9)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
    once(word_piece(), singles(), 9)
    assert kept(cache)[0].stat().st_size > 20_000
