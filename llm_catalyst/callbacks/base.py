"""What follows a run while it goes on: the callback protocol and what all views share."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from llm_catalyst.runs.analysis import constant_warning, describe_event, majority_warning, read_accuracy
from llm_catalyst.runs.records import Evaluation, Event, LLMCall, Outcome, Record, Restart, ScoredPrompt
from llm_catalyst.utils.format import format_count
from llm_catalyst.utils.terminal import escape_controls


@dataclass(frozen=True)
class RunInfo:
    """What is known of a run before it starts. `plan` holds the steps of each stage.

    `resumed` names the saved state that a resumed run goes on from.
    """

    title: str
    directory: str
    plan: tuple[int, ...]
    majority: float
    metric: str
    resumed: str | None = None


class RunCallback(Protocol):
    """Shows a run. `tick` is called after every optimizer step, `show` with every record that is written.

    `end` may be called twice, and with None where the run did not come to an outcome.
    """

    def begin(self, overview: RunInfo) -> None: ...

    def tick(self, stage: int, step: int, losses: tuple[float, ...]) -> None: ...

    def show(self, record: Record) -> None: ...

    def end(self, outcome: Outcome | None) -> None: ...


@dataclass(frozen=True)
class Notice:
    """Something that follows from what was seen: a stage has begun or ended, or a person must be warned."""

    text: str
    warning: bool = False


@dataclass
class RunWatcher:
    """Where a run stands, and the notes that follow. Views feed it; a step within a stage costs two assignments."""

    overview: RunInfo
    stage: int = -1
    step: int = 0
    members: int = 1
    training: bool = False
    accuracies: list[float] = field(default_factory=list)  # on dev, in this stage, after training
    constant: dict[int, str | None] = field(default_factory=dict)  # the only answer of each member

    def __post_init__(self) -> None:
        self.ends = tuple(itertools.accumulate(self.overview.plan))

    def tick(self, stage: int, step: int, members: int) -> Sequence[Notice]:
        """The notes that a training step causes: almost always none."""
        self.step = step
        if stage == self.stage:
            return ()
        notes = self.close()
        self.stage, self.members, self.training, self.accuracies = stage, members, True, []
        side_by_side = f", {members} prompts side by side" if members > 1 else ""
        steps = format_count(self.overview.plan[stage], "step")
        return [*notes, Notice(f"stage {stage + 1}/{len(self.ends)} begins: {steps}{side_by_side}")]

    def heed(self, record: Record) -> list[Notice]:
        """The notes that a record causes."""
        if isinstance(record, Event):
            return [Notice(describe_event(record), warning=True)]
        if isinstance(record, Evaluation) and record.split == "dev" and self.training:
            self.accuracies.append(read_accuracy(record))
            before, self.constant[record.member] = self.constant.get(record.member), record.constant
            if record.constant is not None and record.constant != before:
                return [Notice(constant_warning(record.stage, record.step, record.constant), warning=True)]
        if isinstance(record, ScoredPrompt | LLMCall | Restart):
            return self.close()
        return []

    def close(self) -> list[Notice]:
        """The notes at a stage's end, once: what follows training (scoring, the mentor) has begun."""
        if not self.training or self.step < self.ends[self.stage]:
            return []
        self.training = False
        best = f", best dev accuracy in it {max(self.accuracies):.3f}" if self.accuracies else ""
        notes = [Notice(f"stage {self.stage + 1}/{len(self.ends)} ends at step {self.step}{best}")]
        warning = majority_warning(self.stage, self.accuracies, self.overview.majority)
        return [*notes, Notice(warning, warning=True)] if warning else notes


class NoCallback:
    """Shows nothing."""

    def begin(self, overview: RunInfo) -> None:
        pass

    def tick(self, stage: int, step: int, losses: tuple[float, ...]) -> None:
        pass

    def show(self, record: Record) -> None:
        pass

    def end(self, outcome: Outcome | None) -> None:
        pass


def describe_unfinished(overview: RunInfo) -> str:
    """What to say where a run was stopped or failed."""
    return f"the run did not end; go on with: catalyst resume {escape_controls(overview.directory)}"


class CallbackList:
    """Several views as one: they begin in their order, and end in the other."""

    def __init__(self, *views: RunCallback) -> None:
        self.views = views

    def begin(self, overview: RunInfo) -> None:
        for view in self.views:
            view.begin(overview)

    def tick(self, stage: int, step: int, losses: tuple[float, ...]) -> None:
        for view in self.views:
            view.tick(stage, step, losses)

    def show(self, record: Record) -> None:
        for view in self.views:
            view.show(record)

    def end(self, outcome: Outcome | None) -> None:
        for view in reversed(self.views):
            view.end(outcome)
