"""mentor.overlap=true: the answer is awaited while a stage trains; what comes of it does not hang on when it came."""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.loopback import Request, Response, error, openai_chat, serve
from helpers.tiny_models import WORDS, Stops, run_in, toy_problem

from llm_catalyst.callbacks.base import RunCallback
from llm_catalyst.config.settings import Budget
from llm_catalyst.mentors.clients.huggingface import LocalModel
from llm_catalyst.mentors.clients.human import Human
from llm_catalyst.mentors.clients.openai import OpenAIChat
from llm_catalyst.mentors.clients.replay import Replay
from llm_catalyst.mentors.controls import Perturb
from llm_catalyst.mentors.llm import LanguageModel, MentorError
from llm_catalyst.mentors.strategies.ape import Ape
from llm_catalyst.mentors.strategies.directional import Directional
from llm_catalyst.mentors.strategies.leo import Leo
from llm_catalyst.mentors.strategies.paper import Paper
from llm_catalyst.models.heads.text import Similarity
from llm_catalyst.optimizers.backprop import Backprop
from llm_catalyst.runs.reader import RunRecords, read_run
from llm_catalyst.runs.records import LLMCall, Outcome, Record, Restart
from llm_catalyst.training.loop import Experiment
from llm_catalyst.utils.signals import RunInterrupted, SignalHandler
from llm_catalyst.utils.validation import ConfigurationError

PLAN = (3, 3, 3, 3)  # questions after the first two stages, restarts after the second and third
FAST = Backprop(partial(torch.optim.AdamW, lr=0.5))  # every step projects to other tokens


@dataclass
class Watching(RunCallback):
    """Keeps the records in the order in which they were shown; `at` is called after each step, told its number."""

    at: Callable[[int], object] = lambda step: None
    seen: list[Record] = field(default_factory=list)
    answered: threading.Event = field(default_factory=threading.Event)

    def on_record(self, record: Record) -> None:
        self.seen.append(record)
        if isinstance(record, LLMCall):
            self.answered.set()

    def on_step(self, stage: int, step: int, losses: tuple[float, ...]) -> None:
        self.at(step)


def answer(request: Request, delay_s: float = 0.0) -> Response:
    """Three prompts that follow from the question."""
    dice = random.Random(json.dumps(request.body["messages"]))
    lines = [f"- {' '.join(dice.sample(WORDS, 4))}" for _ in range(3)]
    return replace(openai_chat("\n".join(lines)), delay_s=delay_s)


def mentor(url: str, **settings: Any) -> LanguageModel:
    client = OpenAIChat("gpt-4o-mini", f"{url}/v1", None, retry_s=0)
    return LanguageModel(client, **{"strategy": Leo(proposals=4), "overlap": True, **settings})


def carry_out(
    path: Path,
    reply: Callable[[Request], Response] = answer,
    view: Any = None,
    interruption: SignalHandler | None = None,
    plan: tuple[int, ...] = PLAN,
    **changes: Any,
) -> tuple[Outcome, int]:
    """The outcome of a run whose mentor answers so, and how often it was asked."""
    asked = {name: changes.pop(name) for name in ("on_failure", "strategy", "fallbacks") if name in changes}
    problem = toy_problem(**changes)
    with serve(reply=reply) as server:
        experiment = Experiment(problem, FAST, mentor(server.url, **asked), plan)
        return run_in(path, experiment, view, interruption), len(server.requests)


def written(path: Path) -> dict[str, Any]:
    """What a run wrote, the states that it saved among it, without dates and durations; exchanges in any order."""
    run = read_run(path)
    assert run.outcome
    outcome = replace(run.outcome, seconds=0, finished="", peak_memory_bytes=0)
    exchanges = sorted((replace(each, date="", latency_s=0) for each in run.exchanges), key=repr)
    states = [json.loads(file.read_text())["state"] | {"seconds": 0} for file in sorted(path.glob("stages/*/*.json"))]
    tensors = [file.read_bytes() for file in sorted(path.glob("stages/*/*.safetensors"))]
    records = vars(replace(run, path=Path(), outcome=outcome, exchanges=(), events=()))
    return records | {"exchanges": exchanges, "states": states, "tensors": tensors}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted, whose answers came at once."""
    path = tmp_path_factory.mktemp("whole")
    carry_out(path)
    return path


def records(path: Path) -> RunRecords:
    return read_run(path)


# What is asked, and when


def test_a_question_is_put_after_each_stage_whose_answer_a_later_one_can_use(whole: Path) -> None:
    run = records(whole)
    assert sorted(exchange.stage for exchange in run.exchanges) == [0, 0, 1, 1]
    assert [restart.stage for restart in run.restarts] == [1, 2]
    assert run.outcome
    assert run.outcome.ledger.mentor_calls == 4
    first = {entry.prompt: entry.stage for entry in reversed(run.pool) if entry.origin == "mentor"}  # scored anew later
    assert {*first.values()} == {1, 2}


def test_the_mentor_is_shown_the_pool_as_the_stage_before_left_it(whole: Path) -> None:
    run, states = (
        records(whole),
        [json.loads((whole / f"stages/0{i}/state.json").read_text())["state"] for i in range(4)],
    )
    assert [state["shown"] is None for state in states] == [False, False, True, True]
    for stage in (0, 1):
        assert states[stage]["shown"] == states[stage]["pool"]
        questions = [exchange.messages[-1].content for exchange in run.exchanges if exchange.stage == stage]
        for entry in states[stage]["pool"]:
            assert any(f"Loss: {entry['score']['loss']:.3f}" in question for question in questions)
    later = [entry for entry in run.pool if entry.stage == 1 and entry.origin == "mentor"]
    assert all(entry.prompt.text not in str(e.messages) for entry in later for e in run.exchanges if e.stage == 0)


def test_a_stage_trains_while_the_answer_is_awaited(tmp_path: Path) -> None:
    trained = threading.Event()

    def reply(request: Request) -> Response:
        assert trained.wait(10)
        return answer(request)

    view = Watching(lambda step: trained.set() if step == 5 else None)
    carry_out(tmp_path, reply, view, plan=(3, 3, 3))
    assert [type(r).__name__ for r in view.seen if isinstance(r, LLMCall | Restart)] == [
        "LLMCall",
        "LLMCall",
        "Restart",
    ]


@pytest.mark.parametrize(("restart", "head"), [("best", None), ("first", None), ("all", Similarity())])
def test_an_answer_that_comes_late_changes_nothing(tmp_path: Path, restart: str, head: Any) -> None:
    for name, delay_s in (("soon", 0.0), ("late", 0.15)):
        carry_out(tmp_path / name, partial(answer, delay_s=delay_s), restart=restart, head=head)
    assert written(tmp_path / "late") == written(tmp_path / "soon")
    assert len(records(tmp_path / "late").restarts) == (8 if restart == "all" else 2)


# What ends a run, and how it goes on


@pytest.mark.parametrize("step", [4, 6, 7, 9])
def test_a_run_that_dies_after_its_answer_came_goes_on_to_the_same_end_and_does_not_ask_again(
    tmp_path: Path, whole: Path, step: int
) -> None:
    def die(number: int) -> None:
        if number == step:
            deadline = time.monotonic() + 60
            while len([r for r in view.seen if isinstance(r, LLMCall)]) < (2 if step < 7 else 4):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            raise Stops

    view = Watching(die)
    with pytest.raises(Stops):
        carry_out(tmp_path, view=view)
    kept = records(tmp_path).exchanges
    _, asked = carry_out(tmp_path)
    assert asked == 4 - len(kept)
    assert written(tmp_path) == written(whole)


def test_a_run_that_dies_while_the_answer_is_awaited_asks_again_and_the_late_one_is_not_written(
    tmp_path: Path, whole: Path
) -> None:
    gone = threading.Event()

    def reply(request: Request) -> Response:
        gone.wait(60)
        return answer(request)

    def die(number: int) -> None:
        if number == 5:
            raise Stops

    with pytest.raises(Stops):
        carry_out(tmp_path, reply, Watching(die))
    gone.set()
    time.sleep(0.2)
    assert records(tmp_path).exchanges == ()
    _, asked = carry_out(tmp_path)
    assert asked == 4
    assert written(tmp_path) == written(whole)


@pytest.mark.parametrize("step", [5, 6], ids=["while it trains", "while it waits"])
def test_a_signal_ends_the_run_without_the_answer(tmp_path: Path, whole: Path, step: int) -> None:
    over = threading.Event()

    def reply(request: Request) -> Response:
        over.wait(60)
        return answer(request)

    def strike(number: int) -> None:
        if number == step:
            os.kill(os.getpid(), signal.SIGTERM)

    began = time.monotonic()
    with SignalHandler(0.3) as interruption, pytest.raises(RunInterrupted):
        carry_out(tmp_path, reply, Watching(strike), interruption)
    assert time.monotonic() - began < 40  # the response takes 60 s
    over.set()
    carry_out(tmp_path)
    assert written(tmp_path) == written(whole)


def test_what_the_mentor_raises_is_raised_at_the_end_of_the_stage_and_the_run_goes_on_when_it_is_mended(
    tmp_path: Path, whole: Path
) -> None:
    view = Watching(lambda step: step < 5 or view.answered.wait(5))  # the failure stands in the state that is saved
    with pytest.raises(MentorError, match=r"after stage 1: .*no such key"):
        carry_out(tmp_path, lambda request: error(401, "no such key"), view)
    assert sorted(path.name for path in tmp_path.glob("stages/*")) == ["00", "01.step000006"]
    carry_out(tmp_path)
    failures = [exchange for exchange in records(tmp_path).exchanges if exchange.error]
    assert len(failures) == len(records(tmp_path).exchanges) - 4 > 0
    assert [r.prompt for r in records(tmp_path).restarts] == [r.prompt for r in records(whole).restarts]


def test_without_an_answer_the_pools_best_of_that_stage_restarts_and_a_replay_does_the_same(tmp_path: Path) -> None:
    def reply(request: Request) -> Response:
        return answer(request) if "mood" in str(request.body) else error(400, "no")

    carry_out(tmp_path / "first", reply, on_failure="fallback")
    run = records(tmp_path / "first")
    assert [(event.stage, event.kind) for event in run.events] == [(1, "fallback"), (2, "fallback")]
    assert run.outcome
    assert run.outcome.fallbacks == 2
    for restart in run.restarts:
        entries = {s.prompt: s.score.loss for s in run.pool if s.stage == restart.stage}
        assert restart.prompt == min(entries, key=entries.__getitem__)
    problem = toy_problem()
    again = LanguageModel(Replay(str(tmp_path / "first"), overlap=True), Leo(proposals=4), overlap=True)
    run_in(tmp_path / "again", Experiment(problem, FAST, again, PLAN))
    assert records(tmp_path / "again").restarts == run.restarts


def test_a_replay_brings_the_same_restarts(tmp_path: Path, whole: Path) -> None:
    problem = toy_problem()
    again = LanguageModel(Replay(str(whole), overlap=True), Leo(proposals=4), overlap=True)
    run_in(tmp_path, Experiment(problem, FAST, again, PLAN))
    for name in ("restarts", "pool", "metrics", "trajectory"):
        assert getattr(records(tmp_path), name) == getattr(records(whole), name)


def test_a_spent_budget_asks_no_more_and_says_so_once_whenever_the_run_was_resumed(tmp_path: Path) -> None:
    budget = Budget(tokens=200, when_spent="conclude")  # two answers take 240
    carry_out(tmp_path / "whole", budget=budget)

    def die(number: int) -> None:
        if number == 8:
            raise Stops

    with pytest.raises(Stops):
        carry_out(tmp_path / "cut", view=Watching(die), budget=budget)
    carry_out(tmp_path / "cut", budget=budget)
    for name in ("whole", "cut"):
        run = records(tmp_path / name)
        assert {exchange.stage for exchange in run.exchanges} == {0}
        assert [(event.stage, event.kind) for event in run.events] == [(1, "budget")]
    assert written(tmp_path / "cut") == written(tmp_path / "whole")


# What cannot overlap


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"strategy": Ape()}, "Ape tries prompts .*strategy=opro"),
        ({"strategy": Directional()}, "Directional tries prompts"),
        ({"strategy": Paper(show_gradient=True)}, "Paper tries prompts .*show_gradient=false"),
        ({"fallbacks": [Perturb(toward="gradient")]}, "Perturb tries prompts .*mentor.fallbacks"),
        ({"fallbacks": [LanguageModel(Human(), Paper())]}, "Human cannot answer while this process trains"),
        ({"client": LocalModel("a/b")}, "LocalModel cannot answer .*mentor=openai_small"),
    ],
    ids=["tries", "tries, too", "gradients", "a fallback's gradients", "a person", "a local model"],
)
def test_what_needs_the_model_or_the_process_is_refused_before_any_work(settings: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"client": OpenAIChat("m", key_variable=None), "strategy": Paper(), **settings}
    with pytest.raises(ConfigurationError, match=f"mentor.overlap=true: {words}.*mentor.overlap=false"):
        LanguageModel(**given, overlap=True)
    assert LanguageModel(**given).overlap is False
