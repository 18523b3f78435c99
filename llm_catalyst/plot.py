"""Small line plots in braille characters: two by four dots a cell, no dependency but rich's Text."""

import math
import re
from collections.abc import Sequence

from rich.text import Text

Point = tuple[float, float]
Range = tuple[float, float]

# The bit of each dot in U+2800 + bits: row by row, left and right.
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def span(values: Sequence[float]) -> Range:
    """The smallest and largest value, never the same."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1))


def position(value: float, over: Range, cells: int) -> int:
    """Which of `cells` equal parts of the range a value lies in; outside of the range, the nearest one."""
    share = (value - over[0]) / (over[1] - over[0])
    return min(cells - 1, max(0, math.floor(share * (cells - 1) + 0.5)))


def braille(lines: Sequence[Sequence[Point]], width: int, height: int, x: Range, y: Range) -> list[list[int]]:
    """`height` rows of `width` cells' dots, with each of the lines drawn through its points."""
    cells = [[0] * width for _ in range(height)]
    for line in lines:
        dots = [(position(a, x, 2 * width), 4 * height - 1 - position(b, y, 4 * height)) for a, b in line]
        for (left, top), (right, bottom) in zip(dots, [*dots[1:], *dots[-1:]], strict=True):
            steps = max(abs(right - left), abs(bottom - top), 1)
            for i in range(steps + 1):
                column, row = round(left + (right - left) * i / steps), round(top + (bottom - top) * i / steps)
                cells[row // 4][column // 2] |= DOTS[row % 4][column % 2]
    return cells


def plot(
    lines: Sequence[Sequence[Point]],
    width: int,
    height: int,
    x: Range,
    y: Range,
    *,
    marks: Sequence[float] = (),
    level: float | None = None,
    style: str = "cyan",
) -> list[Text]:
    """`height` lines of text: the curves, dashes upright at `marks` on x, and across at `level` on y."""
    upright = {position(mark, x, width) for mark in marks}
    across = None if level is None or not y[0] <= level <= y[1] else height - 1 - position(level, y, height)
    rows = []
    for number, row in enumerate(braille(lines, width, height, x, y)):
        empty = "╌" if number == across else " "
        plain = "".join(
            chr(0x2800 + dots) if dots else "┊" if column in upright else empty for column, dots in enumerate(row)
        )
        text = Text(plain, "dim", no_wrap=True)
        for curve in re.finditer("[\u2801-\u28ff]+", plain):
            text.stylize(f"not dim {style}", *curve.span())
        rows.append(text)
    return rows
