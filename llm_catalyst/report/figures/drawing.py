"""The style of figures: one column of a paper wide, readable without colour, the same bytes for the same data.

In an SVG, text stays text (`svg.fonttype: none`): it can be searched, selected and edited, and has the reader's
sans-serif font. A PDF embeds its font as TrueType (42), which publishers ask for.
"""

import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from typing_extensions import Self

from llm_catalyst.report.results import Place, Results
from llm_catalyst.report.runs import Run
from llm_catalyst.utils.format import format_compact, shorten_apart, shorten_middle
from llm_catalyst.utils.terminal import escape_controls

WIDTH = 3.3  # inches: one column of a two-column paper
INK, FAINT, PAPER = "#262626", "#d4d4d4", "#ffffff"
# Okabe & Ito's palette, which stays apart for colour-blind readers, without its black and its yellow.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LEGEND = 40  # characters of a row's name
MOST_ROWS, MOST_COLUMNS = len(COLOURS), 8
DASHES = ("solid", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 2)))

STYLE = Path(__file__).with_name("report.mplstyle")


@dataclass(frozen=True)
class Drawing:
    """A figure with its caption and the runs in it; without a figure, the caption says why there is none."""

    caption: str
    figure: Figure | None = None
    runs: Sequence[Run] = ()


@dataclass(frozen=True, eq=False)
class RowSelection(Results):
    """The rows and columns of a figure; `drawable` are all rows that have a colour, with and without data."""

    drawable: tuple[str, ...] = ()

    def style(self, row: str) -> dict[str, Any]:
        """Colour, marker and dashes of a row: the same in all figures."""
        return row_style(self.drawable.index(row))

    def legend(self, **changes: Any) -> list[Line2D]:
        """A legend entry for each row."""
        names = shorten_labels(self.rows, LEGEND)
        return [
            legend_entry(self.drawable.index(row), name, **changes) for row, name in zip(self.rows, names, strict=True)
        ]

    def rows_with(self, data: Mapping[str, object]) -> Self:
        """The part with only the rows whose data are not empty."""
        return self.select(row for row in self.rows if data[row])

    def places_with(self, data: Mapping[Place, object]) -> Self:
        """The part with only the rows and columns in which some place's data are not empty."""
        rows = [row for row in self.rows if any(data[row, column] for column in self.columns)]
        return self.select(rows, [column for column in self.columns if any(data[row, column] for row in self.rows)])

    @property
    def left_out(self) -> str:
        """A sentence on the rows and columns that are not shown; '' if all are."""
        rows, columns = (len({place[side] for place in self.cells}) for side in (0, 1))
        words = []
        if rows > MOST_ROWS:
            first = f"{shorten_label(self.reference, 40)} and " if self.reference else ""
            words.append(f"{MOST_ROWS} of {rows} rows, {first}the best on dev")
        if columns > MOST_COLUMNS:
            words.append(f"the first {MOST_COLUMNS} of {columns} columns")
        return f" Drawn: {', and '.join(words)}." if words else ""


def select_rows(results: Results) -> RowSelection:
    """All rows and columns; of too many rows the reference and the best on dev, of too many columns the first."""
    rows = results.rows
    if len(rows) > MOST_ROWS:
        ranked = sorted(rows, key=lambda row: (row == results.reference, mean_dev_metric(results, row)), reverse=True)
        rows = tuple(row for row in rows if row in ranked[:MOST_ROWS])
    return RowSelection(**{**vars(results), "rows": rows, "columns": results.columns[:MOST_COLUMNS]}, drawable=rows)


def mean_dev_metric(results: Results, row: str) -> float:
    """The row's mean metric on dev over all its finished runs; -1 if there is none."""
    scores = [outcome.best.score.metric for outcome in results.select([row]).outcomes if outcome.best]
    return fmean(scores) if scores else -1.0


@contextmanager
def matplotlib_style() -> Iterator[None]:
    """Set the style of figures, independent of the user's settings; a letter that the font lacks is no warning."""
    with matplotlib.style.context(["default", STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def make_panels(
    titles: Sequence[str], keys: Sequence[Line2D] = (), height: float = 0.0, x: str = "", y: str = "", room: int = 20
) -> tuple[Figure, list[Axes]]:
    """A figure one column wide with a panel for each title, two side by side, below a legend of `keys`.

    Args:
        titles: one for each panel.
        keys: the entries of the legend.
        height: of a row of panels, in inches; 0 chooses it.
        x: the label of all x axes.
        y: the label of all y axes.
        room: characters of a line of a title, where two panels stand side by side; there are two lines.
    """
    across = min(2, len(titles))
    down = math.ceil(len(titles) / across)
    abreast = legend_columns([str(key.get_label()) for key in keys])
    legend = 0.15 * math.ceil(len(keys) / abreast) + 0.05 if keys else 0.0
    below = 0.2 + down * (height or (1.9 if across == 1 else 1.35))
    figure = Figure(figsize=(WIDTH, below + legend), layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for axis in axes[len(titles) :]:
        axis.set_axis_off()
    room = 55 if across == 1 else room
    for axis, title in zip(axes, shorten_labels(titles, 2 * room), strict=False):
        axis.set_title(wrap_label(title, room))
    if x:
        figure.supxlabel(escape_controls(x), fontsize=7)
    if y:
        figure.supylabel(escape_controls(y), fontsize=7, y=below / (below + legend) / 2)  # beside the panels alone
    if keys:
        figure.legend(handles=list(keys), loc="outside upper left", ncols=abreast, columnspacing=1.0, handlelength=2.4)
    return figure, axes[: len(titles)]


def legend_columns(labels: Sequence[str]) -> int:
    """The number of legend entries that fit side by side, at about 0.05 inches a character."""
    longest = max((len(label) for label in labels), default=0)
    return max(1, min(len(labels), int(WIDTH / (0.05 * longest + 0.45))))


def legend_entry(number: int, name: str, **changes: Any) -> Line2D:
    """The legend's entry for the row of that number: its colour, marker and dashes."""
    return Line2D([], [], label=shorten_label(name, LEGEND), **(row_style(number) | changes))


def row_style(number: int) -> dict[str, Any]:
    """Colour, marker and dashes of the row of that number."""
    style = {"color": COLOURS, "marker": MARKERS, "linestyle": DASHES}
    own: dict[str, Any] = {name: values[number % MOST_ROWS] for name, values in style.items()}
    return own | {"markeredgecolor": PAPER, "markeredgewidth": 0.5}


def shorten_label(text: str, longest: int) -> str:
    """Text for a figure: on one line, control characters escaped, shortened in its middle to `longest` characters."""
    return shorten_middle(escape_controls(text), longest)


def shorten_labels(names: Sequence[str], longest: int) -> list[str]:
    """Names for a figure like `shorten_label`, of which different ones stay different."""
    return shorten_apart([escape_controls(name) for name in names], longest)


def wrap_label(text: str, width: int) -> str:
    """The text on one line or two, broken at a blank where both then have at most `width` characters."""
    if len(text) <= width:
        return text
    blanks = [i for i, sign in enumerate(text) if sign == " " and i <= width and len(text) - i - 1 <= width]
    if blanks:
        return f"{text[: blanks[-1]]}\n{text[blanks[-1] + 1 :]}"
    return f"{text[:width]}\n{text[width:]}"


def limit_ticks(axis: Axes, whole_x: bool = False) -> None:
    """Set at most five ticks on each axis, with short numbers; on x only at whole numbers if `whole_x`."""
    for side, whole in ((axis.xaxis, whole_x), (axis.yaxis, False)):
        fewest = 1 if whole else 2  # the locator divides whole numbers rather than set fewer
        side.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10], integer=whole, min_n_ticks=fewest))
        side.set_major_formatter(lambda value, _: format_compact(value))


def end_at_bounds(axis: Axes, side: Literal["x", "y"] = "y") -> None:
    """End an axis of metrics, which lie in [0, 1], at these bounds where its margins or error bars lead beyond them."""
    low, high = axis.get_ylim() if side == "y" else axis.get_xlim()
    limits = max(0.0, low), min(1.0, high)
    _ = axis.set_ylim(limits) if side == "y" else axis.set_xlim(limits)


def name_rows(axes: Sequence[Axes], names: Sequence[str]) -> None:
    """Name the places of the y axes, on the left panels only: the first at the top, at 0, the others at 1, 2, …"""
    short = shorten_labels(names, 30 if len(axes) == 1 else 24)
    for number, axis in enumerate(axes):
        axis.set_yticks(range(len(names)), [name if number % 2 == 0 else "" for name in short])
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.tick_params("y", length=0)


def save_figure(figure: Figure) -> tuple[str, bytes]:
    """The figure as SVG and as PDF, laid out once; neither holds a date."""
    svg, pdf = io.StringIO(), io.BytesIO()
    with matplotlib_style():
        figure.savefig(svg, format="svg", metadata={"Date": None})
        figure.set_layout_engine("none")
        figure.savefig(pdf, format="pdf", metadata={"CreationDate": None})
    return svg.getvalue(), pdf.getvalue()
