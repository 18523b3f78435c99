"""A callback that passes a run's records to a tracking library: TensorBoard, Weights & Biases."""

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from llm_catalyst.callbacks.base import RunInfo
from llm_catalyst.callbacks.console import describe_restart
from llm_catalyst.runs.analysis import outcome_columns, sum_usage, usage_columns
from llm_catalyst.runs.reader import EXCHANGES, FILES, read_lines
from llm_catalyst.runs.records import Evaluation, LLMCall, Outcome, Record, Restart, Snapshot
from llm_catalyst.utils.terminal import escape_controls, quote_prompt

FLUSH_S = 30  # seconds after which TensorBoard sees what was written


TRACKED = (Snapshot, Evaluation, Restart)


MISSING = "track=[{name}] needs a library that is not installed here: pip install {name}, or leave it out"


@dataclass(frozen=True)
class Point:
    """What a record adds at an optimizer step: figures and texts by name."""

    step: int
    figures: Mapping[str, float]
    texts: Mapping[str, str] = field(default_factory=dict)


class Log(Protocol):
    """Where points go. Constructing one raises ConfigurationError where it cannot be used here."""

    def open(self, overview: RunInfo) -> None: ...

    def add(self, point: Point) -> None: ...

    def close(self, result: Mapping[str, float | str] | None) -> None:
        """`result` is what the run came to, by the names of `load_runs`; None where it did not end."""


class Tracker:
    """A view that hands a run's points to a log: first those that its files hold already, then each new one.

    Where the log fails (a full disk, no network), a line on stderr says so, and the run goes on without it.
    """

    def __init__(self, name: str, log: Log, path: Path) -> None:
        self.name, self.log, self.path = name, log, path
        self.open = self.caught_up = False

    def begin(self, overview: RunInfo) -> None:
        self.ends = tuple(itertools.accumulate(overview.plan))
        with self._surviving():
            self.log.open(overview)
            self.open = True

    def tick(self, stage: int, step: int, losses: tuple[float, ...]) -> None:
        pass

    def show(self, record: Record) -> None:
        if not self.open:
            return
        with self._surviving():
            if self.caught_up:
                self._add(record)
            else:
                self._catch_up()  # a record is written before it is shown: this adds it, too

    def end(self, outcome: Outcome | None) -> None:
        if not self.open:
            return
        self.open = False
        with self._surviving():
            if not self.caught_up:
                self._catch_up()
            self.log.close(None if outcome is None else self._result(outcome))

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        """Tell of an error instead of raising it, and be closed from then on."""
        try:
            yield
        except Exception as error:
            self.open = False
            why = f"{type(error).__name__}: {escape_controls(str(error))}"
            print(f"warning: track=[{self.name}] failed; the run goes on without it ({why})", file=sys.stderr)

    def _catch_up(self) -> None:
        """Add the points of all records so far, in the order of their steps."""
        self.caught_up = True
        records = [record for kind in TRACKED for record in read_lines(self.path / FILES[kind], kind)]
        for record in sorted(records, key=lambda record: locate_step(record, self.ends)):
            self._add(record)

    def _add(self, record: Record) -> None:
        if isinstance(record, TRACKED):
            self.log.add(make_point(record, self.ends))

    def _result(self, outcome: Outcome) -> dict[str, float | str]:
        """What the run came to, as far as it is known, by the names of `load_runs`."""
        spent = sum_usage(read_lines(self.path / EXCHANGES, LLMCall))
        result = {"status": outcome.status, **usage_columns(spent), **outcome_columns(outcome)}
        return {name: value for name, value in result.items() if isinstance(value, int | float | str)}


def locate_step(record: Snapshot | Evaluation | Restart, ends: Sequence[int]) -> int:
    """The optimizer step of a record; that of a restart is the end of the stage before it."""
    return ends[record.stage] if isinstance(record, Restart) else record.step


def make_point(record: Snapshot | Evaluation | Restart, ends: Sequence[int]) -> Point:
    """What a record adds; names of prompts beside the first one end with their number."""
    figures: dict[str, float] = {}
    texts: dict[str, str] = {}
    if isinstance(record, Evaluation):
        figures = {f"{record.split}/loss": record.score.loss}
        figures |= {f"{record.split}/{name}": value for name, value in record.metrics.items()}
        if record.projected is not None:
            figures[f"{record.split}/projected_loss"] = record.projected.loss
            figures[f"{record.split}/projected_metric"] = record.projected.metric
    elif isinstance(record, Snapshot):
        figures = {"train/loss": record.train_loss, "prompt/similarity": record.similarity}
        texts = {"prompt/text": quote_prompt(record.prompt.text)}
    else:
        scores = {"restart/dev_loss_before": record.score_before, "restart/dev_loss": record.score}
        figures = {name: score.loss for name, score in scores.items() if score is not None}
        losses = [f"{score.loss:.4f}" if score else "not scored" for _, score in record.considered]
        proposals = [quote_prompt(proposal.prompt.text) for proposal, _ in record.considered]
        lines = [f"{loss}  {text}" for loss, text in zip(losses, proposals, strict=True)]
        texts = {"restart/text": "\n".join([describe_restart(record), "proposals, by dev loss:", *lines])}
    end = f"/{record.member + 1}" if record.member else ""
    return Point(
        locate_step(record, ends),
        {f"{name}{end}": value for name, value in figures.items()},
        {f"{name}{end}": text for name, text in texts.items()},
    )
