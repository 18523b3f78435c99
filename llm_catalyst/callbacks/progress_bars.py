"""A progress bar for each of several runs that share a terminal."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from llm_catalyst.callbacks.base import RunCallback, RunInfo
from llm_catalyst.runs.analysis import read_accuracy
from llm_catalyst.runs.records import Evaluation, Event, LLMCall, Outcome, Record, Restart
from llm_catalyst.utils.terminal import escape_controls


class ProgressBar(RunCallback):
    """The bar of one run: its steps, and in words its last score on dev or its last event."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self.progress, self.task = progress, task

    def set_text(self, text: str) -> None:
        """Set the text beside the bar."""
        self.progress.update(self.task, text=escape_controls(text))

    def on_run_start(self, info: RunInfo) -> None:
        self.progress.update(self.task, total=sum(info.plan))
        self.set_text("begins")

    def on_resume(self, stage: int, step: int, records: Sequence[Record]) -> None:
        self.progress.update(self.task, completed=step)

    def on_step(self, stage: int, step: int, losses: tuple[float, ...]) -> None:
        self.progress.update(self.task, completed=step)

    def on_record(self, record: Record) -> None:
        if isinstance(record, Evaluation):
            self.set_text(f"{record.split} {read_accuracy(record):.3f}")
        elif isinstance(record, LLMCall):
            self.set_text("the mentor failed" if record.error else "the mentor answered")
        elif isinstance(record, Restart):
            self.set_text("goes on" if record.kept else f"restarts from {record.prompt.text}")
        elif isinstance(record, Event):
            self.set_text(record.message)

    def on_run_end(self, outcome: Outcome | None) -> None:
        self.set_text("stopped" if outcome is None else f"{outcome.status}: {outcome.message}")


class ProgressBars(Progress):
    """Draws, while entered, a bar for each run, by the run's number and name; `callbacks` has them by number."""

    def __init__(self, names: Mapping[int, str], console: Console) -> None:
        text = TextColumn("{task.fields[text]}", markup=False)
        columns = BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn(), text
        super().__init__(TextColumn("{task.description}", markup=False), *columns, console=console)
        tasks = {number: self.add_task(name, total=None, text="waits") for number, name in names.items()}
        self.callbacks = {number: ProgressBar(self, task) for number, task in tasks.items()}
