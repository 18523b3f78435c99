"""TensorBoard and Weights & Biases, where `track` names them: a run's records, told to the library as they are written.

The records are the truth: what a tracker shows is made from them, and made anew where a run is resumed. What a library
writes beside them in the run directory is no part of the run, and a fault of it never ends one.
"""

import itertools
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from llm_catalyst.callbacks.console import Overview, View, restarted
from llm_catalyst.report.dataframes import ended, mentor_spent
from llm_catalyst.runs.analysis import spending
from llm_catalyst.runs.reader import EXCHANGES, FILES, read_lines
from llm_catalyst.runs.records import Evaluation, Exchange, Outcome, Record, Restart, Snapshot
from llm_catalyst.utils import checksums
from llm_catalyst.utils.terminal import printable, quoted
from llm_catalyst.utils.validation import ConfigurationError, leaves

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

    def open(self, overview: Overview) -> None: ...

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

    def begin(self, overview: Overview) -> None:
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
            why = f"{type(error).__name__}: {printable(str(error))}"
            print(f"warning: track=[{self.name}] failed; the run goes on without it ({why})", file=sys.stderr)

    def _catch_up(self) -> None:
        """Add the points of all records so far, in the order of their steps."""
        self.caught_up = True
        records = [record for kind in TRACKED for record in read_lines(self.path / FILES[kind], kind)]
        for record in sorted(records, key=lambda record: step_of(record, self.ends)):
            self._add(record)

    def _add(self, record: Record) -> None:
        if isinstance(record, TRACKED):
            self.log.add(point_of(record, self.ends))

    def _result(self, outcome: Outcome) -> dict[str, float | str]:
        """What the run came to, as far as it is known, by the names of `load_runs`."""
        spent = spending(read_lines(self.path / EXCHANGES, Exchange))
        result = {"status": outcome.status, **mentor_spent(spent), **ended(outcome)}
        return {name: value for name, value in result.items() if isinstance(value, int | float | str)}


class Views:
    """Several views as one: they begin in their order, and end in the other."""

    def __init__(self, *views: View) -> None:
        self.views = views

    def begin(self, overview: Overview) -> None:
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


def trackers(names: Sequence[str], path: Path, config: Mapping[str, Any]) -> list[Tracker]:
    """A tracker for each name, of the run in `path`; nothing is written yet.

    Raises ConfigurationError where a library is not installed, or W&B has no key that it can use.
    """
    logs: dict[str, type[TensorBoard | WeightsAndBiases]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}
    return [Tracker(name, logs[name](path, config), path) for name in dict.fromkeys(names)]


def step_of(record: Snapshot | Evaluation | Restart, ends: Sequence[int]) -> int:
    """The optimizer step of a record; that of a restart is the end of the stage before it."""
    return ends[record.stage] if isinstance(record, Restart) else record.step


def point_of(record: Snapshot | Evaluation | Restart, ends: Sequence[int]) -> Point:
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
        texts = {"prompt/text": quoted(record.prompt.text)}
    else:
        scores = {"restart/dev_loss_before": record.score_before, "restart/dev_loss": record.score}
        figures = {name: score.loss for name, score in scores.items() if score is not None}
        losses = [f"{score.loss:.4f}" if score else "not scored" for _, score in record.considered]
        proposals = [quoted(proposal.prompt.text) for proposal, _ in record.considered]
        lines = [f"{loss}  {text}" for loss, text in zip(losses, proposals, strict=True)]
        texts = {"restart/text": "\n".join([restarted(record), "proposals, by dev loss:", *lines])}
    end = f"/{record.member + 1}" if record.member else ""
    return Point(
        step_of(record, ends),
        {f"{name}{end}": value for name, value in figures.items()},
        {f"{name}{end}": text for name, text in texts.items()},
    )


class TensorBoard:
    """Event files in the run directory's folder `tensorboard`."""

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigurationError(MISSING.format(name="tensorboard")) from None
        self.folder, self.config, self.make_writer = path / "tensorboard", config, SummaryWriter

    def open(self, overview: Overview) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        # A TensorBoard that has read the files before forgets what it read.
        self.writer = self.make_writer(str(self.folder), purge_step=0, flush_secs=FLUSH_S)

    def add(self, point: Point) -> None:
        for name, value in point.figures.items():
            self.writer.add_scalar(name, value, point.step)
        for name, text in point.texts.items():
            self.writer.add_text(name, verbatim(text), point.step)

    def close(self, result: Mapping[str, float | str] | None) -> None:
        if result is not None:
            for name, value in result.items():
                if isinstance(value, str):
                    self.writer.add_text(f"outcome/{name}", verbatim(value))
            settings = {key: value for key, value in leaves(self.config) if isinstance(value, bool | int | float | str)}
            figures = {f"outcome/{name}": value for name, value in result.items() if not isinstance(value, str)}
            self.writer.add_hparams(settings, figures, run_name=".")
        self.writer.close()


def verbatim(text: str) -> str:
    """Text as Markdown that shows it as it is: TensorBoard reads all text as Markdown."""
    return "\n".join(f"    {printable(line)}" for line in text.split("\n"))


class WeightsAndBiases:
    """A run of Weights & Biases, whose local files lie in the run directory's folder `wandb`."""

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError:
            raise ConfigurationError(MISSING.format(name="wandb")) from None
        try:
            keyless = wandb.setup().settings.mode == "online" and not wandb.login(prompt=False, verify=False)
        except wandb.Error as error:
            raise ConfigurationError(f"track=[wandb]: {printable(str(error))}") from None
        if keyless:
            raise ConfigurationError("track=[wandb] finds no key of W&B: call `wandb login`, or set WANDB_MODE=offline")
        self.path, self.config, self.wandb = path, config, wandb

    def open(self, overview: Overview) -> None:
        # The same run directory goes on with the same run; one that was made anew in its place is another.
        made_by = (self.path / "manifest.json").read_bytes() + str(self.path.absolute()).encode()
        identity = checksums.sha256(made_by)[:16]
        for before in (self.path / "wandb").glob(f"offline-run-*-{identity}"):
            shutil.rmtree(before)  # the new files will hold all of it
        self.run = self.wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "llm-catalyst",
            dir=str(self.path),
            id=identity,
            name=overview.title,
            config=dict(self.config),
            resume="allow",
            reinit="create_new",
            settings=self.wandb.Settings(console="off", quiet=True, disable_git=True),
        )

    def add(self, point: Point) -> None:
        # What W&B has from before the run was resumed is what it would be told again: the same steps give the same.
        if point.step >= self.run.starting_step:
            self.run.log({**point.figures, **point.texts}, step=point.step)

    def close(self, result: Mapping[str, float | str] | None) -> None:
        if result is not None:
            self.run.summary.update({f"outcome/{name}": value for name, value in result.items()})
        self.run.finish(exit_code=0 if result is not None else 1)
