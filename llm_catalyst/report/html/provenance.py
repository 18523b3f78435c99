"""The provenance of a report's runs: versions, machines, data, models with dates; and the problems of the runs."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from llm_catalyst.report.record_reader import RecordReader
from llm_catalyst.report.results import Results
from llm_catalyst.report.runs import Run
from llm_catalyst.runs.analysis import collect_warnings
from llm_catalyst.runs.records import LLMCall, Manifest
from llm_catalyst.utils.format import format_count

Tally = dict[str, int]  # a value, and the number of runs that have it


@dataclass(frozen=True)
class Calls:
    """The calls of a model, by the requested name and the responding one; `first` and `last` are their dates."""

    asked: str
    answered: str
    calls: int
    reused: int
    failed: int
    first: str
    last: str


@dataclass(frozen=True)
class Fingerprint:
    """A split of a column's data: its rows, its sha256, and the number of runs with these."""

    column: str
    split: str
    rows: str
    sha256: str
    runs: int


def collect_facts(runs: Sequence[Run]) -> dict[str, Tally]:
    """The facts of `list_facts` by name, each value with the number of runs that have it."""
    found: dict[str, Tally] = defaultdict(lambda: defaultdict(int))
    for run in runs:
        for name, value in list_facts(run.manifest):
            found[name][value] += 1
    return {name: dict(tally) for name, tally in found.items()}


def list_facts(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Device, versions, code and backbone of a run, by name."""
    yield "device", f"{manifest.device}, {format_count(manifest.threads, 'thread')}"
    yield "platform", manifest.platform
    yield "python", manifest.python
    yield from manifest.versions.items()
    yield "code", manifest.code
    commit = manifest.backbone.get("commit")
    yield "backbone", f"{manifest.backbone.get('name', '?')}{f', commit {str(commit)[:10]}' if commit else ''}"


def collect_fingerprints(results: Results) -> list[Fingerprint]:
    """The splits that the runs read, column by column."""
    found: dict[tuple[str, str, str, str], int] = defaultdict(int)
    for column in results.columns:
        for run in results.column_runs(column):
            for split, facts in run.manifest.data.items():
                if isinstance(facts, Mapping) and "sha256" in facts:
                    found[column, split, str(facts.get("rows", "–")), str(facts["sha256"])] += 1
    return [Fingerprint(*key, runs) for key, runs in found.items()]


def collect_calls(runs: Iterable[Run], read: RecordReader) -> list[Calls]:
    """The calls of each model."""
    found: dict[tuple[str, str], list[LLMCall]] = defaultdict(list)
    for run in runs:
        for exchange in read(run, LLMCall):
            found[exchange.asked, exchange.answered or "nobody"].append(exchange)
    return [
        Calls(
            asked,
            answered,
            calls=sum(exchange.reused is None for exchange in exchanges),
            reused=sum(exchange.reused is not None for exchange in exchanges),
            failed=sum(exchange.error is not None for exchange in exchanges),
            first=min(exchange.date for exchange in exchanges),
            last=max(exchange.date for exchange in exchanges),
        )
        for (asked, answered), exchanges in found.items()
    ]


def collect_problems(results: Results, read: RecordReader) -> list[tuple[str, list[str]]]:
    """The problems of a report, each with the places of its runs; without places, a problem concerns all runs."""
    places: dict[str, list[str]] = defaultdict(list)
    for cell in results.cells.values():
        if missing := sorted({*cell.seeds} - {run.seed for run in cell.runs}):
            places["there is no run"].append(f"{cell.row} · {cell.column} · seed {', '.join(map(str, missing))}")
        for run in cell.runs:
            for problem in find_problems(run, read):
                places[problem].append(cell.label(run))
    general = [[(problem, list[str]()) for problem in problems] for problems in (results.problems, read.problems)]
    return [*general[0], *places.items(), *general[1]]


def find_problems(run: Run, read: RecordReader) -> Iterator[str]:
    """The problems of a run, and its warnings."""
    outcome = run.outcome
    if outcome is None:
        yield "not finished: it does not count in tables"
    else:
        if outcome.status != "done":
            yield f"{outcome.status}: {outcome.message}"
        if outcome.fallbacks:
            yield "the mentor failed at least once, and the pool's best was taken instead"
        if outcome.ledger.unpriced_calls:
            yield "calls whose price is not known"
        accuracy = outcome.test_metrics.get("accuracy")
        if accuracy is not None and accuracy <= outcome.majority:
            yield f"accuracy on {outcome.reported_on} is not above that of the majority class"
    yield from collect_warnings(read.records(run))
