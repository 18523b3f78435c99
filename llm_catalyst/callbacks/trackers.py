"""Pass a run's records to TensorBoard and Weights & Biases, as figures and texts by name, if `track` names them.

A tracker makes its values from the records, and makes all of them again if the run is resumed. The files that a
library writes into the run directory are no part of the run, and an error of a library never ends a run.
"""

import importlib
import os
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from llm_catalyst.callbacks.base import RunCallback, RunInfo
from llm_catalyst.callbacks.console import describe_restart
from llm_catalyst.runs.analysis import outcome_columns, score_columns, sum_usage, usage_columns
from llm_catalyst.runs.reader import EXCHANGES, FILES, read_lines
from llm_catalyst.runs.records import Evaluation, LLMCall, Outcome, Record, Restart, Snapshot
from llm_catalyst.utils import checksums
from llm_catalyst.utils.terminal import escape_controls, quote_prompt
from llm_catalyst.utils.validation import ConfigurationError, flatten_leaves

FLUSH_S = 30  # seconds after which TensorBoard sees what was written

Tracked = Snapshot | Evaluation | Restart
Values = dict[str, float | str]


class Tracker(RunCallback, ABC):
    """Passes a run's values to a library: first those of the records on disk, then each new one.

    If the library fails (a full disk, no network), a line on stderr says so, and the run continues without it. The
    constructor raises ConfigurationError if the library cannot be used; nothing is written before `open_log`.

    Args:
        path: the run directory.
        config: the run's resolved configuration.
    """

    name: ClassVar[str]  # in `track`

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self.path, self.config = path, config
        self.is_open = self.caught_up = False

    @abstractmethod
    def open_log(self, info: RunInfo) -> None:
        """Begin a new log; all values of the run follow, also those from before a resume."""

    @abstractmethod
    def add_values(self, step: int, values: Values) -> None:
        """Add the values of a record at an optimizer step."""

    @abstractmethod
    def close_log(self, result: Values | None) -> None:
        """End the log with the run's result, as outcome/<column of `load_runs`>; None for an unfinished run."""

    def on_run_start(self, info: RunInfo) -> None:
        self.ends = info.ends
        with self._report_errors():
            self.open_log(info)
            self.is_open = True

    def on_record(self, record: Record) -> None:
        if self.is_open:
            with self._report_errors():
                self._add(record)

    def on_run_end(self, outcome: Outcome | None) -> None:
        if not self.is_open:
            return
        self.is_open = False
        with self._report_errors():
            self._add()
            self.close_log(None if outcome is None else self._collect_result(outcome))

    @contextmanager
    def _report_errors(self) -> Iterator[None]:
        """Print an error instead of raising it, and close the tracker."""
        try:
            yield
        except Exception as error:
            self.is_open = False
            why = f"{type(error).__name__}: {escape_controls(str(error))}"
            print(f"warning: track=[{self.name}] failed; the run continues without it ({why})", file=sys.stderr)

    def _add(self, *records: Record) -> None:
        """Add the values of new records; at the first call instead of all on disk, in the order of their steps."""
        tracked = [record for record in records if isinstance(record, Tracked)]
        if not self.caught_up:
            self.caught_up = True
            tracked = [record for kind in Tracked.__args__ for record in read_lines(self.path / FILES[kind], kind)]
        for record in sorted(tracked, key=self._locate_step):
            self.add_values(self._locate_step(record), collect_values(record))

    def _locate_step(self, record: Tracked) -> int:
        """The optimizer step of a record; a restart's is the end of the stage before it."""
        return self.ends[record.stage] if isinstance(record, Restart) else record.step

    def _collect_result(self, outcome: Outcome) -> Values:
        """The known part of the run's result."""
        usage = sum_usage(read_lines(self.path / EXCHANGES, LLMCall))
        result = {"status": outcome.status, **usage_columns(usage), **outcome_columns(outcome)}
        return {f"outcome/{name}": value for name, value in result.items() if isinstance(value, int | float | str)}


class TensorBoard(Tracker):
    """Event files in the run directory's folder `tensorboard`."""

    name = "tensorboard"

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        super().__init__(path, config)
        self.make_writer = import_library(self.name, "torch.utils.tensorboard").SummaryWriter

    def open_log(self, info: RunInfo) -> None:
        folder = self.path / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)
        # purge_step: a TensorBoard that has read the removed files drops their points.
        self.writer = self.make_writer(str(folder), purge_step=0, flush_secs=FLUSH_S)

    def add_values(self, step: int | None, values: Values) -> None:
        for name, value in values.items():
            if isinstance(value, str):
                self.writer.add_text(name, escape_markdown(value), step)
            else:
                self.writer.add_scalar(name, value, step)

    def close_log(self, result: Values | None) -> None:
        if result is not None:
            texts: Values = {name: value for name, value in result.items() if isinstance(value, str)}
            self.add_values(None, texts)
            settings = {
                key: value for key, value in flatten_leaves(self.config) if isinstance(value, int | float | str)
            }
            figures = {name: value for name, value in result.items() if name not in texts}
            self.writer.add_hparams(settings, figures, run_name=".")
        self.writer.close()


class WeightsAndBiases(Tracker):
    """A run of Weights & Biases; its local files are in the run directory's folder `wandb`."""

    name = "wandb"

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        super().__init__(path, config)
        self.wandb = wandb = import_library(self.name, "wandb")
        try:
            keyless = wandb.setup().settings.mode == "online" and not wandb.login(prompt=False, verify=False)
        except wandb.Error as error:
            raise ConfigurationError(f"track=[wandb]: {escape_controls(str(error))}") from None
        if keyless:
            raise ConfigurationError("track=[wandb] finds no key of W&B: call `wandb login`, or set WANDB_MODE=offline")

    def open_log(self, info: RunInfo) -> None:
        # A resumed run directory keeps its W&B run; a new run in the same place gets another one.
        made_by = (self.path / "manifest.json").read_bytes() + str(self.path.absolute()).encode()
        identity = checksums.sha256(made_by)[:16]
        for before in (self.path / "wandb").glob(f"offline-run-*-{identity}"):
            shutil.rmtree(before)  # the new files will hold all of it
        self.run = self.wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "llm-catalyst",
            dir=str(self.path),
            id=identity,
            name=info.title,
            config=dict(self.config),
            resume="allow",
            reinit="create_new",
            settings=self.wandb.Settings(console="off", quiet=True, disable_git=True),
        )

    def add_values(self, step: int, values: Values) -> None:
        # W&B keeps the points from before a resume, which are the same: equal steps give equal points.
        if step >= self.run.starting_step:
            self.run.log(values, step=step)

    def close_log(self, result: Values | None) -> None:
        if result is not None:
            self.run.summary.update(result)
        self.run.finish(exit_code=0 if result is not None else 1)


TRACKERS: dict[str, type[Tracker]] = {tracker.name: tracker for tracker in (TensorBoard, WeightsAndBiases)}


def make_trackers(names: Sequence[str], path: Path, config: Mapping[str, Any]) -> list[Tracker]:
    """A tracker for each name in TRACKERS, of the run in `path`; nothing is written yet.

    Raises:
        ConfigurationError: a library is not installed, or W&B has no key that it can use.
    """
    return [TRACKERS[name](path, config) for name in dict.fromkeys(names)]


def import_library(name: str, module: str) -> Any:
    """The module of the library `name`.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        words = f"needs a library that is not installed here: pip install {name}, or leave it out"
        raise ConfigurationError(f"track=[{name}] {words}") from None


def collect_values(record: Tracked) -> Values:
    """The figures and texts of a record; the names for prompts after the first end with the prompt's number."""
    values: Values
    if isinstance(record, Evaluation):
        figures = {"loss": record.score.loss, **record.metrics, **score_columns("projected", record.projected)}
        values = {f"{record.split}/{name}": value for name, value in figures.items()}
    elif isinstance(record, Snapshot):
        values = {
            "train/loss": record.train_loss,
            "prompt/similarity": record.similarity,
            "prompt/text": quote_prompt(record.prompt.text),
        }
    else:
        scores = {"restart/dev_loss_before": record.score_before, "restart/dev_loss": record.score}
        lines = [describe_restart(record), "proposals, by dev loss at the restart:"]
        for proposal, score in record.considered:
            shown = f"{score.loss:.4f}" if score else "not scored"
            lines.append(f"{shown}  {quote_prompt(proposal.prompt.text)}")
        values = {name: score.loss for name, score in scores.items() if score}
        values["restart/text"] = "\n".join(lines)
    end = f"/{record.member + 1}" if record.member else ""
    return {f"{name}{end}": value for name, value in values.items()}


def escape_markdown(text: str) -> str:
    """Text as a Markdown code block, since TensorBoard renders all text as Markdown."""
    return "\n".join(f"    {escape_controls(line)}" for line in text.split("\n"))
