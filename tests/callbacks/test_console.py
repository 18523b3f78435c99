"""The views of a running experiment, told the records of one as experiment.run would."""

import io
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pexpect
import pytest
from helpers.recorded import (
    DIRECTORY,
    HOSTILE,
    OVERVIEW,
    PLAN,
    evaluation,
    exchange,
    outcome,
    play,
    prompt,
    raced,
    run_records,
    write_run,
)
from rich.console import Console

from llm_catalyst.callbacks.base import RunCallback
from llm_catalyst.callbacks.console import PlainView, make_callback
from llm_catalyst.callbacks.live import POINTS, Curve, LiveView, Pace, stage_bar
from llm_catalyst.callbacks.progress_bars import ProgressBars
from llm_catalyst.runs.analysis import MentorUsage, sum_usage
from llm_catalyst.runs.records import Event, Prompt, Score, ScoredPrompt, Snapshot
from llm_catalyst.utils.format import format_dollars
from llm_catalyst.utils.terminal import escape_controls, escape_paragraphs, quote_prompt
from llm_catalyst.utils.text_plot import draw_area, draw_curve, value_span
from llm_catalyst.utils.validation import ConfigurationError

CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u200b]")


def plain(terminal: bool = False) -> tuple[PlainView, io.StringIO]:
    file = io.StringIO()
    return PlainView(Console(file=file, force_terminal=terminal)), file


@contextmanager
def live(width: int = 80, height: int = 24) -> Iterator[tuple[LiveView, Console]]:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height)
    view = LiveView(console)
    try:
        yield view, console
    finally:
        view.on_run_end(None)


def screen(view: LiveView, console: Console) -> list[str]:
    lines = console.render_lines(view, pad=False)
    return ["".join(segment.text for segment in line) for line in lines]


def test_the_plain_view_prints_one_line_for_each_event_and_no_escape_codes() -> None:
    view, file = plain(terminal=True)
    play(view)
    view.on_run_end(outcome())
    lines = file.getvalue().splitlines()
    begin, evaluations, stages, mentor, end = 1, 1 + sum(PLAN) // 50, 2 * len(PLAN), 2 + 2, 2
    assert len(lines) == begin + evaluations + stages + mentor + end
    assert not CONTROLS.search(file.getvalue())
    assert all(re.match(r"\d+:\d\d:\d\d  \S", line) for line in lines)


def test_the_plain_view_tells_scores_restarts_and_costs() -> None:
    view, file = plain()
    play(view)
    view.on_run_end(outcome())
    text = file.getvalue()
    assert "step 200/800  dev loss 0.6000  accuracy 0.630" in text
    assert "stage 2/3 begins: 200 steps" in text
    assert "stage 2/3 ends at step 400, best dev accuracy in it 0.710" in text
    assert "mentor claude-haiku-4-5-20251001 answered in 2.9 s: 812 + 64 tokens, $0.0012" in text
    assert 'restart after stage 1 from "Judge the mood of the review", dev loss 0.6200 -> 0.5500 (best of 3)' in text
    assert text.splitlines()[-1].endswith("done: accuracy 0.871 beats the majority class (0.509); n = 1,000")


def test_a_stages_end_is_told_before_what_follows_it() -> None:
    view, file = plain()
    play(view, stages=2)
    text = file.getvalue()
    order = [text.index(words) for words in ("stage 1/3 ends", "mentor claude", "restart after", "stage 2/3 begins")]
    assert order == sorted(order)


def test_prompts_that_train_side_by_side_are_told_apart() -> None:
    view, file = plain()
    play(view, stages=1, members=3)
    assert "stage 1/3 begins: 200 steps, 3 prompts side by side" in file.getvalue()
    assert "step 50/800  member 1  dev loss" in file.getvalue()


def test_each_plain_line_is_flushed_at_once() -> None:
    class Stream(io.StringIO):
        unflushed = 0

        def write(self, text: str) -> int:
            self.unflushed += text.count("\n")
            return super().write(text)

        def flush(self) -> None:
            self.unflushed = 0

    stream = Stream()
    view = PlainView(Console(file=stream))
    view.on_run_start(OVERVIEW)
    view.on_record(evaluation(0, 0, 0.7, 0.5))
    assert stream.getvalue().count("\n") == 2
    assert stream.unflushed == 0


def test_answers_that_are_all_the_same_are_warned_of_once_until_they_change() -> None:
    view, file = plain()
    view.on_run_start(OVERVIEW)
    for step, constant in ((1, "negative"), (2, "negative"), (3, None), (4, "negative"), (5, "positive")):
        view.on_step(0, step, (0.7,))
        view.on_record(evaluation(0, step, 0.7, 0.5, constant))
    warnings = [line for line in file.getvalue().splitlines() if "warning" in line]
    assert [re.findall(r'step (\d).*"(\w+)"', line)[0] for line in warnings] == [
        ("1", "negative"),
        ("4", "negative"),
        ("5", "positive"),
    ]
    assert "larger optimizer.lr" in warnings[0]


def test_constant_answers_before_any_training_are_no_warning() -> None:
    view, file = plain()
    view.on_run_start(OVERVIEW)
    view.on_record(evaluation(0, 0, 0.7, 0.5, "negative"))
    assert 'every answer "negative"' in file.getvalue()
    assert "warning" not in file.getvalue()


@pytest.mark.parametrize(("accuracy", "warned"), [(0.509, True), (0.48, True), (0.51, False)])
def test_a_stage_that_stays_at_the_majority_class_is_warned_of_at_its_end(accuracy: float, warned: bool) -> None:
    view, file = plain()
    view.on_run_start(OVERVIEW)
    view.on_step(0, 100, (0.7,))
    view.on_record(evaluation(0, 100, 0.7, accuracy))
    assert "majority class (0.509)" not in file.getvalue()
    view.on_step(0, 200, (0.7,))
    view.on_record(evaluation(0, 200, 0.7, 0.4))
    view.on_step(1, 201, (0.7,))
    expected = f"dev accuracy (best {accuracy:.3f}) is not above the majority class (0.509); try a larger optimizer.lr"
    assert (expected in file.getvalue()) is warned


def test_a_majority_warning_comes_even_where_the_last_stage_just_ends() -> None:
    with live() as (view, console):
        view.on_run_start(OVERVIEW)
        view.on_step(2, 800, (0.7,))
        view.on_record(evaluation(2, 800, 0.7, 0.5))
        view.on_record(ScoredPrompt(Prompt((1,), "film"), Score(0.7, 0.5, 4), "gradient", 2))
        assert any("not above the majority class" in line for line in screen(view, console))


@pytest.mark.parametrize(
    "view", [PlainView(Console(file=io.StringIO())), RunCallback(), LiveView(Console(file=io.StringIO()))]
)
def test_a_view_may_end_before_it_begins_and_twice(view: RunCallback) -> None:
    view.on_run_end(None)
    view.on_run_start(OVERVIEW)
    view.on_run_end(None)
    view.on_run_end(None)


def test_the_plain_view_says_how_a_run_that_was_cut_off_goes_on() -> None:
    view, file = plain()
    view.on_run_start(OVERVIEW)
    view.on_step(0, 50, (0.7,))
    view.on_run_end(None)
    assert "stage 1/3 ends" not in file.getvalue()
    assert file.getvalue().endswith(f"continue with: catalyst resume {DIRECTORY}\n")


def test_an_unknown_price_is_never_shown_as_zero() -> None:
    view, file = plain()
    view.on_run_start(OVERVIEW)
    view.on_record(exchange(0, "1. film", cost_usd=None))
    assert "cost unknown" in file.getvalue()
    assert "$" not in file.getvalue()
    assert sum_usage([exchange(0, "1. film", None), exchange(0, "1. film", 0.5)]).describe().endswith("≥ $0.5000")
    assert sum_usage([exchange(0, "", None, "timeout")]).describe() == "1 call, tokens unknown, cost unknown"


@pytest.mark.parametrize(
    ("amount", "shown"), [(0.0, "$0.00"), (0.00123, "$0.0012"), (0.0000045, "$0.0000045"), (12.5, "$12.50")]
)
def test_small_amounts_of_money_do_not_vanish(amount: float, shown: str) -> None:
    assert format_dollars(amount) == shown


def test_the_live_view_shows_all_its_parts_in_80_by_24() -> None:
    with live() as (view, console):
        play(view, stages=2)
        view.on_step(2, 401, (0.43,))
        view.on_record(Event(2, 401, "diverged", "loss was not finite"))
        lines = screen(view, console)
    text = "\n".join(lines)
    assert len(lines) <= 23
    for part in (
        OVERVIEW.title,
        DIRECTORY,
        "stage 3/3",
        "step 401/800",
        "steps/s",
        "train loss    0.4300",
        "dev loss      0.5200",
        "dev accuracy  0.710",
        "majority class 0.509",
        '0.5000     0.733  mentor    "Feel the tone of the review"',
        '0.5000     0.733  restart   "Feel the tone of the review"',
        "mentor after stage 2",
        "2 calls, 1,624 + 128 tokens, $0.0025",
        "! stage 3, step 401: diverged: loss was not finite",
    ):
        assert part in text
    assert sum('"' in line for line in lines) == 5 + 3  # the pool's best, the mentor's proposals


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 16), (200, 60), (100, 12)])
@pytest.mark.parametrize("extra", ["", HOSTILE])
def test_the_live_view_never_overflows_its_terminal(width: int, height: int, extra: str) -> None:
    with live(width, height) as (view, console):
        play(view, extra=extra, fails=True)
        lines = console.render_lines(view, pad=False)
        assert len(lines) < height
        assert max(sum(segment.cell_length for segment in line) for line in lines) <= width


def test_a_taller_terminal_gets_taller_curves() -> None:
    with live() as (view, console):
        play(view)
        low = sum("█" in line for line in screen(view, console))
    with live(80, 40) as (view, console):
        play(view)
        assert sum("█" in line for line in screen(view, console)) > low


def test_hostile_text_reaches_no_terminal_as_escape_code_or_markup() -> None:
    with live(200, 40) as (view, console):
        play(view, extra=HOSTILE, fails=True)
        assert view.live is not None
        view.live.refresh()
        output = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\\x1b[31mred\\x1b[0m" in output
    assert "[bold]markup[/bold]" in output
    for poison in ("\x1b[31mred", "\x1b]", "\x07", "\x08", "\x9b", "\x00", "\u202e", "\u200b"):
        assert poison not in output


def test_hostile_text_stays_on_its_plain_line() -> None:
    view, file = plain()
    play(view, extra=HOSTILE, fails=True)
    assert not CONTROLS.search(file.getvalue())
    assert "\\x1b[31mred\\x1b[0m" in file.getvalue()


def test_the_live_view_says_what_the_run_waits_for() -> None:
    with live() as (view, console):
        play(view, stages=1)
        entry = ScoredPrompt(Prompt((9,), "film"), Score(0.5, 0.7, 400), "gradient", 1)
        doing = []
        for act in (
            lambda: view.on_step(1, 201, (0.5,)),
            lambda: view.on_step(1, 400, (0.5,)),
            lambda: view.on_record(evaluation(1, 400, 0.5, 0.7)),
            lambda: view.on_record(entry),
            lambda: view.on_record(exchange(1, "1. film")),
        ):
            act()
            doing.append(screen(view, console)[3].split("  ")[0])
    assert doing == [
        "training",
        "training",
        "scoring the projected prompts",
        "asking the mentor",
        "scoring the mentor's proposals",
    ]


def test_a_diverged_loss_neither_breaks_nor_enters_the_curve() -> None:
    with live() as (view, console):
        view.on_run_start(OVERVIEW)
        for step, value in ((1, 0.5), (2, float("nan")), (3, float("inf"))):
            view.on_step(0, step, (value,))
        assert view.train.points == [(1, 0.5)]
        assert any("train loss    0.5000" in line for line in screen(view, console))


def test_a_curve_of_any_length_stays_small_and_keeps_its_shape() -> None:
    line = Curve()
    for step in range(100_000):
        line.add(step, 1 - step / 100_000)
    assert POINTS // 2 <= len(line.points) < POINTS
    assert all(abs(y - (1 - x / 100_000)) < 0.01 for x, y in line.points)
    line.add(100_000, 0.7)
    assert (line.latest, line.lowest) == (0.7, pytest.approx(0.00001))


def test_the_time_left_follows_from_the_pace_and_the_waits_between_stages() -> None:
    pace = Pace(now=0.0)
    pace.step(2.0, first_of_stage=True)
    assert pace.left(10, 1) is None
    for i in range(1, 11):
        pace.step(2.0 + i / 10, first_of_stage=False)
    pace.step(7.0, first_of_stage=True)
    assert pace.rate == pytest.approx(10)
    assert pace.left(steps=50, gaps=2) == pytest.approx(5 + 2 * 3)


@pytest.mark.parametrize(
    ("plan", "width"), [((200, 200, 400), 40), ((1, 10_000), 30), ((10_000, 1, 1, 1), 30), ((5,) * 300, 40), ((7,), 10)]
)
def test_the_bar_of_stages_has_its_width_and_fills_up(plan: tuple[int, ...], width: int) -> None:
    empty, full = stage_bar(plan, 0, width), stage_bar(plan, sum(plan), width)
    assert empty.cell_len == full.cell_len == width
    assert {span.style for span in empty.spans if span.end > span.start} == {"dim"}
    assert {span.style for span in full.spans if span.end > span.start} == {"cyan"}


def test_an_area_rises_with_its_values_and_marks_the_restarts() -> None:
    rows = draw_area([(0, 0.0), (4, 1.0)], 10, 2, (0, 9), (0.0, 1.0), [7], "cyan")
    assert [row.plain for row in rows] == ["  ▁▄█  ┊  ", "▁▅███  ┊  "]


def test_a_curve_turns_its_corners_over_the_majority_class() -> None:
    rows = draw_curve([[(0, 0.0), (2, 0.0), (3, 1.0), (6, 1.0)]], 8, 3, (0, 7), (0.0, 1.0), [5], 0.5, "cyan")
    assert [row.plain for row in rows] == ["   ╭─── ", "╌╌╌│╌┊╌╌", "───╯ ┊  "]


def test_a_constant_series_has_a_range_to_be_drawn_in() -> None:
    assert value_span([0.0, 0.0]) == (-0.05, 0.05)
    assert value_span([2.0]) == (1.9, 2.1)


@pytest.mark.parametrize(
    ("mode", "terminal", "kind"),
    [
        ("auto", True, LiveView),
        ("auto", False, PlainView),
        ("live", False, LiveView),
        ("plain", True, PlainView),
        ("none", True, RunCallback),
    ],
)
def test_the_view_is_live_in_a_terminal_unless_told_otherwise(
    mode: str, terminal: bool, kind: type[RunCallback], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert type(make_callback(mode, Console(file=io.StringIO(), force_terminal=terminal))) is kind


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_callback("auto", Console(file=io.StringIO(), force_terminal=True)), PlainView)


def test_an_unknown_view_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="auto, live, plain, none"):
        make_callback("lively", Console())


def test_an_exception_in_a_run_leaves_a_real_terminal_as_it_was() -> None:
    code = (
        "from rich.console import Console; from helpers.recorded import play\n"
        "from llm_catalyst.callbacks.console import make_callback\n"
        "view = make_callback('auto', Console())\n"
        "try:\n    play(view, stages=2); raise RuntimeError('in the run')\n"
        "finally:\n    view.on_run_end(None)\n"
    )
    path = ":".join(map(str, Path(__file__).parents[1:3]))  # tests/ and the checkout
    environment = {"TERM": "xterm-256color", "PYTHONPATH": path, "PYTHONUTF8": "1"}
    child = pexpect.spawn(sys.executable, ["-c", code], dimensions=(24, 80), env=environment, encoding="utf-8")
    child.expect(pexpect.EOF, timeout=120)
    output = child.before or ""
    assert "asking the mentor" in output or "scoring" in output
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l")
    assert output.rindex("RuntimeError: in the run") > output.rindex("\x1b[?25h")


def test_the_views_and_the_story_need_no_torch() -> None:
    code = "import sys, llm_catalyst.callbacks.live, llm_catalyst.report.show; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_text_is_made_safe_but_stays_legible() -> None:
    assert escape_controls("日本語 zażółć [/x] a\\b") == "日本語 zażółć [/x] a\\b"
    assert escape_controls("a\x1b[2J\nb\ud800\u202e") == "a\\x1b[2J\\nb\\ud800\\u202e"
    assert quote_prompt(" film ") == '" film "'
    assert quote_prompt("film tone", 4) == '"film…"'
    assert escape_paragraphs("a\tb\r\nc\x07\rd") == "a   b\nc\\x07\\rd"


def test_spending_adds_up() -> None:
    total = sum_usage([exchange(0, "1. film"), exchange(1, "2. tone")])
    assert total == MentorUsage(2, 1624, 128, 0, 0.00123 + 0.00123, 0)


def test_a_resumed_run_shows_in_the_live_view_what_is_on_disk() -> None:
    with live() as (view, console), live() as (whole, other):
        play(whole, stages=2)
        for step in range(401, 501):
            whole.on_step(2, step, (0.7 - step / 2000,))
        whole.on_record(evaluation(2, 500, 0.48, 0.75))
        records = [
            *run_records(2),
            Snapshot(2, 500, 0, 0.45, Prompt((1,), "film"), 0.6),
            evaluation(2, 500, 0.48, 0.75),
        ]
        kinds = sorted(records, key=lambda record: type(record).__name__)  # as the files have them
        view.on_run_start(replace(OVERVIEW, resumed="stages/02.step000500"))
        view.on_resume(2, 500, kinds)
        resumed, expected = screen(view, console), screen(whole, other)
    assert "resumed from stages/02.step000500" in resumed[1]
    assert resumed[2] == expected[2]  # stage, bar and step
    assert "stage 3/3" in resumed[2]
    assert "step 500/800" in resumed[2]
    start = next(i for i, line in enumerate(expected) if line.startswith("dev loss"))
    assert resumed[start:] == expected[start:]  # the curve on dev, the pool, the restart and its costs
    assert any(line.startswith("train loss    0.4500") and "█" in line for line in resumed)


def test_a_run_that_resumes_between_stages_or_within_a_race_continues_with_its_notices() -> None:
    with live() as (view, console):
        view.on_run_start(replace(OVERVIEW, resumed="stages/00"))
        view.on_resume(1, 200, list(run_records(1)))
        assert "stage 1/3" in screen(view, console)[2]
        view.on_step(1, 201, (0.5,))
        assert "stage 2/3" in screen(view, console)[2]
        view.on_run_start(replace(OVERVIEW, resumed="stages/01"))
        view.on_resume(3, 800, list(run_records(3)))
        assert "step 800/800" in screen(view, console)[2]


@pytest.mark.parametrize("winner", [0, 2])
def test_the_winner_of_a_race_is_named_when_it_is_known(tmp_path: Path, winner: int) -> None:
    run = raced(write_run(tmp_path / "run"), winner)
    name = "the running prompt" if winner == 2 else '"Judge the mood of the review"'
    view, file = plain()
    with live(100) as (screen_view, console):
        for each in (view, screen_view):
            each.on_run_start(OVERVIEW)
            each.on_step(0, 200, (0.7,))
            for record in run.restarts:
                each.on_record(record)
            each.on_step(1, 201, (0.7, 0.7, 0.7))
            for record in run.metrics[:3]:
                each.on_record(record)
            assert each is screen_view or "goes on" not in file.getvalue()
            each.on_step(1, 211, (0.7,))
            each.on_record(run.metrics[3])
        shown = "\n".join(screen(screen_view, console))
    assert file.getvalue().count(f"the best of the prompts side by side goes on: {name}") == 1
    assert ("won       " in shown) == (winner == 0)
    assert ("the running prompt goes on" in shown) == (winner == 2)


def test_the_live_view_tells_the_loss_of_a_text_alone_where_it_is_another() -> None:
    judged = prompt("Judge the mood of the review")
    with live(100) as (view, console):
        view.on_run_start(OVERVIEW)
        for record in run_records(1):
            if isinstance(record, ScoredPrompt) and record.prompt == judged:
                record = replace(record, score=Score(0.6123, 0.61, 400))
            view.on_record(record)
        assert '0.5500     0.717  restart   text alone 0.6123  "Judge the mood of the review"' in "\n".join(
            screen(view, console)
        )


def test_a_bar_of_a_resumed_run_begins_at_its_step() -> None:
    bars = ProgressBars({0: "seed=1"}, Console(file=io.StringIO()))
    with bars:
        bars.callbacks[0].on_run_start(OVERVIEW)
        bars.callbacks[0].on_resume(1, 300, [])
        assert bars.tasks[0].completed == 300


def test_notices_are_no_warnings_and_stay_above_the_live_view() -> None:
    told = replace(OVERVIEW, notices=("provided under these \x1b[2J terms",))
    view, file = plain()
    with live() as (screen_view, console):
        for each in (view, screen_view):
            each.on_run_start(told)
            each.on_record(Event(1, 300, "resumed", "with mentor.client.model=another"))
        assert not [line for line in screen(screen_view, console) if line.startswith("!")]
        assert "provided under these \\x1b[2J terms" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "provided under these \\x1b[2J terms" in file.getvalue()
    assert "stage 2, step 300: resumed: with mentor.client.model=another" in file.getvalue()
    assert "warning" not in file.getvalue()


def test_without_an_optimizer_no_warning_advises_to_train_otherwise() -> None:
    for trains in (True, False):
        view, file = plain()
        view.on_run_start(replace(OVERVIEW, trains=trains))
        view.on_step(0, 200, (0.7,))
        view.on_record(evaluation(0, 200, 0.7, 0.4, "negative"))
        view.on_run_end(None)
        assert file.getvalue().count("warning: ") == 2
        assert ("optimizer.lr" in file.getvalue()) is trains
