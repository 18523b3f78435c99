"""The part of the results that a figure shows: as many rows as have colours, as many columns as fit, and their runs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from matplotlib.lines import Line2D

from llm_catalyst.report.figures.drawing import COLOURS, legend_entry, row_style, shorten_label
from llm_catalyst.report.results import Place, Results
from llm_catalyst.report.runs import Run
from llm_catalyst.runs.records import Outcome

MOST_ROWS, MOST_COLUMNS = len(COLOURS), 8


@dataclass(frozen=True)
class RowSelection:
    """The rows and columns of a figure; `drawable` are all rows that have a colour, with and without data."""

    results: Results
    drawable: tuple[str, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]

    def style(self, row: str) -> dict[str, Any]:
        """Colour, marker and dashes of a row: the same in all figures."""
        return row_style(self.drawable.index(row))

    def legend(self, **changes: Any) -> list[Line2D]:
        """A legend entry for each row."""
        return [legend_entry(self.drawable.index(row), row, **changes) for row in self.rows]

    def select(self, rows: Iterable[str] | None = None, columns: Iterable[str] | None = None) -> "RowSelection":
        """The part with only these rows and columns."""
        rows = self.rows if rows is None else tuple(rows)
        return replace(self, rows=rows, columns=self.columns if columns is None else tuple(columns))

    def rows_with(self, data: Mapping[str, object]) -> "RowSelection":
        """The part with only the rows whose data are not empty."""
        return self.select(row for row in self.rows if data[row])

    def places_with(self, data: Mapping[Place, object]) -> "RowSelection":
        """The part with only the rows and columns in which some place's data are not empty."""
        rows = [row for row in self.rows if any(data[row, column] for column in self.columns)]
        return self.select(rows, [column for column in self.columns if any(data[row, column] for row in self.rows)])

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs, row by row."""
        return tuple(
            run for row in self.rows for column in self.columns for run in self.results.cells[row, column].runs
        )

    @property
    def outcomes(self) -> list[Outcome]:
        """The outcomes of the finished runs."""
        return [run.outcome for run in self.runs if run.outcome is not None]

    @property
    def reported_on(self) -> str:
        """The split that the runs report on: test, unless the protocol says otherwise."""
        return " or ".join(sorted({outcome.reported_on for outcome in self.outcomes})) or "test"

    @property
    def left_out(self) -> str:
        """A sentence on the rows and columns that are not shown; '' if all are."""
        rows, columns = len(self.results.rows), len(self.results.columns)
        words = []
        if rows > MOST_ROWS:
            first = f"{shorten_label(self.results.reference, 40)} and " if self.results.reference else ""
            words.append(f"{MOST_ROWS} of {rows} rows, {first}the best on dev")
        if columns > MOST_COLUMNS:
            words.append(f"the first {MOST_COLUMNS} of {columns} columns")
        return f" Drawn: {', and '.join(words)}." if words else ""


def select_rows(results: Results) -> RowSelection:
    """All rows and columns; of too many rows the reference and the best on dev, of too many columns the first."""
    rows = results.rows
    if len(rows) > MOST_ROWS:
        ranked = sorted(rows, key=lambda row: (row == results.reference, mean_dev_metric(results, row)), reverse=True)
        rows = tuple(row for row in rows if row in ranked[:MOST_ROWS])
    return RowSelection(results, rows, rows, results.columns[:MOST_COLUMNS])


def mean_dev_metric(results: Results, row: str) -> float:
    """The row's mean metric on dev over all its finished runs; -1 if there is none."""
    outcomes = [outcome for column in results.columns for outcome in results.outcomes(row, column)]
    scores = [outcome.best.score.metric for outcome in outcomes if outcome.best]
    return fmean(scores) if scores else -1.0
