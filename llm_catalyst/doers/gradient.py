"""The gradient doer: trains soft prompts (and heads) for one stage with an optimizer of torch.optim."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import transformers
from torch import nn

from llm_catalyst.batching import Batch
from llm_catalyst.checks import at_least, one_of, within
from llm_catalyst.doers.doer import Course, Member, Step
from llm_catalyst.model import PromptedModel, example_losses, stack

SCHEDULES: dict[str, Callable[..., Any]] = {
    "constant": lambda optimizer, warm_up, total, last: transformers.get_constant_schedule_with_warmup(
        optimizer, warm_up, last_epoch=last
    ),
    "linear": transformers.get_linear_schedule_with_warmup,
    "cosine": lambda optimizer, warm_up, total, last: transformers.get_cosine_schedule_with_warmup(
        optimizer, warm_up, total, last_epoch=last
    ),
}


@dataclass(frozen=True)
class Schedule:
    """The learning rate's course over the whole run (`over: run`) or anew in every stage (`over: stage`).

    `warm_up` is the share of those steps during which the rate grows linearly from 0.
    """

    name: str = "constant"
    warm_up: float = 0.0
    over: str = "run"

    def __post_init__(self) -> None:
        one_of("schedule.name", self.name, tuple(SCHEDULES))
        one_of("schedule.over", self.over, ("run", "stage"))
        within("schedule.warm_up", self.warm_up, 0, 1)


@dataclass(frozen=True)
class Gradient:
    """Backpropagation into the soft prompt and the head's weights, the backbone frozen.

    `optimizer` makes a torch optimizer from parameters. Each member has its own, so that a member trained
    among others takes the same steps as it would alone.
    """

    optimizer: Callable[..., torch.optim.Optimizer]
    schedule: Schedule = field(default_factory=Schedule)
    clip_norm: float | None = 1.0
    dropout: bool = False

    def __post_init__(self) -> None:
        at_least("clip_norm", self.clip_norm, 1e-9)

    def train(
        self, model: PromptedModel, members: Sequence[Member], batches: Iterator[Batch], course: Course
    ) -> Iterator[Step]:
        """Train by backpropagation (see `Doer.train`); the optimizer's moments are left in the members."""
        optimizers = [self._optimizer(member, course) for member in members]
        model.backbone.train(self.dropout)
        for number in range(course.done + 1, course.end + 1):
            if all(member.diverged for member in members):
                break
            batch = next(batches)
            losses = model.room.fit("examples", 1, batch.size, partial(self._backward, model, members, batch))
            for member, (optimizer, scheduler), loss in zip(members, optimizers, losses, strict=True):
                member.diverged = member.diverged or not (math.isfinite(loss) and self._step(member, optimizer))
                optimizer.zero_grad(set_to_none=True)
                if not member.diverged:
                    scheduler.step()
                member.optimizer_state = optimizer.state_dict()
            told = (math.nan if member.diverged else loss for member, loss in zip(members, losses, strict=True))
            yield Step(number, tuple(told), batch.labels.numel())
        model.backbone.train(False)

    def _optimizer(self, member: Member, course: Course) -> tuple[torch.optim.Optimizer, Any]:
        """A member's optimizer, with the moments it kept, and its learning-rate schedule, as far as it has come."""
        optimizer = self.optimizer(list(member.parameters.values()))
        rates = [group["lr"] for group in optimizer.param_groups]
        if member.optimizer_state is not None:
            optimizer.load_state_dict(member.optimizer_state)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = group["initial_lr"] = rate
        begin, end = (0, course.total) if self.schedule.over == "run" else (course.begin, course.end)
        done, span = course.done - begin, end - begin
        warm_up = round(self.schedule.warm_up * span)
        return optimizer, SCHEDULES[self.schedule.name](optimizer, warm_up, span, done - 1)

    def _backward(self, model: PromptedModel, members: Sequence[Member], batch: Batch, size: int) -> list[float]:
        """Mean cross-entropy of each member on its own rows, and its gradient, gathered `size` examples at a time."""
        for member in members:
            for parameter in member.parameters.values():
                parameter.grad = None  # what a pass that ran out of memory may have left
        total = torch.zeros(len(members), device=batch.labels.device)
        for part in batch.parts(size):
            logits = model.logits(stack([member.parameters for member in members]), part)
            losses = example_losses(logits, part.labels).sum(1) / batch.size
            losses.nansum().backward()
            total += losses.detach()
        return total.tolist()

    def _step(self, member: Member, optimizer: torch.optim.Optimizer) -> bool:
        """Take one step unless the gradient is not finite; says whether it was taken."""
        norm = nn.utils.clip_grad_norm_(member.parameters.values(), self.clip_norm or math.inf)
        if not torch.isfinite(norm):
            return False
        before = [parameter.detach().clone() for parameter in member.parameters.values()]
        optimizer.step()
        if all(parameter.isfinite().all() for parameter in member.parameters.values()):
            return True
        for parameter, value in zip(member.parameters.values(), before, strict=True):
            parameter.data.copy_(value)
        return False
