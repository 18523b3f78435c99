"""A table as text in rows and columns, and how it is written: in a terminal, in Markdown, in LaTeX."""

import html
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderableType, RenderResult
from rich.table import Table as Grid
from rich.text import Text

from llm_catalyst.utils.terminal import escape_controls

BETWEEN, NAME = 2, 16  # cells between two columns of a terminal, and of a name's longest word before it is broken
LATEX = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        **{sign: f"{{{sign}}}" for sign in "[]*"},  # behind the \\ of the line before they would be its options
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "`": r"\textasciigrave{}",
        '"': r"\char34{}",
        "–": r"\textendash{}",
        "—": r"\textemdash{}",
        "…": r"\ldots{}",
        "±": r"$\pm$",
        "−": r"$-$",
        "≥": r"$\geq$",
        "·": r"$\cdot$",
        "×": r"$\times$",
    }
)
NARROW = 5  # columns of a table that has room in one column of a two-column paper
LATIN = 0x17F  # the last letter that pdfLaTeX knows without further packages
# What means something within a line of GitHub's Markdown, and what does at the beginning of a note.
INLINE = re.compile(r"([\\`*_{}\[\]#|~$])")
BLOCK = re.compile(r"^(\d*)([-+=.)])(?=[\s-]|$)")


@dataclass(frozen=True)
class Field:
    """What stands in one place of a table. `dim` is for what is not known, `cited` for what is not of these runs."""

    text: str
    style: Literal["", "bold", "dim", "cited"] = ""


@dataclass(frozen=True)
class RenderedTable:
    """A table ready to be written: under its headings lines of as many fields, the first `texts` of them no figures.

    `notes` and `warnings` belong to its caption; `problems` are for whoever made it, with the command `made_by`.
    """

    name: str
    title: str
    headings: tuple[str, ...]
    lines: tuple[tuple[Field, ...], ...]
    made_by: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    texts: int = 1

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from in_terminal(self, options.max_width)


def in_terminal(sheet: RenderedTable, width: int) -> Iterator[RenderableType]:
    """The table for a terminal of so many cells."""
    styles = {"": "", "bold": "bold", "dim": "dim", "cited": "dim italic"}
    yield from (Text(escape_controls(sheet.title), "bold"), Text())
    for block in split_columns(sheet, width):
        grid = Grid(box=None, pad_edge=False, padding=(0, BETWEEN, 0, 0), header_style="dim", show_edge=False)
        for number, cells in block.items():
            side: JustifyMethod = "left" if number < sheet.texts else "right"
            heading = Text(escape_controls(sheet.headings[number]))
            grid.add_column(heading, justify=side, overflow="fold", width=cells)
        for line in sheet.lines:
            grid.add_row(*(Text(escape_controls(line[number].text), styles[line[number].style]) for number in block))
        yield from (grid, Text())
    yield from (Text(escape_controls(note), "dim") for note in (*sheet.notes, f"Made by: {sheet.made_by}"))
    yield from (Text(escape_controls(warning), "yellow") for warning in (*sheet.warnings, *sheet.problems))


def split_columns(sheet: RenderedTable, width: int) -> list[dict[int, int | None]]:
    """The columns that stand side by side, and their cells; what finds no room is a block below, with the names again.

    Names and headings wrap between words, figures do not. Where even that is too wide, cells are None: rich then breaks
    what it must.
    """
    wished, least = [], []
    for number, heading in enumerate(sheet.headings):
        fields = [escape_controls(line[number].text) for line in sheet.lines]
        texts = [escape_controls(heading), *fields]
        longest = max((cell_len(word) for text in texts for word in text.split()), default=0)
        # One cell at least: a letter may take none, and rich shows no column without a cell.
        wished.append(max(1, *map(cell_len, texts)))
        least.append(max(1, min(longest, NAME)) if number < sheet.texts else max(1, longest, *map(cell_len, fields)))
    names = list(range(sheet.texts))
    groups = [list(names)]
    for number in range(sheet.texts, len(sheet.headings)):
        if groups[-1] != names and sum(least[n] + BETWEEN for n in (*groups[-1], number)) > width + BETWEEN:
            groups.append(list(names))
        groups[-1].append(number)
    return [fit_widths({n: (least[n], wished[n]) for n in group}, width) for group in groups]


def fit_widths(bounds: Mapping[int, tuple[int, int]], width: int) -> dict[int, int | None]:
    """Cells between the least and the wished ones of each column, the first served first; None where none fit."""
    spare = width + BETWEEN - sum(least + BETWEEN for least, _ in bounds.values())
    if spare < 0:
        return dict.fromkeys(bounds)
    cells: dict[int, int | None] = {}
    for number, (least, wished) in bounds.items():
        more = max(0, min(spare, wished - least))
        cells[number] = least + more
        spare -= more
    return cells


def escape_markdown(sheet: RenderedTable) -> str:
    """The table in GitHub's Markdown, between a title and a list of notes."""

    def line(fields: Iterable[str]) -> str:
        return f"| {' | '.join(fields)} |"

    sides = ["---" if number < sheet.texts else "---:" for number in range(len(sheet.headings))]
    head = [f"### {plain_markdown(sheet.title)}", "", line(map(plain_markdown, sheet.headings)), line(sides)]
    rows = [line(map(mark_field, fields)) for fields in sheet.lines]
    below = [f"- {plain_markdown(note)}" for note in (*sheet.notes, f"Made by: {sheet.made_by}")]
    below += [f"- **Note:** {plain_markdown(warning)}" for warning in (*sheet.warnings, *sheet.problems)]
    return "\n".join([*head, *rows, "", *below]) + "\n"


def mark_field(field: Field) -> str:
    text = plain_markdown(field.text)
    sign = {"bold": "**", "cited": "*"}.get(field.style, "") if text else ""
    return f"{sign}{text}{sign}"


def plain_markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return BLOCK.sub(r"\1\\\2", INLINE.sub(r"\\\1", html.escape(escape_controls(text.strip()), quote=False)))


def escape_latex(sheet: RenderedTable, label: str) -> str:
    """A table environment with booktabs' lines; title, notes and warnings are its caption."""
    words = [text if text.endswith(".") else f"{text}." for text in (sheet.title, *sheet.notes, *sheet.warnings)]
    sides = "".join("l" if number < sheet.texts else "r" for number in range(len(sheet.headings)))
    kind = "table*" if len(sheet.headings) > NARROW else "table"
    return "\n".join(
        [
            *(f"% {escape_controls(line)}" for line in (f"made by: {sheet.made_by}", *sheet.problems)),
            rf"\begin{{{kind}}}",
            r"  \centering",
            rf"  \caption{{{plain_latex(' '.join(words))}}}",
            rf"  \label{{tab:{re.sub(r'[^a-zA-Z0-9]+', '-', label)}}}",
            rf"  \begin{{tabular}}{{{sides}}}",
            r"    \toprule",
            f"    {' & '.join(map(plain_latex, sheet.headings))} \\\\",
            r"    \midrule",
            *(f"    {' & '.join(map(set_in_latex, line))} \\\\" for line in sheet.lines),
            r"    \bottomrule",
            r"  \end{tabular}",
            rf"\end{{{kind}}}",
            "",
        ]
    )


def set_in_latex(field: Field) -> str:
    text = plain_latex(field.text)
    command = {"bold": r"\textbf", "cited": r"\textit"}.get(field.style, "") if text else ""
    return f"{command}{{{text}}}" if command else text


def plain_latex(text: str) -> str:
    """Text that LaTeX sets as it is, on one line."""
    return re.sub("-(?=-)", "-{}", escape_controls(text).translate(LATEX))


def beyond_latin(text: str) -> bool:
    """Whether pdfLaTeX would stop at a letter of the text, and LuaLaTeX or XeLaTeX are needed."""
    return any(ord(letter) > LATIN and ord(letter) not in LATEX for letter in text)
