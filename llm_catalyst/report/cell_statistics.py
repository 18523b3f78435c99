"""The statistics of a table: means over seeds, and each row against the reference row, paired by seed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from llm_catalyst.config.table import Published
from llm_catalyst.report.results import Cell, Place, Results
from llm_catalyst.report.runs import Run
from llm_catalyst.report.statistics import Comparison, Summary, adjust_holm, compare_paired, summarize_values
from llm_catalyst.runs.records import Outcome

Scores = Mapping[int, float]  # a measure by seed
ALPHA = 0.05  # level of the Holm-adjusted p-value from which on a cell is set in bold


@dataclass(frozen=True)
class Measure:
    """A quantity of a finished run.

    Args:
        read: its value, or None if the run has none: no score after divergence, no price if that is unknown.
        better: 1 if more is better, -1 if less is, 0 for neither.
    """

    read: Callable[[Outcome], float | None]
    better: int = 0


def count_tokens(outcome: Outcome) -> float | None:
    """Tokens sent to and received from the mentor; None if it was called and no tokens are known."""
    ledger = outcome.ledger
    total = ledger.input_tokens + ledger.output_tokens
    return None if ledger.mentor_calls and not total else total


def sum_usd(outcome: Outcome) -> float | None:
    """US dollars for the mentor; None if the price or the usage of a call is unknown."""
    unknown = outcome.ledger.unpriced_calls or (count_tokens(outcome) is None and not outcome.ledger.cost_usd)
    return None if unknown else outcome.ledger.cost_usd


MEASURES: Mapping[str, Measure] = {
    "test": Measure(lambda o: o.test.metric if o.test else None, better=1),
    "test_loss": Measure(lambda o: o.test.loss if o.test else None, better=-1),
    "dev": Measure(lambda o: o.best.score.metric if o.best else None, better=1),
    "dev_loss": Measure(lambda o: o.best.score.loss if o.best else None, better=-1),
    "best_prompt": Measure(lambda o: o.test_best_prompt.metric if o.test_best_prompt else None, better=1),
    "best_prompt_loss": Measure(lambda o: o.test_best_prompt.loss if o.test_best_prompt else None, better=-1),
    "seconds": Measure(lambda outcome: outcome.seconds),
    "memory": Measure(lambda outcome: outcome.peak_memory_bytes),
    "steps": Measure(lambda outcome: outcome.ledger.gradient_steps),
    "trained": Measure(lambda outcome: outcome.ledger.train_examples),
    "scored": Measure(lambda outcome: outcome.ledger.scored_examples),
    "calls": Measure(lambda outcome: outcome.ledger.mentor_calls),
    "tokens": Measure(count_tokens),
    "usd": Measure(sum_usd),
}
COSTS = tuple(name for name, measure in MEASURES.items() if not measure.better)


@dataclass(frozen=True)
class CellStatistics:
    """The statistics of a cell, in the measure's own unit.

    Args:
        summary: mean and spread; None without a value.
        runs: how many of the `expected` seeds have a value.
        comparison: against the reference row, over the seeds that both have.
        p: p-value of the paired t test, Holm-adjusted over all comparisons of the table.
        bold: the column's best mean, better than the reference, and p below ALPHA.
        silent: runs whose mentor never gave a usable answer; they have no score.
        partial: runs whose mentor gave some usable answers, and others not.
        published: a published figure for the cell.
    """

    summary: Summary | None
    runs: int
    expected: int
    comparison: Comparison | None
    p: float | None
    bold: bool
    silent: int
    partial: int
    published: Published | None


@lru_cache(maxsize=4)  # each table and file of a report asks for them
def compute_statistics(results: Results, measure: str = "test") -> Mapping[Place, CellStatistics]:
    """The statistics of each cell, for the measure of that name, one of MEASURES."""
    better = MEASURES[measure].better
    found = {place: values_by_seed(cell, measure) for place, cell in results.cells.items()}
    summaries = {place: summarize_values([*own.values()]) if own else None for place, own in found.items()}
    comparisons = {place: compare_with_reference(results, found, place) for place in found}
    adjusted = dict(zip(found, adjust_holm([c.t_p if c else None for c in comparisons.values()]), strict=True))

    def bold(place: Place) -> bool:
        """Whether the cell has the column's best mean, significantly better than the reference."""
        own, comparison, p = summaries[place], comparisons[place], adjusted[place]
        if own is None or comparison is None or p is None or p >= ALPHA or comparison.difference * better <= 0:
            return False
        means = [s.mean for row in results.rows if (s := summaries[row, place[1]]) is not None]
        return own.mean * better == max(mean * better for mean in means)

    return {
        place: CellStatistics(
            summary=summaries[place],
            runs=len(found[place]),
            expected=len(cell.seeds),
            comparison=comparisons[place],
            p=adjusted[place],
            bold=bold(place),
            silent=sum(run.answers.silent for run in cell.runs if run.outcome),
            partial=sum(run.answers.partial for run in cell.runs if run.outcome),
            published=results.published.get(place) if measure == "test" else None,
        )
        for place, cell in results.cells.items()
    }


def values_by_seed(cell: Cell, measure: str) -> dict[int, float]:
    """The measure by seed, of the finished runs that have it (see `read_measure`)."""
    found = {run.seed: read_measure(run, measure) for run in cell.runs}
    return {seed: value for seed, value in found.items() if value is not None}


def read_measure(run: Run, measure: str) -> float | None:
    """The measure of a run; None if it is unfinished or has none, as a score of a mentor that never answered."""
    if run.outcome is None or (MEASURES[measure].better and run.answers.silent):
        return None
    return MEASURES[measure].read(run.outcome)


def compare_with_reference(results: Results, found: Mapping[Place, Scores], place: Place) -> Comparison | None:
    """A cell against that of the reference row in its column; None for that row, and without a common seed."""
    row, column = place
    if results.reference in (None, row) or len(results.metrics(column)) > 1:
        return None
    own, reference = found[place], found[results.reference or "", column]
    seeds = sorted(own.keys() & reference.keys())
    return compare_paired([own[seed] for seed in seeds], [reference[seed] for seed in seeds]) if seeds else None


def average_columns(results: Results, found: Mapping[Place, CellStatistics]) -> dict[str, float]:
    """The mean over the columns, for the rows with a value in every column; empty if metrics differ."""
    if len(results.columns) < 2 or results.metric == "metric":
        return {}
    means = {row: [found[row, column].summary for column in results.columns] for row in results.rows}
    return {row: sum(s.mean for s in own if s) / len(own) for row, own in means.items() if all(own)}


@dataclass(frozen=True)
class RowStatistics:
    """A row against the reference row over all columns and seeds, a pair for each run of both.

    `p` is the p-value of the paired t test, Holm-adjusted over the rows.
    """

    comparison: Comparison
    p: float | None


def compare_rows(results: Results, measure: str = "test") -> dict[str, RowStatistics]:
    """Each row against the reference row over all columns; empty for one column, and where metrics differ.

    The columns are taken as they are: the pairs say nothing of columns that the table does not have.
    """
    if len(results.columns) < 2 or results.metric == "metric" or results.reference is None:
        return {}
    found = {place: values_by_seed(cell, measure) for place, cell in results.cells.items()}
    compared = {}
    for row in results.rows:
        places = [(row, column, seed) for column in results.columns for seed in sorted(found[row, column])]
        pairs = [
            (found[row, column][seed], found[results.reference, column][seed])
            for _, column, seed in places
            if row != results.reference and seed in found[results.reference, column]
        ]
        if pairs:
            compared[row] = compare_paired(*zip(*pairs, strict=True))
    adjusted = adjust_holm([comparison.t_p for comparison in compared.values()])
    return {row: RowStatistics(compared[row], p) for row, p in zip(compared, adjusted, strict=True)}


def count_wins(results: Results, found: Mapping[Place, CellStatistics]) -> dict[str, tuple[int, ...]]:
    """For each row the numbers of wins, ties and losses against the reference row, over all columns and seeds."""
    sums = {}
    for row in results.rows:
        compared = [c for column in results.columns if (c := found[row, column].comparison) is not None]
        if compared:
            sums[row] = tuple(sum(getattr(c, name) for c in compared) for name in ("wins", "ties", "losses"))
    return sums
