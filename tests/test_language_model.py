"""A language model as the mentor: asks, records, reads, fits, and fails in the open."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.utils import get_class
from loopback import error, openai_chat, serve
from omegaconf import DictConfig, OmegaConf
from tiny import prompt_space, scored

from llm_catalyst.checks import ConfigurationError
from llm_catalyst.mentors.clients.openai import OpenAIChat
from llm_catalyst.mentors.consultation import Consultation, TaskDescription
from llm_catalyst.mentors.language_model import LanguageModel, MentorFailed
from llm_catalyst.mentors.strategies.paper import Paper
from llm_catalyst.paths import conf_directory
from llm_catalyst.records import Advice, Exchange

GOOD = "- is it good\n- how is the mood\n- tell me the story"


@dataclass
class Recorder:
    """A consultation whose records are kept, in the tiny space."""

    exchanges: list[Exchange] = field(default_factory=list)

    def consultation(self, seed: int = 0) -> Consultation:
        space = prompt_space(length=4)
        pool = (scored(space, "dull", 0.7, 0.4), scored(space, "is the film good", 0.3, 0.9))
        task = TaskDescription("sst2", "Judge film reviews.", ("negative", "positive"))
        return Consultation(task, pool, 1, 3, space, random.Random(seed), self.exchanges.append)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "test-key-0123456789abcdef")


def advise(*script: Any, seed: int = 0, **settings: Any) -> tuple[Advice, Recorder, list[dict[str, Any]]]:
    """The advice of a language model behind a real server, its records, and the requests' bodies."""
    recorder = Recorder()
    strategy = settings.pop("strategy", Paper())
    with serve(*script) as server:
        client = OpenAIChat("gpt-4o-mini", server.url + "/v1", "TEST_KEY", timeout_s=5, retry_s=0)
        advice = LanguageModel(client, strategy, **settings).propose(recorder.consultation(seed))
    return advice, recorder, [request.body for request in server.requests]


def texts(advice: Advice) -> list[str]:
    return [proposal.prompt.text for proposal in advice.proposals]


def reasons(advice: Advice) -> list[str]:
    return [rejected.reason for rejected in advice.rejected]


def test_proposals_become_prompts_of_m_tokens() -> None:
    advice, recorder, _ = advise(openai_chat(GOOD))
    assert texts(advice) == ["is it good is", "how is the mood", "tell me the story"]
    assert all(len(proposal.prompt.tokens) == 4 for proposal in advice.proposals)
    assert advice.fallback is None
    assert [exchange.stage for exchange in recorder.exchanges] == [1]


def test_a_text_without_any_token_is_rejected_by_name() -> None:
    advice, _, _ = advise(openai_chat("- 好\n- is it good"))
    assert texts(advice) == ["is it good is"]
    assert reasons(advice) == ["'好' holds no token of this tokenizer"]


def test_what_does_not_fit_is_said() -> None:
    advice, _, _ = advise(openai_chat("- is the movie good or is it bad"))
    assert texts(advice) == ["is the movie good"]
    assert advice.proposals[0].lost == "or is it bad"


def test_an_exchange_is_recorded_before_its_reply_is_read() -> None:
    @dataclass(frozen=True)
    class Broken(Paper):
        def read(self, reply: str) -> Any:
            raise RuntimeError("a bug in a strategy")

    recorder = Recorder()
    with serve(openai_chat(GOOD)) as server:
        client = OpenAIChat("gpt-4o-mini", server.url + "/v1", "TEST_KEY")
        with pytest.raises(RuntimeError, match="a bug"):
            LanguageModel(client, Broken()).propose(recorder.consultation())
    assert [exchange.reply for exchange in recorder.exchanges] == [GOOD]


def test_more_than_asked_for_is_rejected_and_duplicates_do_not_count() -> None:
    reply = "- is the film good\n- is it good\n- is it good is\n- how is the mood\n- tell me the story"
    advice, _, _ = advise(openai_chat(reply), proposals=2)
    assert texts(advice) == ["is it good is", "how is the mood"]
    assert reasons(advice) == [
        "the same tokens as a prompt of the pool",
        "the same tokens as another proposal",
        "more than asked for",
    ]


def test_the_last_line_of_a_truncated_answer_is_not_used() -> None:
    advice, _, _ = advise(openai_chat("- is it good\n- how is the", "length"))
    assert texts(advice) == ["is it good is"]
    assert reasons(advice) == ["cut off: the answer ended by length"]


def test_an_unusable_answer_is_asked_again_with_a_reminder() -> None:
    advice, recorder, (first, second) = advise(openai_chat("..."), openai_chat(GOOD))
    assert len(advice.proposals) == 3
    assert advice.fallback is None
    assert reasons(advice) == ["no letter or digit in it"]
    assert second["messages"][: len(first["messages"])] == first["messages"]
    assert [message["role"] for message in second["messages"]] == ["system", "user", "assistant", "user"]
    assert second["messages"][2]["content"] == "..."
    assert first["seed"] != second["seed"]
    assert len(recorder.exchanges) == 2


def test_after_the_last_attempt_the_advice_says_why_there_is_none() -> None:
    advice, recorder, requests = advise(*[openai_chat("- is the film good")] * 3, attempts=3)
    assert advice.proposals == ()
    assert advice.fallback == "no usable proposal in the answer"
    assert reasons(advice) == ["the same tokens as a prompt of the pool"] * 3
    assert len(recorder.exchanges) == len(requests) == 3


def test_a_refusal_is_asked_again_and_then_named() -> None:
    advice, recorder, _ = advise(*[openai_chat(None, refusal="No.")] * 2)
    assert advice.fallback == "the model refused"
    assert [exchange.error for exchange in recorder.exchanges] == ["the model refused"] * 2


def test_where_nobody_answers_the_question_is_not_repeated() -> None:
    advice, recorder, requests = advise(error(404, "no such model"))
    assert "no such model" in str(advice.fallback)
    assert len(recorder.exchanges) == len(requests) == 1


def test_on_failure_stop_raises_with_the_reason_and_keeps_the_record() -> None:
    recorder = Recorder()
    with serve(error(401, "bad key")) as server:
        client = OpenAIChat("gpt-4o-mini", server.url + "/v1", "TEST_KEY")
        mentor = LanguageModel(client, Paper(), on_failure="stop")
        with pytest.raises(MentorFailed, match=r"after stage 1: .* answered 401 .*bad key.*resume the run"):
            mentor.propose(recorder.consultation())
    assert len(recorder.exchanges) == 1


def test_the_seed_sent_comes_from_the_consultation() -> None:
    seeds = [advise(openai_chat(GOOD), seed=seed)[2][0]["seed"] for seed in (1, 1, 2)]
    assert seeds[0] == seeds[1] != seeds[2]


def test_the_official_parsing_takes_what_the_official_code_takes() -> None:
    advice, _, _ = advise(openai_chat("Is it good?\n- how is the mood"), strategy=Paper(parsing="official"))
    assert texts(advice) == ["is it good?", "how is the mood"]


def test_preflight_asks_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    mentor = LanguageModel(OpenAIChat("gpt-4o-mini", key_variable="TEST_KEY"), Paper())
    mentor.preflight()
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(ConfigurationError, match="TEST_KEY is not set"):
        mentor.preflight()


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"proposals": 0}, r"mentor\.proposals=0 is too small"),
        ({"attempts": 0}, r"mentor\.attempts=0 is too small"),
        ({"on_failure": "ignore"}, r"mentor\.on_failure=ignore is not known"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ConfigurationError, match=wanted):
        LanguageModel(None, None, **settings)


def test_the_mentor_is_a_schema_for_omegaconf() -> None:
    assert set(OmegaConf.structured(LanguageModel)) == {"client", "strategy", "proposals", "attempts", "on_failure"}


def client_files() -> Sequence[Path]:
    files = sorted((conf_directory() / "mentor").glob("*.yaml"))
    return [path for path in files if "client" in yaml.safe_load(path.read_text(encoding="utf-8"))]


def test_conf_names_eighteen_mentors_with_a_client() -> None:
    assert len(client_files()) == 18


@pytest.mark.parametrize("path", client_files(), ids=lambda path: path.stem)
def test_every_mentor_in_conf_builds_from_its_schema_and_lists_every_field(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"# catalyst run mentor={path.stem}")
    node = OmegaConf.create(text)
    assert isinstance(node, DictConfig)
    client = build(node.client)
    mentor = build(node, client=client, strategy=Paper())
    assert isinstance(mentor, LanguageModel)
    assert mentor.client is client


def build(node: DictConfig, **parts: Any) -> Any:
    """The object of a YAML node, merged into its dataclass; `parts` are given instead of the node's own."""
    unset = {"model": "some/model", "base_url": "http://127.0.0.1:9", "run": "somewhere"}
    kind: Any = get_class(node.pop("_target_"))
    unlisted = set(kind.__dataclass_fields__) - set(node) - {"strategy"}
    assert not unlisted, "a key that YAML does not list cannot be overridden without a +"
    schema = OmegaConf.structured(kind)
    OmegaConf.set_readonly(schema, False)
    missing = {str(key): unset[str(key)] for key in node if OmegaConf.is_missing(node, key)}
    settings = OmegaConf.to_container(OmegaConf.merge(schema, node, missing), resolve=True)
    assert isinstance(settings, dict)
    return kind(**{**settings, **parts})
