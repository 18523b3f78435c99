"""The records behind a report: each file of a run is read once, and only if it is needed."""

from pathlib import Path
from typing import Any, TypeVar

from llm_catalyst.report.runs import Run
from llm_catalyst.runs.reader import FILES, RunRecords, read_lines
from llm_catalyst.runs.records import Evaluation, Event, LLMCall, Restart, ScoredPrompt
from llm_catalyst.utils.validation import ConfigurationError

R = TypeVar("R")


class RecordReader:
    """Reads the records of runs. A file that cannot be read counts as empty; the reason is added to `problems`."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._read: dict[tuple[Path, type[Any]], tuple[Any, ...]] = {}

    def __call__(self, run: Run, kind: type[R]) -> tuple[R, ...]:
        """All records of class `kind` that the run has written so far."""
        key = run.path, kind
        if key not in self._read:
            try:
                self._read[key] = read_lines(run.path / FILES[kind], kind)
            except (ConfigurationError, OSError) as error:
                self.problems.append(f"not shown: {error}")
                self._read[key] = ()
        return self._read[key]

    def records(self, run: Run) -> RunRecords:
        """The run's records without its trajectory, the longest file, which these uses do not need."""
        return RunRecords(
            path=run.path,
            manifest=run.manifest,
            trajectory=(),
            pool=self(run, ScoredPrompt),
            restarts=self(run, Restart),
            exchanges=self(run, LLMCall),
            metrics=self(run, Evaluation),
            events=self(run, Event),
            outcome=run.outcome,
        )
