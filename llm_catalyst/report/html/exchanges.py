"""The page of all exchanges with mentors: request and answer side by side, and what became of the proposals.

Its filters are CSS, so that it runs no script. Texts of models and users are escaped as in the report's page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from llm_catalyst.report.html.page import open_environment
from llm_catalyst.report.results import Results
from llm_catalyst.report.runs import RecordReader
from llm_catalyst.runs.analysis import describe_call
from llm_catalyst.runs.consultations import DESCRIPTIONS, Consultation, collect_consultations
from llm_catalyst.runs.records import LLMCall
from llm_catalyst.utils.terminal import escape_paragraphs

MOST = 2000  # consultations on the page


@dataclass(frozen=True)
class Entry:
    """A consultation, the place of its run, and for each filter the value that it has."""

    place: str
    consultation: Consultation
    values: Mapping[str, str]


def render_exchanges(results: Sequence[Results], page: str) -> str | None:
    """The page as HTML, with the files that cannot be read; None where no language model was asked.

    `page` is the file of the report.
    """
    read = RecordReader()
    entries = [entry for one in results for entry in list_entries(one, read)]
    if not entries and not read.problems:
        return None
    shown = entries[:MOST]
    groups, marks = number_values(shown)
    environment = open_environment()
    environment.globals.update(describe=describe_call, descriptions=DESCRIPTIONS)
    environment.filters["paragraphs"] = lambda text: Markup(escape(escape_paragraphs(text)))  # keeps its line ends
    return environment.get_template("exchanges.html.j2").render(
        entries=[
            {"place": entry.place, "consultation": entry.consultation, "marks": own}
            for entry, own in zip(shown, marks, strict=True)
        ],
        groups=groups,
        left_out=len(entries) - len(shown),
        problems=read.problems,
        page=page,
    )


def list_entries(results: Results, read: RecordReader) -> list[Entry]:
    """The consultations of all runs, in the order of the table."""
    entries = []
    for cell in results.cells.values():
        for run in cell.runs:
            if not read(run, LLMCall):
                continue
            for one in collect_consultations(read.records(run)):
                values = {
                    "Entry": cell.row,
                    "Column": cell.column,
                    "Stage": f"after stage {one.stage + 1}",
                    "Status": one.status,
                    "What became": DESCRIPTIONS[one.fate],
                }
                entries.append(Entry(cell.label(run), one, values))
    return entries


def number_values(entries: Sequence[Entry]) -> tuple[list[dict[str, Any]], list[list[str]]]:
    """The filters with more than one value, and for each entry the marks of its values: names that CSS can carry."""
    found: dict[str, dict[str, str]] = {}  # by filter: the mark of each value
    for entry in entries:
        for number, (name, value) in enumerate(entry.values.items()):
            of = found.setdefault(name, {})
            of.setdefault(value, f"f{number}-{len(of)}")
    groups = [
        {"name": name, "key": f"f{number}", "of": {mark: value for value, mark in of.items()}}
        for number, (name, of) in enumerate(found.items())
        if len(of) > 1
    ]
    return groups, [[found[name][value] for name, value in entry.values.items()] for entry in entries]
