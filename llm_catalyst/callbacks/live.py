"""The live view: one screen for a running experiment, redrawn a few times a second."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from llm_catalyst.callbacks.base import RunCallback, RunInfo, RunWatcher, describe_unfinished
from llm_catalyst.runs.analysis import MentorUsage, best_prompts, call_usage, read_accuracy
from llm_catalyst.runs.records import (
    Evaluation,
    LLMCall,
    Outcome,
    Prompt,
    Record,
    Restart,
    Score,
    ScoredPrompt,
    Snapshot,
)
from llm_catalyst.runs.restart_effects import Role, find_role, trace_stage
from llm_catalyst.utils.format import format_duration
from llm_catalyst.utils.terminal import escape_controls, quote_prompt
from llm_catalyst.utils.text_plot import Point, draw_area, value_span

LABEL = 24  # columns of the text to the left of a curve
ORDER: tuple[Role, ...] = ("won", "restart", "lost", "not chosen")
TOP, PROPOSALS = 5, 3  # rows: of the pool, and of the mentor's proposals
POINTS = 256  # of a curve: more than a screen has dots for


@dataclass
class Curve:
    """A series of any length as at most POINTS means over equal stretches; adding a value costs O(1)."""

    points: list[Point] = field(default_factory=list)
    stride: int = 1
    latest: float | None = None
    lowest: float = math.inf
    _sum: float = 0.0
    _count: int = 0

    def add(self, x: float, y: float) -> None:
        """Add a value."""
        self.latest, self.lowest = y, min(y, self.lowest)
        self._sum += y
        self._count += 1
        if self._count < self.stride:
            return
        # A new list, not a change in place: the drawing thread may be reading the old one.
        self.points = [*self.points, (x, self._sum / self._count)]
        self._sum, self._count = 0.0, 0
        if len(self.points) == POINTS:
            pairs = zip(self.points[::2], self.points[1::2], strict=True)
            self.points = [(b[0], (a[1] + b[1]) / 2) for a, b in pairs]
            self.stride *= 2


@dataclass
class Pace:
    """Steps a second while training, and the time between stages, which give the remaining time."""

    now: float
    steps: int = 0
    training_s: float = 0.0
    gaps: int = 0
    gaps_s: float = 0.0

    def step(self, now: float, first_of_stage: bool) -> None:
        """Count a step, or a gap if the step is the first of its stage."""
        if first_of_stage:
            self.gaps, self.gaps_s = self.gaps + 1, self.gaps_s + now - self.now
        else:
            self.steps, self.training_s = self.steps + 1, self.training_s + now - self.now
        self.now = now

    @property
    def rate(self) -> float | None:
        """Steps a second; None while unknown."""
        return self.steps / self.training_s if self.training_s else None

    def left(self, steps: int, gaps: int) -> float | None:
        """Seconds for that many steps and gaps between stages; None while unknown."""
        return steps / self.rate + gaps * self.gaps_s / max(1, self.gaps) if self.rate else None


class LiveView(RunCallback):
    """Shows a run on one screen of 80 x 24 or more, which is removed at the end of the run."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live: Live | None = None

    def on_run_start(self, info: RunInfo) -> None:
        self.started = self.since = time.monotonic()
        self.watcher, self.pace, self.usage = RunWatcher(info), Pace(self.started), MentorUsage()
        self.train, self.dev = Curve(), Curve()
        self.evaluation: Evaluation | None = None
        self.best: float | None = None
        self.scored: list[ScoredPrompt] = []
        self.top: list[ScoredPrompt] = []
        self.restarts: list[Restart] = []
        self.stage_evaluations: list[Evaluation] = []  # on dev, of the last stage that has some
        self.warnings = list(map(escape_controls, info.warnings))
        self.activity = "scoring the starting point"
        for notice in info.notices:  # above the view, where it stays
            self.console.print(Text(escape_controls(notice)), soft_wrap=True)
        self.live = Live(self, console=self.console, transient=True, vertical_overflow="crop")
        self.live.start()

    def on_resume(self, stage: int, step: int, records: Sequence[Record]) -> None:
        self.watcher.resume(stage, step, records)
        self.pace.now = time.monotonic()
        losses: dict[int, float] = {}
        for record in records:
            self.keep_record(record)
            if isinstance(record, Snapshot):  # of prompts side by side, the best is drawn
                losses[record.step] = min(record.train_loss, losses.get(record.step, math.inf))
        for place, loss in losses.items():
            self.train.add(place, loss)
        self.top = best_prompts(self.scored)
        self.set_activity("training" if self.watcher.training else "resuming")

    def on_step(self, stage: int, step: int, losses: tuple[float, ...]) -> None:
        begins = stage != self.watcher.stage
        self.pace.step(time.monotonic(), begins)
        self.warnings += [notice.text for notice in self.watcher.watch_step(stage, step, len(losses)) if notice.warning]
        if begins:
            self.set_activity("training")
        finite = [loss for loss in losses if math.isfinite(loss)]
        if finite:
            self.train.add(step, min(finite))

    def on_record(self, record: Record) -> None:
        was_training = self.watcher.training
        self.warnings += [notice.text for notice in self.watcher.watch_record(record) if notice.warning]
        self.keep_record(record)
        if isinstance(record, Evaluation) and record.split == "dev":
            if self.watcher.training and record.step >= self.watcher.info.ends[record.stage]:
                self.set_activity("scoring the projected prompts")
        elif isinstance(record, ScoredPrompt):
            self.top = best_prompts(self.scored)
            if was_training:
                last = record.stage + 1 == len(self.watcher.info.plan)
                self.set_activity("scoring on test" if last else "asking the mentor")
        elif isinstance(record, LLMCall) and not self.watcher.training:  # else it is used later
            self.set_activity("the mentor failed" if record.error else "scoring the mentor's proposals")

    def keep_record(self, record: Record) -> None:
        """Keep what the screen shows of a record."""
        if isinstance(record, Evaluation) and record.split == "dev":
            self.stage_evaluations = [e for e in self.stage_evaluations if e.stage == record.stage] + [record]
            self.show_evaluation(record)
        elif isinstance(record, ScoredPrompt):
            self.scored.append(record)
        elif isinstance(record, LLMCall):
            self.usage = self.usage + call_usage(record)
        elif isinstance(record, Restart):
            self.restarts = [r for r in self.restarts if r.stage == record.stage] + [record]

    def show_evaluation(self, record: Evaluation) -> None:
        """Show an evaluation on dev; of prompts that are trained side by side, that of the best."""
        last = self.evaluation
        if last is not None and last.step == record.step and last.score.loss <= record.score.loss:
            return
        self.evaluation = record
        self.best = max(read_accuracy(record), self.best or 0.0)
        self.dev.add(record.step, record.score.loss)

    def set_activity(self, activity: str) -> None:
        """Name what the run is doing now."""
        self.activity, self.since = activity, time.monotonic()

    def on_run_end(self, outcome: Outcome | None) -> None:
        """Restore the terminal; the last screen stays only if the run is unfinished."""
        if self.live is not None:
            self.live.transient = outcome is not None
            self.live.stop()
            self.live = None
            if outcome is None:
                self.console.print(Text(describe_unfinished(self.watcher.info)), soft_wrap=True)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.render_screen(options.max_width, console.height - 1):
            line.no_wrap, line.overflow = True, "ellipsis"
            yield line

    def render_screen(self, width: int, height: int) -> list[Text]:
        """The lines of one screen: without space, parts are left out in a fixed order; spare lines go to the curves."""
        warnings = [Text(f"! {text}", "yellow") for text in self.warnings[-3:]]
        # Rows that are still empty keep their place, so that nothing jumps when they are filled.
        space = max(0, height - 7 - len(warnings))  # 7: the header, two curves of one line, the dev metric
        top = [*self.render_pool(), *[Text()] * TOP][: min(space, 1 + TOP)]
        space -= len(top)
        proposals = [*self.render_proposals(), *[Text()] * PROPOSALS][: min(space, 1 + PROPOSALS)]
        space -= len(proposals)
        tall = (2 if space >= 2 else 1) + min(4, max(0, space - 5) // 2)
        lines = self.render_header(width)
        for number, part in enumerate((self.render_curves(width, tall), top, proposals)):
            lines += [Text()] * (space - 2 > number) + part
        return lines + warnings

    def render_header(self, width: int) -> list[Text]:
        """Title, directory, progress, activity and remaining time."""
        info, watcher, now = self.watcher.info, self.watcher, time.monotonic()
        total, stage = sum(info.plan), max(0, watcher.stage)
        left = self.pace.left(total - watcher.step, len(info.plan) - 1 - stage)
        step = f"  step {watcher.step:,}/{total:,}"
        place = f"stage {stage + 1}/{len(info.plan)}  "
        bar = stage_bar(info.plan, watcher.step, width - len(place) - len(step))
        waiting = f" ({now - self.since:.0f} s)" if self.activity != "training" and now - self.since >= 1 else ""
        pace = f"{self.pace.rate:.1f} steps/s" if self.pace.rate else ""
        rest = f"about {format_duration(left)} left" if left is not None else ""
        running = format_duration(now - self.started)
        resumed = f"resumed from {escape_controls(info.resumed)}" if info.resumed else ""
        return [
            justify_line(Text(escape_controls(info.title), "bold"), running, width),
            justify_line(Text(escape_controls(info.directory), "dim"), resumed, width),
            Text.assemble(place, bar, step),
            justify_line(Text(self.activity + waiting, "cyan"), "   ".join(filter(None, (pace, rest))), width),
        ]

    def render_curves(self, width: int, height: int) -> list[Text]:
        """The curves of training and dev loss, `height` lines each, and the status."""
        info = self.watcher.info
        lines = []
        for name, curve, style in (("train loss", self.train, "cyan"), ("dev loss", self.dev, "green")):
            steps, low_high = (0, sum(info.plan)), value_span([y for _, y in curve.points] or [0.0])
            rows = draw_area(curve.points, max(8, width - LABEL), height, steps, low_high, info.ends[:-1], style)
            latest, lowest = ("", "") if curve.latest is None else (f"{curve.latest:.4f}", f"{curve.lowest:.4f}")
            labels = [Text(f"{name:<14}{latest:<10}"), Text(f"{'  lowest':<14}{lowest:<10}", "dim")]
            labels += [Text(" " * LABEL)] * (height - 2)
            lines += [label.copy().append_text(row) for label, row in zip(labels, rows, strict=False)]
        return [*lines, self.render_status()]

    def render_status(self) -> Text:
        """Dev metric now, best accuracy so far, and the majority class."""
        info, latest = self.watcher.info, self.evaluation
        if latest is None:
            return Text()
        now = f"{latest.score.metric:<10.3f}", "green" if read_accuracy(latest) > info.majority else "yellow"
        rows = f"n {latest.score.examples:,}"
        levels = f"best accuracy {self.best:.3f}   majority class {info.majority:.3f}   {rows}", "dim"
        return Text.assemble(f"{'dev ' + info.metric:<14}", now, levels)

    def render_pool(self) -> list[Text]:
        """The best discrete prompts."""
        lines = [Text(f"{'dev loss':>8}  {self.watcher.info.metric:>8}  {'from':<8}  best discrete prompts", "dim")]
        return lines + [prompt_line(entry.score, entry.origin, entry.prompt) for entry in self.top[:TOP]]

    def render_proposals(self) -> list[Text]:
        """The mentor's last proposals, those that restarted marked, and its cost so far."""
        head, proposals = "mentor: no restart yet", list[Text]()
        effects = trace_stage(self.restarts, self.stage_evaluations, self.scored, False, self.watcher.info.criterion)
        if effects:
            head, last = f"mentor after stage {effects[0].restart.stage + 1}", effects[0]
            head += " (fallback)" * bool(last.restart.fallback) + ", dev at the restart" * last.carries
            if any(effect.restart.kept and (effect.won or not effect.rivals) for effect in effects):
                head += ": the running prompt goes on"
            roles = [find_role(effects, proposal.prompt) for proposal, _ in last.restart.considered]
            pairs = sorted(zip(last.restart.considered, roles, strict=True), key=lambda pair: ORDER.index(pair[1]))
            for (proposal, score), role in pairs[:PROPOSALS]:
                word = "" if role == "not chosen" else role
                alone = last.alone.get(proposal.prompt) if last.carries else None
                style = "" if role in ("restart", "won") else "dim"
                proposals.append(prompt_line(score, word, proposal.prompt, style, alone))
        spent = self.usage.describe() if self.usage.calls else ""
        return [Text("   ".join(filter(None, (head, spent))), "dim"), *proposals]


def prompt_line(score: Score | None, word: str, prompt: Prompt, style: str = "", alone: Score | None = None) -> Text:
    """A prompt after its loss, its metric, a word on it, and the loss of its text alone where that is another."""
    numbers = f"{score.loss:8.4f}  {score.metric:8.3f}" if score else " " * 18
    own = f"text alone {alone.loss:.4f}  " if alone else ""
    return Text(f"{numbers}  {word:<8}  {own}{quote_prompt(prompt.text, 300)}", style)


def justify_line(left: Text, right: str, width: int) -> Text:
    """One line with `left` on the left, cut if needed, and `right` on the right."""
    end = Text(f"  {right}" if right else "", "dim")
    left.truncate(max(0, width - end.cell_len), overflow="ellipsis", pad=True)
    return Text.assemble(left, end)


def stage_bar(plan: Sequence[int], step: int, width: int) -> Text:
    """A bar for each stage, as long as the stage, filled up to `step`; a single one if there are too many stages."""
    if 4 * len(plan) > width:
        plan = [sum(plan)]
    cells = max(len(plan), width - len(plan) + 1)
    text, begin, drawn = Text(), 0, 0
    for i, steps in enumerate(plan):
        later = len(plan) - 1 - i  # stages, each of which needs a cell
        length = max(1, min(round(cells * (begin + steps) / sum(plan)), cells - later) - drawn)
        done = round(length * min(1.0, max(0.0, (step - begin) / steps)))
        text.append("━" * done, "cyan").append("━" * (length - done), "dim")
        text.append(" " if i + 1 < len(plan) else "")
        begin, drawn = begin + steps, drawn + length
    return text
