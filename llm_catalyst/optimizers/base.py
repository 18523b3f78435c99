"""The interface of every optimizer: it trains k members side by side for one stage, and reports each step."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from llm_catalyst.models.base import Parameters, PromptedModel, group_by_length, stack_members
from llm_catalyst.models.soft_prompt import PromptSpace
from llm_catalyst.optimizers.schedule import Moments, StepRange
from llm_catalyst.tasks.batching import Batch


@dataclass
class Member:
    """One of k prompts that train side by side: its parameters, its optimizer's state, and whether it has stopped.

    `number` is its place among those that began the stage. `restarted_at` is the step of the run after which a restart
    replaced its prompt, None where none did. `stage_start` (m, d) is its prompt at the beginning of the stage.
    """

    parameters: dict[str, nn.Parameter]
    optimizer_state: dict[str, Any] | None = None
    diverged: bool = False
    number: int = 0
    restarted_at: int | None = None
    stage_start: Tensor | None = None

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Member":
        return cls({name: nn.Parameter(tensor.detach().clone()) for name, tensor in tensors.items()})

    def restarted(self, prompt: Tensor, moments: Moments, step: int) -> "Member":
        """A copy after `step` with this member's head and a new prompt (m, d).

        Args:
            moments: Whose start anew in the optimizer's state: the prompt's, all (`reset`), or none (`keep`).
        """
        new = Member.of({**self.parameters, "prompt": prompt})
        new.restarted_at = step
        if moments != "reset":
            # The state belongs to its own member: copied, since optimizers change it in place.
            new.optimizer_state = copy.deepcopy(self.optimizer_state)
        if moments == "prompt" and new.optimizer_state is not None:
            new.optimizer_state["state"].pop(list(new.parameters).index("prompt"), None)
        return new


@dataclass(frozen=True)
class StepResult:
    """One optimizer step: its number (from 1, over the run) and each member's batch loss in nats.

    `examples` counts the examples that went forward, over all members and all points around each at which the loss was
    taken; `tokens` are the tokens of these examples with padding and without prompts, `padding` those that are padding.
    A loss is NaN where it or its gradient was not finite: that member stopped before this step's update.
    """

    number: int
    losses: tuple[float, ...]
    examples: int
    tokens: int = 0
    padding: int = 0

    @classmethod
    def of(cls, number: int, losses: Iterable[float], batch: Batch, passes: int = 1) -> "StepResult":
        """The step for which each example of the batch went forward `passes` times.

        Make it only when the losses are known: reading the batch's counts waits for the GPU.
        """
        examples, (tokens, padding) = batch.labels.numel(), batch.token_counts
        return cls(number, tuple(losses), passes * examples, passes * tokens, passes * padding)


# Leaves the gradient of each member's mean loss in its parameters, and returns these losses (k,) in nats.
GradientFunction = Callable[[PromptedModel, Sequence[Member], Batch], list[float]]


def map_parts(model: PromptedModel, batch: Batch, work: Callable[[Batch], Tensor]) -> list[Tensor]:
    """The results of `work` on parts of a batch, each of as many examples as fit into memory."""
    return model.limits.fit("examples", 1, batch.size, lambda size: [work(part) for part in batch.parts(size)])


class PromptOptimizer(ABC):
    """Trains the members between two restarts (conf/optimizer).

    `trains` is False where no step changes a member, so that the mentor alone moves the prompt. `discrete` is True
    where the prompt is made of tokens after every step, and must be so at the start.
    """

    trains: bool = True
    discrete: bool = False

    @abstractmethod
    def train(
        self, model: PromptedModel, members: Sequence[Member], batches: Iterator[Batch], step_range: StepRange
    ) -> Iterator[StepResult]:
        """Train the members in place for the rest of a stage, and yield each step after it is taken.

        Whenever a step is yielded, the members are complete: the steps that follow depend on them, the batches and
        `step_range` alone. The stage ends early when every member has stopped.

        Args:
            model: The frozen backbone under soft prompts and a head.
            members: k members. One whose loss or gradient is not finite keeps its last finite parameters and stops.
            batches: One batch for each step, with rows (k, b) for every member.
            step_range: The steps of the stage, and how many of them are taken already.

        Returns:
            The steps, by number.
        """

    def share_gradients(self, gradients: GradientFunction) -> "PromptOptimizer":
        """The same optimizer with gradients from `gradients`, which computes those of several runs in one pass.

        The optimizer itself where it has no use for them.
        """
        return self

    def in_space(self, space: PromptSpace) -> "PromptOptimizer":
        """The same optimizer for the tokens of this space; the optimizer itself where it has no use for them."""
        return self


@dataclass(frozen=True)
class NoTraining(PromptOptimizer):
    """No training: the mentor alone moves the prompt, as in OPRO or EvoPrompt. Yields the loss of each step's batch."""

    trains = False

    @torch.inference_mode()
    def train(
        self, model: PromptedModel, members: Sequence[Member], batches: Iterator[Batch], step_range: StepRange
    ) -> Iterator[StepResult]:
        """The steps of a stage (see `PromptOptimizer.train`), none of which changes a member."""
        model.backbone.train(False)
        parameters = [member.parameters for member in members]
        groups = group_by_length(parameters)
        prepared = [model.prepare(stack_members([parameters[i] for i in group])) for group in groups]
        for number in range(step_range.done + 1, step_range.end + 1):
            batch, losses = next(batches), [0.0] * len(members)
            for group, stacked in zip(groups, prepared, strict=True):
                own = batch if len(groups) == 1 else batch.of_members(group)
                for i, loss in zip(group, mean_losses(model, stacked, own), strict=True):
                    losses[i] = loss
            yield StepResult.of(number, losses, batch)


def mean_losses(model: PromptedModel, parameters: Parameters, batch: Batch) -> list[float]:
    """The mean loss in nats of each of k stacked members on its own rows of a batch."""
    parts = map_parts(model, batch, lambda part: model.losses(parameters, part).sum(1))
    return (torch.stack(parts).sum(0) / batch.size).tolist()
