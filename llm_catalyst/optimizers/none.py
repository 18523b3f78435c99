"""No training: the mentor alone moves the prompt, as in optimization by a language model only (OPRO, EvoPrompt, …)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from llm_catalyst.models.base import PromptedModel, stack_members
from llm_catalyst.optimizers.base import Member, PromptOptimizer, StepRange, StepResult, map_parts
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
        parameters = stack_members([member.parameters for member in members])
        for number in range(step_range.done + 1, step_range.end + 1):
            batch = next(batches)
            parts = map_parts(model, batch, lambda part: model.losses(parameters, part).sum(1))
            losses = torch.stack(parts).sum(0) / batch.size
            yield StepResult.of(number, losses.tolist(), batch)
