"""The page of a report: one HTML file that needs no network and runs no script.

Text of models and users reaches it as text: the template escapes all that it is given, and control characters become
visible. Only the figures are markup, which Matplotlib wrote and `inline` took apart.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from llm_catalyst.report.figures.drawing import FAINT, INK, PAPER, Drawing
from llm_catalyst.report.html.provenance import (
    Calls,
    Fingerprint,
    Tally,
    collect_calls,
    collect_facts,
    collect_fingerprints,
    collect_problems,
)
from llm_catalyst.report.html.restarts import MOST_PROMPTS, Best, RunRestarts, collect_restarts, select_best_runs
from llm_catalyst.report.record_reader import RecordReader
from llm_catalyst.report.results import Results
from llm_catalyst.report.tables.build import build_tables
from llm_catalyst.report.tables.export import format_command
from llm_catalyst.report.tables.rendered import RenderedTable
from llm_catalyst.utils.format import format_count, format_dollars, format_duration, join_first
from llm_catalyst.utils.terminal import escape_controls, quote_prompt

LONGEST = 300  # characters of a prompt that are shown
MOST_NAMED = 6  # runs that are named where the same is true of many
THEMED = {INK: "var(--ink)", FAINT: "var(--line)", PAPER: "var(--paper)"}


@dataclass(frozen=True)
class PageFigure:
    """A figure as it stands on the page; `runs` are the numbers of those that it was drawn from."""

    title: str
    caption: str
    svg: Markup
    files: str
    runs: str


@dataclass(frozen=True)
class Section:
    """One of a report's results with all that is told of it; `numbers` are those of its runs, by directory."""

    name: str
    results: Results
    glance: Mapping[str, str]
    sheets: Sequence[RenderedTable]
    plates: Sequence[PageFigure]
    undrawn: Mapping[str, str]
    bests: Sequence[Best]
    stories: Sequence[RunRestarts]
    with_restarts: int
    facts: Mapping[str, Tally]
    fingerprints: Sequence[Fingerprint]
    calls: Sequence[Calls]
    problems: Sequence[tuple[str, list[str]]]
    numbers: Mapping[Path, int]


def build_section(
    name: str, results: Results, read: RecordReader, drawings: Mapping[str, Drawing], svgs: Mapping[str, str]
) -> Section:
    """What the page tells of `results`, whose files begin with `name`; `svgs` are its figures that could be drawn."""
    numbers = {run.path: number for number, run in enumerate(results.runs, start=1)}
    told, with_restarts = collect_restarts(results, read)
    plates = [
        PageFigure(
            title=figure.capitalize(),
            caption=drawings[figure].caption,
            svg=inline_svg(svg, f"{name}-{figure}", f"{figure.capitalize()}: {drawings[figure].caption}"),
            files=f"figures/{name}-{figure}.svg, .pdf",
            runs=format_ranges([numbers[run.path] for run in drawings[figure].runs]),
        )
        for figure, svg in svgs.items()
    ]
    return Section(
        name=name,
        results=results,
        glance=summarize_report(results),
        sheets=build_tables(results),
        plates=plates,
        undrawn={figure: drawing.caption for figure, drawing in drawings.items() if drawing.figure is None},
        bests=select_best_runs(results),
        stories=told,
        with_restarts=with_restarts,
        facts=collect_facts(results.runs),
        fingerprints=collect_fingerprints(results),
        calls=collect_calls(results.runs, read),
        problems=collect_problems(results, read),
        numbers=numbers,
    )


def summarize_report(results: Results) -> dict[str, str]:
    """The report in a few figures."""
    outcomes = [run.outcome for run in results.runs if run.outcome]
    expected = sum(len(entry.seeds) for entry in results.entries.values())
    ledgers = [outcome.ledger for outcome in outcomes]
    made, unpriced = (sum(getattr(each, name) for each in ledgers) for name in ("mentor_calls", "unpriced_calls"))
    cost = format_dollars(sum(each.cost_usd for each in ledgers))
    if unpriced:
        cost = "unknown" if unpriced == made else f"≥ {cost}"
    dates = sorted(run.manifest.started[:10] for run in results.runs)
    return {
        "Runs": f"{len(outcomes)} of {expected} finished",
        "Metric": results.metric if results.metric != "metric" else "differs by column",
        **({"Compared with": results.reference} if results.reference else {}),
        "Time in all": format_duration(sum(outcome.seconds for outcome in outcomes)) if outcomes else "–",
        "Mentor": f"{format_count(made, 'call')}, {cost}" if outcomes else "–",
        "Started": " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "–",
    }


def render_page(sections: Sequence[Section], refresh: float | None = None) -> str:
    """The page. With `refresh` it loads itself anew each so many seconds."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=escape_value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(command_of=format_command, counted=format_count, MOST_PROMPTS=MOST_PROMPTS)
    environment.filters.update(
        prompt=lambda text: quote_prompt(text, LONGEST), named=partial(join_first, most=MOST_NAMED, between="; ")
    )
    page = environment.get_template("page.html.j2")
    return page.render(sections=sections, refresh=refresh)


def escape_value(value: Any) -> Any:
    """What the template puts out: text without control characters, on one line; a dash for what is not known."""
    if isinstance(value, Markup):
        return value
    return "–" if value is None else escape_controls(str(value))


def format_ranges(numbers: Sequence[int]) -> str:
    """'1–3, 7': numbers in order, those that follow each other as one range."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{first}–{last}" if last > first else str(first) for first, last in spans)


def inline_svg(svg: str, name: str, words: str) -> Markup:
    """Matplotlib's SVG as a part of the page: its ids are its own, and its ink and paper those of the page."""
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if local_name(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = local_name(element.tag)
        attributes = {local_name(key): value for key, value in element.attrib.items()}
        element.attrib.clear()
        element.attrib.update({key: replace_colours(key, value, name) for key, value in attributes.items()})
    root.attrib.update(role="img", **{"aria-label": escape_controls(words)})
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def local_name(name: str) -> str:
    """A name without its XML namespace."""
    return name.rpartition("}")[2]


def replace_colours(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    value = re.sub(r"^#|(?<=url\()#", f"#{name}-", value)
    if key == "style":
        for colour, variable in THEMED.items():
            value = value.replace(colour, variable)
    return value
