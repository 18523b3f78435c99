"""The gradient doer: trains soft prompts (and heads) for one stage with an optimizer of torch.optim."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from llm_catalyst.batching import Batch
from llm_catalyst.checks import at_least
from llm_catalyst.doers.descent import Descent, Schedule
from llm_catalyst.doers.doer import Course, Member, Step
from llm_catalyst.model import Model, stack


@dataclass(frozen=True)
class Gradient:
    """Backpropagation into the soft prompt and the head's weights, the backbone frozen.

    `optimizer` makes a torch optimizer from parameters, one for each member (see `Descent`).
    """

    optimizer: Callable[..., torch.optim.Optimizer]
    schedule: Schedule = field(default_factory=Schedule)
    clip_norm: float | None = 1.0
    dropout: bool = False

    def __post_init__(self) -> None:
        at_least("clip_norm", self.clip_norm, 1e-9)

    def train(
        self, model: Model, members: Sequence[Member], batches: Iterator[Batch], course: Course
    ) -> Iterator[Step]:
        """Train by backpropagation (see `Doer.train`); the optimizer's moments are left in the members."""
        model.backbone.train(self.dropout)
        descent = Descent(self.optimizer, self.schedule, self.clip_norm)
        yield from descent.steps(members, batches, course, partial(self._gradients, model, members))
        model.backbone.train(False)

    def _gradients(
        self, model: Model, members: Sequence[Member], number: int, batch: Batch, rates: Sequence[float]
    ) -> tuple[list[float], int]:
        losses = model.room.fit("examples", 1, batch.size, partial(self._backward, model, members, batch))
        return losses, batch.labels.numel()

    def _backward(self, model: Model, members: Sequence[Member], batch: Batch, size: int) -> list[float]:
        """Mean cross-entropy of each member on its own rows, and its gradient, gathered `size` examples at a time."""
        for member in members:
            for parameter in member.parameters.values():
                parameter.grad = None  # what a pass that ran out of memory may have left
        total = torch.zeros(len(members), device=batch.labels.device)
        for part in batch.parts(size):
            losses = model.losses(stack([member.parameters for member in members]), part).sum(1) / batch.size
            losses.nansum().backward()
            total += losses.detach()
        return total.tolist()
