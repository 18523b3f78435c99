"""`catalyst show DIR`: all that happened in a run, finished or not, from its files alone."""

import io
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from llm_catalyst.report.summary import format_later_loss, format_loss, score_cells, summarize_run
from llm_catalyst.runs.analysis import (
    best_prompts,
    read_known_config,
    read_majority,
    read_metric_name,
    sum_usage,
    trace_restarts,
)
from llm_catalyst.runs.reader import RunRecords, read_run
from llm_catalyst.runs.records import Evaluation, LLMCall, Restart
from llm_catalyst.utils.format import shorten_text
from llm_catalyst.utils.terminal import (
    escape_controls,
    escape_paragraphs,
    forgive_encoding,
    indent_text,
    make_columns,
    make_heading,
    make_pairs,
    quote_prompt,
)
from llm_catalyst.utils.text_plot import Point, draw_curve, value_span
from llm_catalyst.utils.validation import get_nested

POOL = 10  # entries shown
SHORT = 8  # lines of a message shown without --full
SHORT_LINE = 400  # characters of such a line
SHORT_PROMPT = 200  # characters of a prompt in a table, without --full
CURVE = (64, 8)  # cells of a plot: with its labels it fits 80 columns


def show_run(path: Path, console: Console, svg: Path | None = None, full: bool = False, brief: bool = False) -> None:
    """Print what happened in a run, or write it as an SVG picture.

    Args:
        path: the run directory.
        console: where to print.
        svg: the picture's file; None prints instead.
        full: show whole messages and prompts.
        brief: show only the curves and the summary.

    Raises:
        ConfigurationError: `path` holds no run, or a record cannot be read.
    """
    forgive_encoding(console)
    run = read_run(path)
    content = render_brief(run) if brief else render_run(run, full)
    if svg is None:
        console.print(content)
        return
    picture = Console(record=True, width=min(console.width, 100), file=io.StringIO(), force_terminal=True)
    picture.print(content)
    picture.save_svg(str(svg), title=f"catalyst show {escape_controls(str(path))}")
    console.print(Text(f"{escape_controls(str(svg))} is written"))


def render_run(run: RunRecords, full: bool = False) -> RenderableType:
    """All that happened, in order, and the summary; messages and prompts are shortened unless `full`."""
    metric = read_metric_name(run)
    return Group(
        *render_header(run, read_known_config(run.path)),
        *render_curves(run, metric),
        *render_pool(run, metric, None if full else SHORT_PROMPT),
        *render_restarts(run, metric, None if full else SHORT_PROMPT),
        *render_calls(run, full),
        *make_heading("Summary" if run.outcome else "So far"),
        summarize_run(run),
    )


def render_brief(run: RunRecords) -> RenderableType:
    """The training curve and the summary."""
    return Group(*render_curves(run, read_metric_name(run)), Text(), summarize_run(run))


def name_node(node: Any) -> str:
    """The name of a configuration node: its `name`, its client's model, or the class that it builds."""
    kind = str(get_nested(node, "_target_") or "").rpartition(".")[2]
    name = get_nested(node, "name") or get_nested(node, "client", "model") or get_nested(node, "model") or kind
    return escape_controls(str(name or node or "unknown"))


def render_header(run: RunRecords, config: Mapping[str, Any]) -> list[RenderableType]:
    """Choices, command, versions and progress of the run."""
    manifest = run.manifest
    title = " · ".join(
        escape_controls(manifest.choices.get(group, "?")) for group in ("task", "backbone", "head", "mentor")
    )
    head, mentor = name_node(get_nested(config, "head")), name_node(get_nested(config, "mentor"))
    if get_nested(config, "mentor", "client"):
        mentor += f", strategy {escape_controls(manifest.choices.get('strategy', '?'))}"
    versions = "  ".join(
        f"{escape_controls(name)} {escape_controls(version)}" for name, version in manifest.versions.items()
    )
    rows = [
        ("command", escape_controls(shlex.join(("catalyst", "run", *manifest.command)))),
        ("started", f"{escape_controls(manifest.started)}, seed {escape_controls(str(get_nested(config, 'seed')))}"),
        ("ended", describe_progress(run)),
        ("task", name_node(get_nested(config, "task"))),
        ("backbone", f"{name_node(get_nested(config, 'backbone'))}, head {head}"),
        ("mentor", mentor),
        ("protocol", name_node(get_nested(config, "protocol"))),
        (
            "machine",
            f"{escape_controls(manifest.device)}, {manifest.threads} threads, {escape_controls(manifest.platform)}",
        ),
        ("versions", f"python {escape_controls(manifest.python)}  {versions}"),
        ("code", escape_controls(manifest.code)),
    ]
    return [Text(title, "bold", overflow="fold"), make_pairs([(name, Text(value)) for name, value in rows])]


def describe_progress(run: RunRecords) -> str:
    """The date of the run's end, or its last record."""
    if run.outcome is not None:
        return f"{escape_controls(run.outcome.finished)}, {run.outcome.status}"
    places = [(e.stage, e.step) for e in run.metrics] + [(s.stage, s.step) for s in run.trajectory]
    stage, step = max(places, default=(0, 0))
    reached = f"the last record is of stage {stage + 1}, step {step}" if places else "nothing is recorded yet"
    return f"unfinished: {reached}"


def render_curves(run: RunRecords, metric: str) -> list[RenderableType]:
    """Dev loss and metric over steps: a line for each stage, from its restart's score."""
    dev = [e for e in run.metrics if e.split == "dev"]
    if not dev:
        return []
    starts = {e.stage + 1: e.step for e in dev}
    marks = sorted({float(starts[r.stage + 1]) for r in run.restarts if r.stage + 1 in starts})
    lines: list[RenderableType] = [*make_heading("Training curve on dev")]
    majority = read_majority(run) if metric == "accuracy" else None
    for name, style, level in (("loss", "cyan", None), (metric, "green", majority)):
        segments = split_by_stage(dev, run.restarts, starts, name == "loss")
        values = [y for segment in segments for _, y in segment] + ([] if level is None else [level])
        low, high = value_span(values)
        steps = value_span([0.0, *(float(e.step) for e in dev)])
        rows = draw_curve(segments, *CURVE, steps, (low, high), marks, level, style)
        labels = [f"{high:.3f}", *[""] * (len(rows) - 2), f"{low:.3f}"]
        lines += [Text()] if name == metric else []
        names = [name, *[""] * (len(rows) - 1)]
        for title, label, row in zip(names, labels, rows, strict=True):
            lines.append(Text(f"{title:>8.8} {label:>5} ┤").append_text(row))
    last = f"step {dev[-1].step}"
    lines.append(Text(f"{'':15}0{last:>{CURVE[0] - 1}}", "dim"))
    meaning = (["┊ restart"] if marks else []) + (["╌ majority class"] if majority is not None else [])
    return [*lines, Text(f"{'':15}{'   '.join(meaning)}", "dim")]


def split_by_stage(
    dev: list[Evaluation], restarts: tuple[Restart, ...], starts: Mapping[int, int], of_loss: bool
) -> list[list[Point]]:
    """The curve of each stage; of prompts trained side by side the best at each step."""
    best: dict[tuple[int, int], Evaluation] = {}
    for e in dev:
        key = (e.stage, e.step)
        if key not in best or e.score.loss < best[key].score.loss:
            best[key] = e
    lines: dict[int, list[Point]] = {}
    for restart in sorted((r for r in restarts if r.score), key=lambda r: r.score.loss if r.score else 0.0):
        if restart.stage + 1 in starts and restart.stage + 1 not in lines and restart.score:
            value = restart.score.loss if of_loss else restart.score.metric
            lines[restart.stage + 1] = [(float(starts[restart.stage + 1]), value)]
    for (stage, step), e in sorted(best.items()):
        lines.setdefault(stage, []).append((float(step), e.score.loss if of_loss else e.score.metric))
    return list(lines.values())


def render_pool(run: RunRecords, metric: str, longest: int | None) -> list[RenderableType]:
    """The best discrete prompts, by dev loss."""
    best = best_prompts(run.pool)
    if not best:
        return []
    table = make_columns("dev loss", metric, "stage", "from", "prompt", wide=4)
    table.columns[3].justify = "left"
    for entry in best[:POOL]:
        text = Text(quote_prompt(entry.prompt.text, longest))
        table.add_row(*score_cells(entry.score), str(entry.stage + 1), entry.origin, text)
    title = f"Best discrete prompts ({min(POOL, len(best))} of {len(best)})"
    return [*make_heading(title), Padding(table, (0, 0, 0, 2))]


def render_restarts(run: RunRecords, metric: str, longest: int | None) -> list[RenderableType]:
    """Each restart: its effect, and the proposals behind it."""
    lines: list[RenderableType] = []
    shown: set[int] = set()  # stages, whose restarts share their proposals
    for effect in trace_restarts(run):
        restart = effect.restart
        member = f", prompt {restart.member + 1}" if restart.member else ""
        lines += make_heading(f"Restart after stage {restart.stage + 1}{member}")
        path = Text.assemble(
            "dev loss ",
            format_loss(effect.before),
            " → ",
            format_loss(effect.at),
            " at the restart → ",
            format_later_loss(effect),
        )
        lines.append(
            indent_text(path.append(f" after stage {restart.stage + 2}" if effect.after else " (not trained yet)"))
        )
        if restart.fallback:
            lines.append(indent_text(Text(f"fallback: {escape_controls(restart.fallback)}", "yellow")))
        if restart.stage not in shown:
            shown.add(restart.stage)
            lines += render_considered(run, restart, metric, longest)
    return lines


def render_considered(run: RunRecords, restart: Restart, metric: str, longest: int | None) -> list[RenderableType]:
    """The proposals before a restart: scores, choice, rationale, parts that were cut off, and rejected lines."""
    chosen = {r.prompt for r in run.restarts if r.stage == restart.stage}
    table = make_columns("", "dev loss", metric, "proposal", wide=3)
    for proposal, score in restart.considered:
        is_chosen = proposal.prompt in chosen
        text = Text(quote_prompt(proposal.prompt.text, longest), "" if is_chosen else "dim")
        if proposal.lost:
            text.append(f"  cut off: {quote_prompt(proposal.lost, longest)}", "yellow")
        if proposal.rationale:
            text.append(f"\n{escape_controls(proposal.rationale)}", "dim italic")
        table.add_row(Text("▸" if is_chosen else " ", "cyan"), *score_cells(score), text)
    lines: list[RenderableType] = [Padding(table, (0, 0, 0, 2))]
    for rejected in restart.rejected:
        line = Text.assemble(("rejected ", "dim"), quote_prompt(rejected.line, longest))
        lines.append(indent_text(line.append(f"  {escape_controls(rejected.reason)}", "dim")))
    return lines


def render_calls(run: RunRecords, full: bool) -> list[RenderableType]:
    """Each mentor call: facts, messages and response."""
    lines: list[RenderableType] = []
    for number, call in enumerate(run.exchanges, start=1):
        lines += make_heading(f"Mentor call {number}, after stage {call.stage + 1}")
        lines.append(indent_text(Text(describe_call(call), "dim")))
        if call.error is not None:
            lines.append(indent_text(Text(f"error: {escape_controls(call.error)}", "yellow")))
        for message in call.messages:
            lines += render_message(message.role, message.content, full)
        if call.reply:
            lines += render_message("reply", call.reply, full)
    return lines


def describe_call(call: LLMCall) -> str:
    """A call on one line: models, date, latency, cost and parameters."""
    asked, answered = escape_controls(call.asked), escape_controls(call.answered or "nobody")
    facts = [f"asked {asked}", f"answered by {answered}", escape_controls(call.date), f"{call.latency_s:.1f} s"]
    facts.append(sum_usage([call]).describe_cost())
    if call.attempts > 1:
        facts.append(f"{call.attempts} attempts")
    if call.stop_reason:
        facts.append(f"ended by {escape_controls(call.stop_reason)}")
    facts += [f"{escape_controls(name)}={escape_controls(str(value))}" for name, value in call.parameters.items()]
    facts += [f"{escape_controls(name)} not sent" for name in call.not_sent]
    return "; ".join(facts)


def render_message(role: str, content: str, full: bool) -> list[RenderableType]:
    """A message under its role."""
    lines = escape_paragraphs(content.strip("\n")).split("\n")
    hidden = 0 if full else len(lines) - SHORT
    if not full:
        lines = [shorten_text(line, SHORT_LINE) for line in lines[:SHORT]]
    text = Text("\n".join(lines))
    if hidden > 0:
        text.append(f"\n… {hidden} more lines (--full shows them)", "dim")
    return [indent_text(Text(role, "cyan")), Padding(indent_text(text), (0, 0, 0, 2))]
