"""What a mentor is shown, and the one method that every mentor has."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from llm_catalyst.records import Advice, Exchange, Scored
from llm_catalyst.soft_prompt import PromptSpace


@dataclass(frozen=True)
class TaskDescription:
    """A task in words: its name, what it asks, and the names of its labels."""

    name: str
    text: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Consultation:
    """One request for advice, after `stage` (from 0) of `stages`.

    `pool` is the trajectory: the best-scored discrete prompts, the best one last (highest loss first).
    `space` turns text into prompts of m tokens; `rng` is this consultation's own random stream;
    `answered` are exchanges of this stage that a run which was cut off has paid for: they are not asked again.
    `record` stores an exchange with a language model, and must be called before the reply is used;
    `before_call` must be called before anybody is asked: it raises where the run's budget is used up.
    """

    task: TaskDescription
    pool: tuple[Scored, ...]
    stage: int
    stages: int
    space: PromptSpace
    rng: random.Random
    record: Callable[[Exchange], None]
    answered: tuple[Exchange, ...] = ()
    before_call: Callable[[], None] = lambda: None


class Mentor(Protocol):
    """Whoever proposes restart points: a language model, a control, or a person."""

    def propose(self, consultation: Consultation) -> Advice:
        """Proposals for the next stage, best guess first; none at all means: carry on."""
        ...
