"""Stubs for `run_experiment`, which a dry run carries out on them: they count the work of the run.

No batch is made, nothing is trained, scored or written. Every projection and every proposal is a new random prompt.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from llm_catalyst.callbacks.base import RunCallback
from llm_catalyst.config.settings import Budget
from llm_catalyst.mentors.base import Mentor
from llm_catalyst.models.base import Parameters, PromptedModel
from llm_catalyst.optimizers.base import Member, PromptOptimizer, StepRange, StepResult
from llm_catalyst.runs.records import Emit, Outcome, Prompt, Record, Score, Split
from llm_catalyst.runs.writer import RunDirectory
from llm_catalyst.tasks.batching import training_rows
from llm_catalyst.training.loop import Experiment, run_experiment
from llm_catalyst.training.mentor_cost import CountingMentor
from llm_catalyst.training.problem import Problem
from llm_catalyst.training.scoring import ScoringResult
from llm_catalyst.utils.rng import make_generator

DRAWS = 20  # tries to draw a prompt that was not drawn before


@dataclass(frozen=True)
class CountingProblem(Problem):
    """A problem that computes nothing.

    `examples_of` and `tokens_of` hold the examples and tokens of each training batch, for one member; tokens as padded,
    prompts included. `passes` holds for each split the numbers of prompts that were scored together, time after time.
    """

    examples_of: list[int] = field(default_factory=list)
    tokens_of: list[int] = field(default_factory=list)
    passes: dict[Split, list[int]] = field(default_factory=lambda: defaultdict(list))
    drawn: set[Prompt] = field(default_factory=set)
    generator: torch.Generator = field(default_factory=torch.Generator)

    def draw(self) -> Prompt:
        """A random prompt, another one each time."""
        for _ in range(DRAWS):
            prompt = self.space.sample(self.generator)
            if prompt not in self.drawn:
                break
        self.drawn.add(prompt)
        return prompt

    def batches(self, k: int, first_step: int) -> Iterator[Any]:
        """None for each batch, whose size is counted."""
        train, settings = self.splits["train"], self.settings
        for rows in training_rows(train, settings.batch_size, settings.seed, first_step):
            self.examples_of.append(len(rows))
            self.tokens_of.append(self.count_tokens(train, rows))
            yield None

    def score(self, members: Sequence[Parameters], split: Split = "dev") -> list[ScoringResult | None]:
        """A made-up score for each member."""
        self.passes[split].append(len(members))
        return [ScoringResult(Score(1.0, 0.5, len(self.splits[split])), {"accuracy": 0.5}, None) for _ in members]

    def project(self, rows: Tensor) -> tuple[list[Prompt], list[float]]:
        """A random prompt for each of k."""
        return [self.draw() for _ in rows], [1.0] * len(rows)


@dataclass
class CountingOptimizer(PromptOptimizer):
    """An optimizer that takes no step; `members` holds the number of members in each stage."""

    trains: bool
    members: list[int] = field(default_factory=list)

    def train(
        self, model: PromptedModel, members: Sequence[Member], batches: Iterator[Any], step_range: StepRange
    ) -> Iterator[StepResult]:
        """The steps of a stage (see `PromptOptimizer.train`), none of which changes a member."""
        k = len(members)
        self.members.append(k)
        for number, _ in enumerate(islice(batches, step_range.end - step_range.done), step_range.done + 1):
            yield StepResult(number, (0.0,) * k, 0)


class UnsavedRun(RunDirectory):
    """A run directory that is on no disk and keeps nothing."""

    def __init__(self) -> None: ...

    def restore(self, emit: Emit) -> None: ...

    def read(self, kind: type[Any]) -> tuple[Any, ...]:
        """No record."""
        return ()

    def append(self, record: Record) -> None: ...

    def commit(self, stage: int, tensors: Mapping[str, Any], state: Mapping[str, Any]) -> None: ...

    def checkpoint(self, stage: int, step: int, tensors: Mapping[str, Any], state: Mapping[str, Any]) -> None: ...

    def refuse_closed(self) -> None: ...

    def finish(self, outcome: Outcome) -> None: ...


def count_work(
    problem: Problem, optimizer: PromptOptimizer, mentor: Mentor, plan: tuple[int, ...]
) -> tuple[CountingProblem, CountingOptimizer, CountingMentor]:
    """The work of a run of `plan` without a budget, in which nothing diverges and no prompt comes twice."""
    settings = replace(problem.settings, budget=Budget())
    generator = make_generator(settings.seed, "estimate")
    parts = problem.data, problem.splits, problem.model, problem.space, settings
    counted, stages = CountingProblem(*parts, generator=generator), CountingOptimizer(optimizer.trains)
    asked = CountingMentor(mentor, counted.draw)
    run_experiment(Experiment(counted, stages, asked, plan), UnsavedRun(), RunCallback())
    return counted, stages, asked
