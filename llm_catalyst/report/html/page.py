"""The page of a report: one HTML file that needs no network and runs no script.

The template escapes all texts of models and users, and control characters become visible. Only the figures are markup,
written by Matplotlib and adapted by `inline_svg`.
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
from llm_catalyst.report.html.restarts import MOST_PROMPTS, BestRun, RunRestarts, collect_restarts, select_best_runs
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
    """A figure on the page; `runs` are the numbers of the runs in it, as ranges."""

    title: str
    caption: str
    svg: Markup
    files: str
    runs: str


@dataclass(frozen=True)
class Section:
    """A part of the page: one of the report's results; `numbers` are the numbers of its runs, by directory."""

    name: str
    results: Results
    glance: Mapping[str, str]
    tables: Sequence[RenderedTable]
    figures: Sequence[PageFigure]
    undrawn: Mapping[str, str]
    best_runs: Sequence[BestRun]
    restarts: Sequence[RunRestarts]
    with_restarts: int
    facts: Mapping[str, Tally]
    fingerprints: Sequence[Fingerprint]
    calls: Sequence[Calls]
    problems: Sequence[tuple[str, list[str]]]
    numbers: Mapping[Path, int]


def build_section(
    name: str, results: Results, read: RecordReader, drawings: Mapping[str, Drawing], svgs: Mapping[str, str]
) -> Section:
    """The section of `results`, whose files begin with `name`; `svgs` are the figures that have data."""
    numbers = {run.path: number for number, run in enumerate(results.runs, start=1)}
    restarts, with_restarts = collect_restarts(results, read)
    figures = [
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
        tables=build_tables(results),
        figures=figures,
        undrawn={figure: drawing.caption for figure, drawing in drawings.items() if drawing.figure is None},
        best_runs=select_best_runs(results),
        restarts=restarts,
        with_restarts=with_restarts,
        facts=collect_facts(results.runs),
        fingerprints=collect_fingerprints(results),
        calls=collect_calls(results.runs, read),
        problems=collect_problems(results, read),
        numbers=numbers,
    )


def summarize_report(results: Results) -> dict[str, str]:
    """The facts at the head of a section, by name."""
    outcomes = [run.outcome for run in results.runs if run.outcome]
    expected = sum(len(cell.seeds) for cell in results.cells.values())
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
    """The page as HTML; with `refresh` it reloads itself after that many seconds."""
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
    """A value of the template as text without control characters, on one line; a dash for None."""
    if isinstance(value, Markup):
        return value
    return "–" if value is None else escape_controls(str(value))


def format_ranges(numbers: Sequence[int]) -> str:
    """Numbers in order, successive ones as a range: '1–3, 7'."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{first}–{last}" if last > first else str(first) for first, last in spans)


def inline_svg(svg: str, name: str, words: str) -> Markup:
    """Matplotlib's SVG as a part of the page: with unique ids, and with the page's colours for ink and paper."""
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if local_name(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = local_name(element.tag)
        attributes = {local_name(key): value for key, value in element.attrib.items()}
        element.attrib.clear()
        element.attrib.update({key: adapt_attribute(key, value, name) for key, value in attributes.items()})
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
