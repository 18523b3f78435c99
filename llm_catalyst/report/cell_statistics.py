"""The figures of a table: means over seeds, and each row against the reference row, paired by seed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from llm_catalyst.config.table import Published
from llm_catalyst.report.results import Cell, Place, Results
from llm_catalyst.report.statistics import Comparison, Summary, adjust_holm, compare_paired, summarize_values
from llm_catalyst.runs.records import Outcome, Score

ALPHA = 0.05  # level of the Holm-adjusted p-value from which on an entry is set in bold


@dataclass(frozen=True)
class Measure:
    """A quantity of a finished run. `better` is 1 where more is better, -1 where less is, 0 where neither.

    `read` gives None where the run does not have it: no score where it diverged, no price where none is known.
    """

    read: Callable[[Outcome], float | None]
    better: int = 0


def read_metric(score: Score | None) -> float | None:
    return None if score is None else score.metric


def read_loss(score: Score | None) -> float | None:
    return None if score is None else score.loss


def count_tokens(outcome: Outcome) -> float | None:
    """Tokens sent to mentors and received; None where some were called and none told."""
    ledger = outcome.ledger
    total = ledger.input_tokens + ledger.output_tokens
    return None if ledger.mentor_calls and not total else total


def sum_usd(outcome: Outcome) -> float | None:
    return None if outcome.ledger.unpriced_calls else outcome.ledger.cost_usd


MEASURES: Mapping[str, Measure] = {
    "test": Measure(lambda outcome: read_metric(outcome.test), better=1),
    "test_loss": Measure(lambda outcome: read_loss(outcome.test), better=-1),
    "dev": Measure(lambda outcome: read_metric(outcome.best.score if outcome.best else None), better=1),
    "dev_loss": Measure(lambda outcome: read_loss(outcome.best.score if outcome.best else None), better=-1),
    "best_prompt": Measure(lambda outcome: read_metric(outcome.test_best_prompt), better=1),
    "best_prompt_loss": Measure(lambda outcome: read_loss(outcome.test_best_prompt), better=-1),
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
    """What stands in a table for a row and a column, in the measure's own unit.

    `runs` of the `expected` seeds have the value. `comparison` is with the reference row over the seeds that both
    have, `p` its paired t test's p-value, Holm-adjusted over all comparisons of the table. `bold`: the column's best
    mean, better than the reference, and p below ALPHA.
    """

    summary: Summary | None
    runs: int
    expected: int
    comparison: Comparison | None
    p: float | None
    bold: bool
    published: Published | None


@lru_cache(maxsize=4)  # each table and file of a report asks for them
def compute_statistics(results: Results, measure: str = "test") -> Mapping[Place, CellStatistics]:
    """The value of each row and column by the measure of that name, one of MEASURES."""
    better = MEASURES[measure].better
    found = {place: describe_seeds(entry, measure) for place, entry in results.entries.items()}
    summaries = {place: summarize_values([*own.values()]) if own else None for place, own in found.items()}
    comparisons = {place: with_reference(results, found, place) for place in found}
    adjusted = dict(zip(found, adjust_holm([c.t_p if c else None for c in comparisons.values()]), strict=True))

    def bold(place: Place) -> bool:
        own, comparison, p = summaries[place], comparisons[place], adjusted[place]
        if own is None or comparison is None or p is None or p >= ALPHA or comparison.difference * better <= 0:
            return False
        means = [s.mean for row in results.rows if (s := summaries[row, place[1]]) is not None]
        return own.mean * better == max(mean * better for mean in means)

    return {
        place: CellStatistics(
            summary=summaries[place],
            runs=len(found[place]),
            expected=len(entry.seeds),
            comparison=comparisons[place],
            p=adjusted[place],
            bold=bold(place),
            published=results.published.get(place) if measure == "test" else None,
        )
        for place, entry in results.entries.items()
    }


def describe_seeds(entry: Cell, measure: str) -> dict[int, float]:
    """The measure by seed, of those finished runs that have it."""
    read = MEASURES[measure].read
    found = {run.seed: read(run.outcome) for run in entry.runs if run.outcome is not None}
    return {seed: value for seed, value in found.items() if value is not None}


def with_reference(results: Results, found: Mapping[Place, Mapping[int, float]], place: Place) -> Comparison | None:
    """The entry against the reference row's in its column; None for that row itself, and where no seed has both."""
    row, column = place
    if results.reference in (None, row) or len(results.metrics(column)) > 1:
        return None
    own, reference = found[place], found[results.reference or "", column]
    seeds = sorted(own.keys() & reference.keys())
    return compare_paired([own[seed] for seed in seeds], [reference[seed] for seed in seeds]) if seeds else None


def average_columns(results: Results, found: Mapping[Place, CellStatistics]) -> dict[str, float]:
    """The mean over the columns, of those rows that have a value in every column; columns of one metric only."""
    if len(results.columns) < 2 or results.metric == "metric":
        return {}
    means = {row: [found[row, column].summary for column in results.columns] for row in results.rows}
    return {row: sum(s.mean for s in own if s) / len(own) for row, own in means.items() if all(own)}


def count_wins(
    results: Results, found: Mapping[Place, CellStatistics], measure: str
) -> dict[str, tuple[int, int, int]]:
    """How often each row is better than, the same as and worse than the reference row, over all columns and seeds."""
    sums = {}
    for row in results.rows:
        compared = [c for column in results.columns if (c := found[row, column].comparison) is not None]
        if compared:
            more, same, less = (sum(getattr(c, name) for c in compared) for name in ("wins", "ties", "losses"))
            sums[row] = (less, same, more) if MEASURES[measure].better < 0 else (more, same, less)
    return sums
