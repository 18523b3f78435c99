"""The data of a table as CSV: a line for each run with all its figures, and one for each cell of the table."""

from collections.abc import Mapping, Sequence
from csv import DictWriter
from dataclasses import asdict
from io import StringIO
from statistics import fmean
from typing import Any

from llm_catalyst.report.cell_statistics import (
    COSTS,
    MEASURES,
    CellStatistics,
    Measure,
    compare_rows,
    compute_statistics,
    read_measure,
)
from llm_catalyst.report.results import Cell, Results
from llm_catalyst.report.runs import Run
from llm_catalyst.report.statistics import Comparison
from llm_catalyst.report.tables.build import ALL_COLUMNS
from llm_catalyst.runs.records import Outcome

ENDED = ("status", "protocol", "reported_on", "finished", "majority", "fallbacks")  # columns of a finished run


def to_csv(results: Results) -> str:
    """A line for each run, finished or not; unknown values are empty, `usd_at_least` is the known part of `usd`."""
    cells = [results.cells[row, column] for row in results.rows for column in results.columns]
    return write_csv([run_line(cell, run) for cell in cells for run in cell.runs])


def run_line(cell: Cell, run: Run) -> dict[str, Any]:
    """The line of a run: place, status, scores, costs and provenance."""
    place = {"directory": run.path, "row": cell.row, "column": cell.column, "seed": run.seed, "metric": run.metric}
    made = {
        "started": run.manifest.started,
        "device": run.manifest.device,
        "revision": run.manifest.git.get("revision"),
        "dirty": run.manifest.git.get("dirty"),
        "torch": run.manifest.versions.get("torch"),
        "command": run.manifest.command_line,
    }
    outcome = run.outcome
    if outcome is None:
        return place | {"status": "unfinished"} | made
    ended = {
        **{name: getattr(outcome, name) for name in ENDED},
        "models": " ".join(run.models) or None,
        "mentor_answered": "never" if run.answers.silent else "partly" if run.answers.partial else None,
        **({} if run.answers.silent else outcome.test_metrics),
        **{name: read_measure(run, name) for name in MEASURES},
        "dev_examples": outcome.best.score.examples if outcome.best else None,
        "test_examples": outcome.test.examples if outcome.test else None,
        "input_tokens": outcome.ledger.input_tokens,
        "output_tokens": outcome.ledger.output_tokens,
        "usd_at_least": outcome.ledger.cost_usd,
        "unpriced_calls": outcome.ledger.unpriced_calls,
    }
    return place | ended | made


def summary_csv(results: Results) -> str:
    """A line for each cell: mean and spread, the paired comparison with the reference row, and what a run costs.

    Then one for each row: its comparison over all columns.
    """
    cells = [cell_line(results, *place, value) for place, value in compute_statistics(results).items()]
    rows = [
        {"row": row, "column": ALL_COLUMNS, **comparison_columns(results, value.comparison), "holm_p": value.p}
        for row, value in compare_rows(results).items()
    ]
    return write_csv([*cells, *rows])


def comparison_columns(results: Results, comparison: Comparison | None) -> dict[str, Any]:
    """The columns of a comparison with the reference row; none without one."""
    if comparison is None:
        return {}
    named = {f"difference_{key}" if key in ("low", "high") else key: v for key, v in asdict(comparison).items()}
    return {"reference": results.reference, **named}


def cell_line(results: Results, row: str, column: str, value: CellStatistics) -> dict[str, Any]:
    """The line of a cell."""
    outcomes = results.cells[row, column].outcomes
    return {
        "row": row,
        "column": column,
        "metric": " ".join(results.metrics(column)),
        "test_examples": " ".join(map(str, results.count_examples(column))),
        "expected": value.expected,
        "seeds": value.runs,
        "never_answered": value.silent,
        "partly_answered": value.partial,
        **({name: each for name, each in asdict(value.summary).items() if name != "n"} if value.summary else {}),
        **comparison_columns(results, value.comparison),
        "holm_p": value.p,
        "bold": value.bold,
        **({f"published_{k}": entry for k, entry in asdict(value.published).items()} if value.published else {}),
        **{f"mean_{name}": mean_cost(outcomes, MEASURES[name]) for name in COSTS},
    }


def mean_cost(outcomes: Sequence[Outcome], measure: Measure) -> float | None:
    """The mean over finished runs; None if there is none, or if one does not have the measure."""
    read = [measure.read(outcome) for outcome in outcomes]
    known = [value for value in read if value is not None]
    return fmean(known) if known and len(known) == len(read) else None


def write_csv(lines: Sequence[Mapping[str, Any]]) -> str:
    """CSV whose columns are the names of all values in any line."""
    names = dict.fromkeys(name for line in lines for name in line)
    file = StringIO()
    writer = DictWriter(file, [*names], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()
