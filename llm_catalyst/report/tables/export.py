"""The evidence of a table as CSV: a line for each run with all its figures, and one for each entry of the table."""

import shlex
from collections.abc import Mapping, Sequence
from csv import DictWriter
from dataclasses import asdict
from io import StringIO
from statistics import fmean
from typing import Any

from llm_catalyst.report.cell_statistics import COSTS, MEASURES, CellStatistics, Measure, compute_statistics
from llm_catalyst.report.results import Cell, Results
from llm_catalyst.report.runs import Run


def to_csv(results: Results) -> str:
    """A line for each run, finished or not. What is not known is empty; `usd_at_least` is the known part of `usd`."""
    entries = [results.entries[row, column] for row in results.rows for column in results.columns]
    return write_csv([line_of(entry, run) for entry in entries for run in entry.runs])


def line_of(entry: Cell, run: Run) -> dict[str, Any]:
    """One run: where it lies and stands, what it reached and cost, and what made it."""
    place = {"directory": run.path, "row": entry.row, "column": entry.column, "seed": run.seed, "metric": run.metric}
    made = {
        "started": run.manifest.started,
        "device": run.manifest.device,
        "revision": run.manifest.git.get("revision"),
        "dirty": run.manifest.git.get("dirty"),
        "torch": run.manifest.versions.get("torch"),
        "command": format_command(run),
    }
    outcome = run.outcome
    if outcome is None:
        return place | {"status": "unfinished"} | made
    ended = {
        "status": outcome.status,
        "protocol": outcome.protocol,
        "reported_on": outcome.reported_on,
        "finished": outcome.finished,
        "majority": outcome.majority,
        "fallbacks": outcome.fallbacks,
        **outcome.test_metrics,
        **{name: measure.read(outcome) for name, measure in MEASURES.items()},
        "input_tokens": outcome.ledger.input_tokens,
        "output_tokens": outcome.ledger.output_tokens,
        "usd_at_least": outcome.ledger.cost_usd,
        "unpriced_calls": outcome.ledger.unpriced_calls,
    }
    return place | ended | made


def format_command(run: Run) -> str:
    return shlex.join(("catalyst", "run", *run.manifest.command))


def summary_csv(results: Results, measure: str = "test") -> str:
    """A line for each entry: mean and spread, the paired comparison with the reference row, and what a run costs."""
    found = compute_statistics(results, measure)
    return write_csv([summary_line(results, row, column, found[row, column]) for row, column in found])


def summary_line(results: Results, row: str, column: str, value: CellStatistics) -> dict[str, Any]:
    compared = asdict(value.comparison) if value.comparison else {}
    return {
        "row": row,
        "column": column,
        "metric": " ".join(results.metrics(column)),
        "expected": value.expected,
        **(asdict(value.summary) if value.summary else {"n": 0}),
        **({"reference": results.reference} if compared else {}),
        **{f"difference_{key}" if key in ("low", "high") else key: entry for key, entry in compared.items()},
        "holm_p": value.p,
        "bold": value.bold,
        **({f"published_{k}": entry for k, entry in asdict(value.published).items()} if value.published else {}),
        **{f"mean_{name}": mean_of(results, row, column, MEASURES[name]) for name in COSTS},
    }


def mean_of(results: Results, row: str, column: str, measure: Measure) -> float | None:
    """The mean over an entry's finished runs; None where there is none, or one does not have the measure."""
    read = [measure.read(outcome) for outcome in results.outcomes(row, column)]
    known = [value for value in read if value is not None]
    return fmean(known) if known and len(known) == len(read) else None


def write_csv(lines: Sequence[Mapping[str, Any]]) -> str:
    """CSV under the names of all values that any line has."""
    names = dict.fromkeys(name for line in lines for name in line)
    file = StringIO()
    writer = DictWriter(file, [*names], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()
