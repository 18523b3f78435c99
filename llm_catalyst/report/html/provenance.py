"""What made the runs of a report: versions, machines, data, the models that answered and when; and what went wrong."""

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
    """The calls of a model, by the name asked for and the one that answered; `first` and `last` are their dates."""

    asked: str
    answered: str
    calls: int
    reused: int
    failed: int
    first: str
    last: str


@dataclass(frozen=True)
class Fingerprint:
    """A split of a column's data: its rows, its sha256, and how many runs had just these."""

    column: str
    split: str
    rows: str
    sha256: str
    runs: int


def collect_facts(runs: Sequence[Run]) -> dict[str, Tally]:
    """By name, what the runs ran with, each value with the number of runs that had it."""
    found: dict[str, Tally] = defaultdict(lambda: defaultdict(int))
    for run in runs:
        for name, value in made_with(run.manifest):
            found[name][value] += 1
    return {name: dict(tally) for name, tally in found.items()}


def made_with(manifest: Manifest) -> Iterator[tuple[str, str]]:
    yield "device", f"{manifest.device}, {format_count(manifest.threads, 'thread')}"
    yield "platform", manifest.platform
    yield "python", manifest.python
    yield from manifest.versions.items()
    revision = str(manifest.git.get("revision", ""))[:10]
    yield "code", f"{revision}{', with changes' if manifest.git.get('dirty') else ''}" if revision else "no git"
    commit = manifest.backbone.get("commit")
    yield "backbone", f"{manifest.backbone.get('name', '?')}{f', commit {str(commit)[:10]}' if commit else ''}"


def collect_fingerprints(results: Results) -> list[Fingerprint]:
    """The splits that the runs read, column by column."""
    found: dict[tuple[str, str, str, str], int] = defaultdict(int)
    for column in results.columns:
        for run in (run for row in results.rows for run in results.entries[row, column].runs):
            for split, facts in run.manifest.data.items():
                if isinstance(facts, Mapping) and "sha256" in facts:
                    found[column, split, str(facts.get("rows", "–")), str(facts["sha256"])] += 1
    return [Fingerprint(*key, runs) for key, runs in found.items()]


def collect_calls(runs: Iterable[Run], read: RecordReader) -> list[Calls]:
    """Which models were asked, which answered, and when."""
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
    """What a reader must know, each with the runs that it is true of; none where it is true of all together."""
    found: list[tuple[str, list[str]]] = [(words, []) for words in results.problems]
    of_runs: dict[str, list[str]] = defaultdict(list)
    for entry in results.entries.values():
        if missing := sorted({*entry.seeds} - {run.seed for run in entry.runs}):
            of_runs["there is no run"].append(f"{entry.row} · {entry.column} · seed {', '.join(map(str, missing))}")
        for run in entry.runs:
            for words in of_run(run, read):
                of_runs[words].append(f"{entry.row} · {entry.column} · seed {run.seed}")
    return [*found, *of_runs.items(), *((words, []) for words in read.problems)]


def of_run(run: Run, read: RecordReader) -> Iterator[str]:
    """What is wrong with a run, or must be known of it."""
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
