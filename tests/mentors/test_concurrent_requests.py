"""Several questions at once: how many, in what order they are read, what is kept of them, and at what pace."""

import errno
import itertools
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from helpers.loopback import Loopback, Request, Response, anthropic_message, error, openai_chat, serve
from helpers.tiny import TASK, WORDS, prompt_space, scored

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.clients import http, rate_limit
from llm_catalyst.mentors.clients.anthropic import Claude
from llm_catalyst.mentors.clients.openai import OpenAIChat
from llm_catalyst.mentors.clients.rate_limit import find_file, limit_rate
from llm_catalyst.mentors.clients.replay import Replay
from llm_catalyst.mentors.llm import LanguageModel
from llm_catalyst.mentors.strategies.evoprompt import EvoPromptDE
from llm_catalyst.mentors.strategies.leo import Leo
from llm_catalyst.mentors.strategies.opro import Opro
from llm_catalyst.runs.records import Advice, LLMCall, Message, to_json
from llm_catalyst.utils.signals import BudgetExceededError
from llm_catalyst.utils.validation import ConfigurationError

SPACE = prompt_space(length=4)
POOL = tuple(
    scored(SPACE, text, 0.8 - i / 10, 0.2 + i / 10)
    for i, text in enumerate(("dull of dull of", "poor text", "find the mood", "is it good or bad"))
)


@dataclass
class Talk:
    """A consultation with a real server: its advice, and the exchanges in the order of the record."""

    server: Loopback
    exchanges: list[LLMCall] = field(default_factory=list)

    def ask(self, client: Any, strategy: Any, answered: Sequence[LLMCall] = (), **changes: Any) -> Advice:
        rng, record = random.Random(5), self.exchanges.append
        consultation = MentorContext(TASK, POOL, 1, 4, SPACE, rng, record, tuple(answered), scored=POOL)
        mentor = LanguageModel(client, strategy, attempts=2, on_failure="fallback")
        return mentor.propose(replace(consultation, **changes))


def gpt(server: Loopback, at_once: int, **settings: Any) -> OpenAIChat:
    return OpenAIChat("gpt-4o-mini", server.url + "/v1", None, 0.5, retry_s=5, at_once=at_once, **settings)


def claude(server: Loopback, at_once: int) -> Claude:
    return Claude("claude-haiku-4-5", server.url, "TEST_KEY", retry_s=5, at_once=at_once)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "test-key-0123456789abcdef")


SAMPLES = itertools.count()


def by_request(request: Request) -> Response:
    """An answer that follows from the request and its seed alone: often unusable at first, sooner or later there.

    To a request without a seed it is another one each time.
    """
    messages, seed = request.body["messages"], request.body.get("seed", next(SAMPLES))
    dice = random.Random(sha256(repr((seed, messages)).encode()).digest())
    line = "..." if messages[-1]["content"][:2] != "No" and dice.random() < 0.5 else " ".join(dice.sample(WORDS, 4))
    answer = anthropic_message if "/messages" in request.path else openai_chat
    return replace(answer(f"- {line}"), delay_s=dice.choice((0.0, 0.03, 0.06)))


STRATEGIES = [Opro(proposals=5, words=9), Leo(proposals=6, words=9), EvoPromptDE(population=4, words=9)]


# How many at once


@pytest.mark.parametrize("client", [gpt, claude])
@pytest.mark.parametrize("at_once", [1, 3])
def test_so_many_requests_are_under_way_at_a_time_and_no_more(client: Any, at_once: int) -> None:
    answer = anthropic_message if client is claude else openai_chat
    lines = itertools.combinations(WORDS, 4)

    def reply(request: Request) -> Response:
        end = time.monotonic() + 60
        while server.most < at_once and time.monotonic() < end:  # a busy machine may need long for the next request
            time.sleep(0.01)
        return replace(answer(" ".join(next(lines))), delay_s=0.08)

    with serve(reply=reply) as server:
        Talk(server).ask(client(server, at_once), Opro(proposals=5))
    assert server.most == at_once


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: type(strategy).__name__)
def test_the_same_answers_bring_the_same_advice_however_many_are_asked_at_once(strategy: Any) -> None:
    with serve(reply=by_request) as server:
        one, many = Talk(server), Talk(server)
        advice = one.ask(gpt(server, 1), strategy)
        assert many.ask(gpt(server, 8), strategy) == advice
    assert len(advice.proposals) > 1
    assert any("..." in exchange.reply for exchange in one.exchanges)  # a reminder, too, was sent
    asked = [{(e.messages, e.parameters["seed"]) for e in talk.exchanges} for talk in (one, many)]
    assert asked[0] == asked[1]
    assert len(one.exchanges) == len(many.exchanges)


# What is kept


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: type(strategy).__name__)
def test_a_consultation_that_was_cut_off_finds_its_answers_in_whatever_order_they_came(strategy: Any) -> None:
    with serve(reply=by_request) as server:
        whole = Talk(server)
        advice = whole.ask(gpt(server, 8), strategy)
        for kept in (1, 2, len(whole.exchanges) - 1, len(whole.exchanges)):
            rest = Talk(server)
            assert rest.ask(gpt(server, 8), strategy, whole.exchanges[:kept]) == advice
            assert len(rest.exchanges) == len(whole.exchanges) - kept


def test_samples_of_one_question_without_a_seed_are_used_in_the_order_of_the_record() -> None:
    with serve(reply=by_request) as server:
        whole = Talk(server)
        advice = whole.ask(claude(server, 8), Opro(proposals=5))
        nothing = Talk(server)
        assert nothing.ask(claude(server, 1), Opro(proposals=5), whole.exchanges) == advice
        assert nothing.exchanges == []
        rest = Talk(server)
        rest.ask(claude(server, 8), Opro(proposals=5), whole.exchanges[:2])
    assert len([e for e in rest.exchanges if e.messages == whole.exchanges[0].messages]) == 5 - 2


def test_an_answer_that_came_before_that_of_an_earlier_question_stays_with_its_own() -> None:
    """Killed when the second of six like questions was answered, but not the first: its seed tells."""
    with serve(reply=by_request) as server:
        whole = Talk(server)
        advice = whole.ask(gpt(server, 1), Opro(proposals=6))
        first, second, *_ = whole.exchanges
        assert first.messages == second.messages
        assert Talk(server).ask(gpt(server, 8), Opro(proposals=6), [second]) == advice


@pytest.mark.parametrize("client", [gpt, claude])
def test_a_replay_of_answers_that_came_in_any_order_brings_the_same_advice(client: Any, tmp_path: Path) -> None:
    with serve(reply=by_request) as server:
        talk = Talk(server)
        advice = talk.ask(client(server, 8), Opro(proposals=6))
    (tmp_path / "exchanges.jsonl").write_text("".join(to_json(each) + "\n" for each in talk.exchanges))
    again = Talk(server)
    assert again.ask(Replay(str(tmp_path)), Opro(proposals=6)) == advice
    assert {exchange.reused for exchange in again.exchanges} == {str(tmp_path)}


def test_a_replay_gives_a_repeated_question_another_of_its_answers_wherever_that_was_recorded(tmp_path: Path) -> None:
    asked = {name: (Message("user", name),) for name in "AB"}

    def exchange(name: str, reply: str) -> LLMCall:
        return LLMCall(0, asked[name], reply, "m", "m", {}, ("seed",), 1, 1, 0.0, 0.0, "")

    recorded = [exchange("A", "first"), exchange("A", "second"), exchange("B", "other")]
    (tmp_path / "exchanges.jsonl").write_text("".join(to_json(each) + "\n" for each in recorded))
    client = Replay(str(tmp_path))
    questions = [("A", 0), ("B", 0), ("A", 1)]
    replies = [client.complete(asked[name], 0, 7, i, nth).reply for i, (name, nth) in enumerate(questions)]
    assert replies == ["first", "other", "second"]


def test_what_was_paid_for_is_proposed_where_one_of_several_is_not_answered_and_no_more_is_asked() -> None:
    begun = itertools.count()

    def reply(request: Request) -> Response:
        number = next(begun)
        answer = error(401, "no") if number == 1 else openai_chat(f"- {' '.join(WORDS[number : number + 4])}")
        return replace(answer, delay_s=0.1)

    with serve(reply=reply) as server:
        talk = Talk(server)
        advice = talk.ask(gpt(server, 2), Opro(proposals=9))
        assert len(server.requests) == len(talk.exchanges) < 5
        assert len(advice.proposals) == len(talk.exchanges) - 1 > 0
        assert Talk(server).ask(gpt(server, 2), Opro(proposals=9), talk.exchanges) == advice
        assert len(server.requests) == len(talk.exchanges)


def test_a_budget_that_is_spent_lets_those_come_that_are_under_way_and_asks_no_further() -> None:
    with serve(reply=lambda request: replace(openai_chat("- a fine story"), delay_s=0.05)) as server:
        talk = Talk(server)

        def before_call() -> None:
            if len(talk.exchanges) >= 2:
                raise BudgetExceededError("enough")

        with pytest.raises(BudgetExceededError):
            talk.ask(gpt(server, 3), Opro(proposals=9), before_call=before_call)
    assert 2 <= len(talk.exchanges) == len(server.requests) <= 2 + 3 - 1


# How fast


def times_of(turn: Callable[[], None], threads: int) -> list[float]:
    """When each of so many threads had its turn, in order."""
    begun: list[float] = []
    workers = [threading.Thread(target=lambda: (turn(), begun.append(time.monotonic()))) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    return sorted(begun)


def test_no_window_of_a_minute_sees_more_beginnings_than_allowed() -> None:
    window_s = 1.0
    begun = times_of(limit_rate("http://one", "a model", 3, window_s), threads=8)
    assert len(begun) == 8
    assert all(later - earlier >= window_s - 0.02 for earlier, later in zip(begun, begun[3:], strict=False))
    assert begun[2] - begun[0] < window_s
    assert times_of(limit_rate("http://one", "a model", None), threads=8)[-1] - begun[-1] < window_s


def test_who_asks_the_same_model_shares_its_pace_and_another_model_has_its_own() -> None:
    assert limit_rate("http://one", "a model", 3) is limit_rate("http://one", "a model", 3)
    assert limit_rate("http://one", "a model", 3) is not limit_rate("http://one", "another", 3)
    assert limit_rate("http://one", "a model", 3) is not limit_rate("http://two", "a model", 3)


def test_processes_share_the_pace_of_a_model(tmp_path: Path) -> None:
    code = (
        "import time; from llm_catalyst.mentors.clients.rate_limit import limit_rate\n"
        "turn = limit_rate('http://one', 'a model', 3, 3.0)\n"
        "for _ in range(3): turn(); print(time.time(), flush=True)"
    )
    environment = {**os.environ, "CATALYST_CACHE": str(tmp_path)}
    workers = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    begun = sorted(float(line) for worker in workers for line in worker.communicate(timeout=60)[0].split())
    assert len(begun) == 6
    assert all(later - earlier >= 3.0 - 0.05 for earlier, later in zip(begun, begun[3:], strict=False))


@pytest.mark.parametrize("content", ["no JSON", "{}", '["a", null]', "[1e300]"])
def test_a_file_of_the_pace_that_holds_something_else_limits_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setenv("CATALYST_CACHE", str(tmp_path))
    url = f"http://{sha256(content.encode()).hexdigest()}"
    file = find_file(url, "a model")
    assert file is not None
    file.write_text(content)
    begun = time.monotonic()
    limit_rate(url, "a model", 1, 30.0)()
    assert time.monotonic() - begun < 5
    (written,) = json.loads(file.read_text())
    assert abs(written - time.time()) < 60


@pytest.mark.parametrize("jump_s", [-3600.0, 0.0, 3600.0])
@pytest.mark.parametrize(
    "damage", [None, "", "[" * 100_000, "[" + "9" * 400 + "]", "[1e300, NaN]", "folder", "read-only", "no lock"]
)
def test_neither_a_clock_that_is_set_nor_a_damaged_file_hurries_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float, damage: str | None
) -> None:
    clock = SimpleNamespace(now=1e6, set=0.0)
    faked = SimpleNamespace(time=lambda: clock.now + clock.set, monotonic=lambda: clock.now)
    faked.sleep = lambda s: setattr(clock, "now", clock.now + s)
    monkeypatch.setattr(rate_limit, "time", faked)
    monkeypatch.setenv("CATALYST_CACHE", str(tmp_path))
    turn, file = limit_rate.__wrapped__("http://one", "a model", 2), find_file("http://one", "a model")
    assert file is not None
    begun = []
    for _ in range(6):
        turn()
        begun.append(clock.now)
        clock.now += 1
        clock.set += jump_s
        if damage == "folder":
            if file.is_file():
                file.unlink()
            file.mkdir(exist_ok=True)
        elif damage == "read-only":
            monkeypatch.setattr(Path, "write_text", refuse_to_write)
        elif damage == "no lock":
            monkeypatch.setattr(rate_limit, "FileLock", refuse_to_write)
        elif damage is not None:
            file.write_text(damage)
    assert all(later - earlier >= 60 for earlier, later in zip(begun, begun[2:], strict=False))


def refuse_to_write(*_: Any, **__: Any) -> NoReturn:
    raise OSError(errno.EROFS, "Read-only file system")


def test_requests_and_retries_keep_to_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "limit_rate", partial(limit_rate, window_s=1.5))
    begun: list[float] = []

    def reply(request: Request) -> Response:
        begun.append(time.monotonic())
        return error(429, "slow down", {"retry-after-ms": "1"}) if len(begun) == 1 else openai_chat("- a fine story")

    with serve(reply=reply) as server:
        talk = Talk(server)
        talk.ask(gpt(server, 4, per_minute=1), Leo(proposals=4, explore_temperature=None))
    assert len(begun) == 1 + len(talk.exchanges) >= 3
    assert all(later - earlier > 1.0 for earlier, later in itertools.pairwise(begun))  # as the server saw them
    assert min(exchange.latency_s for exchange in talk.exchanges) < 1.2  # the wait for its turn is not the model's


@pytest.mark.parametrize("client", [partial(OpenAIChat, "m"), partial(Claude, "m")])
@pytest.mark.parametrize("name", ["at_once", "per_minute"])
def test_a_pace_that_cannot_be_is_named(client: Any, name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"mentor\.client\.{name}=0 is too small"):
        client(**{name: 0})
    assert client(per_minute=None).per_minute is None
