"""What a mentor is shown, and the one method that every mentor has."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from llm_catalyst.models.soft_prompt import PromptSpace
from llm_catalyst.runs.records import Advice, LLMCall, Prompt, ScoredPrompt
from llm_catalyst.tasks.base import Example


@dataclass(frozen=True)
class TaskDescription:
    """A task in words: its name, what it asks, the names of its labels, and its training examples."""

    name: str
    text: str
    labels: tuple[str, ...]
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Trial:
    """A discrete prompt's answer to one training example: the loss in nats and the label id that it gave."""

    loss: float
    answer: int
    right: bool


def refuse_probe(*_: Any) -> Any:
    """Stands where a consultation has no model to try prompts on."""
    raise NotImplementedError("this consultation has no model at hand")


@dataclass(frozen=True)
class MentorContext:
    """One request for advice, after `stage` (from 0) of `stages`.

    `pool` is the trajectory: the best-scored discrete prompts, the best one last (highest loss first). `scored` are
    all prompts of the run that were scored under the present head, in the same order: the pool, and what it has no
    room for. `memory` is what the mentor has wished to know again (`Advice.memory`).
    `space` turns text into prompts of m tokens; `rng` is this consultation's own random stream;
    `answered` are exchanges of this stage that a run which was cut off has paid for: they are not asked again.
    `record` stores an exchange with a language model, and must be called before the reply is used;
    `before_call` must be called before anybody is asked: it raises where the run's budget is used up. Both may be
    called from several threads.
    `attempt` tries prompts on some training examples (numbers into `task.examples`), a list of trials for each prompt.
    `hints` gives for each prompt, for each of its m tokens, the vocabulary ids that the gradient would move it to.
    """

    task: TaskDescription
    pool: tuple[ScoredPrompt, ...]
    stage: int
    stages: int
    space: PromptSpace
    rng: random.Random
    record: Callable[[LLMCall], None]
    answered: tuple[LLMCall, ...] = ()
    before_call: Callable[[], None] = lambda: None
    scored: tuple[ScoredPrompt, ...] = ()
    memory: Mapping[str, Any] = field(default_factory=dict)
    attempt: Callable[[Sequence[Prompt], Sequence[int]], list[list[Trial]]] = refuse_probe
    hints: Callable[[Sequence[Prompt]], list[tuple[tuple[int, ...], ...]]] = refuse_probe

    def draw_examples(self, most: int) -> list[int]:
        """Numbers of at most `most` distinct training examples, drawn by `rng`."""
        n = len(self.task.examples)
        return self.rng.sample(range(n), min(most, n))


class Mentor(Protocol):
    """Whoever proposes restart points: a language model, a control, or a person."""

    def propose(self, context: MentorContext) -> Advice:
        """Proposals for the next stage, best guess first; none at all means: carry on.

        A mentor with `overlap` is asked from a thread of its own, while a stage trains.
        """
        ...


def overlaps(mentor: Mentor) -> bool:
    """Whether the mentor answers while the stage after its question goes on."""
    return bool(getattr(mentor, "overlap", False))
