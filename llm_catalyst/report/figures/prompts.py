"""The figures of a report on discrete prompts: the pool, its readability, and the diversity of proposals."""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from llm_catalyst.report.figures import drawing
from llm_catalyst.report.figures.drawing import INK, Drawing, select_rows
from llm_catalyst.report.figures.scores import draw_mean
from llm_catalyst.report.readability import dictionary_share
from llm_catalyst.report.results import Results
from llm_catalyst.report.runs import RecordReader, Run, dev_rank
from llm_catalyst.runs.records import Origin, Restart, ScoredPrompt, Snapshot
from llm_catalyst.runs.restart_effects import trace_restarts

ORIGINS: tuple[Origin, ...] = ("gradient", "mentor", "user")  # each with the colour and marker of its place
MOST_PROMPTS = 16  # of a run, in one figure
MEASURES = ("distinct-1", "distinct-2", "spread")


def draw_pool(results: Results, read: RecordReader) -> Drawing:
    """The dev loss of the pool's entries by stage and origin."""
    pools = {
        place: [entry for run in cell.runs for entry in read(run, ScoredPrompt)]
        for place, cell in results.cells.items()
    }
    selection = select_rows(results).places_with(pools)
    # Losses of different tasks do not compare: only the first column is drawn.
    selection = selection.select(columns=selection.columns[:1]).places_with(pools)
    entries = {row: pools[row, column] for column in selection.columns for row in selection.rows}
    if not selection.rows:
        return Drawing("no prompt is in a pool yet")
    origins = [origin for origin in ORIGINS if any(e.origin == origin for row in selection.rows for e in entries[row])]
    keys = [drawing.legend_entry(ORIGINS.index(origin), f"from the {origin}") for origin in origins]
    figure, axes = drawing.make_panels(selection.rows, keys, x="stage", y="loss on dev (nats)")
    for axis, row in zip(axes, selection.rows, strict=True):
        for origin in origins:
            draw_losses(axis, [entry for entry in entries[row] if entry.origin == origin], ORIGINS.index(origin))
        drawing.limit_ticks(axis, whole_x=True)
        axis.set_xlim(0.5, max(entry.stage for entry in entries[row]) + 1.5)
    where = f" of {selection.columns[0]}" if len(results.columns) > 1 else ""
    words = f"The prompts that entered the pool{where}: loss on dev in the stage in which each was scored, all seeds"
    return Drawing(f"{words}; lines: the mean of each stage.{selection.left_out}", figure, selection.runs)


def draw_losses(axis: Axes, entries: Sequence[ScoredPrompt], number: int) -> None:
    """Draw losses over stages, counted from 1, and their means, shifted so that origins do not overlap."""
    shift, style = 0.12 * (number - 1), drawing.row_style(number)
    losses: dict[int, list[float]] = {}
    for entry in entries:
        losses.setdefault(entry.stage, []).append(entry.score.loss)
    points = {"linestyle": "none", "markersize": 2.5, "alpha": 0.45}
    axis.plot([e.stage + 1 + shift for e in entries], [e.score.loss for e in entries], **(style | points))
    stages = sorted(losses)
    means = [fmean(losses[stage]) for stage in stages]
    axis.plot([stage + 1 + shift for stage in stages], means, **(style | {"marker": "none"}))


def draw_words(results: Results, read: RecordReader) -> Drawing:
    """The soft prompt's nearest tokens along training, with their similarity, in the run that is best on dev."""
    ended = [run for run in select_rows(results).runs if run.outcome and run.outcome.best]
    projected = [run for run in ended if read(run, Snapshot)]
    if not projected:
        return Drawing("no run has come to an end that projected its prompt on the way")
    run = max(projected, key=dev_rank)
    snapshots = [snapshot for snapshot in read(run, Snapshot) if snapshot.member == 0]
    held = Counter(snapshot.prompt.text for snapshot in snapshots)  # in the order in which they came
    longest = {text for text, _ in held.most_common(MOST_PROMPTS)}
    texts = [text for text in held if text in longest]
    figure, (axis,) = drawing.make_panels([""], height=0.6 + 0.15 * len(texts), x="gradient steps")
    shown = [snapshot for snapshot in snapshots if snapshot.prompt.text in longest]
    places = [texts.index(snapshot.prompt.text) for snapshot in shown]
    near = [to_rgba(drawing.row_style(0)["color"], min(1.0, max(0.05, snapshot.similarity))) for snapshot in shown]
    axis.scatter([s.step for s in shown], places, s=9, color=near, marker="s", linewidths=0)
    ends = [max(s.step for s in snapshots if s.stage == stage) for stage in {r.stage for r in read(run, Restart)}]
    for end in ends:
        axis.axvline(end, color=INK, lw=0.5, ls=":")
    drawing.name_rows([axis], texts)
    few = "" if len(texts) == len(held) else f"; those {MOST_PROMPTS} of {len(held)} that it was longest"
    return Drawing(
        f"The tokens nearest to the soft prompt along training, in the run that is best on dev ({run.path}){few}. "
        "The stronger, the nearer (mean cosine). Dotted: a stage ends, and the mentor is asked.",
        figure,
        (run,),
    )


def draw_diversity(results: Results, read: RecordReader) -> Drawing:
    """The diversity of a mentor's proposals against the change of the metric over the restart and its stage."""
    selection = select_rows(results)
    points = {
        row: [point for run in selection.select([row]).runs for point in measure_diversity(run, read)]
        for row in selection.rows
    }
    selection = selection.rows_with(points)
    if not selection.rows:
        return Drawing("no restart had two proposals to choose from and a whole stage after it")
    measures = [name for name in MEASURES if any(name in known for row in selection.rows for known, _ in points[row])]
    keys, change = selection.legend(linestyle="none"), f"change in {results.metric} on dev"
    figure, axes = drawing.make_panels(measures, keys, y=change)
    for axis, measure in zip(axes, measures, strict=True):
        axis.axhline(0, color=INK, lw=0.5)
        for row in selection.rows:
            known = [(measured[measure], y) for measured, y in points[row] if measure in measured]
            style = selection.style(row) | {"linestyle": "none", "alpha": 0.8}
            axis.plot([value for value, _ in known], [y for _, y in known], **style)
        axis.margins(0.1)
        drawing.limit_ticks(axis)
    words = (
        "How diverse the proposals of a question were, and the change from the prompt that the restart replaced to the "
        "end of the stage that it began, training included. distinct-n: different n-grams as a share of all (Li et al. "
        "2016, arXiv 1510.03055); spread: mean pairwise cosine distance of the proposals' embeddings."
    )
    return Drawing(words + selection.left_out, figure, selection.runs)


def measure_diversity(run: Run, read: RecordReader) -> list[tuple[dict[str, float], float]]:
    """For each restart, the known measures of its proposals' diversity, and the change over its stage."""
    found = []
    for effect in trace_restarts(read.records(run)):
        texts = [proposal.prompt.text for proposal, _ in effect.restart.considered]
        if len(texts) > 1 and effect.ended and effect.before and effect.after:
            measures = distinct_ngrams(texts, 1), distinct_ngrams(texts, 2), effect.restart.spread
            known = {name: value for name, value in zip(MEASURES, measures, strict=True) if value is not None}
            found.append((known, effect.after.metric - effect.before.metric))
    return found


def distinct_ngrams(texts: Sequence[str], n: int) -> float | None:
    """Different n-grams of words as a share of all in these texts; None if there are none."""
    lines = [text.lower().split() for text in texts]
    grams = [tuple(line[i : i + n]) for line in lines for i in range(len(line) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def draw_readability(results: Results, read: RecordReader) -> Drawing:
    """The share of dictionary words in the pool's prompts, by origin."""
    selection = select_rows(results)
    shares = {
        (row, origin): [
            s for run in selection.select([row]).runs if (s := words_share(read(run, ScoredPrompt), origin)) is not None
        ]
        for row in selection.rows
        for origin in ORIGINS
    }
    selection = selection.rows_with({row: any(shares[row, origin] for origin in ORIGINS) for row in selection.rows})
    if not selection.rows:
        return Drawing("no prompt is in a pool yet, or there is no dictionary to look its words up in")
    origins = [origin for origin in ORIGINS if any(shares[row, origin] for row in selection.rows)]
    keys = [drawing.legend_entry(ORIGINS.index(origin), f"from the {origin}", linestyle="none") for origin in origins]
    figure, (axis,) = drawing.make_panels([""], keys, height=0.4 + 0.2 * len(selection.rows))
    for origin in origins:
        for place, row in enumerate(selection.rows):
            draw_mean(axis, shares[row, origin], [place], drawing.row_style(ORIGINS.index(origin)))
    drawing.name_rows([axis], selection.rows)
    axis.set_xlim(-0.02, 1.02)
    axis.set_xlabel("share of dictionary words")
    words = "How readable the prompts in the pool are, which the mentor sees: the share of words that a dictionary has"
    spread = "mean and sample standard deviation over runs"
    return Drawing(f"{words}; {spread}.{selection.left_out}", figure, selection.runs)


def words_share(entries: Sequence[ScoredPrompt], origin: Origin) -> float | None:
    """The mean share of dictionary words over the different prompts of an origin; None without a word."""
    texts = sorted({entry.prompt.text for entry in entries if entry.origin == origin})
    shares = [share for text in texts if (share := dictionary_share(text)) is not None]
    return fmean(shares) if shares else None
