"""A causal model's cloze continues the text: the ids are those of one sentence, and no special token is among them."""

from functools import cache
from typing import Any

import pytest
from helpers.tiny_models import LABELS, gpt2_tokenizer, llama_tokenizer, sentences, word_piece
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from llm_catalyst.models.heads.text import tokenize_word
from llm_catalyst.tasks.tokenization import encode_around, tokenize_sequences

CLOZE = " It was"
TEXTS = ("the film was good", "a very long and bad movie scene", "good ", "slow")
LONG = 40


@cache
def prepending(ends: bool, words: bool = True) -> Any:
    """Llama 2's and Mistral's way: its normalizer puts '▁' before all that it reads; `ends` with </s> behind a text.

    Without `words` a token may hold several words, as no pre-tokenizer parts them.
    """
    pieces = Tokenizer(models.BPE(unk_token="<unk>"))
    pieces.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    pieces.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    if words:
        pieces.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    pieces.train_from_iterator(sentences(200) + ["It was good", "It was bad"] * 50, trainer)
    if ends:
        marks = [("<s>", 1), ("</s>", 2)]
        pieces.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=marks)
    else:
        pieces.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=pieces, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


TOKENIZERS: dict[str, tuple[Any, list[int]]] = {
    "prepending": (lambda: prepending(False), []),
    "prepending, with an end": (lambda: prepending(True), [2]),
    "prepending, of several words": (lambda: prepending(False, words=False), []),
    "WordPiece": (word_piece, [3]),
    "byte-level": (gpt2_tokenizer, []),
    "Llama 3": (llama_tokenizer, []),
}


def encode(tokenizer: Any, text: str, limit: int = LONG) -> list[int]:
    (row,), _ = tokenize_sequences(tokenizer, [(text, None)], limit, CLOZE)
    return list(row)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("text", TEXTS)
def test_text_and_cloze_have_the_ids_of_one_sentence_without_what_stands_behind_it(name: str, text: str) -> None:
    make, end = TOKENIZERS[name]
    whole = make()(f"{text}{CLOZE}").input_ids
    assert encode(make(), text) == whole[: len(whole) - len(end)]
    assert whole[len(whole) - len(end) :] == end


@pytest.mark.parametrize("name", [name for name in TOKENIZERS if "several" not in name])
def test_a_text_that_is_too_long_loses_its_own_end_only(name: str) -> None:
    make, end = TOKENIZERS[name]
    text = TEXTS[1]
    whole, alone = encode(make(), text), make()(text).input_ids[: -len(end) or None]
    cloze = whole[len(alone) :]
    assert [*alone, *cloze] == whole
    for limit in range(len(cloze) + 2, len(whole)):
        assert encode(make(), text, limit) == [*alone[: limit - len(cloze)], *cloze]


@pytest.mark.parametrize("name", [name for name in TOKENIZERS if "several" not in name])
def test_the_cloze_of_an_empty_text_is_that_behind_a_text(name: str) -> None:
    make, end = TOKENIZERS[name]
    before = make()("").input_ids
    before = before[: len(before) - len(end)]
    behind = encode(make(), "slow")[-len(encode(make(), "")) + len(before) :]
    assert encode(make(), "") == [*before, *behind] == list(encode_around(make(), False, CLOZE))


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("word", [*LABELS, "filmgood"])
def test_a_label_word_has_the_ids_that_it_has_behind_the_cloze(ends: bool, word: str) -> None:
    tokenizer = prepending(ends)
    sentence = tokenizer(f"It was {word}", add_special_tokens=False).input_ids
    assert tokenize_word(tokenizer, word) == sentence[len(tokenizer("It was", add_special_tokens=False).input_ids) :]
