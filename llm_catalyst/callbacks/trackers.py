"""Pass a run's records to TensorBoard and Weights & Biases, if `track` names them.

A tracker makes its points from the records, and makes all of them again if the run is resumed. The files that a
library writes into the run directory are no part of the run, and an error of a library never ends a run.
"""

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llm_catalyst.callbacks.base import RunCallback, RunInfo
from llm_catalyst.callbacks.console import describe_restart
from llm_catalyst.callbacks.tensorboard import TensorBoard
from llm_catalyst.callbacks.tracking_log import Point, TrackingLog
from llm_catalyst.callbacks.wandb import WeightsAndBiases
from llm_catalyst.runs.analysis import outcome_columns, sum_usage, usage_columns
from llm_catalyst.runs.reader import EXCHANGES, FILES, read_lines
from llm_catalyst.runs.records import Evaluation, LLMCall, Outcome, Record, Restart, Snapshot
from llm_catalyst.utils.terminal import escape_controls, quote_prompt

LOGS: dict[str, type[TensorBoard | WeightsAndBiases]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}
TRACKED = (Snapshot, Evaluation, Restart)


def make_trackers(names: Sequence[str], path: Path, config: Mapping[str, Any]) -> list["Tracker"]:
    """A tracker for each name in LOGS, of the run in `path`; nothing is written yet.

    Raises:
        ConfigurationError: a library is not installed, or W&B has no key that it can use.
    """
    return [Tracker(name, LOGS[name](path, config), path) for name in dict.fromkeys(names)]


class Tracker(RunCallback):
    """Passes a run's points to a log: first those of the records on disk, then each new one.

    If the log fails (a full disk, no network), a line on stderr says so, and the run continues without it.
    """

    def __init__(self, name: str, log: TrackingLog, path: Path) -> None:
        self.name, self.log, self.path = name, log, path
        self.open = self.caught_up = False

    def on_run_start(self, info: RunInfo) -> None:
        self.ends = tuple(itertools.accumulate(info.plan))
        with self._report_errors():
            self.log.open(info)
            self.open = True

    def on_record(self, record: Record) -> None:
        if not self.open:
            return
        with self._report_errors():
            if self.caught_up:
                self._add(record)
            else:
                self._catch_up()  # adds this record too: it is already on disk

    def on_run_end(self, outcome: Outcome | None) -> None:
        if not self.open:
            return
        self.open = False
        with self._report_errors():
            if not self.caught_up:
                self._catch_up()
            self.log.close(None if outcome is None else self._result(outcome))

    @contextmanager
    def _report_errors(self) -> Iterator[None]:
        """Print an error instead of raising it, and close the tracker."""
        try:
            yield
        except Exception as error:
            self.open = False
            why = f"{type(error).__name__}: {escape_controls(str(error))}"
            print(f"warning: track=[{self.name}] failed; the run continues without it ({why})", file=sys.stderr)

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
        """The known part of the run's result, by the column names of `load_runs`."""
        usage = sum_usage(read_lines(self.path / EXCHANGES, LLMCall))
        result = {"status": outcome.status, **usage_columns(usage), **outcome_columns(outcome)}
        return {name: value for name, value in result.items() if isinstance(value, int | float | str)}


def locate_step(record: Snapshot | Evaluation | Restart, ends: Sequence[int]) -> int:
    """The optimizer step of a record; a restart's is the end of the stage before it."""
    return ends[record.stage] if isinstance(record, Restart) else record.step


def make_point(record: Snapshot | Evaluation | Restart, ends: Sequence[int]) -> Point:
    """The point of a record; the names for prompts after the first end with the prompt's number."""
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
        lines = [
            f"{f'{score.loss:.4f}' if score else 'not scored'}  {quote_prompt(proposal.prompt.text)}"
            for proposal, score in record.considered
        ]
        texts = {"restart/text": "\n".join([describe_restart(record), "proposals, by dev loss:", *lines])}
    end = f"/{record.member + 1}" if record.member else ""
    return Point(
        locate_step(record, ends),
        {f"{name}{end}": value for name, value in figures.items()},
        {f"{name}{end}": text for name, text in texts.items()},
    )
