"""The figures of a report on scores and costs. Each function gets the results and a reader of the runs' records.

A figure without data is not drawn; its caption then says why.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from llm_catalyst.report.cell_statistics import MEASURES, values_by_seed
from llm_catalyst.report.curves import DevCurve, average_curve
from llm_catalyst.report.figures import drawing
from llm_catalyst.report.figures.drawing import INK, MOST_ROWS, Drawing, select_rows
from llm_catalyst.report.results import Place, Results
from llm_catalyst.report.runs import RecordReader
from llm_catalyst.runs.analysis import read_majority
from llm_catalyst.runs.records import Outcome
from llm_catalyst.utils.format import format_compact

MEAN = "mean over seeds, with bars of one sample standard deviation"
NO_SCORE = Drawing("no run has finished with a score")
# Measures by the words for them. Of PRICES the first is drawn that is known.
PRICES = {"US dollars for the mentor": "usd", "tokens of the mentor": "tokens", "seconds": "seconds"}
WORK = {
    "gradient steps": "steps",
    "examples trained": "trained",
    "examples scored": "scored",
    "mentor's tokens": "tokens",
}


def draw_convergence(results: Results, read: RecordReader) -> Drawing:
    """The metric on dev of the soft prompt over gradient steps, with its spread over seeds and the restarts."""
    finished, unfinished = dict[Place, DevCurve | None](), dict[Place, list[DevCurve]]()
    for place, cell in results.cells.items():
        finished[place] = average_curve([run for run in cell.runs if run.outcome], read)
        alone = [average_curve([run], read) for run in cell.runs if not run.outcome]
        unfinished[place] = [curve for curve in alone if curve]
    selection = select_rows(results).places_with({place: finished[place] or unfinished[place] for place in finished})
    if not selection.columns:
        return Drawing("no run has been scored on dev yet")
    keys, metric = selection.legend(), f"{results.metric} on dev"
    figure, axes = drawing.make_panels(selection.columns, keys, x="gradient steps", y=metric)
    levels = [majority_level(selection.select(columns=[column])) for column in selection.columns]
    for axis, column, level in zip(axes, selection.columns, levels, strict=True):
        for row in selection.rows:
            draw_mean_curve(axis, finished[row, column], selection.style(row))
            for curve in unfinished[row, column]:
                axis.plot(curve.steps, curve.mean, color=selection.style(row)["color"], lw=0.5)
        drawing.limit_ticks(axis)
        drawing.end_at_bounds(axis)
        if level:
            axis.axhline(level, color=INK, lw=0.6, ls=":")
    signs = ["markers: restarts"]
    signs += ["dotted: the majority class"] * any(levels) + ["thin: under way"] * any(unfinished.values())
    band = describe_band(finished)
    words = f"The soft prompt's {metric} over gradient steps; {band}; {'; '.join(signs)}."
    return Drawing(words + selection.left_out, figure, selection.runs)


def draw_projection(results: Results, read: RecordReader) -> Drawing:
    """The metric on dev of the soft prompt, and of its projection to tokens, along training."""
    soft, projected = (
        {place: average_curve(cell.runs, read, kind) for place, cell in results.cells.items()} for kind in (False, True)
    )
    selection = select_rows(results).places_with(projected)
    if not selection.columns:
        return Drawing("no run has scored its projected prompts along the way (evaluate.projected=true does)")
    keys = selection.legend(linestyle="none", marker="s")
    keys += [
        Line2D([], [], color=INK, ls=ls, label=f"{kind} prompt") for kind, ls in (("soft", "-"), ("projected", ":"))
    ]
    figure, axes = drawing.make_panels(selection.columns, keys, x="gradient steps", y=f"{results.metric} on dev")
    for axis, column in zip(axes, selection.columns, strict=True):
        for row in selection.rows:
            style = selection.style(row) | {"marker": "none"}
            draw_mean_curve(axis, soft[row, column], style | {"linestyle": "-"})
            draw_mean_curve(axis, projected[row, column], style | {"linestyle": ":"})
        drawing.limit_ticks(axis)
        drawing.end_at_bounds(axis)
    words = f"What projection to tokens loses: {results.metric} on dev of the soft prompt, and of its nearest tokens"
    return Drawing(f"{words}; {describe_band(projected)}.{selection.left_out}", figure, selection.runs)


def draw_mean_curve(axis: Axes, curve: DevCurve | None, style: Mapping[str, Any]) -> None:
    """Draw a row's mean line with a marker at each restart, and its spread as a band."""
    if curve is None:
        return
    axis.plot(curve.steps, curve.mean, markevery=list(curve.restarts), **style)
    if curve.std:
        spreads = [*zip(curve.mean, curve.std, strict=True)]
        low, high = ([min(1.0, max(0.0, mean + sign * std)) for mean, std in spreads] for sign in (-1, 1))
        axis.fill_between(curve.steps, low, high, color=style["color"], alpha=0.18, linewidth=0)


def describe_band(curves: Mapping[Place, DevCurve | None]) -> str:
    """A caption for line and band, with the number of seeds."""
    seeds = sorted({curve.seeds for curve in curves.values() if curve})
    if not seeds or seeds[-1] == 1:
        return "one seed, which has no spread"
    number = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return f"mean over {number} seeds, band: ± one sample standard deviation"


def majority_level(selection: Results) -> float | None:
    """The share of the largest class of dev, if the metric is accuracy and the share is the same for all runs."""
    levels = {read_majority(run.manifest) for run in selection.runs}
    return levels.pop() if len(levels) == 1 and selection.metric == "accuracy" else None


def draw_cost(results: Results, read: RecordReader) -> Drawing:
    """The reported metric against the cost of a run: US dollars, tokens or seconds, by what is known."""
    selection = select_rows(results).places_with(values_by_place(results))
    if not selection.columns:
        return NO_SCORE
    name, price = select_price(selection.outcomes)
    metric = f"{results.metric} on {selection.reported_on}"
    keys = selection.legend(linestyle="none")
    figure, axes = drawing.make_panels(selection.columns, keys, x=f"{name} per run", y=metric)
    for axis, column in zip(axes, selection.columns, strict=True):
        for row in selection.rows:
            cell = results.cells[row, column]
            scores, paid = values_by_seed(cell, "test"), values_by_seed(cell, price)
            prices = [paid[seed] for seed in scores if seed in paid]
            draw_mean(axis, prices, [*scores.values()], selection.style(row))
        axis.margins(0.15)
        drawing.limit_ticks(axis)
        drawing.end_at_bounds(axis)
    return Drawing(f"The {metric} against {name} per run: {MEAN}.{selection.left_out}", figure, selection.runs)


def draw_scores(results: Results, read: RecordReader) -> Drawing:
    """The reported metric of each row, run by run, with its mean and spread: the table of scores as a picture."""
    values = values_by_place(results)
    selection = select_rows(results).places_with(values)
    if not selection.columns:
        return NO_SCORE
    metric = f"{results.metric} on {selection.reported_on}"
    figure, axes = drawing.make_panels(selection.columns, height=0.45 + 0.16 * len(selection.rows), x=metric, room=14)
    for axis, column in zip(axes, selection.columns, strict=True):
        drawing.limit_ticks(axis)
        if results.reference and (reference := values[results.reference, column]):
            axis.axvline(fmean(reference), color=INK, lw=0.6, ls=":")
        for place, row in enumerate(selection.rows):
            own, style = values[row, column], selection.style(row)
            axis.plot(own, [place] * len(own), **(style | {"linestyle": "none", "markersize": 2.5, "alpha": 0.45}))
            draw_mean(axis, own, [place], style)
        drawing.end_at_bounds(axis, "x")
    drawing.name_rows(axes, selection.rows)
    dotted = f"; dotted: the mean of {drawing.shorten_label(results.reference, 40)}" if results.reference else ""
    words = f"The {metric} of each row: small, run by run; large, the {MEAN}{dotted}."
    return Drawing(words + selection.left_out, figure, selection.runs)


def values_by_place(results: Results) -> dict[Place, list[float]]:
    """The reported metric of the finished runs of each row and column."""
    return {place: [*values_by_seed(cell, "test").values()] for place, cell in results.cells.items()}


def select_price(outcomes: Sequence[Outcome]) -> tuple[str, str]:
    """The first of PRICES that is known for all runs, and not 0 for all: its words and its measure."""
    for name, measure in PRICES.items():
        paid = list(map(MEASURES[measure].read, outcomes))
        if None not in paid and any(paid):
            return name, measure
    return "seconds", PRICES["seconds"]


def draw_mean(axis: Axes, x: Sequence[float], y: Sequence[float], style: Mapping[str, Any]) -> None:
    """Draw the mean of a row with bars of one sample standard deviation each way; nothing if there are no values."""
    if x and y:
        bars = {"linestyle": "none", "elinewidth": 0.7}
        axis.errorbar(fmean(x), fmean(y), xerr=standard_deviation(x), yerr=standard_deviation(y), **{**style, **bars})


def standard_deviation(values: Sequence[float]) -> float | None:
    """The sample standard deviation; None for a single value."""
    return stdev(values) if len(values) > 1 else None


def draw_sensitivity(results: Results, read: RecordReader) -> Drawing:
    """The reported metric over rows, or columns, that are numbers: a length, a count of rounds, a rate."""
    values, lines, numbers = values_by_place(results), results.columns, read_numbers(results.rows)
    if not numbers:
        values = {(column, row): scores for (row, column), scores in values.items()}
        lines, numbers = results.rows, read_numbers(results.columns)
    if not numbers:
        return Drawing("neither the rows nor the columns are numbers")
    points = {
        line: [(x, scores) for name, x in numbers.items() if (scores := values[name, line])]
        for line in lines[:MOST_ROWS]
    }
    if not any(points.values()):
        return NO_SCORE
    keys = [drawing.legend_entry(i, name) for i, name in enumerate(drawing.shorten_labels([*points], drawing.LEGEND))]
    figure, (axis,) = drawing.make_panels([""], keys)
    for i, known in enumerate(points.values()):
        spreads = [standard_deviation(scores) or 0.0 for _, scores in known]
        means = [fmean(scores) for _, scores in known]
        axis.errorbar([x for x, _ in known], means, spreads, elinewidth=0.7, **drawing.row_style(i))
    drawing.limit_ticks(axis)
    drawing.end_at_bounds(axis)
    scale_axis(axis, sorted(numbers.values()))
    metric = f"{results.metric} on {results.reported_on}"
    axis.set_xlabel(drawing.shorten_label(results.title, 60))
    axis.set_ylabel(metric)
    left_out = f" The first {MOST_ROWS} of {len(lines)} lines are drawn." if len(lines) > MOST_ROWS else ""
    return Drawing(f"The {metric}: {MEAN}.{left_out}", figure, results.runs)


def read_numbers(names: Sequence[str]) -> dict[str, float]:
    """The numbers that the names are; empty if one is not a finite number, or if there is only one name."""
    try:
        numbers = {name: float(name) for name in names}
    except ValueError:
        return {}
    return numbers if len(numbers) > 1 and all(abs(x) < float("inf") for x in numbers.values()) else {}


def scale_axis(axis: Axes, values: Sequence[float]) -> None:
    """Set a tick at each value of x; scale by powers of two if the values span more than three."""
    if values[0] > 0 and values[-1] >= 8 * values[0]:
        axis.set_xscale("log", base=2)
        axis.minorticks_off()
    axis.set_xticks(values, [format_compact(x) for x in values])


def draw_usage(results: Results, read: RecordReader) -> Drawing:
    """The gradient steps, examples and tokens that each row used: whether the budgets were equal."""
    selection = select_rows(results)
    selection = selection.rows_with({row: selection.select([row]).outcomes for row in selection.rows})
    selection = selection.select(
        columns=[c for c in selection.columns if all(selection.cells[row, c].outcomes for row in selection.rows)]
    )
    if not selection.rows or not selection.columns:
        return Drawing("no run has finished yet" if not selection.rows else "no column has a finished run in each row")
    figure, axes = drawing.make_panels(list(WORK), height=0.45 + 0.16 * len(selection.rows), room=10)
    for axis, measure in zip(axes, WORK.values(), strict=True):
        read_amount = MEASURES[measure].read
        means = [fmean(read_amount(o) or 0 for o in selection.select([row]).outcomes) for row in selection.rows]
        bars = axis.barh(range(len(means)), means, color=drawing.COLOURS[0], height=0.6)
        axis.bar_label(bars, [format_compact(mean) for mean in means], padding=2, fontsize=6)
        axis.set_xlim(0, 1.35 * max(*means, 1e-9))
        axis.set_xticks([])
        axis.grid(False)
    drawing.name_rows(axes, selection.rows)
    over = f" over {', '.join(selection.columns)}" if len(results.columns) > 1 else ""
    words = f"What a run of each row has spent: the mean of its runs{over}."
    return Drawing(words + selection.left_out, figure, selection.runs)
