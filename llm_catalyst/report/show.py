"""`catalyst show DIR`: all that happened in a run, finished or not, from its files alone."""

import io
from collections import defaultdict
from pathlib import Path
from typing import Any, Literal

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from llm_catalyst.report.curves import collect_scores, locate_restarts
from llm_catalyst.report.restarts import render_considered, render_effects, render_restarts, score_cells
from llm_catalyst.report.summary import summarize_run
from llm_catalyst.runs import analysis
from llm_catalyst.runs.consultations import DESCRIPTIONS, collect_consultations
from llm_catalyst.runs.reader import RunRecords, read_run
from llm_catalyst.runs.records import LLMCall
from llm_catalyst.runs.restart_effects import TRAINING
from llm_catalyst.utils import terminal
from llm_catalyst.utils.format import format_count, join_first, shorten_middle
from llm_catalyst.utils.text_plot import Point, draw_curve, value_span
from llm_catalyst.utils.validation import ConfigurationError, get_nested

POOL = 10  # entries shown
SHORT = 6  # lines at the beginning, and at the end, of a message that are shown without --full
SHORT_LINE = 400  # characters of such a line
SHORT_PROMPT = 200  # characters of a prompt in a table, without --full
SIDE_BY_SIDE = range(90, 400)  # columns of a terminal in which a request and its answer stand side by side
CURVE = (64, 8)  # cells of a plot: with its labels it fits 80 columns


def show_run(
    path: Path,
    console: Console,
    svg: Path | None = None,
    full: bool = False,
    part: Literal["all", "brief", "mentor"] = "all",
) -> None:
    """Print what happened in a run, or write it as an SVG picture.

    Args:
        path: the run directory.
        console: where to print.
        svg: the picture's file; None prints instead.
        full: show whole messages and prompts.
        part: brief shows the curves and the summary only, mentor the exchanges with the mentor only.

    Raises:
        ConfigurationError: `path` holds no run, or a record cannot be read.
    """
    run = read_run(path)
    if part == "mentor":
        content = render_consultations(run, full, console.width in SIDE_BY_SIDE)
    else:
        content = render_brief(run) if part == "brief" else render_run(run, full)
    if svg is None:
        console.print(content, crop=False)
        return
    picture = Console(record=True, width=min(console.width, 100), file=io.StringIO(), force_terminal=True)
    picture.print(content)
    try:
        picture.save_svg(str(svg), title=f"catalyst show {terminal.escape_controls(str(path))}")
    except OSError as error:
        raise ConfigurationError(f"--svg {svg} cannot be written: {error.strerror}; choose another file") from None
    console.print(Text(f"{terminal.escape_controls(str(svg))} is written"))


def render_run(run: RunRecords, full: bool = False) -> RenderableType:
    """All that happened, in order, and the summary; messages and prompts are shortened unless `full`."""
    metric = analysis.read_metric_name(run)
    return Group(
        *render_header(run),
        *render_curves(run, metric),
        *render_pool(run, metric, None if full else SHORT_PROMPT),
        *render_restarts(run, metric, None if full else SHORT_PROMPT),
        *render_calls(run, full),
        *terminal.make_heading("Summary" if run.outcome else "So far"),
        summarize_run(run, shown=True),
    )


def render_brief(run: RunRecords) -> RenderableType:
    """The training curve and the summary."""
    return Group(*render_curves(run, analysis.read_metric_name(run)), Text(), summarize_run(run, shown=True))


def name_node(node: Any) -> str:
    """The name of a configuration node: its `name`, its client's model, or the class that it builds."""
    kind = str(get_nested(node, "_target_") or "").rpartition(".")[2]
    name = get_nested(node, "name") or get_nested(node, "client", "model") or get_nested(node, "model") or kind
    return str(name or node or "unknown")


def render_header(run: RunRecords) -> list[RenderableType]:
    """Choices, command, versions and progress of the run."""
    manifest, config = run.manifest, run.config
    title = " · ".join(manifest.choices.get(group, "?") for group in ("task", "backbone", "head", "mentor"))
    node = {group: name_node(config.get(group)) for group in ("task", "backbone", "head", "mentor", "protocol")}
    strategy = manifest.choices.get("strategy", "?")
    versions = {"python": manifest.python, **manifest.versions}
    rows = {
        "started": f"{manifest.started}, seed {config.get('seed')}",
        "ended": describe_progress(run),
        "task": node["task"],
        **describe_data(run),
        "backbone": f"{node['backbone']}, head {node['head']}",
        "mentor": node["mentor"] + (f", strategy {strategy}" if get_nested(config, "mentor", "client") else ""),
        "protocol": node["protocol"],
        "machine": f"{manifest.device}, {manifest.threads} threads, {manifest.platform}",
        "versions": "  ".join(f"{name} {version}" for name, version in versions.items()),
        "code": manifest.code,
    }
    pairs = terminal.make_pairs({name: terminal.escape_controls(value) for name, value in rows.items()})
    command = terminal.UnbrokenPairs({"command ": terminal.escape_controls(manifest.command_line)})
    return [Text(terminal.escape_controls(title), "bold", overflow="fold"), command, pairs]


def describe_data(run: RunRecords) -> dict[str, str]:
    """The rows of each split by their labels, as the run read them; nothing of a run of an earlier revision."""
    splits = run.resolved.data.get("splits", {}) if run.resolved else {}
    found = {}
    for name, split in splits.items():
        labels = join_first([f"{label} {n:,}" for label, n in split["labels"].items()], 10)
        again = f"; {split['repeated']:,} repeated" if split["repeated"] else ""
        found[name] = f"{format_count(split['rows'], 'row')} ({labels}{again})"
    return found


def describe_progress(run: RunRecords) -> str:
    """The date of the run's end, or its last record."""
    if run.outcome is not None:
        return f"{run.outcome.finished}, {run.outcome.status}"
    places = [(e.stage, e.step) for e in run.metrics] + [(s.stage, s.step) for s in run.trajectory]
    stage, step = max(places, default=(0, 0))
    reached = f"the last record is of stage {stage + 1}, step {step}" if places else "nothing is recorded yet"
    return f"unfinished: {reached}"


def render_curves(run: RunRecords, metric: str) -> list[RenderableType]:
    """Dev loss and metric over steps: a line for each stage, from its restart's score."""
    found = collect_scores(run.metrics, run.restarts)
    if not found:
        return []
    # Of prompts that are trained side by side, the best counts.
    best = {place: min(scores, key=lambda score: score.loss) for place, scores in sorted(found.items())}
    last = max(step for _, step in best)
    marks = sorted({float(step) for (_, step), r in locate_restarts(run.metrics, run.restarts) if not r.kept})
    lines: list[RenderableType] = [
        *terminal.make_heading(f"Training curve on dev (n = {run.metrics[0].score.examples:,})")
    ]
    majority = analysis.read_majority(run.manifest) if metric == "accuracy" else None
    for name, style, level in (("loss", "cyan", None), (metric, "green", majority)):
        stages = defaultdict[int, list[Point]](list)
        for (stage, step), score in best.items():
            stages[stage].append((float(step), score.loss if name == "loss" else score.metric))
        values = [y for points in stages.values() for _, y in points] + ([] if level is None else [level])
        low, high = value_span(values)
        in_order = [*reversed(stages.values())]  # where two stages meet, the end of the first is drawn
        rows = draw_curve(in_order, *CURVE, value_span([0.0, float(last)]), (low, high), marks, level, style)
        lines += [Text()] if name == metric else []
        labels = {0: f"{name:>8.8} {high:.3f}", len(rows) - 1: f"{low:14.3f}"}
        lines += [Text(f"{labels.get(i, ''):14} ┤").append_text(row) for i, row in enumerate(rows)]
    lines.append(Text(f"{'':15}0{f'step {last}':>{CURVE[0] - 1}}", "dim"))
    meaning = (["┊ restart"] if marks else []) + (["╌ majority class"] if majority is not None else [])
    return [*lines, Text(f"{'':15}{'   '.join(meaning)}", "dim")]


def render_pool(run: RunRecords, metric: str, longest: int | None) -> list[RenderableType]:
    """The best discrete prompts, by dev loss."""
    best = analysis.best_prompts(run.pool)
    if not best:
        return []
    table = terminal.make_columns("dev loss", metric, "stage", "from", "prompt", wide=4)
    table.columns[3].justify = "left"
    for entry in best[:POOL]:
        text = Text(terminal.quote_prompt(entry.prompt.text, longest))
        table.add_row(*score_cells(entry.score), str(entry.stage + 1), entry.origin, text)
    title = f"Best discrete prompts ({min(POOL, len(best))} of {len(best)}), n = {best[0].score.examples:,}"
    return [*terminal.make_heading(title), Padding(table, (0, 0, 0, 2), expand=False)]


def render_consultations(run: RunRecords, full: bool = False, side_by_side: bool = True) -> RenderableType:
    """Each consultation: request and answer, what was read from the answer, and what became of it."""
    metric, found = analysis.read_metric_name(run), collect_consultations(run)
    lines: list[RenderableType] = [] if found else [Text("No language model was asked in this run.")]
    for consultation in found:
        title = f"After stage {consultation.stage + 1}: {consultation.status}; {DESCRIPTIONS[consultation.fate]}"
        lines += terminal.make_heading(title)
        for call in consultation.calls:
            lines += render_exchange(call, full, side_by_side)
        if consultation.effects:
            lines += render_effects(consultation.effects)
            lines += render_considered(consultation.effects, metric, None if full else SHORT_PROMPT)
    if analysis.has_training(run) and any(consultation.effects for consultation in found):
        lines += [Text(), Text(TRAINING[0].upper() + TRAINING[1:], "dim")]
    return Group(*lines)


def render_exchange(call: LLMCall, full: bool, side_by_side: bool) -> list[RenderableType]:
    """A call: its facts, and below them the request and, to its right or below it, the answer."""
    asked = [line for message in call.messages for line in render_message(message.role, message.content, full)]
    if call.error is not None:
        words = f"error: {terminal.escape_controls(call.error)}"
        answer: list[RenderableType] = [Text(words, "yellow", overflow="fold")]
    else:
        answer = []
    answer += render_message("answer", call.reply, full) if call.reply else []
    if not side_by_side:
        return [terminal.indent_text(Text(analysis.describe_call(call), "dim")), *asked, *answer]
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(ratio=1)
    table.add_column(ratio=1)
    table.add_row(Group(*asked), Group(*answer))
    return [terminal.indent_text(Text(analysis.describe_call(call), "dim")), Padding(table, (0, 0, 1, 0))]


def render_calls(run: RunRecords, full: bool) -> list[RenderableType]:
    """Each mentor call: facts, messages and response."""
    lines: list[RenderableType] = []
    for number, call in enumerate(run.exchanges, start=1):
        lines += terminal.make_heading(f"Mentor call {number}, after stage {call.stage + 1}")
        lines.append(terminal.indent_text(Text(analysis.describe_call(call), "dim")))
        if call.error is not None:
            lines.append(terminal.indent_text(Text(f"error: {terminal.escape_controls(call.error)}", "yellow")))
        for message in call.messages:
            lines += render_message(message.role, message.content, full)
        if call.reply:
            lines += render_message("reply", call.reply, full)
    return lines


def render_message(role: str, content: str, full: bool) -> list[RenderableType]:
    """A message under its role; of a long one the beginning and the end, which holds what was asked."""
    lines = terminal.escape_paragraphs(content.strip("\n")).split("\n")
    hidden = 0 if full else len(lines) - 2 * SHORT
    if not full:
        lines = [shorten_middle(line, SHORT_LINE) for line in lines]
    text = Text("\n".join(lines if hidden <= 0 else lines[:SHORT]))
    if hidden > 0:
        text.append(f"\n… {format_count(hidden, 'more line')} (--full shows them)\n", "dim")
        text.append("\n".join(lines[-SHORT:]))
    return [terminal.indent_text(Text(role, "cyan")), Padding(terminal.indent_text(text), (0, 0, 0, 2), expand=False)]
