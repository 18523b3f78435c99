"""Gradient descent: the one loop of steps of a torch.optim optimizer, and backpropagation, its usual gradient.

Each member has its own optimizer, so that a member trained beside others takes the same steps as it would alone.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field, replace
from functools import partial
from typing import Annotated, Any, cast

import torch
from annotated_types import Ge
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from llm_catalyst.models.base import PromptedModel, stack_members
from llm_catalyst.optimizers.base import GradientFunction, Member, PromptOptimizer, StepResult
from llm_catalyst.optimizers.schedule import Schedule, StepRange
from llm_catalyst.tasks.batching import Batch
from llm_catalyst.utils.validation import config_dataclass


class GradientDescent(PromptOptimizer):
    """The loop of steps along gradients; a subclass defines the optimizer, and how a gradient is computed.

    Gradients are clipped at the Euclidean norm `clip_norm`, each member's by itself. `dropout` says whether the
    backbone's own dropout is active.
    """

    schedule: Schedule
    clip_norm: float | None = None
    dropout: bool = False

    @abstractmethod
    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """A new torch optimizer of one member's parameters."""

    @abstractmethod
    def estimate_gradients(
        self, model: PromptedModel, members: Sequence[Member], batch: Batch, number: int, rates: Sequence[float]
    ) -> tuple[list[float], int]:
        """Leave the gradient of each member's mean loss, or its estimate, in the member's parameters.

        Args:
            model: The model, its backbone in training mode where `dropout` says so.
            members: k members.
            batch: The rows (k, b) of this step.
            number: The step's number (from 1, over the run).
            rates: Each member's learning rate in this step.

        Returns:
            The members' mean losses (k,) in nats, and how often each example of the batch went forward.
        """

    def train(
        self, model: PromptedModel, members: Sequence[Member], batches: Iterator[Batch], step_range: StepRange
    ) -> Iterator[StepResult]:
        """Take the steps of a stage (see `PromptOptimizer.train`); moments are kept in the members."""
        model.backbone.train(self.dropout)
        optimizers = [self._restore_optimizer(member, step_range) for member in members]
        for number in range(step_range.done + 1, step_range.end + 1):
            if all(member.diverged for member in members):
                break
            rates = [float(optimizer.param_groups[0]["lr"]) for optimizer, _ in optimizers]
            batch = next(batches)
            losses, passes = self.estimate_gradients(model, members, batch, number, rates)
            for i, (member, (optimizer, scheduler), loss) in enumerate(zip(members, optimizers, losses, strict=True)):
                update = partial(self.update, member, optimizer, model, batch.of_member(i), number)
                member.diverged = member.diverged or not (math.isfinite(loss) and self._step(member, update))
                optimizer.zero_grad(set_to_none=True)
                if not member.diverged:
                    scheduler.step()
                member.optimizer_state = optimizer.state_dict()
            finite = (math.nan if member.diverged else loss for member, loss in zip(members, losses, strict=True))
            yield StepResult.of(number, finite, batch, passes)
        model.backbone.train(False)

    def update(
        self, member: Member, optimizer: torch.optim.Optimizer, model: PromptedModel, batch: Batch, number: int
    ) -> None:
        """Move a member's parameters by its optimizer, along the gradients in them: in place.

        Args:
            member: A member whose loss and gradients are finite; the gradients are clipped.
            optimizer: The member's own.
            model: The model.
            batch: The member's rows (1, b) of this step.
            number: The step's number (from 1, over the run).
        """
        optimizer.step()

    def _restore_optimizer(self, member: Member, step_range: StepRange) -> tuple[torch.optim.Optimizer, LambdaLR]:
        """A member's optimizer with the moments that the member kept, and its scheduler at step `step_range.done`."""
        optimizer = self.make_optimizer(list(member.parameters.values()))
        rates = [group["lr"] for group in optimizer.param_groups]
        if member.optimizer_state is not None:
            optimizer.load_state_dict(member.optimizer_state)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = group["initial_lr"] = rate  # the scheduler computes the present rate from the full one
        return optimizer, self.schedule.attach(optimizer, step_range, member.restarted_at)

    def _step(self, member: Member, update: Callable[[], None]) -> bool:
        """Take one step by `update` and return True; leave the parameters as they are where that is not finite."""
        norm = nn.utils.clip_grad_norm_(member.parameters.values(), self.clip_norm or math.inf)
        if not torch.isfinite(norm):
            return False
        before = [parameter.detach().clone() for parameter in member.parameters.values()]
        update()
        if all(parameter.detach().isfinite().all() for parameter in member.parameters.values()):
            return True
        for parameter, value in zip(member.parameters.values(), before, strict=True):
            parameter.data.copy_(value)
        return False


def mean_gradients(model: PromptedModel, members: Sequence[Member], batch: Batch) -> list[float]:
    """Each member's mean loss on its own rows; leaves the gradient of it in the member's parameters.

    Accumulates over parts of the batch, of as many examples as fit into memory.
    """

    def accumulate(size: int) -> list[float]:
        for member in members:
            for parameter in member.parameters.values():
                parameter.grad = None  # a pass that ran out of memory may have left one
        total = torch.zeros(len(members), device=batch.labels.device)
        for part in batch.parts(size):
            losses = model.losses(stack_members([member.parameters for member in members]), part).sum(1) / batch.size
            losses.nansum().backward()
            total += losses.detach()
        return total.tolist()

    return model.limits.fit("examples", 1, batch.size, accumulate)


class ExactGradients(GradientDescent):
    """Gradient descent along exact gradients, the backbone frozen; a subclass is a dataclass.

    Its field `gradients` is `mean_gradients`, or a function that does the same for the members of several runs in one
    pass (`share_gradients`).
    """

    gradients: GradientFunction

    def estimate_gradients(
        self, model: PromptedModel, members: Sequence[Member], batch: Batch, number: int, rates: Sequence[float]
    ) -> tuple[list[float], int]:
        """The exact gradients, from one pass (see `GradientDescent.estimate_gradients`)."""
        return self.gradients(model, members, batch), 1

    def share_gradients(self, gradients: GradientFunction) -> PromptOptimizer:
        """The same optimizer with gradients from `gradients`.

        Itself with dropout: in a shared pass all runs would draw from one random stream.
        """
        copied: Any = self
        return self if self.dropout else cast(PromptOptimizer, replace(copied, gradients=gradients))


@config_dataclass("")
class Backprop(ExactGradients):
    """Backpropagation into the soft prompt and the head's weights.

    `optimizer` makes a torch optimizer from parameters.
    """

    optimizer: Callable[..., torch.optim.Optimizer]
    schedule: Schedule = field(default_factory=Schedule)
    clip_norm: Annotated[float, Ge(1e-9)] | None = 1.0
    dropout: bool = False
    gradients: GradientFunction = mean_gradients

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """A new optimizer of these parameters."""
        return self.optimizer(parameters)
