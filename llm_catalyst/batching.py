"""Batches: encoding of texts, length buckets, padding, and an order that follows from the seed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from typing_extensions import Self

from llm_catalyst.randomness import stream
from llm_catalyst.tasks.text import Example

BUCKET = 50  # batches sorted by length together: large enough to pad little, small enough to stay shuffled


class Batch(Protocol):
    """b examples for each of k members; labels (k, b)."""

    @property
    def labels(self) -> Tensor: ...

    @property
    def size(self) -> int:
        """Examples of each member, b."""
        ...

    def parts(self, size: int) -> Iterator[Self]:
        """The same batch in pieces of at most `size` examples of each member."""
        ...

    def expand(self, k: int) -> Self:
        """The same examples for each of k members, where there was one; no memory is copied."""
        ...

    def repeat(self, times: int) -> Self:
        """The examples of all k members `times` over: (times * k, …)."""
        ...


class Examples(Protocol):
    """A split in the form that a model takes; `choices` sequences are scored for each example."""

    @property
    def labels(self) -> Sequence[int]: ...

    @property
    def choices(self) -> int: ...

    def __len__(self) -> int: ...

    def length(self, i: int) -> int:
        """Tokens of example i, by which examples are put together."""
        ...

    def pick(self, rows: Sequence[int]) -> Self:
        """These examples, in this order."""
        ...

    def batch(
        self, rows: Sequence[Sequence[int]], device: torch.device | str, pad_to: int | None = None, epoch: int = 0
    ) -> Batch:
        """The examples `rows[j]` for member j, as they are seen in an epoch of training (from 0)."""
        ...


@dataclass(frozen=True)
class Encoded:
    """A split as token ids: n examples of `choices` sequences each, example by example."""

    tokens: tuple[tuple[int, ...], ...]
    types: tuple[tuple[int, ...], ...] | None
    labels: tuple[int, ...]
    choices: int
    padding: int

    def __len__(self) -> int:
        return len(self.labels)

    def length(self, i: int) -> int:
        """Tokens of example i's longest sequence."""
        return max(len(t) for t in self.tokens[i * self.choices : (i + 1) * self.choices])

    def batch(
        self, rows: Sequence[Sequence[int]], device: torch.device | str, pad_to: int | None = None, epoch: int = 0
    ) -> "TextBatch":
        """The examples `rows[j]` for member j, the same in every epoch; padded as `collate` does."""
        return collate(self, rows, device, pad_to)

    def pick(self, rows: Sequence[int]) -> "Encoded":
        """These examples, in this order."""
        sequences = [i * self.choices + j for i in rows for j in range(self.choices)]
        types = self.types and tuple(self.types[s] for s in sequences)
        labels = tuple(self.labels[i] for i in rows)
        return Encoded(tuple(self.tokens[s] for s in sequences), types, labels, self.choices, self.padding)


@dataclass(frozen=True)
class TextBatch:
    """b examples for each of k members, as r = b * choices rows padded on the right to length l.

    tokens (k, r, l) int64; mask (k, r, l) int64, 1 on real tokens; types (k, r, l) or None; labels (k, b).
    """

    tokens: Tensor
    mask: Tensor
    types: Tensor | None
    labels: Tensor
    choices: int

    @property
    def size(self) -> int:
        """Examples of each member, b."""
        return self.labels.shape[1]

    def parts(self, size: int) -> Iterator["TextBatch"]:
        """The same batch in pieces of at most `size` examples of each member."""
        for i in range(0, self.size, size):
            rows = slice(i * self.choices, (i + size) * self.choices)
            types = None if self.types is None else self.types[:, rows]
            labels = self.labels[:, i : i + size]
            yield TextBatch(self.tokens[:, rows], self.mask[:, rows], types, labels, self.choices)

    def expand(self, k: int) -> "TextBatch":
        """The same examples for each of k members; no memory is copied."""

        def wide(tensor: Tensor) -> Tensor:
            return tensor.expand(k, *tensor.shape[1:])

        types = None if self.types is None else wide(self.types)
        return TextBatch(wide(self.tokens), wide(self.mask), types, wide(self.labels), self.choices)

    def repeat(self, times: int) -> "TextBatch":
        """The rows of all k members `times` over: (times * k, r, l)."""

        def again(tensor: Tensor) -> Tensor:
            return tensor.repeat(times, *[1] * (tensor.dim() - 1))

        types = None if self.types is None else again(self.types)
        return TextBatch(again(self.tokens), again(self.mask), types, again(self.labels), self.choices)


def encode(tokenizer: Any, examples: Sequence[Example], max_length: int, cloze: str | None = None) -> Encoded:
    """Token ids with special tokens, each sequence cut to `max_length`.

    With `cloze` (for the verbalizer) text and pair are joined into the first segment, the only one that is
    cut, and the cloze becomes the second, so that the place of the label word is never lost.
    """
    sequences = [sequence for example in examples for sequence in example.sequences]
    joined = [text if pair is None else f"{text} {pair}" for text, pair in sequences]
    pairs = None if sequences[0][1] is None else [pair for _, pair in sequences]
    encoded: Any
    if cloze is not None and tokenizer.mask_token is not None and tokenizer.mask_token in cloze:
        clozes = [cloze] * len(joined)
        encoded = tokenizer(joined, clozes, truncation="only_first", max_length=max_length)
    elif cloze is not None:
        # A causal model's cloze continues the text: nothing may stand between the two.
        end = tokenizer(cloze, add_special_tokens=False).input_ids
        rows = tokenizer(joined, truncation=True, max_length=max_length - len(end)).input_ids
        encoded = {"input_ids": [[*row, *end] for row in rows]}
    elif pairs is None or tokenizer.sep_token is None:
        # Without a separator of its own a tokenizer would run the two texts together.
        encoded = tokenizer(joined, truncation=True, max_length=max_length)
    else:
        encoded = tokenizer([text for text, _ in sequences], pairs, truncation=True, max_length=max_length)
    types = encoded.get("token_type_ids")
    if types is not None and not any(map(any, types)):
        types = None
    return Encoded(
        tokens=tuple(map(tuple, encoded["input_ids"])),
        types=types and tuple(map(tuple, types)),
        labels=tuple(e.label for e in examples),
        choices=len(examples[0].sequences),
        padding=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0,
    )


def collate(
    data: Encoded, rows: Sequence[Sequence[int]], device: torch.device | str, pad_to: int | None = None
) -> TextBatch:
    """The examples `rows[j]` for member j, padded to the longest of all (or to `pad_to` tokens)."""
    c = data.choices
    sequences = [[i * c + j for i in member for j in range(c)] for member in rows]
    width = pad_to or max(len(data.tokens[s]) for member in sequences for s in member)

    def padded(values: Sequence[Sequence[int]], fill: int) -> Tensor:
        table = [[[*values[s], *[fill] * (width - len(values[s]))] for s in member] for member in sequences]
        return torch.tensor(table).to(device, non_blocking=True)

    lengths = torch.tensor([[len(data.tokens[s]) for s in member] for member in sequences])
    return TextBatch(
        tokens=padded(data.tokens, data.padding),
        mask=(torch.arange(width) < lengths[..., None]).long().to(device, non_blocking=True),
        types=None if data.types is None else padded(data.types, 0),
        labels=torch.tensor([[data.labels[i] for i in member] for member in rows]).to(device, non_blocking=True),
        choices=c,
    )


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Batches of one pass over the training split; the last one may be smaller."""
    return -(-examples // batch_size)


def training_rows(data: Examples, batch_size: int, seed: int, first_step: int) -> Iterator[list[int]]:
    """Example numbers of each batch from `first_step` on, without end.

    Every epoch is shuffled anew by (seed, epoch); within a bucket of batches examples are sorted by length
    to save padding, and the batches themselves are shuffled again. The stream is a function of the step.
    """
    per_epoch = steps_per_epoch(len(data), batch_size)
    epoch, skip = divmod(first_step, per_epoch)
    while True:
        yield from epoch_rows(data, batch_size, seed, epoch)[skip:]
        epoch, skip = epoch + 1, 0


def epoch_rows(data: Examples, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The batches of one epoch: every example exactly once."""
    generator = stream(seed, "batches", epoch)
    order = torch.randperm(len(data), generator=generator).tolist()
    bucket = batch_size * BUCKET
    batches = []
    for at in range(0, len(order), bucket):
        chunk = sorted(order[at : at + bucket], key=data.length)
        batches += [chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def scoring_rows(data: Examples, budget: int, prompt_length: int, pad_to: int | None = None) -> Iterator[list[int]]:
    """Every example once, shortest first, in batches of at most `budget` padded tokens (at least one example)."""
    batch: list[int] = []
    for i in sorted(range(len(data)), key=data.length):
        tokens = ((pad_to or data.length(i)) + prompt_length) * data.choices
        if batch and (len(batch) + 1) * tokens > budget:
            yield batch
            batch = []
        batch.append(i)
    yield batch
