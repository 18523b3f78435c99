"""The summary of a run, on less than a screen: printed at its end, and at the end of `catalyst show`."""

import shlex

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from llm_catalyst.runs.analysis import RestartEffect, collect_warnings, read_metric_name, sum_usage, trace_restarts
from llm_catalyst.runs.reader import RunRecords
from llm_catalyst.runs.records import Outcome, Score
from llm_catalyst.utils.format import format_count, format_duration, format_mebibytes
from llm_catalyst.utils.terminal import (
    escape_controls,
    indent_text,
    make_columns,
    make_heading,
    make_pairs,
    quote_prompt,
)

# What base-to-new adds, of the soft prompt.
NEW = {"new_accuracy": "on new classes (accuracy)", "harmonic_mean": "harmonic mean of both"}


def summarize_run(run: RunRecords) -> RenderableType:
    """Result, scores, best prompts, restarts, costs and the next command; less for an unfinished run."""
    outcome = run.outcome
    if outcome is None:
        return Group(*render_usage(run), *render_warnings(run), *render_next_steps(run))
    return Group(
        render_verdict(run, outcome),
        Text(),
        render_scores(outcome, read_metric_name(run)),
        *render_best_prompts(run, outcome),
        *render_restarts(run),
        *render_usage(run),
        *render_warnings(run),
        *render_next_steps(run),
    )


def score_cells(score: Score | None) -> list[str]:
    """A score as two table cells: loss, metric."""
    return ["", ""] if score is None else [f"{score.loss:.4f}", f"{score.metric:.3f}"]


def render_verdict(run: RunRecords, outcome: Outcome) -> Text:
    """Status and message: green if the run is done and above the majority class."""
    reached = outcome.status == "done" and outcome.test_metrics.get("accuracy", 0.0) > outcome.majority
    constant = any(e.constant is not None for e in run.metrics[-1:])
    style = "bold green" if reached and not constant else "bold yellow" if outcome.status == "done" else "bold red"
    return Text.assemble((outcome.status, style), "  ", (escape_controls(outcome.message), "bold"))


def render_scores(outcome: Outcome, metric: str) -> Table:
    """The scores of soft prompt and best discrete prompt, on dev and on the reporting split; the majority class."""
    reported = outcome.reported_on
    table = make_columns("", "dev loss", metric, f"{reported} loss", metric)
    table.columns[0].justify = "left"
    dev = outcome.best.score if outcome.best else None
    table.add_row("soft prompt", *score_cells(dev), *score_cells(outcome.test))
    if outcome.best_prompt:
        table.add_row(
            "best discrete prompt", *score_cells(outcome.best_prompt.score), *score_cells(outcome.test_best_prompt)
        )
    for name, words in NEW.items():
        if name in outcome.test_metrics:
            table.add_row(words, "", "", "", f"{outcome.test_metrics[name]:.3f}")
    table.add_row(Text("majority class (accuracy)", "dim"), "", "", "", Text(f"{outcome.majority:.3f}", "dim"))
    return table


def render_best_prompts(run: RunRecords, outcome: Outcome) -> list[RenderableType]:
    """The best soft prompt and the best discrete prompt as text."""
    lines: list[RenderableType] = []
    if outcome.best:
        best = outcome.best
        lines += make_heading("Best soft prompt, as its nearest tokens")
        lines.append(indent_text(Text(quote_prompt(best.prompt.text), "cyan")))
        near = f"similarity {best.similarity:.2f} (1: these tokens are the soft prompt)"
        lines.append(indent_text(Text(f"{near}, stage {best.stage + 1}, step {best.step}", "dim")))
    if outcome.best_prompt:
        entry = outcome.best_prompt
        # Several origins may have found the same prompt; the first one is named.
        entry = next((e for e in run.pool if e.prompt.tokens == entry.prompt.tokens), entry)
        lines += make_heading("Best discrete prompt")
        lines.append(indent_text(Text(quote_prompt(entry.prompt.text), "cyan")))
        lines.append(indent_text(Text(f"first proposed by the {entry.origin}, in stage {entry.stage + 1}", "dim")))
    return lines


def render_restarts(run: RunRecords) -> list[RenderableType]:
    """The effect of each restart, one line each."""
    if not run.restarts:
        return []
    table = make_columns("after stage", "before", "restart", "a stage later", "from", wide=4)
    for effect in trace_restarts(run):
        text = Text(quote_prompt(effect.restart.prompt.text), no_wrap=True, overflow="ellipsis")
        table.add_row(
            str(effect.restart.stage + 1),
            format_loss(effect.before),
            format_loss(effect.at),
            format_later_loss(effect),
            text,
        )
    return [*make_heading("Restarts, by dev loss"), Padding(table, (0, 0, 0, 2))]


def format_loss(score: Score | None) -> str:
    """A loss in nats; a dash for None."""
    return f"{score.loss:.4f}" if score else "–"


def format_later_loss(effect: RestartEffect) -> Text:
    """The dev loss after the stage that the restart began: green if it is below the loss before the restart."""
    better = effect.before is not None and effect.after is not None and effect.after.loss < effect.before.loss
    return Text(
        format_loss(effect.after) + ("" if effect.ended or effect.after is None else " so far"),
        "green" if better else "",
    )


def render_usage(run: RunRecords) -> list[RenderableType]:
    """Time, memory, work, and the cost of the mentor."""
    rows: list[tuple[str, Text]] = []
    if run.outcome:
        ledger = run.outcome.ledger
        compiling = run.outcome.compile_seconds
        compiling_part = f", {format_duration(compiling)} of it compiling" if compiling else ""
        rows.append(
            (
                "time",
                Text(
                    f"{format_duration(run.outcome.seconds)} on {escape_controls(run.outcome.device)}{compiling_part}"
                ),
            )
        )
        rows.append(("peak memory", Text(format_mebibytes(run.outcome.peak_memory_bytes))))
        examples = format_count(ledger.train_examples, "example")
        steps = f"{format_count(ledger.gradient_steps, 'step')} of training on {examples}"
        rows.append(("work", Text(f"{steps}, {format_count(ledger.scored_examples, 'example')} scored")))
        if ledger.train_tokens:
            padding = ledger.padding_tokens / ledger.train_tokens
            rows.append(("padding", Text(f"{100 * padding:.1f} % of the texts' tokens in training")))
    rows.append(("mentor", Text(sum_usage(run.exchanges).describe() if run.exchanges else "no calls")))
    return [*make_heading("Spent"), make_pairs(rows)]


def render_warnings(run: RunRecords) -> list[RenderableType]:
    """The warnings; nothing if there are none."""
    found = collect_warnings(run)
    return [*make_heading("Warnings"), *(indent_text(Text(line, "yellow")) for line in found)] if found else []


def render_next_steps(run: RunRecords) -> list[RenderableType]:
    """The run directory, and the next command."""
    path = escape_controls(shlex.quote(str(run.path)))
    verb = "show" if run.outcome else "resume"
    commands = Text(f"catalyst {verb} {path}", "cyan", overflow="fold")
    return [*make_heading("Next"), make_pairs([("files", Text(path)), ("command", commands)])]
