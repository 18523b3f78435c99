"""The page of a report: one HTML file that needs no network and runs no script, with the provenance of the runs.

The template escapes all texts of models and users, and control characters become visible. Only the figures are markup,
written by Matplotlib and adapted by `inline_svg`.
"""

import itertools
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from llm_catalyst.report.figures.drawing import FAINT, INK, PAPER, Drawing
from llm_catalyst.report.results import Results
from llm_catalyst.report.runs import RecordReader, Run, dev_rank
from llm_catalyst.report.tables import costs
from llm_catalyst.report.tables.build import build_tables
from llm_catalyst.runs.analysis import collect_notices, collect_warnings, read_metric_name
from llm_catalyst.runs.reader import RunRecords
from llm_catalyst.runs.records import LLMCall, Outcome, Restart, Snapshot
from llm_catalyst.runs.restart_effects import CARRIED, TRAINING, find_role, trace_restarts
from llm_catalyst.utils.format import format_count, format_duration, join_first
from llm_catalyst.utils.terminal import escape_controls, quote_prompt

LONGEST = 300  # characters of a prompt that are shown
MOST_NAMED = 6  # runs that are named where the same is true of many
MOST_PROMPTS = 60  # cells whose prompts are shown
MOST_RESTARTED = 12  # cells whose restarts are shown
THEMED = {INK: "var(--ink)", FAINT: "var(--line)", PAPER: "var(--paper)"}


def build_section(
    name: str, results: Results, read: RecordReader, drawings: Mapping[str, Drawing], svgs: Mapping[str, str]
) -> dict[str, Any]:
    """The template's values for the section of `results`, whose files begin with `name`.

    A cell's prompts and restarts are those of its best run on dev. `svgs` are the figures that have data.
    """
    numbers = {run.path: number for number, run in enumerate(results.runs, start=1)}
    best_runs = [(cell, max(cell.runs, key=dev_rank)) for cell in results.cells.values() if cell.runs]
    restarted = [(cell, run) for cell, run in best_runs if read(run, Restart)]
    figures = {
        figure: (
            drawings[figure].caption,
            inline_svg(svg, f"{name}-{figure}", f"{figure.capitalize()}: {drawings[figure].caption}"),
            format_ranges([numbers[run.path] for run in drawings[figure].runs]),
        )
        for figure, svg in svgs.items()
    }
    return {
        "name": name,
        "results": results,
        "numbers": numbers,
        "glance": summarize_report(results),
        "tables": build_tables(results),
        "figures": figures,
        "undrawn": {figure: drawing.caption for figure, drawing in drawings.items() if drawing.figure is None},
        "best_runs": [(cell, run) for cell, run in best_runs if run.outcome and run.outcome.best],
        "restarts": [
            (cell, run, trace_restarts(with_trajectory(run, read))) for cell, run in restarted[:MOST_RESTARTED]
        ],
        "with_restarts": len(restarted),
        "facts": collect_facts(results.runs),
        "fingerprints": count_fingerprints(results),
        "calls": group_calls(results.runs, read),
        "problems": collect_problems(results, read),
    }


def with_trajectory(run: Run, read: RecordReader) -> RunRecords:
    """All of the run's records."""
    return replace(read.records(run), trajectory=read(run, Snapshot))


def summarize_report(results: Results) -> dict[str, str]:
    """The facts at the head of a section, by name."""
    outcomes = results.outcomes
    expected = sum(len(cell.seeds) for cell in results.cells.values())
    used = costs.sum_usage(outcomes)
    cost = costs.format_cost(used)
    dates = sorted(run.manifest.started[:10] for run in results.runs)
    return {
        "Runs": f"{len(outcomes)} of {expected} finished",
        "Metric": results.metric if results.metric != "metric" else "differs by column",
        **({"Compared with": results.reference} if results.reference else {}),
        "Time in all": format_duration(sum(outcome.seconds for outcome in outcomes)) if outcomes else "–",
        "Mentor": f"{format_count(used.mentor_calls, 'call')}, {cost}" if outcomes else "–",
        "Started": " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "–",
    }


def collect_facts(runs: Iterable[Run]) -> dict[str, Counter[str]]:
    """Devices, versions, code and backbones by name, each value with the number of runs that have it."""
    found = defaultdict[str, Counter[str]](Counter)
    for made in (run.manifest for run in runs):
        commit = made.backbone.get("commit")
        facts = {
            "device": f"{made.device}, {format_count(made.threads, 'thread')}",
            "platform": made.platform,
            "python": made.python,
            **made.versions,
            "code": made.code,
            "backbone": f"{made.backbone.get('name', '?')}{f', commit {str(commit)[:10]}' if commit else ''}",
        }
        for name, value in facts.items():
            found[name][value] += 1
    return found


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
        if run.answers.silent:
            yield "the mentor never gave a usable answer: no score counts"
        elif run.answers.partial or outcome.fallbacks:
            yield "the mentor failed at least once, and the pool's best or another mentor was taken instead"
        if outcome.ledger.unpriced_calls:
            yield "calls whose price is not known"
        if why := compare_majority(outcome, read.records(run)):
            yield why
    records = read.records(run)
    yield from (*collect_warnings(records), *collect_notices(records))


def compare_majority(outcome: Outcome, run: RunRecords) -> str:
    """That the reported metric is not above that of the majority class; '' where it is.

    Of a run that did not record this metric of the majority class, their accuracies are compared.
    """
    name, score, level = read_metric_name(run), outcome.test, outcome.majority_score
    value = score.metric if score else None
    if outcome.majority_metric is None:
        name, value = "accuracy", outcome.test_metrics.get("accuracy")
    below = value is not None and value <= level
    return f"{name} on {outcome.reported_on} is not above that of the majority class" if below else ""


def render_page(sections: Sequence[Mapping[str, Any]], refresh: float | None = None) -> str:
    """The page as HTML; with `refresh` it reloads itself after that many seconds."""
    page = open_environment().get_template("page.html.j2")
    return page.render(sections=sections, refresh=refresh)


def open_environment() -> Environment:
    """The environment of the report's templates, which escapes all values."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=escape_value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(counted=format_count, MOST_PROMPTS=MOST_PROMPTS, TRAINING=TRAINING, CARRIED=CARRIED)
    environment.globals["role"] = find_role
    environment.filters.update(
        prompt=lambda text: quote_prompt(text, LONGEST), named=partial(join_first, most=MOST_NAMED, between="; ")
    )
    return environment


def escape_value(value: Any) -> Any:
    """A value of the template as text without control characters, on one line; a dash for None."""
    if isinstance(value, Markup):
        return value
    return "–" if value is None else escape_controls(str(value))


def format_ranges(numbers: Sequence[int]) -> str:
    """Numbers in order, successive ones as a range: '1–3, 7'."""
    by_offset = itertools.groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0])
    spans = [[number for _, number in pairs] for _, pairs in by_offset]
    return ", ".join(f"{span[0]}–{span[-1]}" if len(span) > 1 else str(span[0]) for span in spans)


def inline_svg(svg: str, name: str, words: str) -> Markup:
    """Matplotlib's SVG as a part of the page: with unique ids, and with the page's colours for ink and paper."""
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if local_name(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = local_name(element.tag)
        named = {local_name(key): value for key, value in element.attrib.items()}
        element.attrib = {key: adapt_attribute(key, value, name) for key, value in named.items()}
    root.attrib.update(role="img", **{"aria-label": escape_controls(words)})
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def local_name(name: str) -> str:
    """A name without its XML namespace."""
    return name.rpartition("}")[2]


def adapt_attribute(key: str, value: str, name: str) -> str:
    """An attribute's value with ids that begin with the figure's name, and the page's colours."""
    if key == "id":
        return f"{name}-{value}"
    value = re.sub(r"^#|(?<=url\()#", f"#{name}-", value)
    if key == "style":
        for colour, variable in THEMED.items():
            value = value.replace(colour, variable)
    return value
