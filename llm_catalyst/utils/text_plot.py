"""Small plots as text, of block and box-drawing characters, which (unlike braille) every monospaced font has."""

import math
import re
from collections.abc import Mapping, Sequence, Set

from rich.text import Text

Point = tuple[float, float]
Range = tuple[float, float]

BLOCKS = " ▁▂▃▄▅▆▇█"


def value_span(values: Sequence[float]) -> Range:
    """The smallest and the largest value, widened by a twentieth each way if they are equal."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.05 * (abs(low) or 1), high + 0.05 * (abs(high) or 1))


def cell_index(value: float, over: Range, cells: int) -> int:
    """The nearest of `cells` positions across a range to a value."""
    share = (value - over[0]) / (over[1] - over[0])
    return min(cells - 1, max(0, math.floor(share * (cells - 1) + 0.5)))


def columns_of(lines: Sequence[Sequence[Point]], width: int, x: Range) -> dict[int, float]:
    """The value at each column that a line passes, with its points joined; where two lines meet, that of the later."""
    values: dict[int, float] = {}
    for line in lines:
        places = [(cell_index(a, x, width), b) for a, b in line]
        for (left, a), (right, b) in zip(places, [*places[1:], *places[-1:]], strict=True):
            for column in range(left, right + 1):
                values[column] = a + (b - a) * (column - left) / (right - left) if right > left else b
    return values


def draw_area(
    points: Sequence[Point], width: int, height: int, x: Range, y: Range, marks: Sequence[float], style: str
) -> list[Text]:
    """The area below the points as `height` lines of text, eight levels a line; upright dashes at `marks` on x."""
    levels = {c: 1 + cell_index(v, y, 8 * height) for c, v in columns_of([points], width, x).items()}
    cells = {
        (row, column): BLOCKS[min(8, eighths)]
        for column, level in levels.items()
        for row in range(height)
        if (eighths := level - 8 * (height - 1 - row)) > 0
    }
    return draw_cells(cells, width, height, {cell_index(mark, x, width) for mark in marks}, None, style)


def draw_curve(
    lines: Sequence[Sequence[Point]],
    width: int,
    height: int,
    x: Range,
    y: Range,
    marks: Sequence[float],
    level: float | None,
    style: str,
) -> list[Text]:
    """A line through the points, as `height` lines of text; dashes upright at `marks` on x, across at `level` on y."""
    rows = {c: height - 1 - cell_index(v, y, height) for c, v in columns_of(lines, width, x).items()}
    cells = {}
    for column, row in rows.items():
        before = rows.get(column - 1, row)
        for between in range(min(row, before) + 1, max(row, before)):
            cells[between, column] = "│"
        cells[before, column] = "╮" if before < row else "╯"
        cells[row, column] = "─" if before == row else "╰" if before < row else "╭"
    across = None if level is None else height - 1 - cell_index(level, y, height)
    return draw_cells(cells, width, height, {cell_index(mark, x, width) for mark in marks}, across, style)


def draw_cells(
    cells: Mapping[tuple[int, int], str], width: int, height: int, upright: Set[int], across: int | None, style: str
) -> list[Text]:
    """Lines of text from the characters at (row, column), with dashes behind them."""
    lines = []
    for row in range(height):
        behind = "╌" if row == across else " "
        plain = "".join(cells.get((row, c)) or ("┊" if c in upright else behind) for c in range(width))
        text = Text(plain, "dim", no_wrap=True)
        for drawn in re.finditer("[^ ┊╌]+", plain):
            text.stylize(f"not dim {style}", *drawn.span())
        lines.append(text)
    return lines
