"""The gradient doer: trains soft prompts (and heads) for one stage with an optimizer of torch.optim."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from llm_catalyst.batching import Batch
from llm_catalyst.checks import at_least, one_of, within
from llm_catalyst.doers.doer import Member, Step
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
        self,
        model: PromptedModel,
        members: Sequence[Member],
        batches: Iterator[Batch],
        first: int,
        steps: int,
        total: int,
    ) -> Iterator[Step]:
        """Train by backpropagation (see `Doer.train`); the optimizer's moments are left in the members."""
        done, span = (first, total) if self.schedule.over == "run" else (0, steps)
        optimizers = [self._optimizer(member, done, span) for member in members]
        running = [True] * len(members)
        model.backbone.train(self.dropout)
        for number in range(first + 1, first + steps + 1):
            batch = next(batches)
            losses = self._losses(model, members, batch)
            losses.nansum().backward()
            values = losses.tolist()
            for i, (member, (optimizer, scheduler)) in enumerate(zip(members, optimizers, strict=True)):
                running[i] = running[i] and math.isfinite(values[i]) and self._step(member, optimizer)
                optimizer.zero_grad(set_to_none=True)
                if running[i]:
                    scheduler.step()
            yield Step(
                number,
                tuple(v if ok else math.nan for v, ok in zip(values, running, strict=True)),
                batch.labels.numel(),
            )
            if not any(running):
                break
        model.backbone.train(False)
        for member, (optimizer, _) in zip(members, optimizers, strict=True):
            member.optimizer_state = optimizer.state_dict()

    def _optimizer(self, member: Member, done: int, span: int) -> tuple[torch.optim.Optimizer, Any]:
        """A member's optimizer, with the moments it kept, and its learning-rate schedule after `done` steps."""
        optimizer = self.optimizer(list(member.parameters.values()))
        rates = [group["lr"] for group in optimizer.param_groups]
        if member.optimizer_state is not None:
            optimizer.load_state_dict(member.optimizer_state)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = group["initial_lr"] = rate
        warm_up = round(self.schedule.warm_up * span)
        return optimizer, SCHEDULES[self.schedule.name](optimizer, warm_up, span, done - 1)

    def _losses(self, model: PromptedModel, members: Sequence[Member], batch: Batch) -> Tensor:
        """Mean cross-entropy (k,) of each member on its own rows."""
        logits = model.logits(stack([member.parameters for member in members]), batch)
        return example_losses(logits, batch.labels).mean(1)

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
