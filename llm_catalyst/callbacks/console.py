"""The console view of a run: live in a terminal, plain lines elsewhere, or none."""

import time
from collections.abc import Sequence

from rich.console import Console

from llm_catalyst.callbacks.base import Notice, RunCallback, RunInfo, RunWatcher, describe_unfinished
from llm_catalyst.runs.analysis import sum_usage
from llm_catalyst.runs.records import Evaluation, LLMCall, Outcome, Record, Restart, ScoredPrompt
from llm_catalyst.utils.format import format_count, format_duration
from llm_catalyst.utils.terminal import escape_controls, quote_prompt
from llm_catalyst.utils.validation import check_choice

MODES = ("auto", "live", "plain", "none")


def make_callback(mode: str, console: Console) -> RunCallback:
    """The callback for one of MODES; `auto` is live if the console is a terminal that can move its cursor."""
    check_choice("view", mode, MODES)
    if mode == "none":
        return RunCallback()
    capable = console.is_terminal and not console.is_dumb_terminal and console.encoding.startswith("utf")
    if mode == "plain" or (mode == "auto" and not capable):
        return PlainView(console)
    from llm_catalyst.callbacks.live import LiveView

    return LiveView(console)


class PlainView(RunCallback):
    """Prints a line for each event, in ASCII except for prompts, and flushes it: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console, self.running = console, False

    def on_run_start(self, info: RunInfo) -> None:
        self.started, self.watcher, self.running = time.monotonic(), RunWatcher(info), True
        resumed = f", resumed from {info.resumed}" if info.resumed else ""
        plan = f"{format_count(len(info.plan), 'stage')}, {format_count(sum(info.plan), 'step')}{resumed}"
        where = escape_controls(info.directory)
        self.print_line(f"{escape_controls(info.title)}: {plan}; majority class of dev {info.majority:.3f}; {where}")
        if info.rows:
            self.print_line(info.rows)
        self.print_notices([Notice(escape_controls(notice)) for notice in info.notices])
        self.print_notices([Notice(escape_controls(warning), warning=True) for warning in info.warnings])

    def on_step(self, stage: int, step: int, losses: tuple[float, ...]) -> None:
        self.print_notices(self.watcher.watch_step(stage, step, len(losses)))

    def on_record(self, record: Record) -> None:
        was_training, last = self.watcher.training, self.watcher.stage + 1 == len(self.watcher.info.plan)
        notices = self.watcher.watch_record(record)
        if isinstance(record, Evaluation):
            self.print_line(describe_evaluation(record, self.watcher))
        self.print_notices(notices)
        if isinstance(record, LLMCall):
            self.print_line(describe_call(record))
        if isinstance(record, Restart):
            self.print_line(describe_restart(record))
        if isinstance(record, ScoredPrompt) and was_training and last:
            self.print_line("scoring the result")  # which may take long

    def on_run_end(self, outcome: Outcome | None) -> None:
        if not self.running:
            return
        self.running = False
        self.print_notices(self.watcher.end_stage())
        if outcome is None:
            self.print_line(describe_unfinished(self.watcher.info))
        else:
            rows = f"; n = {outcome.test.examples:,}" if outcome.test else ""
            self.print_line(f"{outcome.status}: {escape_controls(outcome.message)}{rows}")

    def print_notices(self, notices: Sequence[Notice]) -> None:
        """Print each notice on a line."""
        for notice in notices:
            self.print_line(f"warning: {notice.text}" if notice.warning else notice.text)

    def print_line(self, line: str) -> None:
        """Print a line after the time since the start, and flush it."""
        print(f"{format_duration(time.monotonic() - self.started)}  {line}", file=self.console.file, flush=True)


def describe_evaluation(record: Evaluation, watcher: RunWatcher) -> str:
    """An evaluation on one line."""
    member = f"  member {record.member + 1}" if watcher.members > 1 else ""
    only = f"  every answer {quote_prompt(record.constant)}" if record.constant is not None else ""
    return (
        f"step {record.step}/{sum(watcher.info.plan)}{member}  {record.split} loss {record.score.loss:.4f}  "
        f"{watcher.info.metric} {record.score.metric:.3f}{only}"
    )


def describe_call(record: LLMCall) -> str:
    """A mentor call on one line."""
    model = escape_controls(record.answered or record.asked)
    if record.error is not None:
        return f"mentor {model} failed after {record.latency_s:.1f} s: {escape_controls(record.error)}"
    cost = sum_usage([record]).describe_cost()
    if record.reused is not None:
        return f"mentor {model}: {cost} ({escape_controls(record.reused)})"
    return f"mentor {model} answered in {record.latency_s:.1f} s: {cost}"


def describe_restart(record: Restart) -> str:
    """A restart on one line."""
    before = f"{record.score_before.loss:.4f} -> " if record.score_before else ""
    after = f"{record.score.loss:.4f}" if record.score else "not scored"
    error = f" +- {record.error:.4f}" if record.error else ""
    reason = f" ({escape_controls(record.reason).rstrip(': ')})" if record.reason else ""
    if record.reason.startswith("race"):
        words = "the running prompt" if record.kept else quote_prompt(record.prompt.text)
        losses = after if record.kept else f"{before}{after}{error}"
        return f"race after stage {record.stage + 1} with {words}, dev loss {losses}{reason}"
    if record.kept:
        return f"after stage {record.stage + 1} the running prompt goes on, dev loss {after}{reason}"
    prompt = quote_prompt(record.prompt.text)
    return f"restart after stage {record.stage + 1} from {prompt}, dev loss {before}{after}{error}{reason}"
