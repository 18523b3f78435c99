"""Descent: steps of an optimizer of torch.optim along whatever gradient a doer gives, each member by itself."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from llm_catalyst.optimizers.base import Member, StepRange, StepResult
from llm_catalyst.tasks.batching import Batch
from llm_catalyst.utils.validation import check_at_least, check_choice, check_range

SCHEDULES: dict[str, Callable[..., Any]] = {
    "constant": lambda optimizer, warm_up, total, last: transformers.get_constant_schedule_with_warmup(
        optimizer, warm_up, last_epoch=last
    ),
    "linear": transformers.get_linear_schedule_with_warmup,
    "cosine": lambda optimizer, warm_up, total, last: transformers.get_cosine_schedule_with_warmup(
        optimizer, warm_up, total, last_epoch=last
    ),
}

# From a step's number, its batch and each member's learning rate to each member's loss in nats, and how many times each
# example went forward for it. Leaves the gradient of that loss, or its estimate, in every parameter.
Gradients = Callable[[int, Batch, Sequence[float]], tuple[list[float], int]]


@dataclass(frozen=True)
class Schedule:
    """The learning rate's course over the whole run (`over: run`) or anew in every stage (`over: stage`).

    `warm_up` is the share of those steps during which the rate grows linearly from 0 or, where that is given, is
    `warm_up_rate` (CoOp).
    """

    name: str = "constant"
    warm_up: float = 0.0
    over: str = "run"
    warm_up_rate: float | None = None

    def __post_init__(self) -> None:
        check_choice("schedule.name", self.name, tuple(SCHEDULES))
        check_choice("schedule.over", self.over, ("run", "stage"))
        check_range("schedule.warm_up", self.warm_up, 0, 1)
        check_at_least("schedule.warm_up_rate", self.warm_up_rate, 0)


@dataclass(frozen=True)
class Descent:
    """How a gradient becomes a step: the optimizer, its rate's course, and the norm that gradients are clipped at.

    `optimizer` makes a torch optimizer from parameters. Each member has its own, so that a member trained
    among others takes the same steps as it would alone.
    """

    optimizer: Callable[..., torch.optim.Optimizer]
    schedule: Schedule
    clip_norm: float | None

    def steps(
        self, members: Sequence[Member], batches: Iterator[Batch], course: StepRange, gradients: Gradients
    ) -> Iterator[StepResult]:
        """Take the steps of `Doer.train`; the optimizer's moments are left in the members."""
        optimizers = [self._optimizer(member, course) for member in members]
        for number in range(course.done + 1, course.end + 1):
            if all(member.diverged for member in members):
                break
            rates = [float(optimizer.param_groups[0]["lr"]) for optimizer, _ in optimizers]
            batch = next(batches)
            losses, times = gradients(number, batch, rates)
            for member, (optimizer, scheduler), loss in zip(members, optimizers, losses, strict=True):
                member.diverged = member.diverged or not (math.isfinite(loss) and self._step(member, optimizer))
                optimizer.zero_grad(set_to_none=True)
                if not member.diverged:
                    scheduler.step()
                member.optimizer_state = optimizer.state_dict()
            told = (math.nan if member.diverged else loss for member, loss in zip(members, losses, strict=True))
            yield StepResult.of(number, told, batch, times)

    def _optimizer(self, member: Member, course: StepRange) -> tuple[torch.optim.Optimizer, Any]:
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
        scheduler = SCHEDULES[self.schedule.name](optimizer, warm_up, span, done - 1)
        if (flat := self.schedule.warm_up_rate) is not None:
            after, share = scheduler.lr_lambdas[0], flat / (rates[0] or 1)
            scheduler = LambdaLR(optimizer, lambda step: share if step < warm_up else after(step), done - 1)
        return optimizer, scheduler

    def _step(self, member: Member, optimizer: torch.optim.Optimizer) -> bool:
        """Take one step unless the gradient is not finite; says whether it was taken."""
        norm = nn.utils.clip_grad_norm_(member.parameters.values(), self.clip_norm or math.inf)
        if not torch.isfinite(norm):
            return False
        before = [parameter.detach().clone() for parameter in member.parameters.values()]
        optimizer.step()
        if all(parameter.detach().isfinite().all() for parameter in member.parameters.values()):
            return True
        for parameter, value in zip(member.parameters.values(), before, strict=True):
            parameter.data.copy_(value)
        return False
