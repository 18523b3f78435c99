"""Batches of encoded texts: length buckets, padding, and an order that follows from the seed."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import Self

from llm_catalyst.tasks.base import steps_per_epoch
from llm_catalyst.utils.rng import make_generator

Rows = Sequence[Sequence[int]]  # of each sequence its token ids, or their types; of each member its examples
Device = torch.device | str

MOST_TOGETHER = 50  # batches sorted by length together: large enough to pad little, small enough to stay shuffled
PART_OF_EPOCH = 10  # they are a tenth of an epoch at most: in small sets the same batches would come again and again


class Batch:
    """b examples for each of k members; labels (k, b). A subclass is a frozen dataclass.

    In each tensor the first dimension is the members, and the second holds the same number of rows for every example.
    """

    labels: Tensor

    @property
    def size(self) -> int:
        """Examples of each member, b."""
        return self.labels.shape[1]

    @property
    def width(self) -> int:
        """Tokens that every row is padded to; 1 where examples are no tokens."""
        return 1

    @property
    def token_counts(self) -> tuple[int, int]:
        """Tokens of all members' rows, padding included and prompts not, and how many of them are padding.

        Both are 0 where examples are no tokens. On a GPU this waits for the batch.
        """
        return 0, 0

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The fields that are tensors, by name."""
        return {name: value for name, value in vars(self).items() if torch.is_tensor(value)}

    def parts(self, size: int) -> Iterator[Self]:
        """The same batch in pieces of at most `size` examples of each member."""
        pieces = [tensor.split(size * (tensor.shape[1] // self.size), dim=1) for tensor in self.tensors.values()]
        for part in zip(*pieces, strict=True):
            yield self._with(dict(zip(self.tensors, part, strict=True)))

    def beside(self, others: Sequence[Self]) -> Self:
        """The examples of these members and of those of `others`, b of each; all padded to the widest.

        The padding is masked, and need not be the tokenizer's own token.
        """
        batches = (self, *others)
        return self._with({name: join_members([batch.tensors[name] for batch in batches]) for name in self.tensors})

    def expand(self, k: int) -> Self:
        """The same examples for each of k members, where there was one; no memory is copied."""
        return self._with({name: tensor.expand(k, *tensor.shape[1:]) for name, tensor in self.tensors.items()})

    def of_member(self, i: int) -> Self:
        """The examples of member i alone, (1, …)."""
        return self._with({name: tensor[i : i + 1] for name, tensor in self.tensors.items()})

    def of_members(self, numbers: Sequence[int]) -> Self:
        """The examples of these members, (len(numbers), …)."""
        return self._with({name: tensor[list(numbers)] for name, tensor in self.tensors.items()})

    def repeat(self, times: int) -> Self:
        """The examples of all k members `times` over: (times * k, …)."""
        return self._with({name: torch.cat([tensor] * times) for name, tensor in self.tensors.items()})

    def _with(self, tensors: Mapping[str, Tensor]) -> Self:
        batch: Any = self
        return replace(batch, **tensors)


def join_members(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors (k, …, l) of several groups of members as one, with zeros up to the largest l."""
    width = max(tensor.shape[-1] for tensor in tensors)
    return torch.cat([nn.functional.pad(tensor, (0, width - tensor.shape[-1])) for tensor in tensors])


class Examples(ABC):
    """A split in the form that a model takes; `choices` sequences are scored for each example."""

    labels: Sequence[int]
    choices: int

    def __len__(self) -> int:
        return len(self.labels)

    def length(self, i: int) -> int:
        """Tokens of example i, by which examples are put together; 1 where examples are no tokens."""
        return 1

    @abstractmethod
    def pick(self, rows: Sequence[int]) -> Self:
        """These examples, in this order."""

    @abstractmethod
    def batch(self, rows: Rows, device: Device, pad_to: int | None = None, epoch: int = 0) -> Batch:
        """The examples `rows[j]` for member j, as they are seen in an epoch of training (from 0)."""


@dataclass(frozen=True)
class Encoded(Examples):
    """A split as token ids: n examples of `choices` sequences each, example by example."""

    tokens: tuple[tuple[int, ...], ...]
    types: tuple[tuple[int, ...], ...] | None
    labels: tuple[int, ...]
    choices: int
    padding: int

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """The end of each sequence if all stand one after another, behind a 0, the beginning of the first."""
        return np.cumsum([0, *map(len, self.tokens)])

    @cached_property
    def strung(self) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
        """The tokens of all sequences one after another, and their types: batches are cut out of them."""

        def string(rows: Rows) -> NDArray[np.int64]:
            return np.fromiter(chain.from_iterable(rows), np.int64)

        return string(self.tokens), None if self.types is None else string(self.types)

    def length(self, i: int) -> int:
        """Tokens of example i's longest sequence."""
        return max(len(t) for t in self.tokens[i * self.choices : (i + 1) * self.choices])

    def batch(self, rows: Rows, device: Device, pad_to: int | None = None, epoch: int = 0) -> "TextBatch":
        """The examples `rows[j]` for member j, the same in every epoch.

        Padded to the longest of all, or to `pad_to` tokens.
        """
        sequences = (np.array(rows)[..., None] * self.choices + np.arange(self.choices)).reshape(len(rows), -1)
        begins, ends = self.ends[sequences, None], self.ends[sequences + 1, None]
        at = begins + np.arange(pad_to or (ends - begins).max())
        real = at < ends

        def move(array: NDArray[np.int64]) -> Tensor:
            return torch.from_numpy(array).to(device, non_blocking=True)

        def cut_out(strung: NDArray[np.int64], fill: int) -> Tensor:
            return move(np.where(real, strung.take(at, mode="clip"), fill))

        tokens, types = self.strung
        return TextBatch(
            tokens=cut_out(tokens, self.padding),
            mask=move(real.astype(np.int64)),
            types=None if types is None else cut_out(types, 0),
            labels=move(np.array([[self.labels[i] for i in member] for member in rows])),
            choices=self.choices,
        )

    def pick(self, rows: Sequence[int]) -> "Encoded":
        """These examples, in this order."""
        sequences = [i * self.choices + j for i in rows for j in range(self.choices)]
        types = self.types and tuple(self.types[s] for s in sequences)
        labels = tuple(self.labels[i] for i in rows)
        return Encoded(tuple(self.tokens[s] for s in sequences), types, labels, self.choices, self.padding)


@dataclass(frozen=True)
class TextBatch(Batch):
    """b examples for each of k members, as r = b * choices rows padded on the right to length l.

    tokens (k, r, l) int64; mask (k, r, l) int64, 1 on real tokens; types (k, r, l) or None; labels (k, b).
    """

    tokens: Tensor
    mask: Tensor
    types: Tensor | None
    labels: Tensor
    choices: int

    @property
    def width(self) -> int:
        """Tokens that every row is padded to, l."""
        return self.tokens.shape[2]

    @property
    def token_counts(self) -> tuple[int, int]:
        """Tokens of all members' rows, padding included and prompts not, and how many of them are padding."""
        return self.mask.numel(), self.mask.numel() - int(self.mask.sum())

    def beside(self, others: Sequence["TextBatch"]) -> "TextBatch":
        """The rows of these members and of those of `others` (see `Batch.beside`); types that are lacking are 0."""
        batches = (self, *others)
        if all(batch.types is None for batch in batches):
            return super().beside(others)
        first, *rest = (replace(b, types=torch.zeros_like(b.tokens) if b.types is None else b.types) for b in batches)
        return Batch.beside(first, rest)


def training_rows(
    data: Examples, batch_size: int, seed: int, first_step: int, bucket: int | None = None
) -> Iterator[list[int]]:
    """Example numbers of each batch from `first_step` on, without end.

    Every epoch is shuffled anew by (seed, epoch); within a bucket of `bucket` batches (None: a tenth of an epoch, 1 to
    50) examples are sorted by length to save padding, and the batches themselves are shuffled again. With 0 nothing is
    sorted, and a smaller batch stands at the epoch's end. The stream is a function of the step.
    """
    first, skip = divmod(first_step, steps_per_epoch(len(data), batch_size))
    for epoch in count(first):
        yield from epoch_rows(data, batch_size, seed, epoch, bucket)[skip if epoch == first else 0 :]


def epoch_rows(data: Examples, batch_size: int, seed: int, epoch: int, bucket: int | None = None) -> list[list[int]]:
    """The batches of one epoch: every example exactly once."""
    generator = make_generator(seed, "batches", epoch)
    order = torch.randperm(len(data), generator=generator).tolist()
    if bucket is None:
        bucket = max(1, min(MOST_TOGETHER, steps_per_epoch(len(data), batch_size) // PART_OF_EPOCH))
    if bucket == 0:
        return [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
    batches = []
    for at in range(0, len(order), batch_size * bucket):
        chunk = sorted(order[at : at + batch_size * bucket], key=data.length)
        batches += [chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def count_padded_tokens(data: Examples, rows: Sequence[int], prompt_length: int, pad_to: int | None = None) -> int:
    """Tokens of each example in a pass over these rows: all its choices, padding and prompts included."""
    return ((pad_to or max(map(data.length, rows))) + prompt_length) * data.choices


def scoring_rows(data: Examples, budget: int, prompt_length: int, pad_to: int | None = None) -> Iterator[list[int]]:
    """Every example once, shortest first, in batches of at most `budget` padded tokens (at least one example)."""
    batch: list[int] = []
    for i in sorted(range(len(data)), key=data.length):
        tokens = count_padded_tokens(data, [i], prompt_length, pad_to)
        if batch and (len(batch) + 1) * tokens > budget:
            yield batch
            batch = []
        batch.append(i)
    yield batch
