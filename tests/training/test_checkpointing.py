"""When a run saves where it stands, when it stops, and how it goes on: signals, checkpoints, budgets."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.recorded import exchange
from helpers.tiny_models import adamw, plenty, run_in, toy_problem

from llm_catalyst.callbacks.base import RunCallback
from llm_catalyst.config.settings import Budget, Checkpoints, Settings, SweepBudget, SweepSettings
from llm_catalyst.mentors.base import Mentor, MentorContext
from llm_catalyst.mentors.controls import NoMentor, Perturb
from llm_catalyst.models.heads.text import Verbalizer
from llm_catalyst.optimizers.backprop import Backprop
from llm_catalyst.optimizers.base import NoTraining
from llm_catalyst.runs.reader import read_run
from llm_catalyst.runs.records import Advice, LLMCall, Outcome, Usage
from llm_catalyst.runs.writer import RunDirectory
from llm_catalyst.training import checkpointing
from llm_catalyst.training.checkpointing import Checkpointer
from llm_catalyst.training.loop import Experiment
from llm_catalyst.utils.signals import (
    INTERRUPTED,
    STOPPED,
    BudgetExceededError,
    RunInterrupted,
    SignalHandler,
    stop_now,
)
from llm_catalyst.utils.validation import ConfigurationError

PLAN = (3, 3)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Every test leaves the signals' handlers as it found them."""
    before = {number: signal.getsignal(number) for number in (*signals(), signal.SIGALRM)}
    yield
    assert {number: signal.getsignal(number) for number in before} == before


def signals() -> tuple[int, ...]:
    return (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@dataclass
class Acting(RunCallback):
    """Does something at a step, as the world outside does."""

    at: int
    act: Callable[[], Any]

    def on_step(self, stage: int, step: int, losses: tuple[float, ...]) -> None:
        if step == self.at:
            self.act()


def carry_out(
    path: Path,
    mentor: Any = None,
    view: Any = None,
    patience_s: float = 5.0,
    optimizer: Any = None,
    plan: tuple[int, ...] = PLAN,
    **changes: Any,
) -> Outcome:
    problem = toy_problem(**changes)
    experiment = Experiment(problem, optimizer or Backprop(adamw), mentor or NoMentor(), plan)
    with SignalHandler(patience_s) as interruption:
        return run_in(path, experiment, view, interruption)


def saved(path: Path) -> list[str]:
    return sorted(folder.name for folder in path.glob("stages/*"))


# --- signals


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, STOPPED), (signal.SIGUSR1, STOPPED)]
)
def test_a_signal_stops_a_run_after_its_step_which_is_saved(tmp_path: Path, number: int, code: int) -> None:
    with pytest.raises(RunInterrupted) as stopped:
        carry_out(tmp_path, view=Acting(2, lambda: os.kill(os.getpid(), number)))
    assert stopped.value.code == code
    assert str(stopped.value) == f"by {signal.Signals(number).name}"
    assert saved(tmp_path) == ["00.step000002"]
    assert [snapshot.step for snapshot in read_run(tmp_path).trajectory] == [1, 2]


def test_a_signal_in_the_last_step_of_a_stage_stops_at_the_stages_end(tmp_path: Path) -> None:
    with pytest.raises(RunInterrupted):
        carry_out(tmp_path, view=Acting(3, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert saved(tmp_path) == ["00"]


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the second signal had no effect")

    with pytest.raises(RunInterrupted):
        carry_out(tmp_path, view=Acting(2, twice))
    assert saved(tmp_path) == []


def test_where_no_safe_point_is_reached_in_time_the_run_stops_where_it_stands(tmp_path: Path) -> None:
    def long_work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    began = time.monotonic()
    with pytest.raises(RunInterrupted):
        carry_out(tmp_path, view=Acting(2, long_work), patience_s=0.2)
    assert time.monotonic() - began < 30
    assert saved(tmp_path) == []


def test_without_patience_a_signal_stops_at_once(tmp_path: Path) -> None:
    with pytest.raises(RunInterrupted):
        carry_out(tmp_path, view=Acting(2, lambda: os.kill(os.getpid(), signal.SIGINT)), patience_s=0)
    assert saved(tmp_path) == []


def test_a_swallowed_stop_is_raised_again() -> None:
    with SignalHandler(0.05) as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(2):
            with pytest.raises(RunInterrupted):
                time.sleep(10)
        with pytest.raises(RunInterrupted):
            interruption.check()


def test_in_a_thread_signals_stay_as_they_are() -> None:
    seen: list[Any] = []

    def inside() -> None:
        with SignalHandler() as interruption:
            seen.append(signal.getsignal(signal.SIGTERM))
            interruption.check()

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]


def test_before_a_run_begins_a_signal_ends_the_process_with_the_same_code() -> None:
    with pytest.raises(RunInterrupted) as stopped:
        stop_now(signal.SIGUSR1, None)
    assert stopped.value.code == STOPPED


# --- how often


@pytest.mark.parametrize(
    ("every", "steps", "seconds", "due"),
    [
        (100, 100, 0.0, True),
        (100, 99, 1e6, False),
        ("100", 100, 0.0, True),
        ("60s", 0, 60.0, True),
        ("60s", 10**6, 59.9, False),
        ("0.5s", 1, 0.5, True),
        ("0s", 1, 0.0, True),
    ],
)
def test_a_checkpoint_is_due_after_so_many_steps_or_seconds(
    every: int | str, steps: int, seconds: float, due: bool
) -> None:
    assert Checkpoints(every).due(steps, seconds) is due


@pytest.mark.parametrize("every", [0, -5, "0", "ten", "60 s", "s", "", True, "5m", ".s"])
def test_what_is_neither_steps_nor_seconds_is_refused(every: Any) -> None:
    with pytest.raises(ConfigurationError, match="is neither a number of steps"):
        Checkpoints(every)


def test_only_the_newest_checkpoint_of_a_stage_is_kept_and_none_after_it(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    class Looking(RunCallback):
        def on_step(self, stage: int, step: int, losses: tuple[float, ...]) -> None:
            seen.append(saved(tmp_path))

    carry_out(tmp_path, view=Looking(), checkpoint=Checkpoints(1))
    assert seen == [[], ["00.step000001"], ["00.step000002"], ["00"], ["00", "01.step000004"], ["00", "01.step000005"]]
    assert saved(tmp_path) == ["00", "01"]


# --- budgets


@dataclass
class Paid(Mentor):
    """A mentor each of whose consultations takes two calls, of which it keeps what was answered before."""

    cost_usd: float | None = 0.25
    asked: list[int] = field(default_factory=list)

    def propose(self, context: MentorContext) -> Advice:
        for _ in range(2 - len(context.answered)):
            context.before_call()
            self.asked.append(context.stage)
            context.record(exchange(context.stage, "1. film", self.cost_usd))
        return Advice()


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (Budget(usd=0.2), r"budget.usd=0.2 is used up: \$0.2500 is spent"),
        (Budget(tokens=800), r"budget.tokens=800 is used up: 876 tokens are spent"),
    ],
)
def test_a_spent_budget_stops_before_the_next_call_and_a_larger_one_goes_on(
    tmp_path: Path, budget: Budget, words: str
) -> None:
    mentor = Paid()
    with pytest.raises(BudgetExceededError, match=words):
        carry_out(tmp_path, mentor, budget=budget)
    assert mentor.asked == [0]
    assert saved(tmp_path) == ["00.step000003"]  # the stage's training is not lost
    outcome = carry_out(tmp_path, mentor)
    assert mentor.asked == [0, 0]
    assert (outcome.ledger.mentor_calls, outcome.ledger.cost_usd, outcome.ledger.gradient_steps) == (2, 0.5, 6)


@pytest.mark.parametrize(
    ("budget", "calls", "words"),
    [
        (Budget(usd=0.2, when_spent="conclude"), 2, r"budget.usd=0.2 is used up: $0.5000 is spent"),
        (Budget(tokens=0, when_spent="conclude"), 0, "budget.tokens=0 is used up: 0 tokens are spent"),
        (Budget(scored_examples=1, when_spent="conclude"), 0, "budget.scored_examples=1 is used up: 36 examples are"),
    ],
)
def test_a_run_that_is_to_conclude_goes_on_without_its_mentor_when_the_budget_is_spent(
    tmp_path: Path, budget: Budget, calls: int, words: str
) -> None:
    mentor = Paid()
    outcome = carry_out(tmp_path, mentor, plan=(3, 3, 3), budget=budget)
    told = [event for event in read_run(tmp_path).events if event.kind == "budget"]
    assert (len(mentor.asked), outcome.ledger.mentor_calls, outcome.ledger.gradient_steps) == (calls, calls, 9)
    assert outcome.status == "done"
    assert words in told[0].message
    assert [event.stage for event in told] == [0, 1][calls // 2 :]


def test_where_the_mentor_alone_moves_the_prompt_a_spent_budget_is_the_end(tmp_path: Path) -> None:
    mentor, budget = Paid(), Budget(tokens=800, when_spent="conclude")
    outcome = carry_out(
        tmp_path, mentor, optimizer=NoTraining(), plan=(1, 1, 1, 1, 1), head=Verbalizer(), budget=budget
    )
    assert (mentor.asked, outcome.ledger.gradient_steps) == ([0, 0], 0)
    assert outcome.status == "done"
    assert saved(tmp_path) == ["00", "01"]


def test_a_budget_of_scored_examples_stops_before_the_next_call(tmp_path: Path) -> None:
    with pytest.raises(BudgetExceededError, match=r"budget\.scored_examples=24 is used up: 36 examples are scored"):
        carry_out(tmp_path, Paid(), budget=Budget(scored_examples=24))


def test_a_budget_of_scored_examples_stops_a_control_like_a_language_model(tmp_path: Path) -> None:
    with pytest.raises(BudgetExceededError, match=r"budget\.scored_examples=24 is used up: 36 examples are scored"):
        carry_out(tmp_path / "perturb", Perturb(), budget=Budget(scored_examples=24))
    assert carry_out(tmp_path / "none", NoMentor(), budget=Budget(scored_examples=24)).status == "done"


def test_a_budget_in_dollars_cannot_be_kept_where_an_answer_has_no_price(tmp_path: Path) -> None:
    mentor = Paid(cost_usd=None)
    with pytest.raises(
        BudgetExceededError, match=r"an answer has no known price \(conf/models.yaml\); budget.tokens can"
    ):
        carry_out(tmp_path, mentor, budget=Budget(usd=100))
    assert mentor.asked == [0]


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (SweepBudget(usd=0.6), r"sweep\.budget\.usd=0\.6 is used up: the runs in .* have spent \$0\.7500"),
        (SweepBudget(tokens=2000), r"sweep\.budget\.tokens=2,000 is used up: the runs in .* have exchanged 2,628"),
    ],
)
def test_the_budget_of_a_sweep_counts_the_calls_of_all_its_runs(
    tmp_path: Path, budget: SweepBudget, words: str
) -> None:
    mentor, sweep = Paid(), SweepSettings(budget, str(tmp_path))
    assert carry_out(tmp_path / "first", mentor, sweep=sweep).ledger.mentor_calls == 2
    with pytest.raises(BudgetExceededError, match=words):
        carry_out(tmp_path / "second", mentor, sweep=sweep)
    assert len(mentor.asked) == 3
    assert carry_out(tmp_path / "none", NoMentor(), sweep=sweep).status == "done"
    more = SweepSettings(SweepBudget(usd=5, tokens=9999), str(tmp_path))
    assert carry_out(tmp_path / "second", mentor, sweep=more).status == "done"
    assert len(mentor.asked) == 4


def test_the_budget_of_a_sweep_in_dollars_cannot_be_kept_where_an_answer_has_no_price(tmp_path: Path) -> None:
    sweep = SweepSettings(SweepBudget(usd=100), str(tmp_path))
    with pytest.raises(BudgetExceededError, match=r"has no known price; sweep\.budget\.tokens can"):
        carry_out(tmp_path / "one", Paid(cost_usd=None), sweep=sweep)


def test_a_budget_of_nothing_asks_nobody(tmp_path: Path) -> None:
    mentor = Paid()
    with pytest.raises(BudgetExceededError):
        carry_out(tmp_path, mentor, budget=Budget(usd=0))
    assert mentor.asked == []


def test_a_budget_of_minutes_stops_at_a_checkpoint_and_counts_over_resumes(tmp_path: Path) -> None:
    with pytest.raises(BudgetExceededError, match=r"budget\.minutes=0 is used up"):
        carry_out(tmp_path, budget=Budget(minutes=0))
    assert saved(tmp_path) == ["00.step000001"]

    def seconds() -> float:
        directory = RunDirectory(tmp_path)
        try:
            safe = Checkpointer(directory, Settings(), SignalHandler(), plenty())
            assert safe.restore(directory.append, RunCallback(), toy_problem().device) is not None
            return safe.seconds
        finally:
            directory.close()

    with pytest.raises(BudgetExceededError):
        carry_out(tmp_path, budget=Budget(minutes=0), view=Acting(2, lambda: time.sleep(0.3)))
    assert saved(tmp_path) == ["00.step000002"]
    assert seconds() > 0.3
    assert carry_out(tmp_path, budget=Budget(minutes=10)).seconds > 0.3


def test_after_the_last_stage_a_budget_of_minutes_lets_the_run_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def let_an_hour_pass() -> None:
        now = time.monotonic
        monkeypatch.setattr(checkpointing, "time", SimpleNamespace(monotonic=lambda: now() + 3600))

    outcome = carry_out(tmp_path, budget=Budget(minutes=30), view=Acting(6, let_an_hour_pass))
    assert (outcome.status, outcome.seconds > 3600) == ("done", True)


def test_answers_that_were_reused_spend_no_budget(tmp_path: Path) -> None:
    class Reusing(Paid):
        def propose(self, context: MentorContext) -> Advice:
            context.before_call()
            context.record(replace_reused(exchange(context.stage, "1. film", 0.0)))
            context.before_call()
            return Advice()

    def replace_reused(made: LLMCall) -> LLMCall:
        return LLMCall(**{**vars(made), "reused": "cache"})

    outcome = carry_out(tmp_path, Reusing(), budget=Budget(tokens=1, usd=0.01))
    computed = {name: getattr(outcome.ledger, name) for name in ("scored_examples", "train_tokens", "padding_tokens")}
    assert outcome.ledger == Usage(gradient_steps=6, train_examples=48, **computed)
