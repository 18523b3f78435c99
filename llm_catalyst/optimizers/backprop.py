"""The gradient doer: trains soft prompts (and heads) for one stage with an optimizer of torch.optim."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from llm_catalyst.models.prompted_text import Model, stack_members
from llm_catalyst.optimizers.base import Member, StepRange, StepResult
from llm_catalyst.optimizers.descent import Descent, Schedule
from llm_catalyst.tasks.batching import Batch
from llm_catalyst.utils.validation import check_at_least


def mean_gradients(model: Model, members: Sequence[Member], batch: Batch) -> list[float]:
    """Each member's mean loss on its own rows; the gradient of it is left in the member's parameters.

    Gathered from as many examples at a time as memory has room for.
    """

    def gather(size: int) -> list[float]:
        for member in members:
            for parameter in member.parameters.values():
                parameter.grad = None  # what a pass that ran out of memory may have left
        total = torch.zeros(len(members), device=batch.labels.device)
        for part in batch.parts(size):
            losses = model.losses(stack_members([member.parameters for member in members]), part).sum(1) / batch.size
            losses.nansum().backward()
            total += losses.detach()
        return total.tolist()

    return model.room.fit("examples", 1, batch.size, gather)


@dataclass(frozen=True)
class Gradient:
    """Backpropagation into the soft prompt and the head's weights, the backbone frozen.

    `optimizer` makes a torch optimizer from parameters, one for each member (see `Descent`). `gradients` is
    `mean_gradients`, or what does the same for the members of several runs in one pass (`Company.step`).
    """

    optimizer: Callable[..., torch.optim.Optimizer]
    schedule: Schedule = field(default_factory=Schedule)
    clip_norm: float | None = 1.0
    dropout: bool = False
    gradients: Callable[[Model, Sequence[Member], Batch], list[float]] = mean_gradients

    def __post_init__(self) -> None:
        check_at_least("clip_norm", self.clip_norm, 1e-9)

    def train(
        self, model: Model, members: Sequence[Member], batches: Iterator[Batch], course: StepRange
    ) -> Iterator[StepResult]:
        """Train by backpropagation (see `Doer.train`); the optimizer's moments are left in the members."""

        def gradients(number: int, batch: Batch, rates: Sequence[float]) -> tuple[list[float], int]:
            return self.gradients(model, members, batch), 1

        model.backbone.train(self.dropout)
        yield from Descent(self.optimizer, self.schedule, self.clip_norm).steps(members, batches, course, gradients)
        model.backbone.train(False)
