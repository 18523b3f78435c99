"""What every doer trains, tells and does."""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from llm_catalyst.models.prompted_text import Model
from llm_catalyst.tasks.batching import Batch


@dataclass
class Member:
    """One of k prompts that train side by side: its parameters, its optimizer's state, and whether it has stopped."""

    parameters: dict[str, nn.Parameter]
    optimizer_state: dict[str, Any] | None = None
    diverged: bool = False

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Member":
        return cls({name: nn.Parameter(tensor.detach().clone()) for name, tensor in tensors.items()})

    def restarted(self, prompt: Tensor, keep_moments: bool) -> "Member":
        """A copy with this member's head and a new prompt (m, d), with or without the optimizer's moments."""
        new = Member.of({**self.parameters, "prompt": prompt})
        # The state belongs to its own member: copied, since optimizers change it in place.
        new.optimizer_state = copy.deepcopy(self.optimizer_state) if keep_moments else None
        return new


@dataclass(frozen=True)
class StepResult:
    """One optimizer step: its number (from 1, over the run) and each member's batch loss in nats.

    `examples` is how many went forward for it, over all members and over all the points around each at which a doer
    takes the loss; `tokens` is how many tokens these have, padding included and prompts not, and `padding` how many of
    them are padding.
    A loss is NaN where it or its gradient was not finite: that member stopped before this step's update.
    """

    number: int
    losses: tuple[float, ...]
    examples: int
    tokens: int = 0
    padding: int = 0

    @classmethod
    def of(cls, number: int, losses: Iterable[float], batch: Batch, times: int = 1) -> "StepResult":
        """The step for which each example of the batch went forward so many times.

        To be made when the losses are known: what a GPU is asked for here is then there.
        """
        examples, tokens = times * batch.labels.numel(), times * batch.token_count
        return cls(number, tuple(losses), examples, tokens, times * batch.padding_count)


@dataclass(frozen=True)
class StepRange:
    """The steps `begin` + 1 to `end` of a stage, in a run of `total`; those up to `done` are taken already."""

    begin: int
    end: int
    total: int
    done: int


class PromptOptimizer(Protocol):
    """Whoever trains the members between two restarts."""

    def train(
        self, model: Model, members: Sequence[Member], batches: Iterator[Batch], course: StepRange
    ) -> Iterator[StepResult]:
        """Train `members` in place for the rest of a stage, and tell each step after it is taken.

        A batch holds rows for every member. A member whose loss or gradient is not finite keeps its last finite
        parameters and stops; the stage ends early when none is left. Whenever a step is told, the members are
        whole: the steps that follow depend on them, the batches and the course alone.
        """
        ...
