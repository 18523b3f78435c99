"""Every fault of a mentor, through the providers' real SDKs: what the run gets. docs/reliability.md names these."""

import random
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import anthropic  # noqa: F401 - loaded by the first request otherwise, within the times that are measured here
import openai  # noqa: F401
import pytest
import yaml
from helpers.loopback import Loopback, Response, anthropic_message, error, model_list, openai_chat, raw, serve
from helpers.tiny import prompt_space, scored
from omegaconf import OmegaConf

from llm_catalyst.config.build import build_mentor
from llm_catalyst.mentors.base import MentorContext, TaskDescription
from llm_catalyst.mentors.clients.anthropic import Claude
from llm_catalyst.mentors.clients.base import ClientResponse, TemporaryError, retry_response
from llm_catalyst.mentors.clients.openai import OpenAIChat
from llm_catalyst.mentors.controls import Evolution
from llm_catalyst.mentors.llm import LanguageModel, MentorError
from llm_catalyst.mentors.strategies.paper import Paper
from llm_catalyst.runs.records import Advice, LLMCall, from_json, to_json
from llm_catalyst.sweeps.fallbacks import read_node, resolve_fallbacks
from llm_catalyst.utils.paths import conf_directory
from llm_catalyst.utils.validation import ConfigurationError

GOOD = "- is it good\n- how is the mood\n- tell me the story"
KEY = "test-key-0123456789abcdef"

Script = list[Response]


@dataclass(frozen=True)
class Provider:
    """How to reach one provider's SDK at the loopback server, and how that provider words what a model says."""

    client: Callable[..., Any]
    says: Callable[..., Response]
    cut_off: Response
    refuses: Response
    empty: Response


def openai_client(url: str, **settings: Any) -> OpenAIChat:
    return OpenAIChat("gpt-4o-mini", url + "/v1", "TEST_KEY", **{"timeout_s": 5.0, "retry_s": 0.0, **settings})


def claude_client(url: str, **settings: Any) -> Claude:
    return Claude("claude-haiku-4-5", url, "TEST_KEY", **{"timeout_s": 5.0, "retry_s": 0.0, **settings})


PROVIDERS = {
    "openai": Provider(
        openai_client,
        openai_chat,
        cut_off=openai_chat("- is it good\n- how is the", "length"),
        refuses=openai_chat(None, refusal="I must not."),
        empty=openai_chat(""),
    ),
    "anthropic": Provider(
        claude_client,
        anthropic_message,
        cut_off=anthropic_message("- is it good\n- how is the", stop_reason="max_tokens"),
        refuses=anthropic_message("No.", stop_reason="refusal"),
        empty=anthropic_message(thought=""),
    ),
}


@pytest.fixture(params=PROVIDERS.values(), ids=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> Provider:
    result: Provider = request.param
    return result


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)


@dataclass
class Run:
    """What a run sees of its mentor: the advice, and the exchanges that it writes."""

    exchanges: list[LLMCall] = field(default_factory=list)

    def consult(self, mentor: LanguageModel) -> Advice:
        space = prompt_space(length=4)
        pool = (scored(space, "dull", 0.7, 0.4), scored(space, "is the film good", 0.3, 0.9))
        task = TaskDescription("sst2", "Judge film reviews.", ("negative", "positive"))
        advice = mentor.propose(MentorContext(task, pool, 1, 3, space, random.Random(0), self.exchanges.append))
        for record in self.exchanges:
            line = to_json(record)
            assert from_json(LLMCall, line) == record
            assert KEY not in line
        for text in texts(advice):
            assert text.isprintable()
        return advice


def texts(advice: Advice) -> list[str]:
    return [proposal.prompt.text for proposal in advice.proposals]


def reasons(advice: Advice) -> list[str]:
    return [rejected.reason for rejected in advice.rejected]


def advise(provider: Provider, *script: Response, **client: Any) -> tuple[Advice, Run, Loopback]:
    run = Run()
    with serve(*script) as server:
        advice = run.consult(LanguageModel(provider.client(server.url, **client), Paper()))
    return advice, run, server


# --- faults that pass: the run gets its proposals


@pytest.mark.parametrize(
    ("fault", "client"),
    [
        pytest.param(error(429, "slow down", {"retry-after": "1"}), {}, id="429 with Retry-After"),
        pytest.param(error(429, "slow down"), {}, id="429 without Retry-After"),
        pytest.param(error(500, "internal error"), {}, id="500"),
        pytest.param(error(503, "unavailable"), {}, id="503"),
        pytest.param(error(529, "overloaded"), {}, id="529"),
        pytest.param(replace(openai_chat(GOOD), delay_s=10), {"timeout_s": 2.0}, id="a timeout"),
        pytest.param(replace(openai_chat(GOOD), reset=True), {}, id="a connection reset in mid-body"),
    ],
)
def test_a_fault_that_passes_costs_a_retry_and_no_proposal(
    provider: Provider, fault: Response, client: dict[str, Any]
) -> None:
    advice, run, server = advise(provider, fault, provider.says(GOOD), **{"retry_s": 10.0, **client})
    assert len(advice.proposals) == 3
    assert advice.fallback is None
    assert len(server.requests) == 2
    (exchange,) = run.exchanges
    assert (exchange.attempts, exchange.error) == (2, None)
    waited = {"1": 1.0}.get(fault.headers.get("retry-after", ""), 0.5)
    assert waited <= exchange.latency_s < waited + 5


def test_waits_between_retries_grow_have_jitter_and_end_at_their_bound() -> None:
    def times(bound_s: float) -> tuple[list[float], float]:
        """The waits before each further try of a request that always fails, and the seconds in all."""
        asked: list[float] = []

        def ask() -> ClientResponse:
            asked.append(time.monotonic())
            raise TemporaryError(ClientResponse(error="busy"))

        begun = time.monotonic()
        answer, tries = retry_response(ask, bound_s)
        assert f"given up after {tries} {'try' if tries == 1 else 'tries'} (mentor.client.retry_s={bound_s:g})" in str(
            answer.error
        )
        return [after - before for before, after in pairwise(asked)], time.monotonic() - begun

    with ThreadPoolExecutor() as threads:
        (first, seconds), (second, _), (short, soon) = threads.map(times, (5.0, 5.0, 0.6))
    for waits in (first, second):
        assert 2 <= len(waits) <= 3
        assert all(2**i / 2 <= wait < 2**i + 1 for i, wait in enumerate(waits))
    assert all(abs(a - b) > 1e-3 for a, b in zip(first[:2], second[:2], strict=True))
    assert seconds < 6
    assert len(short) <= 1
    assert soon < 1.6


# --- faults that stay: the run records them and continues, continues with another mentor, or stops, as configured


@contextmanager
def nobody() -> Iterator[Loopback]:
    """The address of a server that refuses connections."""
    with serve() as server, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening
        server.url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        yield server


@pytest.mark.parametrize("policy", ["stop", "fallback", "another mentor"])
@pytest.mark.parametrize(
    ("fault", "client", "words"),
    [
        pytest.param(error(429, "slow", {"retry-after": "9"}), {}, "answered 429: slow", id="429 with Retry-After"),
        pytest.param(error(429, "slow down"), {}, "answered 429: slow down", id="429 without Retry-After"),
        pytest.param(error(500, "internal error"), {}, "answered 500: internal error", id="500"),
        pytest.param(error(503, "unavailable"), {}, "answered 503: unavailable", id="503"),
        pytest.param(error(529, "overloaded"), {}, "answered 529: overloaded", id="529"),
        pytest.param(replace(error(500, "late"), delay_s=3), {"timeout_s": 1.0}, "within timeout_s", id="a timeout"),
        pytest.param(None, {}, "no connection to http://127.0.0.1", id="a refused connection"),
        pytest.param(replace(openai_chat(GOOD), reset=True), {}, "no connection", id="a connection reset in mid-body"),
        pytest.param(error(401, f"bad key {KEY}"), {}, "): bad key [key]", id="401"),
        pytest.param(error(403, "not yours"), {}, "this key may not use this model", id="403"),
        pytest.param(error(404, "no such model"), {}, "check mentor.client.model", id="an unknown model"),
        pytest.param(error(400, "maximum context length"), {}, "maximum context length", id="a context too long"),
        pytest.param(raw("{not json"), {}, "could not be read", id="invalid JSON"),
        pytest.param(raw("<html>Sign in</html>", content_type="text/html"), {}, "no answer of a model", id="a page"),
    ],
)
def test_a_fault_that_stays_does_what_the_configuration_says(
    provider: Provider, fault: Response | None, client: dict[str, Any], words: str, policy: str
) -> None:
    run = Run()
    begun = time.monotonic()
    with serve(fault) if fault else nobody() as server:
        mentor = LanguageModel(provider.client(server.url, **client), Paper())
        if policy == "stop":
            with pytest.raises(
                MentorError, match=r"resume the run .*mentor\.client\.model=.*mentor\.fallbacks="
            ) as stopped:
                run.consult(mentor)
            said = str(stopped.value)
        elif policy == "fallback":
            advice = run.consult(replace(mentor, on_failure="fallback"))
            said = str(advice.fallback)
            assert advice.proposals == ()
        else:
            advice = run.consult(replace(mentor, fallbacks=[Evolution()]))
            said = advice.instead
            assert said.endswith("; Evolution proposes instead")
            assert len(advice.proposals) == 3
            assert advice.fallback is None
        assert len(server.requests) == (1 if fault else 0)
    assert words in said
    (exchange,) = run.exchanges
    assert words in str(exchange.error)
    assert exchange.answered is None
    assert time.monotonic() - begun < 8  # no retry, whatever Retry-After says


@pytest.mark.parametrize(
    ("lookup", "words"),
    [
        pytest.param([error(401, "bad key")], "check the key in the environment variable ", id="401"),
        pytest.param([error(403, "not yours")], "may not use", id="403"),
        pytest.param([error(404, "no such model"), model_list("a", "b")], "it has a, b", id="an unknown model"),
    ],
)
def test_what_cannot_succeed_is_found_before_training(provider: Provider, lookup: Script, words: str) -> None:
    with serve(lookups=lookup) as server:
        mentor = LanguageModel(provider.client(server.url), Paper())
        with pytest.raises(ConfigurationError, match=words):
            mentor.check_reachable()
    with serve() as good, serve(lookups=lookup) as bad:
        fallback = LanguageModel(provider.client(bad.url), Paper())
        mentor = LanguageModel(provider.client(good.url), Paper(), fallbacks=[Evolution(), fallback])
        with pytest.raises(ConfigurationError, match=rf"^mentor\.fallbacks\[1\]: .*{words}"):
            mentor.check_reachable()
        bad.lookups.clear()
        mentor.check_reachable()
    assert good.requests == bad.requests == []


# --- answers that cannot be used: asked again with a reminder


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param("refuses", "the model refused", id="a refusal"),
        pytest.param("empty", "the answer is empty", id="empty content"),
    ],
)
def test_an_unusable_answer_is_paid_for_named_and_asked_again(provider: Provider, answer: str, words: str) -> None:
    unusable: Response = getattr(provider, answer)
    advice, run, _ = advise(provider, unusable, provider.says(GOOD))
    assert len(advice.proposals) == 3
    assert [exchange.error for exchange in run.exchanges] == [words, None]
    assert all(exchange.cost_usd for exchange in run.exchanges)
    assert advise(provider, unusable, unusable)[0].fallback == words
    with serve(unusable, unusable) as server, pytest.raises(MentorError, match=rf"{words}; .*mentor\.on_unusable="):
        run.consult(LanguageModel(provider.client(server.url), Paper(), on_unusable="stop"))


def test_an_answer_that_the_content_filter_stopped_is_named_and_asked_again() -> None:
    filtered = openai_chat("- is it", "content_filter")
    advice, run, _ = advise(PROVIDERS["openai"], filtered, openai_chat(GOOD))
    assert len(advice.proposals) == 3
    assert run.exchanges[0].error == "the provider's content filter stopped the answer"


def test_of_an_answer_truncated_by_max_tokens_the_half_line_is_not_used(provider: Provider) -> None:
    advice, _, server = advise(provider, provider.cut_off)
    assert texts(advice) == ["is it good is"]
    assert reasons(advice)[0].startswith("cut off: the answer ended by ")
    assert len(server.requests) == 1


# --- strange answers: proposals are clean, and what is dropped has a reason


@pytest.mark.parametrize(
    ("answer", "proposed", "dropped"),
    [
        pytest.param(
            "- is the film good\n- is it good", ["is it good is"], ["was scored"], id="a duplicate of the pool"
        ),
        pytest.param("- is it good\n- is it good is", ["is it good is"], ["another"], id="a duplicate of another"),
        pytest.param("- 这部电影好吗\n- Ist der film good", ["film good film good"], ["no token"], id="not English"),
        pytest.param("- \x1b[31mis it\x1b[0m good\x1b]0;title\x07\x1b[2J", ["is it good is"], [], id="ANSI escapes"),
        pytest.param("- [bold red]is it[/x] good [/]", ["is it good is"], [], id="rich markup"),
        pytest.param("- <b>is it</b> good<script>", ["is it good is"], [], id="HTML"),
        pytest.param("- [CLS] is it</s> good<|im_end|>[MASK]", ["is it good is"], [], id="special tokens"),
        pytest.param("- is\x00 it\u202e good\u200b\x07", ["is it good is"], [], id="control characters"),
        pytest.param(
            "- is it good\n" + "- " + "the " * 262_144, ["is it good is"], ["longer than"], id="1 MB, one line"
        ),
        pytest.param(
            "- is it good\n" + "x\n" * 524_288,
            ["is it good is"],
            ["beside the list", "dropped too"],
            id="1 MB, many lines",
        ),
        pytest.param("- is it good\n" + "[" * 1_048_576, ["is it good is"], ["broken JSON"], id="1 MB, brackets"),
    ],
)
def test_a_strange_answer_gives_clean_proposals_and_reasons(
    provider: Provider, answer: str, proposed: list[str], dropped: list[str]
) -> None:
    advice, run, _ = advise(provider, provider.says(answer))
    assert texts(advice) == proposed
    assert all(any(word in reason for reason in reasons(advice)) for word in dropped), reasons(advice)
    assert len(run.exchanges[0].reply) == len(answer)
    assert sum(len(rejected.line) for rejected in advice.rejected) < 50_000


# --- mentor.fallbacks as names


def packaged(name: str) -> dict[str, Any]:
    """A choice of conf/mentor with what it inherits: interpolations resolved, ??? left."""
    files = {path.stem: path for path in (conf_directory() / "mentor").glob("*.yaml")}
    content: Any = OmegaConf.to_container(read_node(name, files), resolve=True)
    return dict(content)


def expanded(*fallbacks: Any, folders: tuple[Path, ...] = ()) -> list[Any]:
    config = {"mentor": {**packaged("gpt4"), "fallbacks": list(fallbacks)}, "seed": 1}
    result = resolve_fallbacks(config, [*folders, conf_directory()])
    assert result["seed"] == 1
    assert config["mentor"]["fallbacks"] == list(fallbacks)
    nodes: list[Any] = result["mentor"]["fallbacks"]
    mentor = build_mentor(result["mentor"], Paper(words=5))
    assert [type(fallback).__name__ for fallback in mentor.fallbacks] == [
        node["_target_"].rpartition(".")[2] for node in nodes
    ]
    return list(mentor.fallbacks)


def test_a_name_stands_for_its_choice_with_the_runs_strategy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    mini, evolution = expanded("gpt4o_mini", "evolution")
    assert (mini.client.model, mini.client.base_url) == ("gpt-4o-mini", "http://127.0.0.1:9/v1")
    assert mini.strategy == Paper(words=5)
    assert evolution == Evolution()


def test_a_choice_of_the_users_own_stands_before_a_packaged_one_and_a_node_for_itself(tmp_path: Path) -> None:
    (tmp_path / "mentor").mkdir()
    node = {"_target_": "llm_catalyst.mentors.Evolution", "proposals": 7}
    (tmp_path / "mentor" / "gpt4o.yaml").write_text(yaml.safe_dump(node))
    assert expanded("gpt4o", node, folders=(tmp_path,)) == [Evolution(proposals=7)] * 2


def test_a_fallback_inherits_from_packaged_choices_and_from_those_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "mentor"
    folder.mkdir()
    (folder / "mine.yaml").write_text("defaults: [_mine, _self_]\nclient: {model: m, max_tokens: 7}\n")
    (folder / "_mine.yaml").write_text("defaults: [gpt5_mini]\nattempts: 5\nclient: {max_tokens: 6, retry_s: 1}\n")
    (mine,) = expanded("mine", folders=(tmp_path,))
    client = mine.client
    assert (client.model, client.max_tokens, client.retry_s, client.temperature) == ("m", 7, 1, None)
    assert (mine.attempts, client.key_variable) == (5, "OPENAI_API_KEY")


def test_a_value_that_a_choice_leaves_open_is_that_of_its_base_as_in_hydra(tmp_path: Path) -> None:
    folder = tmp_path / "mentor"
    folder.mkdir()
    (folder / "mine.yaml").write_text('defaults: [gpt5_mini]\nclient: {model: "???", max_tokens: 7}\n')
    (mine,) = expanded("mine", folders=(tmp_path,))
    assert (mine.client.model, mine.client.max_tokens) == ("gpt-5-mini", 7)


def test_a_fallback_that_inherits_from_nothing_or_from_itself_is_named(tmp_path: Path) -> None:
    (tmp_path / "mentor").mkdir()
    for base in ("gpt4o_mni", "mine"):
        (tmp_path / "mentor" / "mine.yaml").write_text(f"defaults: [{base}]\n")
        with pytest.raises(
            ConfigurationError, match=rf"defaults of .*mine\.yaml={base} is not known; there are: _self_"
        ):
            expanded("mine", folders=(tmp_path,))


@pytest.mark.parametrize(
    ("fallbacks", "words"),
    [
        (["_openai"], r"mentor\.fallbacks=_openai is not known; there are: azure, bedrock, best, "),
        (["gpt4o_mni"], r"mentor\.fallbacks=gpt4o_mni is not known; there are: .*\(did you mean gpt4o_mini\?\)"),
        (["../mentor/gpt4"], r"mentor\.fallbacks=\.\./mentor/gpt4 is not known"),
        (["local"], r"mentor\.fallbacks=local leaves client\.model open; .*--config-dir"),
        (["replay"], r"mentor\.fallbacks=replay is not known"),
        (["diffusion"], r"mentor\.fallbacks=diffusion is not known"),
        ("gpt4o_mini", r"mentor\.fallbacks='gpt4o_mini' does not fit: .*list"),
    ],
    ids=str,
)
def test_a_fallback_that_cannot_be_is_named(fallbacks: Any, words: str) -> None:
    mentor = {**packaged("gpt4"), "fallbacks": fallbacks}
    with pytest.raises(ConfigurationError, match=words):
        resolve_fallbacks({"mentor": mentor}, [conf_directory()])


def test_a_name_that_was_not_expanded_is_refused() -> None:
    mentor = {**packaged("gpt4"), "fallbacks": ["gpt4o"]}
    with pytest.raises(ConfigurationError, match=r"mentor\.fallbacks\[0\]\._target_=gpt4o is not accepted"):
        build_mentor(mentor, Paper())


def test_a_mentor_without_fallbacks_is_left_as_it_is() -> None:
    for name in ("none", "gpt4", "evolution"):
        config = {"mentor": packaged(name)}
        assert resolve_fallbacks(config, [conf_directory()]) == config
