"""Headings, indented text and small tables for the terminal."""

from collections.abc import Sequence

from rich.padding import Padding
from rich.table import Table
from rich.text import Text


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
            table.add_column(name, overflow="fold", ratio=1)
        else:
            table.add_column(name, justify="right", no_wrap=True)
    return table


def make_pairs(rows: Sequence[tuple[str, Text]]) -> Padding:
    """Names on the left, and on the right their values, which wrap."""
    table = Table.grid(padding=(0, 2, 0, 0), expand=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return Padding(table, (0, 0, 0, 2), expand=False)
