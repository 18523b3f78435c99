"""From texts to token ids."""

from collections.abc import Sequence
from typing import Any

from llm_catalyst.tasks.base import Example
from llm_catalyst.tasks.batching import Encoded, Rows


def encode_examples(tokenizer: Any, examples: Sequence[Example], max_length: int, cloze: str | None = None) -> Encoded:
    """Token ids with special tokens, each sequence cut to `max_length`.

    With `cloze` (for the verbalizer) text and pair are joined into the first segment, the only one that is
    cut, and the cloze becomes the second, so that the place of the label word is never lost.
    """
    tokens, types = tokenize_sequences(tokenizer, list_sequences(examples), max_length, cloze)
    return build_encoded(tokenizer, examples, tokens, types)


def list_sequences(examples: Sequence[Example]) -> list[tuple[str, str | None]]:
    """Every (text, pair) of a split, example by example."""
    return [sequence for example in examples for sequence in example.sequences]


def tokenize_sequences(
    tokenizer: Any, sequences: Sequence[tuple[str, str | None]], max_length: int, cloze: str | None = None
) -> tuple[Rows, Rows | None]:
    """Each sequence's token ids, cut as `encode` says, and their types, where the tokenizer knows such."""
    joined = [text if pair is None else f"{text} {pair}" for text, pair in sequences]
    pairs = None if sequences[0][1] is None else [pair for _, pair in sequences]
    found: Any
    if cloze is not None and tokenizer.mask_token is not None and tokenizer.mask_token in cloze:
        clozes = [cloze] * len(joined)
        found = tokenizer(joined, clozes, truncation="only_first", max_length=max_length)
    elif cloze is not None:
        # A causal model's cloze continues the text: nothing may stand between the two.
        end = tokenizer(cloze, add_special_tokens=False).input_ids
        rows = tokenizer(joined, truncation=True, max_length=max_length - len(end)).input_ids
        found = {"input_ids": [[*row, *end] for row in rows]}
    elif pairs is None or tokenizer.sep_token is None:
        # Without a separator of its own a tokenizer would run the two texts together.
        found = tokenizer(joined, truncation=True, max_length=max_length)
    else:
        found = tokenizer([text for text, _ in sequences], pairs, truncation=True, max_length=max_length)
    return found["input_ids"], found.get("token_type_ids")


def build_encoded(tokenizer: Any, examples: Sequence[Example], tokens: Rows, types: Rows | None) -> Encoded:
    """The split whose sequences have these token ids, and these types, which count where any is not 0."""
    return Encoded(
        tokens=tuple(map(tuple, tokens)),
        types=tuple(map(tuple, types)) if types is not None and any(map(any, types)) else None,
        labels=tuple(e.label for e in examples),
        choices=len(examples[0].sequences),
        padding=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0,
    )
