"""What a person sees while a run goes on: a live view in a terminal, plain lines elsewhere, or nothing."""

import time
from collections.abc import Sequence

from rich.console import Console

from llm_catalyst.callbacks.base import NoCallback, Notice, RunCallback, RunInfo, RunWatcher, describe_unfinished
from llm_catalyst.runs.analysis import sum_usage
from llm_catalyst.runs.records import Evaluation, LLMCall, Outcome, Record, Restart
from llm_catalyst.utils.format import format_count, format_duration
from llm_catalyst.utils.terminal import escape_controls, forgive_encoding, quote_prompt
from llm_catalyst.utils.validation import check_choice

MODES = ("auto", "live", "plain", "none")


def make_callback(mode: str, console: Console) -> RunCallback:
    """The view of that name; `auto` is live where the console is a terminal that can move its cursor."""
    check_choice("view", mode, MODES)
    forgive_encoding(console)
    if mode == "none":
        return NoCallback()
    capable = console.is_terminal and not console.is_dumb_terminal and console.encoding.startswith("utf")
    if mode == "plain" or (mode == "auto" and not capable):
        return PlainView(console)
    from llm_catalyst.callbacks.live import LiveView

    return LiveView(console)


class PlainView:
    """One line for each event, in ASCII but for the prompts, written at once: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def begin(self, overview: RunInfo) -> None:
        self.began, self.watch, self.ended = time.monotonic(), RunWatcher(overview), False
        resumed = f", resumed from {overview.resumed}" if overview.resumed else ""
        plan = f"{format_count(len(overview.plan), 'stage')}, {format_count(sum(overview.plan), 'step')}{resumed}"
        where = escape_controls(overview.directory)
        self.say(f"{escape_controls(overview.title)}: {plan}; majority class {overview.majority:.3f}; {where}")

    def tick(self, stage: int, step: int, losses: tuple[float, ...]) -> None:
        self.note(self.watch.tick(stage, step, len(losses)))

    def show(self, record: Record) -> None:
        notes = self.watch.heed(record)
        if isinstance(record, Evaluation):
            self.say(self.evaluated(record))
        self.note(notes)
        if isinstance(record, LLMCall):
            self.say(describe_call(record))
        if isinstance(record, Restart):
            self.say(describe_restart(record))

    def end(self, outcome: Outcome | None) -> None:
        if not hasattr(self, "watch") or self.ended:
            return
        self.ended = True
        self.note(self.watch.close())
        if outcome is None:
            self.say(describe_unfinished(self.watch.overview))
        else:
            self.say(f"{outcome.status}: {escape_controls(outcome.message)}")

    def evaluated(self, record: Evaluation) -> str:
        overview = self.watch.overview
        member = f"  member {record.member + 1}" if self.watch.members > 1 else ""
        only = f"  every answer {quote_prompt(record.constant)}" if record.constant is not None else ""
        return (
            f"step {record.step}/{sum(overview.plan)}{member}  {record.split} loss {record.score.loss:.4f}  "
            f"{overview.metric} {record.score.metric:.3f}{only}"
        )

    def note(self, notes: Sequence[Notice]) -> None:
        for note in notes:
            self.say(f"warning: {note.text}" if note.warning else note.text)

    def say(self, line: str) -> None:
        print(f"{format_duration(time.monotonic() - self.began)}  {line}", file=self.console.file, flush=True)


def describe_call(record: LLMCall) -> str:
    """An exchange on one line."""
    who = escape_controls(record.answered or record.asked)
    if record.error is not None:
        return f"mentor {who} failed after {record.latency_s:.1f} s: {escape_controls(record.error)}"
    cost = sum_usage([record]).words().partition(", ")[2]
    if record.reused is not None:
        return f"mentor {who}: {cost} ({escape_controls(record.reused)})"
    return f"mentor {who} answered in {record.latency_s:.1f} s: {cost}"


def describe_restart(record: Restart) -> str:
    """A restart on one line."""
    before = f"{record.score_before.loss:.4f} -> " if record.score_before else ""
    after = f"{record.score.loss:.4f}" if record.score else "not scored"
    reason = f" ({escape_controls(record.reason).rstrip(': ')})" if record.reason else ""
    prompt = quote_prompt(record.prompt.text)
    return f"restart after stage {record.stage + 1} from {prompt}, dev loss {before}{after}{reason}"
