"""mentor.cache=true: a question that was answered before is not paid for again, by any run of this machine."""

import random
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from helpers.loopback import Loopback, anthropic_message, error, openai_chat, serve
from helpers.tiny import consultation, prompt_space, scored

from llm_catalyst.mentors import response_cache
from llm_catalyst.mentors.base import MentorContext, TaskDescription
from llm_catalyst.mentors.clients.anthropic import Claude
from llm_catalyst.mentors.clients.openai import OpenAIChat
from llm_catalyst.mentors.clients.replay import Replay
from llm_catalyst.mentors.llm import LanguageModel, MentorError
from llm_catalyst.mentors.requests import ClientRequest, RequestRunner
from llm_catalyst.mentors.strategies.paper import Paper
from llm_catalyst.runs.records import Advice, LLMCall, Message, from_json, to_json
from llm_catalyst.utils.validation import ConfigurationError

GOOD = "- is it good\n- how is the mood\n- tell me the story"
OTHER = "- find the mood"


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of the answers, below an empty $CATALYST_CACHE."""
    monkeypatch.setenv("TEST_KEY", "test-key-0123456789abcdef")
    monkeypatch.setenv("CATALYST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "answers"


@dataclass
class Run:
    """A run that consults a mentor with a cache once: its advice, its records, and how often it might have paid."""

    exchanges: list[LLMCall] = field(default_factory=list)
    calls: int = 0

    def before_call(self) -> None:
        self.calls += 1

    def consult(
        self, server: Loopback, stage: int = 1, seed: int = 0, pool: Sequence[str] = ("dull",), **client: Any
    ) -> Advice:
        settings = {"model": "gpt-4o-mini", "base_url": server.url + "/v1", "key_variable": "TEST_KEY", "retry_s": 0}
        mentor = LanguageModel(OpenAIChat(**{**settings, **client}), Paper(), cache=True)
        mentor.preflight()
        space = prompt_space(length=4)
        entries = tuple(scored(space, text, 0.7, 0.4) for text in pool)
        task = TaskDescription("sst2", "Judge film reviews.", ("negative", "positive"))
        rng, record = random.Random(seed), self.exchanges.append
        return mentor.propose(MentorContext(task, entries, stage, 3, space, rng, record, (), self.before_call))


def answers(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"))


def test_a_question_is_paid_for_once_and_a_second_run_records_where_its_answer_comes_from() -> None:
    first, second = Run(), Run()
    with serve(openai_chat(GOOD)) as server:
        advice = first.consult(server, stage=1)
        assert second.consult(server, stage=2) == advice
        assert len(server.requests) == 1
    (paid,), (reused,) = first.exchanges, second.exchanges
    assert reused == replace(paid, stage=2, cost_usd=0.0, latency_s=0.0, reused="cache")
    assert (paid.billed, reused.billed) == (True, False)
    assert (first.calls, second.calls) == (1, 0)


@pytest.mark.parametrize(
    "change",
    [{"model": "gpt-4o"}, {"temperature": 0.5}, {"max_tokens": 50}, {"seed": 1}, {"pool": ("good",)}],
    ids=lambda change: next(iter(change)),
)
def test_another_model_other_parameters_or_other_messages_are_another_question(change: dict[str, Any]) -> None:
    with serve(openai_chat(GOOD), openai_chat(OTHER)) as server:
        Run().consult(server)
        run = Run()
        run.consult(server, **change)
        assert len(server.requests) == 2
    assert run.exchanges[0].reply == OTHER
    assert run.exchanges[0].reused is None


def test_a_sample_that_is_asked_for_again_in_one_consultation_is_another_one_and_both_are_kept() -> None:
    """Claude takes no seed: the same messages twice are the same request twice, and two samples are wanted."""
    message = (Message("user", "Write a prompt."),)
    with serve(anthropic_message("- one"), anthropic_message("- two")) as server:
        client = Claude("claude-haiku-4-5", server.url, "TEST_KEY")
        for _ in range(2):
            context = consultation()
            runner = RequestRunner(context.stage, context.record)
            given = [runner.send([ClientRequest(client, message, seed)], cache=True)[0][0] for seed in (1, 2)]
            assert [each.reply for each in given if isinstance(each, LLMCall)] == ["- one", "- two"]
        assert len(server.requests) == 2


def test_an_unusable_answer_and_a_failure_are_not_kept(folder: Path) -> None:
    with serve(openai_chat(None, refusal="No."), error(400, "bad"), openai_chat(GOOD)) as server:
        with pytest.raises(MentorError, match="bad"):
            Run().consult(server)
        assert answers(folder) == []
        assert Run().consult(server).proposals
    (path,) = answers(folder)
    assert from_json(LLMCall, path.read_bytes()).reply == GOOD


def overwrite(path: Path, **changes: Any) -> None:
    path.write_text(to_json(replace(from_json(LLMCall, path.read_bytes()), reply="- a trap", **changes)))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-20]), id="cut off"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes().replace(b"mood", b"moon")), id="one byte"),
        pytest.param(lambda path: path.write_bytes(b"\x00\xff"), id="no text"),
        pytest.param(lambda path: path.write_text("[" * 100_000), id="deep"),
        pytest.param(lambda path: overwrite(path, messages=()), id="other messages"),
        pytest.param(lambda path: overwrite(path, asked="gpt-4o"), id="another model"),
        pytest.param(lambda path: overwrite(path, parameters={}), id="other parameters"),
        pytest.param(lambda path: overwrite(path, error="no"), id="an error"),
    ],
)
def test_a_damaged_or_foreign_file_is_asked_anew_and_overwritten(damage: Any, folder: Path) -> None:
    with serve(openai_chat(GOOD), openai_chat(OTHER)) as server:
        Run().consult(server)
        (path,) = answers(folder)
        damage(path)
        for _ in range(2):
            run = Run()
            run.consult(server)
            assert run.exchanges[0].reply == OTHER
        assert len(server.requests) == 2
    assert answers(folder) == [path]


def test_only_its_owner_can_read_an_answer(folder: Path) -> None:
    with serve(openai_chat(GOOD)) as server:
        Run().consult(server)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


def test_a_cache_that_cannot_be_written_is_found_before_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CATALYST_CACHE", str(tmp_path / "file"))
    mentor = LanguageModel(OpenAIChat("gpt-4o", key_variable="TEST_KEY"), Paper(), cache=True)
    with pytest.raises(ConfigurationError, match=r"mentor\.cache=true keeps .*file/answers.*set CATALYST_CACHE"):
        mentor.preflight()
    replace(mentor, cache=False).preflight()


def test_an_answer_that_cannot_be_kept_is_used_all_the_same(folder: Path) -> None:
    with serve(openai_chat(GOOD), openai_chat(GOOD)) as server:
        Run().consult(server)
        (path,) = answers(folder)
        path.unlink()
        path.mkdir()  # nothing can be written there
        assert len(Run().consult(server).proposals) == 3


def test_without_the_variable_answers_lie_in_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CATALYST_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert response_cache.cache_folder() == tmp_path / ".cache" / "llm-catalyst" / "answers"


def test_a_replay_keeps_nothing(folder: Path, tmp_path: Path) -> None:
    run = Run()
    with serve(openai_chat(GOOD)) as server:
        run.consult(server)
        answers(folder)[0].unlink()
    (tmp_path / "exchanges.jsonl").write_text(to_json(run.exchanges[0]) + "\n")
    replay = Replay(str(tmp_path))
    again = response_cache.get_response(replay, run.exchanges[0].messages, 0, lambda: replay.complete([], 1, 0))
    assert again.reply == GOOD
    assert answers(folder) == []


ASK = """
import sys
from llm_catalyst.mentors.response_cache import get_response, prepare_cache
from llm_catalyst.mentors.clients.openai import OpenAIChat
from llm_catalyst.runs.records import Message
prepare_cache()
client = OpenAIChat("gpt-4o-mini", sys.argv[1] + "/v1", "TEST_KEY")
messages = (Message("user", "Three, please."),)
exchange = get_response(client, messages, 7, lambda: client.complete(messages, 0, 7))
print(exchange.reused, exchange.reply)
"""


def test_of_two_processes_with_one_question_one_pays_and_the_other_waits() -> None:
    with serve(replace(openai_chat("- is it good"), delay_s=1.5)) as server:
        processes = [
            subprocess.Popen([sys.executable, "-c", ASK, server.url], stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        printed = sorted(process.communicate(timeout=300)[0] for process in processes)
        assert len(server.requests) == 1
    assert printed == ["None - is it good\n", "cache - is it good\n"]
