"""The provenance of a report's runs: versions, machines, data, models with dates; and the problems of the runs."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

from llm_catalyst.report.results import Results
from llm_catalyst.report.runs import RecordReader, Run
from llm_catalyst.runs.analysis import collect_warnings
from llm_catalyst.runs.records import LLMCall, Manifest
from llm_catalyst.utils.format import format_count


def collect_facts(runs: Iterable[Run]) -> dict[str, Counter[str]]:
    """The facts of `list_facts` by name, each value with the number of runs that have it."""
    found = defaultdict[str, Counter[str]](Counter)
    for run in runs:
        for name, value in list_facts(run.manifest):
            found[name][value] += 1
    return found


def list_facts(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Device, versions, code and backbone of a run, by name."""
    yield "device", f"{manifest.device}, {format_count(manifest.threads, 'thread')}"
    yield "platform", manifest.platform
    yield "python", manifest.python
    yield from manifest.versions.items()
    yield "code", manifest.code
    commit = manifest.backbone.get("commit")
    yield "backbone", f"{manifest.backbone.get('name', '?')}{f', commit {str(commit)[:10]}' if commit else ''}"


def count_fingerprints(results: Results) -> Counter[tuple[str, ...]]:
    """The splits that the runs read: column, split, rows and sha256, with the number of runs that have these."""
    return Counter(
        (column, split, str(facts.get("rows", "–")), str(facts["sha256"]))
        for column in results.columns
        for run in results.select(columns=[column]).runs
        for split, facts in run.manifest.data.items()
        if isinstance(facts, Mapping) and "sha256" in facts
    )


def group_calls(runs: Iterable[Run], read: RecordReader) -> dict[tuple[str, str], list[LLMCall]]:
    """The calls of each model, by the requested name and the responding one."""
    found = defaultdict[tuple[str, str], list[LLMCall]](list)
    for run in runs:
        for call in read(run, LLMCall):
            found[call.asked, call.answered or "nobody"].append(call)
    return found


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
