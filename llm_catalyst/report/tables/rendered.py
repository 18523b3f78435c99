"""A table of text in rows and columns, written for a terminal, in Markdown and in LaTeX."""

import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.text import Text

from llm_catalyst.utils.terminal import escape_controls, make_columns

BETWEEN = 2  # cells between two columns of `make_columns`
NAME = 16  # cells of a name's longest unbroken word
# What LaTeX needs for a sign. [ ] * are in braces: behind the \\ of the line before they would be its options.
LATEX = str.maketrans(json.loads(Path(__file__).with_name("latex.json").read_text(encoding="utf-8")))
LATEX_TABLE = Template(Path(__file__).with_name("table.tex").read_text(encoding="utf-8"))
NARROW = 5  # columns of a table that fits one column of a two-column paper
LATIN = 0x17F  # the last letter that pdfLaTeX knows without further packages
# Markup of GitHub's Markdown within a line, and at the beginning of a note.
INLINE = re.compile(r"([\\`*_{}\[\]#|~$])")
BLOCK = re.compile(r"^(\d*)([-+=.)])(?=[\s-]|$)")


@dataclass(frozen=True)
class Field:
    """A field of a table; style `dim` is for unknown values, `cited` for published ones."""

    text: str
    style: Literal["", "bold", "dim", "cited"] = ""


@dataclass(frozen=True)
class RenderedTable:
    """A table of text, ready to be written.

    Args:
        name: for file names and labels.
        title: the first part of the caption.
        headings: one for each column.
        lines: the fields of each line, one for each column.
        made_by: the command that made its runs.
        notes: further sentences of the caption.
        warnings: the last sentences of the caption.
        problems: for the author of the table; no part of a LaTeX caption.
        texts: how many of the first columns hold names, which are left-aligned.
    """

    name: str
    title: str
    headings: Sequence[str]
    lines: Sequence[Sequence[Field]]
    made_by: str
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    problems: Sequence[str] = ()
    texts: int = 1

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        styles = {"": "", "bold": "bold", "dim": "dim", "cited": "dim italic"}
        yield from (Text(escape_controls(self.title), "bold"), Text())
        for block in split_columns(self, options.max_width):
            grid = make_columns()
            for number, cells in block.items():
                side: JustifyMethod = "left" if number < self.texts else "right"
                heading = Text(escape_controls(self.headings[number]))
                grid.add_column(heading, justify=side, overflow="fold", width=cells)
            for line in self.lines:
                grid.add_row(*(Text(escape_controls(line[n].text), styles[line[n].style]) for n in block))
            yield from (grid, Text())
        yield from (Text(escape_controls(note), "dim") for note in (*self.notes, f"Made by: {self.made_by}"))
        yield from (Text(escape_controls(warning), "yellow") for warning in (*self.warnings, *self.problems))


def split_columns(table: RenderedTable, width: int) -> list[dict[int, int | None]]:
    """The columns by blocks, each with its width in cells; a block repeats the names and fits the terminal.

    Names and headings wrap between words, figures do not. If a block is still too wide, its widths are None, and rich
    breaks words.
    """
    wished, least = [], []
    for number, heading in enumerate(table.headings):
        fields = [escape_controls(line[number].text) for line in table.lines]
        texts = [escape_controls(heading), *fields]
        longest = max((cell_len(word) for text in texts for word in text.split()), default=0)
        # One cell at least: a letter may take none, and rich shows no column without a cell.
        wished.append(max(1, *map(cell_len, texts)))
        least.append(max(1, min(longest, NAME)) if number < table.texts else max(1, longest, *map(cell_len, fields)))
    names = list(range(table.texts))
    groups = [list(names)]
    for number in range(table.texts, len(table.headings)):
        if groups[-1] != names and sum(least[n] + BETWEEN for n in (*groups[-1], number)) > width + BETWEEN:
            groups.append(list(names))
        groups[-1].append(number)
    return [fit_widths({n: (least[n], wished[n]) for n in group}, width) for group in groups]


def fit_widths(bounds: Mapping[int, tuple[int, int]], width: int) -> dict[int, int | None]:
    """The width of each column, between its least and its wished width; None for all if the least do not fit."""
    spare = width + BETWEEN - sum(least + BETWEEN for least, _ in bounds.values())
    if spare < 0:
        return dict.fromkeys(bounds)
    cells: dict[int, int | None] = {}
    for number, (least, wished) in bounds.items():
        cells[number] = width = least + max(0, min(spare, wished - least))
        spare -= width - least
    return cells


def render_markdown(table: RenderedTable) -> str:
    """The table in GitHub's Markdown, between a title and a list of notes."""

    def line(fields: Iterable[str]) -> str:
        return f"| {' | '.join(fields)} |"

    sides = ["---" if number < table.texts else "---:" for number in range(len(table.headings))]
    head = [f"### {escape_markdown(table.title)}", "", line(map(escape_markdown, table.headings)), line(sides)]
    rows = [line(map(format_markdown, fields)) for fields in table.lines]
    below = [f"- {escape_markdown(note)}" for note in (*table.notes, f"Made by: {table.made_by}")]
    below += [f"- **Note:** {escape_markdown(warning)}" for warning in (*table.warnings, *table.problems)]
    return "\n".join([*head, *rows, "", *below]) + "\n"


def format_markdown(field: Field) -> str:
    """A field in Markdown."""
    text = escape_markdown(field.text)
    sign = {"bold": "**", "cited": "*"}.get(field.style, "") if text else ""
    return f"{sign}{text}{sign}"


def escape_markdown(text: str) -> str:
    """Text escaped for Markdown, on one line."""
    return BLOCK.sub(r"\1\\\2", INLINE.sub(r"\\\1", html.escape(escape_controls(text.strip()), quote=False)))


def render_latex(table: RenderedTable, label: str) -> str:
    """A table environment with booktabs' lines; title, notes and warnings are its caption."""
    words = [text if text.endswith(".") else f"{text}." for text in (table.title, *table.notes, *table.warnings)]
    return LATEX_TABLE.substitute(
        comments="".join(f"% {escape_controls(line)}\n" for line in (f"made by: {table.made_by}", *table.problems)),
        kind="table*" if len(table.headings) > NARROW else "table",
        caption=escape_latex(" ".join(words)),
        label=re.sub("[^a-zA-Z0-9]+", "-", label),
        sides="".join("l" if number < table.texts else "r" for number in range(len(table.headings))),
        headings=" & ".join(map(escape_latex, table.headings)),
        lines="".join(f"    {' & '.join(map(format_latex, line))} \\\\\n" for line in table.lines),
    )


def format_latex(field: Field) -> str:
    """A field in LaTeX."""
    text = escape_latex(field.text)
    command = {"bold": r"\textbf", "cited": r"\textit"}.get(field.style, "") if text else ""
    return f"{command}{{{text}}}" if command else text


def escape_latex(text: str) -> str:
    """Text escaped for LaTeX, on one line."""
    return re.sub("-(?=-)", "-{}", escape_controls(text).translate(LATEX))


def needs_unicode_latex(text: str) -> bool:
    """Whether the text has letters that pdfLaTeX does not know, so that LuaLaTeX or XeLaTeX is needed."""
    return any(ord(letter) > LATIN and ord(letter) not in LATEX for letter in text)
