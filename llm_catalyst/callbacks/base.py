"""The interface of run callbacks, and what the callbacks of this package share."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from llm_catalyst.runs.analysis import describe_event, is_notice, read_accuracy, warn_constant, warn_majority
from llm_catalyst.runs.records import Criterion, Evaluation, Event, LLMCall, Outcome, Record, Restart, ScoredPrompt
from llm_catalyst.runs.restart_effects import find_winner
from llm_catalyst.utils.format import format_count
from llm_catalyst.utils.terminal import escape_controls, quote_prompt


@dataclass(frozen=True)
class RunInfo:
    """The facts about a run that are known before it starts.

    Args:
        title: task, backbone, head and mentor.
        directory: the run directory, as people see it.
        plan: the optimizer steps of each stage.
        majority: accuracy of always answering the most frequent label of dev, in [0, 1].
        metric: name of the task's metric.
        rows: the rows of each split and their labels, in a line.
        warnings: what a reader of the scores must know of the data and the mentor, a sentence each.
        notices: what else a reader may want to know, such as a model's terms of use.
        resumed: name of the saved state from which a resumed run continues.
        criterion: by which of several prompts side by side the best goes on.
        trains: whether an optimizer trains the prompt.
    """

    title: str
    directory: str
    plan: tuple[int, ...]
    majority: float
    metric: str
    rows: str = ""
    warnings: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    resumed: str | None = None
    criterion: Criterion = "loss"
    trains: bool = True

    @property
    def ends(self) -> tuple[int, ...]:
        """The last step of each stage."""
        return tuple(itertools.accumulate(self.plan))


class RunCallback:
    """Follows one run. Every method does nothing here; a subclass overrides those that it needs.

    The training loop calls the methods from one thread. What they raise ends the run.
    """

    def on_run_start(self, info: RunInfo) -> None:
        """Called once, before the first step and the first record of this process."""

    def on_resume(self, stage: int, step: int, records: Sequence[Record]) -> None:
        """Called once in a run that continues from a saved state, after its start and before its next step.

        Args:
            stage: the stage of that state, counted from 0; after the last stage, their number.
            step: its optimizer steps over all stages.
            records: those that led to it, kind by kind, and in each kind in order.
        """

    def on_step(self, stage: int, step: int, losses: tuple[float, ...]) -> None:
        """Called after every optimizer step.

        Args:
            stage: the stage, counted from 0.
            step: the optimizer step, counted from 1 over all stages.
            losses: the training loss of each prompt that is trained side by side, in nats.
        """

    def on_record(self, record: Record) -> None:
        """Called with every record, after it is written to the run directory."""

    def on_run_end(self, outcome: Outcome | None) -> None:
        """Called at the end, possibly twice, and possibly before the start; `outcome` is None for an unfinished run."""


class CallbackList(RunCallback):
    """Several callbacks as one: each is called in order, at the end of the run in reverse order."""

    def __init__(self, *callbacks: RunCallback) -> None:
        self.callbacks = callbacks

    def on_run_start(self, info: RunInfo) -> None:
        for callback in self.callbacks:
            callback.on_run_start(info)

    def on_resume(self, stage: int, step: int, records: Sequence[Record]) -> None:
        for callback in self.callbacks:
            callback.on_resume(stage, step, records)

    def on_step(self, stage: int, step: int, losses: tuple[float, ...]) -> None:
        for callback in self.callbacks:
            callback.on_step(stage, step, losses)

    def on_record(self, record: Record) -> None:
        for callback in self.callbacks:
            callback.on_record(record)

    def on_run_end(self, outcome: Outcome | None) -> None:
        for callback in reversed(self.callbacks):
            callback.on_run_end(outcome)


@dataclass(frozen=True)
class Notice:
    """A line for people: a stage has begun or ended, or a warning."""

    text: str
    warning: bool = False


@dataclass
class RunWatcher:
    """The state of a run, kept from its steps and records, and the notices that follow from a change of it.

    A step within a stage costs two assignments.
    """

    info: RunInfo
    stage: int = -1
    step: int = 0
    members: int = 1
    training: bool = False
    accuracies: list[float] = field(default_factory=list)  # on dev, in this stage, after training
    constant: dict[int, str | None] = field(default_factory=dict)  # the only label that each member predicts
    starts: list[Restart] = field(default_factory=list)  # of the next stage, or of this one until its best is known
    dev: list[Evaluation] = field(default_factory=list)  # of this stage

    def resume(self, stage: int, step: int, records: Sequence[Record]) -> None:
        """Continue from a saved state: within its stage, or at the end of the one before."""
        begun = step > sum(self.info.plan[:stage])
        self.stage, self.step = stage if begun else stage - 1, step
        self.training = begun and step < self.info.ends[stage]
        dev = [e for e in records if isinstance(e, Evaluation) and e.split == "dev" and e.stage == stage and e.step]
        self.accuracies = [read_accuracy(e) for e in dev]
        self.constant = {e.member: e.constant for e in dev}
        self.starts = [r for r in records if isinstance(r, Restart) and r.stage + 1 == max(stage, self.stage)]
        self.dev = dev

    def watch_step(self, stage: int, step: int, members: int) -> Sequence[Notice]:
        """The notices after a training step: almost always none."""
        self.step, before = step, self.members
        if stage == self.stage:
            self.members = members
            return [Notice(f"the race of {before} prompts has ended")] if members < before else ()
        notices = self.end_stage()
        self.stage, self.members, self.training, self.accuracies, self.dev = stage, members, True, [], []
        side_by_side = f", {members} prompts side by side" if members > 1 else ""
        steps = format_count(self.info.plan[stage], "step")
        return [*notices, Notice(f"stage {stage + 1}/{len(self.info.plan)} begins: {steps}{side_by_side}")]

    def watch_record(self, record: Record) -> list[Notice]:
        """The notices after a record."""
        if isinstance(record, Event):
            return [Notice(describe_event(record), warning=not is_notice(record))]
        if isinstance(record, Evaluation) and record.split == "dev" and self.training:
            self.accuracies.append(read_accuracy(record))
            self.dev.append(record)
            notices = self.name_winner() if self.members == 1 else []
            before, self.constant[record.member] = self.constant.get(record.member), record.constant
            if record.constant is not None and record.constant != before:
                notices.append(
                    Notice(warn_constant(record.stage, record.step, record.constant, self.info.trains), warning=True)
                )
            return notices
        if isinstance(record, ScoredPrompt | LLMCall | Restart):
            notices = self.end_stage()
            if isinstance(record, Restart):
                self.starts = [start for start in self.starts if start.stage == record.stage] + [record]
            return notices
        return []

    def name_winner(self) -> list[Notice]:
        """The notice which of the prompts side by side goes on, once, where it is known."""
        winner = find_winner(self.dev, self.info.criterion, ended=True) if len(self.starts) > 1 else None
        for start in self.starts if winner is not None else []:
            if start.member == winner and start.stage + 1 == self.stage:
                self.starts = []
                words = "the running prompt" if start.kept else quote_prompt(start.prompt.text)
                return [Notice(f"the best of the prompts side by side goes on: {words}")]
        return []

    def end_stage(self) -> list[Notice]:
        """The notices at the end of a stage's training, once; none while it trains."""
        if not self.training or self.step < self.info.ends[self.stage]:
            return []
        self.training = False
        best = f", best dev accuracy in it {max(self.accuracies):.3f}" if self.accuracies else ""
        notices = [Notice(f"stage {self.stage + 1}/{len(self.info.plan)} ends at step {self.step}{best}")]
        warning = warn_majority(self.stage, self.accuracies, self.info.majority, self.info.trains)
        notices += self.name_winner()
        return [*notices, Notice(warning, warning=True)] if warning else notices


def describe_unfinished(info: RunInfo) -> str:
    """The last line of a run that was stopped or failed."""
    return f"the run did not end; continue with: catalyst resume {escape_controls(info.directory)}"
