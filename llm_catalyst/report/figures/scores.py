"""The figures of a report that show how well and how dearly runs did; each has Results and the runs' records to go by.

A figure without data is not drawn; its caption then says why.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from llm_catalyst.report.cell_statistics import count_tokens, describe_seeds, sum_usd
from llm_catalyst.report.curves import DevCurve, average_curve, collect_points, own_score, projected_score
from llm_catalyst.report.figures.drawing import (
    COLOURS,
    INK,
    Drawing,
    legend_entry,
    limit_ticks,
    make_panels,
    name_rows,
    row_style,
    shorten_label,
)
from llm_catalyst.report.figures.rows import MOST_ROWS, RowSelection, select_rows
from llm_catalyst.report.record_reader import RecordReader
from llm_catalyst.report.results import Place, Results
from llm_catalyst.runs.records import Outcome
from llm_catalyst.utils.format import format_compact

MEAN = "mean over seeds, with bars of one sample standard deviation"
PRICES: dict[str, Callable[[Outcome], float | None]] = {
    "US dollars for the mentor": sum_usd,
    "tokens of the mentor": count_tokens,
    "seconds": lambda outcome: outcome.seconds,
}
WORK: dict[str, Callable[[Outcome], float]] = {
    "gradient steps": lambda outcome: outcome.ledger.gradient_steps,
    "examples trained": lambda outcome: outcome.ledger.train_examples,
    "examples scored": lambda outcome: outcome.ledger.scored_examples,
    "mentor's tokens": lambda outcome: outcome.ledger.input_tokens + outcome.ledger.output_tokens,
}


def draw_convergence(results: Results, read: RecordReader) -> Drawing:
    """The metric on dev of the soft prompt over gradient steps, with its spread over seeds and the restarts."""
    scope = select_rows(results)
    ended = {
        place: average_curve([r for r in results.entries[place].runs if r.outcome], read) for place in results.entries
    }
    going = {
        place: [line for run in entry.runs if not run.outcome and (line := collect_points(run, read))]
        for place, entry in results.entries.items()
    }
    scope = scope.where({place: ended[place] or going[place] for place in results.entries})
    if not scope.columns:
        return Drawing("no run has been scored on dev yet")
    keys = [legend_entry(scope.number(row), row) for row in scope.rows]
    figure, axes = make_panels(scope.columns, keys, x="gradient steps", y=f"{results.metric} on dev")
    for axis, column in zip(axes, scope.columns, strict=True):
        for row in scope.rows:
            draw_mean_curve(axis, ended[row, column], scope.number(row))
            for line in going[row, column]:
                steps = [step for _, step in sorted(line)]
                axis.plot(
                    steps, [line[place] for place in sorted(line)], color=row_style(scope.number(row))["color"], lw=0.5
                )
        limit_ticks(axis)
    levels = {
        axis: level
        for axis, c in zip(axes, scope.columns, strict=True)
        if (level := majority_level(scope.of(columns=[c])))
    }
    for axis, level in levels.items():
        axis.axhline(level, color=INK, lw=0.6, ls=":")
    signs = [
        "markers: restarts",
        *["dotted: the majority class"] * bool(levels),
        *["thin: under way"] * any(going.values()),
    ]
    words = (
        f"The soft prompt's {results.metric} on dev over gradient steps; {describe_band(ended)}; {'; '.join(signs)}."
    )
    return Drawing(words + scope.left_out, figure, scope.runs)


def draw_projection(results: Results, read: RecordReader) -> Drawing:
    """The metric on dev of the soft prompt, and of its projection to tokens, along training."""
    scope = select_rows(results)
    soft, projected = (
        {place: average_curve(entry.runs, read, pick) for place, entry in results.entries.items()}
        for pick in (own_score, projected_score)
    )
    scope = scope.where(projected)
    if not scope.columns:
        return Drawing("no run has scored its projected prompts along the way (evaluate.projected=true does)")
    keys = [legend_entry(scope.number(row), row, linestyle="none", marker="s") for row in scope.rows]
    keys += [
        Line2D([], [], color=INK, ls=ls, label=f"{kind} prompt") for kind, ls in (("soft", "-"), ("projected", ":"))
    ]
    figure, axes = make_panels(scope.columns, keys, x="gradient steps", y=f"{results.metric} on dev")
    for axis, column in zip(axes, scope.columns, strict=True):
        for row in scope.rows:
            draw_mean_curve(axis, soft[row, column], scope.number(row), linestyle="-", marker="none")
            draw_mean_curve(axis, projected[row, column], scope.number(row), linestyle=":", marker="none")
        limit_ticks(axis)
    words = f"What projection to tokens loses: {results.metric} on dev of the soft prompt, and of its nearest tokens"
    return Drawing(f"{words}; {describe_band(projected)}.{scope.left_out}", figure, scope.runs)


def draw_mean_curve(axis: Axes, course: DevCurve | None, number: int, **changes: object) -> None:
    """A row's mean line with a marker at each restart, and its spread as a band."""
    if course is None:
        return
    looks = row_style(number) | changes
    axis.plot(course.steps, course.mean, markevery=list(course.restarts), **looks)
    if course.std:
        low, high = ([m + sign * s for m, s in zip(course.mean, course.std, strict=True)] for sign in (-1, 1))
        axis.fill_between(course.steps, low, high, color=looks["color"], alpha=0.18, linewidth=0)


def describe_band(courses: Mapping[Place, DevCurve | None]) -> str:
    """What line and band are, and of how many seeds."""
    seeds = sorted({course.seeds for course in courses.values() if course})
    if not seeds or seeds[-1] == 1:
        return "one seed, which has no spread"
    number = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return f"mean over {number} seeds, band: ± one sample standard deviation"


def majority_level(scope: RowSelection) -> float | None:
    """The share of the largest class, where that compares with the metric and is the same for all runs."""
    levels = {outcome.majority for outcome in scope.outcomes}
    return levels.pop() if len(levels) == 1 and scope.results.metric == "accuracy" else None


def draw_cost(results: Results, read: RecordReader) -> Drawing:
    """The reported metric against what a run cost: US dollars, tokens or seconds, by what is known."""
    scope = select_rows(results).where(
        {place: describe_seeds(entry, "test") for place, entry in results.entries.items()}
    )
    if not scope.columns:
        return Drawing("no run has finished with a score")
    name, price = price_of(scope.outcomes)
    keys = [legend_entry(scope.number(row), row, linestyle="none") for row in scope.rows]
    figure, axes = make_panels(scope.columns, keys, x=f"{name} per run", y=f"{results.metric} on {scope.reported_on}")
    for axis, column in zip(axes, scope.columns, strict=True):
        for row in scope.rows:
            outcomes = [outcome for outcome in scope.of([row], [column]).outcomes if outcome.test]
            prices = [paid for outcome in outcomes if (paid := price(outcome)) is not None]
            draw_mean(axis, prices, [outcome.test.metric for outcome in outcomes if outcome.test], scope.number(row))
        axis.margins(0.15)
        limit_ticks(axis)
    words = f"The {results.metric} on {scope.reported_on} against {name} per run: {MEAN}."
    return Drawing(words + scope.left_out, figure, scope.runs)


def draw_scores(results: Results, read: RecordReader) -> Drawing:
    """The reported metric of each row, run by run, with its mean and spread: the table of scores as a picture."""
    found = {place: [*describe_seeds(entry, "test").values()] for place, entry in results.entries.items()}
    scope = select_rows(results).where(found)
    if not scope.columns:
        return Drawing("no run has finished with a score")
    height = 0.35 + 0.16 * len(scope.rows)
    figure, axes = make_panels(scope.columns, height=height, x=f"{results.metric} on {scope.reported_on}")
    for number, (axis, column) in enumerate(zip(axes, scope.columns, strict=True)):
        limit_ticks(axis)
        name_rows(axis, scope.rows if number % 2 == 0 else [""] * len(scope.rows))
        if results.reference and (theirs := found[results.reference, column]):
            axis.axvline(fmean(theirs), color=INK, lw=0.6, ls=":")
        for place, row in enumerate(scope.rows):
            own = found[row, column]
            points = row_style(scope.number(row)) | {"linestyle": "none", "markersize": 2.5, "alpha": 0.45}
            axis.plot(own, [place] * len(own), **points)
            draw_mean(axis, own, [place], scope.number(row))
    dotted = f"; dotted: the mean of {shorten_label(results.reference, 40)}" if results.reference else ""
    words = f"The {results.metric} on {scope.reported_on} of each row: small, run by run; large, the {MEAN}{dotted}."
    return Drawing(words + scope.left_out, figure, scope.runs)


def price_of(outcomes: Sequence[Outcome]) -> tuple[str, Callable[[Outcome], float | None]]:
    """The first of PRICES that is known of all runs, and not 0 for all."""
    for name, price in PRICES.items():
        paid = [price(outcome) for outcome in outcomes]
        if None not in paid and any(paid):
            return name, price
    return "seconds", PRICES["seconds"]


def draw_mean(axis: Axes, x: Sequence[float], y: Sequence[float], number: int) -> None:
    """A row's mean at its place, with bars of one sample standard deviation each way; nothing where it has no run."""
    if x and y:
        looks = row_style(number) | {"linestyle": "none", "elinewidth": 0.7}
        axis.errorbar(fmean(x), fmean(y), xerr=standard_deviation(x), yerr=standard_deviation(y), **looks)


def standard_deviation(values: Sequence[float]) -> float | None:
    """The sample standard deviation, None for a single value."""
    return stdev(values) if len(values) > 1 else None


def draw_sensitivity(results: Results, read: RecordReader) -> Drawing:
    """The reported metric over rows, or columns, that are numbers: a length, a count of rounds, a rate."""
    numbers, lines = read_numbers(results.rows), results.columns
    if not numbers:
        numbers, lines = read_numbers(results.columns), results.rows
    if not numbers:
        return Drawing("neither the rows nor the columns are numbers")
    down = lines is results.columns
    points = {
        line: [
            (x, scores)
            for name, x in numbers.items()
            if (scores := [*describe_seeds(results.entries[(name, line) if down else (line, name)], "test").values()])
        ]
        for line in lines[:MOST_ROWS]
    }
    if not any(points.values()):
        return Drawing("no run has finished with a score")
    figure, (axis,) = make_panels([""], [legend_entry(i, line) for i, line in enumerate(points)])
    for i, known in enumerate(points.values()):
        spreads = [standard_deviation(scores) or 0.0 for _, scores in known]
        axis.errorbar(
            [x for x, _ in known], [fmean(scores) for _, scores in known], spreads, elinewidth=0.7, **row_style(i)
        )
    limit_ticks(axis)
    scale_axis(axis, sorted(numbers.values()))
    scope = RowSelection(results, results.rows, results.rows, results.columns)
    axis.set_xlabel(shorten_label(results.title, 60))
    axis.set_ylabel(f"{results.metric} on {scope.reported_on}")
    left_out = f" The first {MOST_ROWS} of {len(lines)} lines are drawn." if len(lines) > MOST_ROWS else ""
    return Drawing(f"The {results.metric} on {scope.reported_on}: {MEAN}.{left_out}", figure, scope.runs)


def read_numbers(names: Sequence[str]) -> dict[str, float]:
    """The number that each name is; nothing where one is none, or there is one name only."""
    try:
        numbers = {name: float(name) for name in names}
    except ValueError:
        return {}
    return numbers if len(numbers) > 1 and all(abs(x) < float("inf") for x in numbers.values()) else {}


def scale_axis(axis: Axes, values: Sequence[float]) -> None:
    """A tick at each value of x; by powers of two where they span more than three."""
    if values[0] > 0 and values[-1] >= 8 * values[0]:
        axis.set_xscale("log", base=2)
        axis.minorticks_off()
    axis.set_xticks(values, [format_compact(x) for x in values])


def draw_usage(results: Results, read: RecordReader) -> Drawing:
    """What the rows have spent in gradient steps, examples and tokens: whether their budgets were equal."""
    scope = select_rows(results)
    scope = scope.of(rows=[row for row in scope.rows if scope.of([row]).outcomes])
    scope = scope.of(columns=[c for c in scope.columns if all(scope.of([row], [c]).outcomes for row in scope.rows)])
    if not scope.rows or not scope.columns:
        return Drawing("no run has finished yet" if not scope.rows else "no column has a finished run in each row")
    figure, axes = make_panels(list(WORK), height=0.35 + 0.16 * len(scope.rows))
    for number, (axis, count) in enumerate(zip(axes, WORK.values(), strict=True)):
        means = [fmean(count(outcome) for outcome in scope.of([row]).outcomes) for row in scope.rows]
        bars = axis.barh(range(len(means)), means, color=COLOURS[0], height=0.6)
        axis.bar_label(bars, [format_compact(mean) for mean in means], padding=2, fontsize=6)
        axis.set_xlim(0, 1.35 * max(*means, 1e-9))
        axis.set_xticks([])
        axis.grid(False)
        name_rows(axis, scope.rows if number % 2 == 0 else [""] * len(scope.rows))
    over = f" over {', '.join(scope.columns)}" if len(results.columns) > 1 else ""
    return Drawing(f"What a run of each row has spent: the mean of its runs{over}.{scope.left_out}", figure, scope.runs)
