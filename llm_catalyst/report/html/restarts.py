"""The best prompts of a report, and the stories of restarts: what was replaced, what was proposed, what came of it."""

from dataclasses import dataclass

from llm_catalyst.report.record_reader import RecordReader
from llm_catalyst.report.results import Cell, Results
from llm_catalyst.report.runs import Run
from llm_catalyst.runs.analysis import RestartEffect, trace_restarts
from llm_catalyst.runs.records import Outcome, Prompt, Proposal, Rejected, Restart, Score

MOST = 12  # runs whose restarts are told
MOST_PROMPTS = 60  # entries whose prompts are shown


@dataclass(frozen=True)
class Best:
    """The run of an entry that is the best on dev."""

    row: str
    column: str
    run: Run
    outcome: Outcome


@dataclass(frozen=True)
class Stage:
    """A question to the mentor: the restarts that came of it, what was weighed, and which prompts were chosen."""

    arcs: tuple[RestartEffect, ...]
    considered: tuple[tuple[Proposal, Score | None], ...]
    rejected: tuple[Rejected, ...]
    chosen: frozenset[Prompt]

    @property
    def number(self) -> int:
        """The stage after which it was asked, counted from 1."""
        return self.arcs[0].restart.stage + 1


@dataclass(frozen=True)
class RunRestarts:
    """The restarts of one run."""

    row: str
    column: str
    run: Run
    stages: tuple[Stage, ...]


def select_best_runs(results: Results) -> list[Best]:
    """For each entry its run with the best dev score: dev chooses, here, too."""
    found = []
    for entry in results.entries.values():
        if (run := best_run(entry)) is not None and run.outcome is not None:
            found.append(Best(entry.row, entry.column, run, run.outcome))
    return found


def best_run(entry: Cell) -> Run | None:
    """The finished run with the best score on dev; None where there is none."""
    best: Run | None = None
    for run in entry.runs:
        if run.outcome and run.outcome.best:
            before = best.outcome.best if best and best.outcome else None
            if before is None or run.outcome.best.score.better_than(before.score):
                best = run
    return best


def collect_restarts(results: Results, read: RecordReader) -> tuple[list[RunRestarts], int]:
    """The restarts of each entry's best run, of so many entries at most; and how many entries had restarts."""
    told: list[RunRestarts] = []
    there = 0
    for entry in results.entries.values():
        run = best_run(entry) or next(iter(entry.runs), None)
        if run is not None and read(run, Restart):
            there += 1
            if len(told) < MOST:
                told.append(RunRestarts(entry.row, entry.column, run, group_by_stage(run, read)))
    return told, there


def group_by_stage(run: Run, read: RecordReader) -> tuple[Stage, ...]:
    """A run's restarts by the stage after which they were made: several, where prompts train side by side."""
    by_stage: dict[int, list[RestartEffect]] = {}
    for arc in trace_restarts(read.records(run)):
        by_stage.setdefault(arc.restart.stage, []).append(arc)
    return tuple(
        Stage(
            tuple(those),
            those[0].restart.considered,
            those[0].restart.rejected,
            frozenset(arc.restart.prompt for arc in those),
        )
        for those in by_stage.values()
    )
