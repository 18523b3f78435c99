"""A bar for each of several runs that share a terminal."""

from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from llm_catalyst.callbacks.base import RunInfo
from llm_catalyst.runs.analysis import read_accuracy
from llm_catalyst.runs.records import Evaluation, Event, LLMCall, Outcome, Record, Restart
from llm_catalyst.utils.terminal import escape_controls


class Bar:
    """The view of one run: its steps, its last score on dev, and what it waits for."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self.progress, self.task = progress, task

    def say(self, words: str) -> None:
        self.progress.update(self.task, words=escape_controls(words))

    def begin(self, overview: RunInfo) -> None:
        self.progress.update(self.task, total=sum(overview.plan))
        self.say("begins")

    def tick(self, stage: int, step: int, losses: tuple[float, ...]) -> None:
        self.progress.update(self.task, completed=step)

    def show(self, record: Record) -> None:
        if isinstance(record, Evaluation):
            self.say(f"{record.split} {read_accuracy(record):.3f}")
        elif isinstance(record, LLMCall):
            self.say("the mentor failed" if record.error else "the mentor answered")
        elif isinstance(record, Restart):
            self.say(f"restarts from {record.prompt.text}")
        elif isinstance(record, Event):
            self.say(record.message)

    def end(self, outcome: Outcome | None) -> None:
        if outcome is None:
            self.say("stopped")
        else:
            self.say(f"{outcome.status}: {outcome.message}")


class Bars:
    """While entered, the bars of so many runs, by number and name, are drawn in a terminal."""

    def __init__(self, names: Mapping[int, str], console: Console) -> None:
        words = TextColumn("{task.fields[words]}", markup=False)
        columns = BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn(), words
        self.progress = Progress(TextColumn("{task.description}", markup=False), *columns, console=console)
        tasks = {number: self.progress.add_task(name, total=None, words="waits") for number, name in names.items()}
        self.views = {number: Bar(self.progress, task) for number, task in tasks.items()}

    def __enter__(self) -> "Bars":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()
