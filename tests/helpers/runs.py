"""A run of a toy problem in this process."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from helpers.tiny_models import adamw, run_in, toy_data, toy_problem
from torch import Tensor

from llm_catalyst.config.settings import Protocol
from llm_catalyst.mentors.base import Mentor, MentorContext
from llm_catalyst.mentors.controls import NoMentor
from llm_catalyst.optimizers.backprop import Backprop
from llm_catalyst.optimizers.base import PromptOptimizer, StepResult
from llm_catalyst.runs.reader import FILES, read_lines
from llm_catalyst.runs.records import (
    Advice,
    Outcome,
    Proposal,
    Rejected,
)
from llm_catalyst.training.loop import Experiment
from llm_catalyst.training.problem import Problem

PLAN = (3, 3, 3)


TEXTS = ("slow music", "a very good film", "bad bad actor")


OPTIMIZER = Backprop(adamw)


FAST = Backprop(partial(torch.optim.AdamW, lr=0.5))  # every step projects to other tokens


@dataclass
class Scripted(Mentor):
    """A mentor that gives fixed advice, made of texts, and keeps what it was shown."""

    texts: Sequence[str] = TEXTS
    rejected: tuple[Rejected, ...] = ()
    fallback: str | None = None
    shown: list[MentorContext] = field(default_factory=list)

    def propose(self, context: MentorContext) -> Advice:
        self.shown.append(context)
        proposals = [Proposal(*self.fit(context, text)) for text in self.texts]
        return Advice(tuple(proposals), self.rejected, self.fallback)

    def fit(self, context: MentorContext, text: str) -> tuple[Any, str]:
        return context.space.fit(text)[0], f"because of {text}"


@dataclass
class Noting(PromptOptimizer):
    """An optimizer that keeps what each stage began with: the members' parameters and optimizer states.

    And, in `ended`, the prompts with which it ended.
    """

    optimizer: Backprop = OPTIMIZER
    began: list[list[tuple[dict[str, Tensor], Any]]] = field(default_factory=list)
    ended: list[list[Tensor]] = field(default_factory=list)

    def train(self, model: Any, members: Any, *rest: Any) -> Iterator[StepResult]:
        state = [({n: p.detach().clone() for n, p in m.parameters.items()}, m.optimizer_state) for m in members]
        self.began.append(copy.deepcopy(state))
        self.ended.append([])
        for step in self.optimizer.train(model, members, *rest):
            self.ended[-1] = [member.parameters["prompt"].detach().clone() for member in members]
            yield step

    def prompts(self, stage: int) -> list[Tensor]:
        return [parameters["prompt"] for parameters, _ in self.began[stage]]


@dataclass
class Result:
    """What a run left behind."""

    outcome: Outcome
    path: Path

    def read(self, kind: type[Any]) -> tuple[Any, ...]:
        return read_lines(self.path / FILES[kind], kind)

    def bytes(self) -> dict[str, bytes]:
        """Every record file's content; a file that does not exist is empty."""
        paths = {name: self.path / name for name in FILES.values()}
        return {name: path.read_bytes() if path.exists() else b"" for name, path in paths.items()}


def carry_out(
    path: Path,
    problem: Problem | None = None,
    mentor: Any = None,
    optimizer: Any = OPTIMIZER,
    plan: tuple[int, ...] = PLAN,
    view: Any = None,
) -> Result:
    problem = problem or toy_problem()
    experiment = Experiment(problem, optimizer, mentor or NoMentor(), plan)
    return Result(run_in(path, experiment, view), path)


def large_run(path: Path, before: Callable[[], None]) -> Any:
    """A run of large batches; `before` is called when everything is loaded."""
    data, padded = toy_data(train=128, dev=256, test=32, max_length=128), Protocol(pad_to_max_length=True)
    problem = toy_problem(data=data, batch_size=128, protocol=padded, token_budget=10**6)
    before()
    return carry_out(path, problem, optimizer=Backprop(partial(torch.optim.SGD, lr=0.1)), plan=(2, 2))
