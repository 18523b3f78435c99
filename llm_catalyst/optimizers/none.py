"""No training: the mentor alone moves the prompt, as in optimization by a language model only (OPRO, EvoPrompt, …)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from llm_catalyst.models.base import PromptedModel, stack_members
from llm_catalyst.optimizers.base import Member, PromptOptimizer, StepRange, StepResult
from llm_catalyst.tasks.batching import Batch


@dataclass(frozen=True)
class NoTraining(PromptOptimizer):
    """Yields the loss of each step's batch, and changes no member."""

    trains = False

    @torch.inference_mode()
    def train(
        self, model: PromptedModel, members: Sequence[Member], batches: Iterator[Batch], step_range: StepRange
    ) -> Iterator[StepResult]:
        """The steps of a stage (see `PromptOptimizer.train`), none of which changes a member."""
        model.backbone.train(False)
        for number in range(step_range.done + 1, step_range.end + 1):
            batch = next(batches)
            losses = model.limits.fit("examples", 1, batch.size, partial(mean_losses, model, members, batch))
            yield StepResult.of(number, losses.tolist(), batch)


def mean_losses(model: PromptedModel, members: Sequence[Member], batch: Batch, size: int) -> Tensor:
    """Each member's mean cross-entropy (k,) in nats, from `size` examples at a time."""
    parameters = stack_members([member.parameters for member in members])
    parts = [model.losses(parameters, part).sum(1) for part in batch.parts(size)]
    return torch.stack(parts).sum(0) / batch.size
