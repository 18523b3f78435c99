"""What of the results a figure shows: rows that can be told apart, columns that it has room for, and their runs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import fmean

from llm_catalyst.report.figures.drawing import COLOURS, shorten_label
from llm_catalyst.report.results import Place, Results
from llm_catalyst.report.runs import Run
from llm_catalyst.runs.records import Outcome

MOST_ROWS, MOST_COLUMNS = len(COLOURS), 8


@dataclass(frozen=True)
class RowSelection:
    """The rows and columns of a figure. `drawable` are the rows that have a colour, whether they have data or not."""

    results: Results
    drawable: tuple[str, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]

    def number(self, row: str) -> int:
        """The row's place, by which it looks the same in all figures."""
        return self.drawable.index(row)

    def of(self, rows: Iterable[str] | None = None, columns: Iterable[str] | None = None) -> "RowSelection":
        """The part with only these rows and columns."""
        rows = self.rows if rows is None else tuple(rows)
        return replace(self, rows=rows, columns=self.columns if columns is None else tuple(columns))

    def where(self, found: Mapping[Place, object]) -> "RowSelection":
        """The part with those rows and columns for which anything was found."""
        rows = [row for row in self.rows if any(found[row, column] for column in self.columns)]
        return self.of(rows, [column for column in self.columns if any(found[row, column] for row in self.rows)])

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs, row by row."""
        places = [(row, column) for row in self.rows for column in self.columns]
        return tuple(run for place in places for run in self.results.entries[place].runs)

    @property
    def outcomes(self) -> list[Outcome]:
        """Those of the runs that have finished."""
        return [run.outcome for run in self.runs if run.outcome is not None]

    @property
    def reported_on(self) -> str:
        """The split that the runs report on: test, unless the protocol says otherwise."""
        return " or ".join(sorted({outcome.reported_on for outcome in self.outcomes})) or "test"

    @property
    def left_out(self) -> str:
        """A sentence on what is not shown, '' where everything is."""
        rows, columns = len(self.results.rows), len(self.results.columns)
        words = []
        if rows > MOST_ROWS:
            first = f"{shorten_label(self.results.reference, 40)} and " if self.results.reference else ""
            words.append(f"{MOST_ROWS} of {rows} rows, {first}the best on dev")
        if columns > MOST_COLUMNS:
            words.append(f"the first {MOST_COLUMNS} of {columns} columns")
        return f" Drawn: {', and '.join(words)}." if words else ""


def select_rows(results: Results) -> RowSelection:
    """All rows and columns; of too many rows the reference and those that are best on dev, of columns the first."""
    rows = results.rows
    if len(rows) > MOST_ROWS:
        ranked = sorted(rows, key=lambda row: (row == results.reference, on_dev(results, row)), reverse=True)
        rows = tuple(row for row in rows if row in ranked[:MOST_ROWS])
    return RowSelection(results, rows, rows, results.columns[:MOST_COLUMNS])


def on_dev(results: Results, row: str) -> float:
    """The row's mean metric on dev, over all its finished runs; below all others where there is none."""
    outcomes = [outcome for column in results.columns for outcome in results.outcomes(row, column)]
    scores = [outcome.best.score.metric for outcome in outcomes if outcome.best]
    return fmean(scores) if scores else -1.0
