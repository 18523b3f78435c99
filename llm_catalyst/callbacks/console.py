"""What a person sees while a run goes on: a live view in a terminal, plain lines elsewhere, or nothing."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console

from llm_catalyst.runs.analysis import (
    accuracy,
    clock,
    constant_warning,
    counted,
    event_words,
    majority_warning,
    spending,
)
from llm_catalyst.runs.records import Evaluation, Event, Exchange, Outcome, Record, Restart, Scored
from llm_catalyst.utils.terminal import forgive, printable, quoted
from llm_catalyst.utils.validation import one_of

MODES = ("auto", "live", "plain", "none")


@dataclass(frozen=True)
class Overview:
    """What is known of a run before it starts. `plan` holds the steps of each stage.

    `resumed` names the saved state that a resumed run goes on from.
    """

    title: str
    directory: str
    plan: tuple[int, ...]
    majority: float
    metric: str
    resumed: str | None = None


class View(Protocol):
    """Shows a run. `tick` is called after every optimizer step, `show` with every record that is written.

    `end` may be called twice, and with None where the run did not come to an outcome.
    """

    def begin(self, overview: Overview) -> None: ...

    def tick(self, stage: int, step: int, losses: tuple[float, ...]) -> None: ...

    def show(self, record: Record) -> None: ...

    def end(self, outcome: Outcome | None) -> None: ...


def view_for(mode: str, console: Console) -> View:
    """The view of that name; `auto` is live where the console is a terminal that can move its cursor."""
    one_of("view", mode, MODES)
    forgive(console)
    if mode == "none":
        return SilentView()
    capable = console.is_terminal and not console.is_dumb_terminal and console.encoding.startswith("utf")
    if mode == "plain" or (mode == "auto" and not capable):
        return PlainView(console)
    from llm_catalyst.callbacks.live import LiveView

    return LiveView(console)


@dataclass(frozen=True)
class Note:
    """Something that follows from what was seen: a stage has begun or ended, or a person must be warned."""

    text: str
    warning: bool = False


@dataclass
class Watch:
    """Where a run stands, and the notes that follow. Views feed it; a step within a stage costs two assignments."""

    overview: Overview
    stage: int = -1
    step: int = 0
    members: int = 1
    training: bool = False
    accuracies: list[float] = field(default_factory=list)  # on dev, in this stage, after training
    constant: dict[int, str | None] = field(default_factory=dict)  # the only answer of each member

    def __post_init__(self) -> None:
        self.ends = tuple(itertools.accumulate(self.overview.plan))

    def tick(self, stage: int, step: int, members: int) -> Sequence[Note]:
        """The notes that a training step causes: almost always none."""
        self.step = step
        if stage == self.stage:
            return ()
        notes = self.close()
        self.stage, self.members, self.training, self.accuracies = stage, members, True, []
        side_by_side = f", {members} prompts side by side" if members > 1 else ""
        steps = counted(self.overview.plan[stage], "step")
        return [*notes, Note(f"stage {stage + 1}/{len(self.ends)} begins: {steps}{side_by_side}")]

    def heed(self, record: Record) -> list[Note]:
        """The notes that a record causes."""
        if isinstance(record, Event):
            return [Note(event_words(record), warning=True)]
        if isinstance(record, Evaluation) and record.split == "dev" and self.training:
            self.accuracies.append(accuracy(record))
            before, self.constant[record.member] = self.constant.get(record.member), record.constant
            if record.constant is not None and record.constant != before:
                return [Note(constant_warning(record.stage, record.step, record.constant), warning=True)]
        if isinstance(record, Scored | Exchange | Restart):
            return self.close()
        return []

    def close(self) -> list[Note]:
        """The notes at a stage's end, once: what follows training (scoring, the mentor) has begun."""
        if not self.training or self.step < self.ends[self.stage]:
            return []
        self.training = False
        best = f", best dev accuracy in it {max(self.accuracies):.3f}" if self.accuracies else ""
        notes = [Note(f"stage {self.stage + 1}/{len(self.ends)} ends at step {self.step}{best}")]
        warning = majority_warning(self.stage, self.accuracies, self.overview.majority)
        return [*notes, Note(warning, warning=True)] if warning else notes


class SilentView:
    """Shows nothing."""

    def begin(self, overview: Overview) -> None:
        pass

    def tick(self, stage: int, step: int, losses: tuple[float, ...]) -> None:
        pass

    def show(self, record: Record) -> None:
        pass

    def end(self, outcome: Outcome | None) -> None:
        pass


class PlainView:
    """One line for each event, in ASCII but for the prompts, written at once: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def begin(self, overview: Overview) -> None:
        self.began, self.watch, self.ended = time.monotonic(), Watch(overview), False
        resumed = f", resumed from {overview.resumed}" if overview.resumed else ""
        plan = f"{counted(len(overview.plan), 'stage')}, {counted(sum(overview.plan), 'step')}{resumed}"
        where = printable(overview.directory)
        self.say(f"{printable(overview.title)}: {plan}; majority class {overview.majority:.3f}; {where}")

    def tick(self, stage: int, step: int, losses: tuple[float, ...]) -> None:
        self.note(self.watch.tick(stage, step, len(losses)))

    def show(self, record: Record) -> None:
        notes = self.watch.heed(record)
        if isinstance(record, Evaluation):
            self.say(self.evaluated(record))
        self.note(notes)
        if isinstance(record, Exchange):
            self.say(exchanged(record))
        if isinstance(record, Restart):
            self.say(restarted(record))

    def end(self, outcome: Outcome | None) -> None:
        if not hasattr(self, "watch") or self.ended:
            return
        self.ended = True
        self.note(self.watch.close())
        if outcome is None:
            self.say(unfinished(self.watch.overview))
        else:
            self.say(f"{outcome.status}: {printable(outcome.message)}")

    def evaluated(self, record: Evaluation) -> str:
        overview = self.watch.overview
        member = f"  member {record.member + 1}" if self.watch.members > 1 else ""
        only = f"  every answer {quoted(record.constant)}" if record.constant is not None else ""
        return (
            f"step {record.step}/{sum(overview.plan)}{member}  {record.split} loss {record.score.loss:.4f}  "
            f"{overview.metric} {record.score.metric:.3f}{only}"
        )

    def note(self, notes: Sequence[Note]) -> None:
        for note in notes:
            self.say(f"warning: {note.text}" if note.warning else note.text)

    def say(self, line: str) -> None:
        print(f"{clock(time.monotonic() - self.began)}  {line}", file=self.console.file, flush=True)


def unfinished(overview: Overview) -> str:
    """What to say where a run was stopped or failed."""
    return f"the run did not end; go on with: catalyst resume {printable(overview.directory)}"


def exchanged(record: Exchange) -> str:
    """An exchange on one line."""
    who = printable(record.answered or record.asked)
    if record.error is not None:
        return f"mentor {who} failed after {record.latency_s:.1f} s: {printable(record.error)}"
    cost = spending([record]).words().partition(", ")[2]
    if record.reused is not None:
        return f"mentor {who}: {cost} ({printable(record.reused)})"
    return f"mentor {who} answered in {record.latency_s:.1f} s: {cost}"


def restarted(record: Restart) -> str:
    """A restart on one line."""
    before = f"{record.score_before.loss:.4f} -> " if record.score_before else ""
    after = f"{record.score.loss:.4f}" if record.score else "not scored"
    reason = f" ({printable(record.reason).rstrip(': ')})" if record.reason else ""
    return f"restart after stage {record.stage + 1} from {quoted(record.prompt.text)}, dev loss {before}{after}{reason}"
