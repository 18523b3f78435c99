"""The best prompts of a report, and its restarts: what was replaced, what was proposed, and the effect."""

from dataclasses import dataclass

from llm_catalyst.report.record_reader import RecordReader
from llm_catalyst.report.results import Cell, Results
from llm_catalyst.report.runs import Run
from llm_catalyst.runs.analysis import RestartEffect, trace_restarts
from llm_catalyst.runs.records import Outcome, Prompt, Proposal, Rejected, Restart, Score

MOST = 12  # runs whose restarts are shown
MOST_PROMPTS = 60  # cells whose prompts are shown


@dataclass(frozen=True)
class BestRun:
    """The run of a cell that is the best on dev."""

    row: str
    column: str
    run: Run
    outcome: Outcome


@dataclass(frozen=True)
class StageRestarts:
    """The restarts after one stage, the proposals and rejected lines behind them, and the chosen prompts."""

    effects: tuple[RestartEffect, ...]
    considered: tuple[tuple[Proposal, Score | None], ...]
    rejected: tuple[Rejected, ...]
    chosen: frozenset[Prompt]

    @property
    def number(self) -> int:
        """The stage, counted from 1."""
        return self.effects[0].restart.stage + 1


@dataclass(frozen=True)
class RunRestarts:
    """The restarts of one run."""

    row: str
    column: str
    run: Run
    stages: tuple[StageRestarts, ...]


def select_best_runs(results: Results) -> list[BestRun]:
    """For each cell its run with the best dev score."""
    return [best for cell in results.cells.values() if (best := select_best_run(cell))]


def select_best_run(cell: Cell) -> BestRun | None:
    """The finished run with the best score on dev; None if there is none."""
    best: BestRun | None = None
    for run in cell.runs:
        if run.outcome and run.outcome.best:
            before = best.outcome.best if best else None
            if before is None or run.outcome.best.score.better_than(before.score):
                best = BestRun(cell.row, cell.column, run, run.outcome)
    return best


def collect_restarts(results: Results, read: RecordReader) -> tuple[list[RunRestarts], int]:
    """The restarts of the best run of each cell, of at most MOST cells; and the number of cells with restarts."""
    found: list[RunRestarts] = []
    number = 0
    for cell in results.cells.values():
        best = select_best_run(cell)
        run = best.run if best else next(iter(cell.runs), None)
        if run is not None and read(run, Restart):
            number += 1
            if number <= MOST:
                found.append(RunRestarts(cell.row, cell.column, run, group_by_stage(run, read)))
    return found, number


def group_by_stage(run: Run, read: RecordReader) -> tuple[StageRestarts, ...]:
    """A run's restarts by the stage before them: several of each if prompts train side by side."""
    by_stage: dict[int, list[RestartEffect]] = {}
    for effect in trace_restarts(read.records(run)):
        by_stage.setdefault(effect.restart.stage, []).append(effect)
    return tuple(
        StageRestarts(
            effects=tuple(effects),
            considered=effects[0].restart.considered,
            rejected=effects[0].restart.rejected,
            chosen=frozenset(effect.restart.prompt for effect in effects),
        )
        for effects in by_stage.values()
    )
