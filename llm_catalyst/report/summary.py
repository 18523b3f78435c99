"""What a run came to, on less than a screen: printed at its end, and at the end of its story."""

import shlex

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from llm_catalyst.runs.analysis import RestartEffect, arcs, clock, counted, metric_of, sum_usage, warnings_of
from llm_catalyst.runs.reader import RunRecords
from llm_catalyst.runs.records import Outcome, Score
from llm_catalyst.utils.rich_layout import columns, heading, indented, pairs
from llm_catalyst.utils.terminal import printable, quoted

# What base-to-new adds, of the soft prompt.
NEW = {"new_accuracy": "on new classes (accuracy)", "harmonic_mean": "harmonic mean of both"}


def summary(run: RunRecords) -> RenderableType:
    """The verdict, scores, best prompts, restarts, costs and what to type next; a short one for an unfinished run."""
    outcome = run.outcome
    if outcome is None:
        return Group(*spent(run), *warned(run), *next_steps(run))
    return Group(
        verdict(run, outcome),
        Text(),
        scores(outcome, metric_of(run)),
        *best_texts(run, outcome),
        *changes(run),
        *spent(run),
        *warned(run),
        *next_steps(run),
    )


def figures(score: Score | None) -> list[str]:
    """A score as two cells: loss, metric."""
    return ["", ""] if score is None else [f"{score.loss:.4f}", f"{score.metric:.3f}"]


def verdict(run: RunRecords, outcome: Outcome) -> Text:
    reached = outcome.status == "done" and outcome.test_metrics.get("accuracy", 0.0) > outcome.majority
    constant = any(e.constant is not None for e in run.metrics[-1:])
    style = "bold green" if reached and not constant else "bold yellow" if outcome.status == "done" else "bold red"
    return Text.assemble((outcome.status, style), "  ", (printable(outcome.message), "bold"))


def scores(outcome: Outcome, metric: str) -> Table:
    """Dev and reported scores of the soft prompt and of the pool's best, against the majority class."""
    reported = outcome.reported_on
    table = columns("", "dev loss", metric, f"{reported} loss", metric)
    table.columns[0].justify = "left"
    dev = outcome.best.score if outcome.best else None
    table.add_row("soft prompt", *figures(dev), *figures(outcome.test))
    if outcome.best_prompt:
        table.add_row("best discrete prompt", *figures(outcome.best_prompt.score), *figures(outcome.test_best_prompt))
    for name, words in NEW.items():
        if name in outcome.test_metrics:
            table.add_row(words, "", "", "", f"{outcome.test_metrics[name]:.3f}")
    table.add_row(Text("majority class (accuracy)", "dim"), "", "", "", Text(f"{outcome.majority:.3f}", "dim"))
    return table


def best_texts(run: RunRecords, outcome: Outcome) -> list[RenderableType]:
    """The two best prompts as text."""
    lines: list[RenderableType] = []
    if outcome.best:
        best = outcome.best
        lines += heading("Best soft prompt, as its nearest tokens")
        lines.append(indented(Text(quoted(best.prompt.text), "cyan")))
        near = f"similarity {best.similarity:.2f} (1: these tokens are the soft prompt)"
        lines.append(indented(Text(f"{near}, stage {best.stage + 1}, step {best.step}", "dim")))
    if outcome.best_prompt:
        entry = outcome.best_prompt
        # The gradient may have passed through a prompt that the mentor had proposed: the first has the merit.
        entry = next((e for e in run.pool if e.prompt.tokens == entry.prompt.tokens), entry)
        lines += heading("Best discrete prompt")
        lines.append(indented(Text(quoted(entry.prompt.text), "cyan")))
        lines.append(indented(Text(f"first proposed by the {entry.origin}, in stage {entry.stage + 1}", "dim")))
    return lines


def changes(run: RunRecords) -> list[RenderableType]:
    """What each restart changed, one line each."""
    if not run.restarts:
        return []
    table = columns("after stage", "before", "restart", "a stage later", "from", wide=4)
    for arc in arcs(run):
        text = Text(quoted(arc.restart.prompt.text), no_wrap=True, overflow="ellipsis")
        table.add_row(str(arc.restart.stage + 1), loss(arc.before), loss(arc.at), later(arc), text)
    return [*heading("Restarts, by dev loss"), Padding(table, (0, 0, 0, 2))]


def loss(score: Score | None) -> str:
    return f"{score.loss:.4f}" if score else "–"


def later(arc: RestartEffect) -> Text:
    """The dev loss after the stage that the restart began: green where the restart point and the training won."""
    better = arc.before is not None and arc.after is not None and arc.after.loss < arc.before.loss
    return Text(loss(arc.after) + ("" if arc.ended or arc.after is None else " so far"), "green" if better else "")


def spent(run: RunRecords) -> list[RenderableType]:
    """Time, memory, steps, and what the mentor cost."""
    rows: list[tuple[str, Text]] = []
    if run.outcome:
        ledger = run.outcome.ledger
        compiling = run.outcome.compile_seconds
        of_it = f", {clock(compiling)} of it compiling" if compiling else ""
        rows.append(("time", Text(f"{clock(run.outcome.seconds)} on {printable(run.outcome.device)}{of_it}")))
        rows.append(("peak memory", Text(f"{run.outcome.peak_memory_bytes / 2**20:,.0f} MiB")))
        steps = f"{counted(ledger.gradient_steps, 'step')} of training on {counted(ledger.train_examples, 'example')}"
        rows.append(("work", Text(f"{steps}, {counted(ledger.scored_examples, 'example')} scored")))
        if ledger.train_tokens:
            padding = ledger.padding_tokens / ledger.train_tokens
            rows.append(("padding", Text(f"{100 * padding:.1f} % of the texts' tokens in training")))
    rows.append(("mentor", Text(sum_usage(run.exchanges).words() if run.exchanges else "no calls")))
    return [*heading("Spent"), pairs(rows)]


def warned(run: RunRecords) -> list[RenderableType]:
    found = warnings_of(run)
    return [*heading("Warnings"), *(indented(Text(line, "yellow")) for line in found)] if found else []


def next_steps(run: RunRecords) -> list[RenderableType]:
    """Where the files are, and the commands to type next."""
    path = printable(shlex.quote(str(run.path)))
    verb = "show" if run.outcome else "resume"
    commands = Text(f"catalyst {verb} {path}", "cyan", overflow="fold")
    return [*heading("Next"), pairs([("files", Text(path)), ("command", commands)])]
