"""The progress of a table's runs, in whatever processes, read from their files."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.text import Text

from llm_catalyst.config.errors import DIVERGED
from llm_catalyst.config.table import PlannedRun, Table, list_runs
from llm_catalyst.runs.analysis import MentorAnswers, MentorUsage, read_answers, sum_usage
from llm_catalyst.runs.reader import EXCHANGES, FILES, read_json, read_lines, read_raw_lines
from llm_catalyst.runs.records import LLMCall, Outcome
from llm_catalyst.sweeps.status import JobStatus, count_endings, read_statuses, repeat_action
from llm_catalyst.utils.format import format_duration
from llm_catalyst.utils.terminal import escape_controls, make_columns
from llm_catalyst.utils.validation import ConfigurationError

NOTHING = MentorUsage()
ANSWERED = MentorAnswers()
SIGNS = {"running": (" ▶", "cyan"), "failed": (" ✗", "bold red"), "stopped": (" ◼", "yellow")}  # of cells
SHOWN = 4  # runs under way, and failures, that have a line of their own


@dataclass(frozen=True)
class ProgressSnapshot:
    """The state of a run by its files (waiting, running, done, failed or stopped), and that in words."""

    state: str
    words: str = ""
    outcome: Outcome | None = None
    usage: MentorUsage = NOTHING
    answers: MentorAnswers = ANSWERED


def inspect_run(path: Path, since: float) -> ProgressSnapshot:
    """The state of the run in `path`; it is running where its files changed after the time `since`."""
    usage = sum_usage(read_lines(path / EXCHANGES, LLMCall))
    if (path / "outcome.json").exists():
        outcome: Outcome = read_json(path / "outcome.json", Outcome)
        result = f"{outcome.reported_on} {outcome.test.metric:.3f}" if outcome.test else outcome.status
        answers = read_answers(path)
        result = f"{answers.words}, no score" if answers.silent else ", ".join(filter(None, (result, answers.words)))
        return ProgressSnapshot("done", f"{result} in {format_duration(outcome.seconds)}", outcome, usage, answers)
    files = [path / name for name in ("manifest.json", *FILES.values())]
    if any(file.exists() and file.stat().st_mtime > since for file in files):
        return ProgressSnapshot("running", last_evaluation(path), None, usage)
    return ProgressSnapshot("waiting", "", None, usage)


def last_evaluation(path: Path) -> str:
    """The place of a run's last evaluation, and its dev metric."""
    lines = read_raw_lines(path / "metrics.jsonl")
    if not lines:
        return "loading"
    last = json.loads(lines[-1])
    return f"stage {last['stage'] + 1}, step {last['step']}, {last['split']} {last['score']['metric']:.3f}"


class TableProgress:
    """The state of a table's cells, which `watch` shows: a live view in a terminal, a line per change elsewhere."""

    def __init__(self, table: Table, folder: Path, jobs: Mapping[int, PlannedRun], console: Console) -> None:
        """`jobs` are the runs that the sweep in `folder` carries out, by their numbers in it."""
        self.table, self.cells, self.folder = table, list_runs(table), folder
        self.jobs, self.console = jobs, console
        self.began, self.since = time.monotonic(), time.time()
        self.snapshots: dict[PlannedRun, ProgressSnapshot] = {}
        self._lock = threading.Lock()
        live = console.is_terminal and not console.is_dumb_terminal and console.encoding.startswith("utf")
        self.live = Live(self, console=console, auto_refresh=False, transient=True) if live else None
        self.refresh()
        self.already = self.count("done")

    @contextmanager
    def watch(self) -> Iterator["TableProgress"]:
        """While entered, show the states, and read them again every second."""
        with self.live or nullcontext(), repeat_action(self.refresh):
            yield self

    @property
    def complete(self) -> bool:
        """Whether all runs are done."""
        return self.count("done") == len(self.cells)

    @property
    def codes(self) -> set[int]:
        """The exit codes of the runs of this launch that did not finish."""
        return {job.code for job in read_statuses(self.folder).values() if job.code}

    @property
    def diverged(self) -> list[PlannedRun]:
        """The runs that diverged in every stage: those of this launch, and earlier ones without any result."""
        ended = {self.jobs[number] for number, job in read_statuses(self.folder).items() if job.code == DIVERGED}
        outcomes = {cell: snapshot.outcome for cell, snapshot in self.snapshots.items()}
        return [c for c, outcome in outcomes.items() if c in ended or (outcome and outcome.status == "diverged")]

    def count(self, state: str) -> int:
        return sum(snapshot.state == state for snapshot in self.snapshots.values())

    def refresh(self) -> None:
        """Read the states of all runs that are not done, and show the changes."""
        with self._lock:
            ended = read_statuses(self.folder)
            failures = {self.jobs[number]: job for number, job in ended.items() if job.code}
            for cell in self.cells:
                before = self.snapshots.get(cell)
                if before is None or before.state != "done":
                    self.snapshots[cell] = snapshot = self._inspect(cell, before, failures.get(cell))
                    if not self.live and before is not None and snapshot.state != before.state:
                        self._print_change(cell, snapshot)
        if self.live and self.live.is_started:
            self.live.refresh()

    def _inspect(
        self, cell: PlannedRun, before: ProgressSnapshot | None, failure: JobStatus | None
    ) -> ProgressSnapshot:
        snapshot = before or ProgressSnapshot("waiting")
        with suppress(OSError, ConfigurationError, ValueError):  # a file that is being written, or is damaged
            snapshot = inspect_run(self.folder / cell.folder, self.since)
        if failure is not None and snapshot.state != "done":
            return ProgressSnapshot(failure.ending, failure.message, None, snapshot.usage)
        return snapshot

    def _print_change(self, cell: PlannedRun, snapshot: ProgressSnapshot) -> None:
        words = f": {snapshot.words}" if snapshot.state != "running" else ""
        elapsed = format_duration(time.monotonic() - self.began)
        line = f"{elapsed}  [{self.count('done')}/{len(self.cells)}] {name_run(cell)}"
        print(f"{line}: {snapshot.state}{escape_controls(words)}", file=self.console.file, flush=True)

    def __rich__(self) -> RenderableType:
        done, whole = self.count("done"), len(self.cells)
        states = [f"{done} of {whole} runs done"]
        states += [f"{self.count(state)} {state}" for state in ("running", "failed", "stopped") if self.count(state)]
        times = f"{format_duration(time.monotonic() - self.began)} gone, {self.left()} left"
        usage = sum((snapshot.usage for snapshot in self.snapshots.values()), NOTHING)
        return Group(
            make_line(self.table.title, "bold"),
            Padding(ProgressBar(total=whole, completed=done), expand=False),
            make_line(f"{', '.join(states)}; {times}"),
            *([make_line(f"mentors: {usage.describe()}")] if usage != NOTHING else []),
            Text(),
            make_grid(self.table, self._render_cell),
            *self.notes(),
            *self.lines("running", "cyan"),
            *self.lines("failed", "red"),
            *self.lines("stopped", "yellow"),
        )

    def notes(self) -> list[Text]:
        """The meaning of the signs of cells whose mentor did not always answer."""
        answers = [snapshot.answers for snapshot in self.snapshots.values()]
        silent = [make_line("† the mentor never gave a usable answer in a run, which has no score", "yellow")]
        partial = [make_line("‡ the mentor did not always answer in a run", "yellow")]
        return silent * any(each.silent for each in answers) + partial * any(each.partial for each in answers)

    def left(self) -> str:
        """The time that the remaining runs take at the rate since the start."""
        new = self.count("done") - self.already
        to_do = len(self.cells) - self.count("done") - self.count("failed") - self.count("stopped")
        return f"about {format_duration((time.monotonic() - self.began) / new * to_do)}" if new else "–"

    def lines(self, state: str, style: str) -> list[Text]:
        """A line for each of the first runs in a state."""
        found = [(cell, snapshot) for cell, snapshot in self.snapshots.items() if snapshot.state == state]
        lines = [f"{name_run(cell)}: {snapshot.words}" for cell, snapshot in found[:SHOWN]]
        lines += [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
        return [make_line(f"{state}  {line}", style) for line in lines]

    def _render_cell(self, row: str, column: str) -> Text:
        """The mean of the seeds that are done, their number, and signs of other states."""
        snapshots = [self.snapshots[cell] for cell in self.cells if (cell.row, cell.column) == (row, column)]
        counted = [snapshot.outcome for snapshot in snapshots if not snapshot.answers.silent]
        scores = [outcome.test.metric for outcome in counted if outcome and outcome.test]
        states = [snapshot.state for snapshot in snapshots]
        text = Text(f"{sum(scores) / len(scores):.3f} " if scores else "")
        text.append(f"{states.count('done')}/{len(states)}", "dim")
        text.append(" †" if len(counted) < len(snapshots) else "", "yellow")
        text.append(" ‡" if any(snapshot.answers.partial for snapshot in snapshots) else "", "yellow")
        for state, (sign, style) in SIGNS.items():
            text.append(sign if state in states else "", style)
        return text


def make_line(text: str, style: str = "") -> Text:
    """Text on one line, which a narrow terminal cuts off."""
    return Text(escape_controls(text), style, overflow="ellipsis", no_wrap=True)


def make_grid(table: Table, render_cell: Callable[[str, str], Text], corner: str = "") -> RenderableType:
    """The rows and columns of a table, with `render_cell(row, column)`, which may wrap, in each cell."""
    grid = make_columns(corner, *(escape_controls(column.name) for column in table.columns), wide=0)
    for column in grid.columns[1:]:
        column.no_wrap = False
    for row in table.rows:
        cells = (render_cell(row.name, column.name) for column in table.columns)
        grid.add_row(Text(escape_controls(row.name)), *cells)
    return grid


def name_run(cell: PlannedRun) -> str:
    return escape_controls(f"{cell.row} · {cell.column} · seed {cell.seed}")


def summarize_progress(snapshots: Mapping[PlannedRun, ProgressSnapshot]) -> str:
    """'58 of 60 runs finished; 1 failed; 1 was not run to the end'."""
    names = {"done": "finished", "failed": "failed", "stopped": "stopped"}
    endings = [names.get(snapshot.state, "waiting") for snapshot in snapshots.values()]
    others = {"failed": "failed", "stopped": "stopped before the end", "waiting": "not run to the end"}
    return count_endings(endings, others)
