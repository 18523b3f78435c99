"""Text for the terminal: escapes for what models, vocabularies and files hold; headings, indents and small tables."""

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from llm_catalyst.utils.format import join_first, shorten_text

UNBROKEN = 10_000  # columns of what is no terminal


def escape_controls(text: str) -> str:
    """`text` on one line: line ends, control, bidirectional and invisible characters become visible escapes (\\x1b)."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def quote_prompt(text: str, longest: int | None = None) -> str:
    """A prompt between quotation marks, which show blanks at its ends; shortened to `longest` characters if given."""
    shown = escape_controls(text)
    return f'"{shown if longest is None else shorten_text(shown, longest)}"'


def escape_paragraphs(text: str) -> str:
    """`text` with its line ends kept, tabs expanded, and each line escaped by `escape_controls`."""
    return "\n".join(escape_controls(line.expandtabs(4)) for line in text.replace("\r\n", "\n").split("\n"))


def open_console(stderr: bool = False) -> Console:
    """A console that breaks no line where its output goes into a pipe or a file, unless COLUMNS gives a width."""
    stream = sys.stderr if stderr else sys.stdout
    wraps = bool(os.environ.get("COLUMNS")) or (stream is not None and stream.isatty())
    return Console(stderr=stderr, width=None if wraps else UNBROKEN)


@dataclass(frozen=True)
class UnbrokenPairs:
    """Names and values as `make_pairs` lays them out, each on one line that only a terminal breaks: paths, commands.

    To be printed with crop=False. A picture has no terminal around it, and gets lines that wrap.
    """

    rows: Mapping[str, str]
    style: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if console.record:
            yield make_pairs({name: Text(value, self.style) for name, value in self.rows.items()})
            return
        widest = max(map(len, self.rows))
        for name, value in self.rows.items():
            line = Text.assemble((f"  {name:{widest}}  ", "dim"), (value, self.style))
            line.no_wrap, line.overflow = True, "ignore"
            yield line


def make_heading(text: str) -> list[Text]:
    """The first lines of a section."""
    return [Text(), Text(text, "bold")]


def indent_text(text: Text) -> Padding:
    """Text that wraps, indented by two columns."""
    text.overflow = "fold"
    return Padding(text, (0, 0, 0, 2), expand=False)


def make_columns(*names: str, wide: int | None = None) -> Table:
    """An empty table with right-aligned columns; column `wide` holds text, which wraps."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for number, name in enumerate(names):
        if number == wide:
            table.add_column(Text(name), overflow="fold")  # a plain str would be read as markup
        else:
            table.add_column(Text(name), justify="right", no_wrap=True)
    return table


def make_pairs(rows: Mapping[str, str | Text]) -> Padding:
    """Names on the left, and on the right their values, which wrap."""
    table = Table.grid(padding=(0, 2, 0, 0), expand=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, Text(value) if isinstance(value, str) else value)
    return Padding(table, (0, 0, 0, 2), expand=False)


def list_names(names: Iterable[str], most: int = 10) -> str:
    """The first names, printable and each shortened, and the number of the others."""
    return join_first([escape_controls(shorten_text(name, 60)) or "(no name)" for name in names], most)
