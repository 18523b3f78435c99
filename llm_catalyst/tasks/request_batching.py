"""Batches of encoded requests, into which a prompt is put, and the answers that follow them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm_catalyst.tasks.base import Example
from llm_catalyst.tasks.batching import Batch, Device, Examples, Rows


@dataclass(frozen=True)
class EncodedRequests(Examples):
    """A split of a generation task as token ids: what stands before the prompt, after it, and the answer.

    The answers are the first reference of each of `examples`, with the token that ends them.
    """

    examples: tuple[Example, ...]
    before: tuple[tuple[int, ...], ...]
    after: tuple[tuple[int, ...], ...]
    answers: tuple[tuple[int, ...], ...]
    padding: int
    choices: int = 1

    @cached_property
    def labels(self) -> Sequence[int]:  # type: ignore[override]
        """One label for all: a generation task has no classes."""
        return [0] * len(self.answers)

    def length(self, i: int) -> int:
        """Tokens of example i, its answer included."""
        return len(self.before[i]) + len(self.after[i]) + len(self.answers[i])

    def pick(self, rows: Sequence[int]) -> "EncodedRequests":
        """These examples, in this order."""
        names = ("examples", "before", "after", "answers")
        picked: dict[str, Any] = {name: tuple(getattr(self, name)[i] for i in rows) for name in names}
        return replace(self, **picked)

    def batch(self, rows: Rows, device: Device, pad_to: int | None = None, epoch: int = 0) -> "RequestBatch":
        """The examples `rows[j]` for member j, the same in every epoch, padded to the longest of all."""
        k, b, width = len(rows), len(rows[0]), max(self.length(i) for member in rows for i in member)
        tokens = np.full((k, b, width), self.padding)
        prompt_at, answer_at, end = (np.zeros((k, b), np.int64) for _ in range(3))
        for j, member in enumerate(rows):
            for at, i in enumerate(member):
                prompt_at[j, at] = len(self.before[i])
                answer_at[j, at] = prompt_at[j, at] + len(self.after[i])
                end[j, at] = self.length(i)
                tokens[j, at, : end[j, at]] = [*self.before[i], *self.after[i], *self.answers[i]]
        labels = torch.zeros(k, b, dtype=torch.int64)

        def move(array: NDArray[np.int64]) -> Tensor:
            return torch.from_numpy(array).to(device, non_blocking=True)

        return RequestBatch(move(tokens), move(prompt_at), move(answer_at), move(end), labels.to(device))


@dataclass(frozen=True)
class RequestBatch(Batch):
    """b requests for each of k members, padded on the right to length l.

    tokens (k, b, l) int64: what stands before the prompt, what stands after it, and the answer, one after another. The
    prompt is put in at `prompt_at` (k, b), the answer begins at `answer_at` and ends at `end` (k, b), in columns of
    `tokens`. labels (k, b) are 0.
    """

    tokens: Tensor
    prompt_at: Tensor
    answer_at: Tensor
    end: Tensor
    labels: Tensor

    @property
    def width(self) -> int:
        """Tokens that every row is padded to, l."""
        return self.tokens.shape[2]

    @property
    def token_counts(self) -> tuple[int, int]:
        """Tokens of all members' rows, padding included and prompts not, and how many of them are padding."""
        return self.tokens.numel(), self.tokens.numel() - int(self.end.sum())
