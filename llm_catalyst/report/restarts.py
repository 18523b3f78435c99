"""The restarts of a run on the terminal: a line each in the summary, and with all proposals in the story of the run.

Colour is only for what a restart itself did to the loss, never for what training did afterwards.
"""

from collections.abc import Sequence

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from llm_catalyst.runs.analysis import has_training
from llm_catalyst.runs.reader import RunRecords
from llm_catalyst.runs.records import Score
from llm_catalyst.runs.restart_effects import (
    CARRIED,
    TRAINING,
    Change,
    RestartEffect,
    Role,
    find_role,
    group_effects,
    trace_restarts,
)
from llm_catalyst.utils import terminal

MARKS: dict[Role, str] = {"restart": "▸", "won": "▸", "lost": "·", "not chosen": " "}
CHANGED: dict[Change | None, str] = {"lower": "green", "within the error": "dim", "higher": "red", None: ""}  # styles


def tabulate_restarts(run: RunRecords) -> list[RenderableType]:
    """The effect of each restart, one line each; of several points side by side, the one that won is marked."""
    if not run.restarts:
        return []
    effects = trace_restarts(run)
    table = terminal.make_columns("stage", "before", "restart", "difference", "later", "from", wide=5)
    for effect in effects:
        restart, losses = effect.restart, (format_loss(effect.before), format_loss(effect.at))
        text = Text("▸ " if effect.won else "", "cyan", no_wrap=True, overflow="ellipsis")
        text.append_text(name_start(effect))
        table.add_row(str(restart.stage + 1), *losses, format_change(effect), format_later_loss(effect), text)
    notes = [f"later: after the next stage{f'; {TRAINING}' * has_training(run)}"]
    if any(effect.change for effect in effects):
        notes.append("difference: of the restart itself, ± its standard error over dev's rows; dim within the error")
    if any(effect.at and effect.carries and not effect.restart.kept for effect in effects):
        notes.append(f"restart: the text {CARRIED} (restart.carry)")
    if any(effect.won is not None for effect in effects):
        notes.append("▸ won and trained on; the others ended there")
    lines = [Padding(table, (0, 0, 0, 2), expand=False), *(terminal.indent_text(Text(note, "dim")) for note in notes)]
    return [*terminal.make_heading("Restarts after a stage, by dev loss"), *lines]


def format_change(effect: RestartEffect) -> Text:
    """'-0.0700 ± 0.0102': what the restart itself did to the loss; dim where it is within its error."""
    difference, error = effect.restart.difference, effect.restart.error
    if effect.change is None or difference is None or error is None:
        return Text("")
    return Text(f"{difference:+.4f} ± {error:.4f}", CHANGED[effect.change])


def format_loss(score: Score | None) -> str:
    """A loss in nats; a dash for None."""
    return f"{score.loss:.4f}" if score else "–"


def format_later_loss(effect: RestartEffect) -> Text:
    """The dev loss after the stage that the restart began, without colour: it is the work of training."""
    so_far = "" if effect.ended or effect.after is None or effect.won is False else " so far"
    return Text(format_loss(effect.after) + so_far)


def score_cells(score: Score | None) -> list[str]:
    """A score as two table cells: loss, metric."""
    return ["", ""] if score is None else [f"{score.loss:.4f}", f"{score.metric:.3f}"]


def render_restarts(run: RunRecords, metric: str, longest: int | None) -> list[RenderableType]:
    """The restarts after each stage: their effect, and the proposals behind them."""
    lines: list[RenderableType] = []
    for effects in group_effects(trace_restarts(run)):
        first = effects[0]
        what = f"{len(effects)} prompts side by side" if first.rivals else "Restart"
        what = "No restart" if first.restart.kept and not first.rivals else what
        lines += terminal.make_heading(f"{what} after stage {first.restart.stage + 1}")
        lines += render_effects(effects)
        lines += [terminal.indent_text(Text(first.shown, "dim"))] if first.shown else []
        lines += render_considered(effects, metric, longest)
    return lines


def render_effects(effects: Sequence[RestartEffect]) -> list[RenderableType]:
    """The loss before and at the restarts after a stage, and later; of several side by side in a table."""
    alone: list[RenderableType] = [terminal.indent_text(describe_path(effects[0]))]
    lines = render_rivals(effects) if effects[0].rivals else alone
    if fallback := effects[0].restart.fallback:
        lines.append(terminal.indent_text(Text(f"fallback: {terminal.escape_controls(fallback)}", "yellow")))
    return lines


def describe_path(effect: RestartEffect) -> Text:
    """'dev loss 0.6200 → 0.5500 at the restart (-0.0700 ± 0.0102) → 0.5200 after stage 2'."""
    restart = effect.restart
    path = Text.assemble("dev loss ", format_loss(effect.before), " → ", format_loss(effect.at))
    path.append(" of the running prompt" if restart.kept else " at the restart")
    if change := format_change(effect):
        path.append_text(Text.assemble(" (", change, ", within the error" * bool(restart.within_error), ")"))
    path.append(" → ").append_text(format_later_loss(effect))
    return path.append(f" after stage {restart.stage + 2}" if effect.after else " (not trained yet)")


def render_rivals(effects: Sequence[RestartEffect]) -> list[RenderableType]:
    """The restart points that trained side by side, a line each; the one that won is marked."""
    table = terminal.make_columns("", "restart", "difference", "later", "from", wide=4)
    for effect in effects:
        loss = Text("–" if effect.restart.kept else format_loss(effect.at))
        cells = loss, format_change(effect), format_later_loss(effect), name_start(effect)
        table.add_row(Text("▸" if effect.won else "", "cyan"), *cells)
    words = f"dev loss {format_loss(effects[0].before)} before"
    if effects[0].won is not None:
        words += "; ▸ won and trained on, the others ended there"
    return [Padding(table, (0, 0, 0, 2), expand=False), terminal.indent_text(Text(words, "dim"))]


def name_start(effect: RestartEffect) -> Text:
    """The prompt of a restart point on one line, dim where training did not go on from it."""
    restart = effect.restart
    words = "(the running prompt)" if restart.kept else terminal.quote_prompt(restart.prompt.text)
    style = "dim" if effect.won is False or (restart.kept and not effect.rivals) else ""
    return Text(words, style, no_wrap=True, overflow="ellipsis")


def render_considered(effects: Sequence[RestartEffect], metric: str, longest: int | None) -> list[RenderableType]:
    """The proposals before a restart: scores, choice, rationale, parts that were cut off, and rejected lines.

    Where the points that were scored carry more than their texts, the loss of the text alone stands beside.
    """
    first = effects[0]
    both = bool(first.carries and first.alone)
    table = terminal.make_columns("", "dev loss", metric, *["text alone"] * both, "proposal", wide=3 + both)
    for proposal, score in first.restart.considered:
        role = find_role(effects, proposal.prompt)
        text = Text(terminal.quote_prompt(proposal.prompt.text, longest), "dim" if role == "not chosen" else "")
        if proposal.lost:
            text.append(f"  cut off: {terminal.quote_prompt(proposal.lost, longest)}", "yellow")
        if proposal.rationale:
            text.append(f"\n{terminal.escape_controls(proposal.rationale)}", "dim italic")
        own = [format_loss(first.alone.get(proposal.prompt))] * both
        table.add_row(Text(MARKS[role], "cyan"), *score_cells(score), *own, text)
    lines: list[RenderableType] = [Padding(table, (0, 0, 0, 2), expand=False)] if first.restart.considered else []
    if first.carries:
        lines.append(terminal.indent_text(Text(f"dev loss, {metric}: of the text {CARRIED} (restart.carry)", "dim")))
    for rejected in first.restart.rejected:
        line = Text.assemble(("rejected ", "dim"), terminal.quote_prompt(rejected.line, longest))
        lines.append(terminal.indent_text(line.append(f"  {terminal.escape_controls(rejected.reason)}", "dim")))
    return lines
