"""The clients against a real server on 127.0.0.1, through the providers' own SDKs."""

import gc
import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anthropic  # noqa: F401 - loaded by the first request otherwise, within the times that are measured here
import openai  # noqa: F401
import pexpect
import pytest
import torch
from helpers.loopback import Loopback, Response, anthropic_message, error, model, model_list, openai_chat, raw, serve
from helpers.tiny import tokenizer

from llm_catalyst.mentors.clients import http
from llm_catalyst.mentors.clients.anthropic import Claude
from llm_catalyst.mentors.clients.base import NotRecordedError
from llm_catalyst.mentors.clients.huggingface import LocalModel
from llm_catalyst.mentors.clients.human import Human
from llm_catalyst.mentors.clients.openai import OpenAIChat
from llm_catalyst.mentors.clients.replay import Replay
from llm_catalyst.runs.records import LLMCall, Message, from_json, to_json
from llm_catalyst.utils.validation import ConfigurationError

KEY = "test-key-0123456789abcdef"
MESSAGES = (Message("system", "You write prompts."), Message("user", "Three, please."))

Connect = Callable[..., Any]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)


def openai_client(url: str, **settings: Any) -> OpenAIChat:
    defaults = {"model": "gpt-4o-mini", "key_variable": "TEST_KEY", "timeout_s": 5.0, "retry_s": 10.0}
    return OpenAIChat(base_url=url + "/v1", **{**defaults, **settings})


def claude_client(url: str, **settings: Any) -> Claude:
    defaults = {"model": "claude-haiku-4-5", "key_variable": "TEST_KEY", "timeout_s": 5.0, "retry_s": 10.0}
    return Claude(base_url=url, **{**defaults, **settings})


PROVIDERS = [
    pytest.param(openai_client, openai_chat, id="openai"),
    pytest.param(claude_client, anthropic_message, id="anthropic"),
]
CLIENTS = [pytest.param(openai_client, id="openai"), pytest.param(claude_client, id="anthropic")]


def ask(connect: Connect, *script: Response, **settings: Any) -> tuple[LLMCall, Loopback]:
    with serve(*script) as server:
        exchange = connect(server.url, **settings).complete(MESSAGES, 1, 7)
    assert from_json(LLMCall, to_json(exchange)) == exchange  # whatever came back can be written and read
    assert KEY not in to_json(exchange)
    return exchange, server


def test_openai_sends_what_is_configured_and_records_what_came_back() -> None:
    exchange, server = ask(openai_client, openai_chat("- a film"), temperature=0.8, presence_penalty=1.0, max_tokens=50)
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body == {
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "system", "content": "You write prompts."},
            {"role": "user", "content": "Three, please."},
        ],
        "max_completion_tokens": 50,
        "temperature": 0.8,
        "presence_penalty": 1.0,
        "seed": 7,
    }
    assert exchange.reply == "- a film"
    assert exchange.error is None
    assert (exchange.stage, exchange.messages, exchange.asked) == (1, MESSAGES, "gpt-4o-mini")
    assert exchange.answered == "gpt-4o-mini"
    assert exchange.parameters == {"max_completion_tokens": 50, "temperature": 0.8, "presence_penalty": 1.0, "seed": 7}
    assert exchange.not_sent == ()
    assert (exchange.input_tokens, exchange.output_tokens) == (100, 20)
    assert exchange.cost_usd == pytest.approx(100 * 0.15e-6 + 20 * 0.6e-6)
    assert exchange.request_id == "req_openai"
    assert (exchange.stop_reason, exchange.attempts) == ("stop", 1)
    assert exchange.latency_s > 0
    assert exchange.date.endswith("+00:00")


def test_openai_leaves_out_what_is_not_configured() -> None:
    exchange, server = ask(openai_client, openai_chat("- a"), send_seed=False, max_tokens_name="max_tokens")
    assert server.requests[0].body.keys() == {"model", "messages", "max_tokens"}
    assert exchange.parameters == {"max_tokens": 1200}
    assert exchange.not_sent == ("seed",)


def test_a_server_without_a_key_gets_a_placeholder() -> None:
    _, server = ask(openai_client, openai_chat("- a"), key_variable=None)
    assert server.requests[0].headers["authorization"] == "Bearer none"


def test_anthropic_gets_the_system_text_apart_and_no_temperature() -> None:
    exchange, server = ask(claude_client, anthropic_message("- a ", "film"), temperature=0.8, max_tokens=50)
    (request,) = server.requests
    assert request.path == "/v1/messages"
    assert KEY in (request.headers.get("x-api-key", "") + request.headers.get("authorization", ""))
    assert request.body == {
        "model": "claude-haiku-4-5",
        "system": "You write prompts.",
        "messages": [{"role": "user", "content": "Three, please."}],
        "max_tokens": 50,
    }
    assert exchange.reply == "- a film"
    assert exchange.parameters == {"max_tokens": 50}
    assert exchange.not_sent == ("temperature", "seed")
    assert (exchange.asked, exchange.answered) == ("claude-haiku-4-5", "claude-haiku-4-5-20251001")
    assert exchange.cost_usd == pytest.approx(100 * 1e-6 + 20 * 5e-6)
    assert exchange.request_id == "req_anthropic"
    assert exchange.stop_reason == "end_turn"


@pytest.mark.parametrize(("connect", "good"), PROVIDERS)
def test_a_model_without_a_known_price_costs_an_unknown_sum(connect: Connect, good: Callable[..., Response]) -> None:
    exchange, _ = ask(connect, good("- a", model="nobody-knows-this"))
    assert exchange.input_tokens == 100
    assert exchange.cost_usd is None


@pytest.mark.parametrize("connect", CLIENTS)
@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("{not json", "application/json"),
        ("<html><body>Sign in</body></html>", "text/html"),
        ("null", "application/json"),
        ("[]", "application/json"),
        ("{}", "application/json"),
        ('"text"', "application/json"),
        ('{"choices": [], "content": null}', "application/json"),
        ('{"choices": [null], "content": [null], "model": 3, "usage": "x"}', "application/json"),
        ("", "application/json"),
    ],
)
def test_an_answer_that_is_none_becomes_an_error(connect: Connect, body: str, content_type: str) -> None:
    exchange, _ = ask(connect, raw(body, content_type=content_type))
    assert exchange.error
    assert exchange.reply == ""
    assert exchange.cost_usd is None


@pytest.mark.parametrize(
    ("connect", "response", "expected"),
    [
        (openai_client, openai_chat(None), "the answer is empty"),
        (openai_client, openai_chat(" \n"), "the answer is empty"),
        (openai_client, openai_chat("", "length"), "the answer is empty; raise mentor.client.max_tokens"),
        (openai_client, openai_chat(None, refusal="I must not."), "the model refused"),
        (openai_client, openai_chat("x", "content_filter"), "the provider's content filter stopped the answer"),
        (claude_client, anthropic_message(thought=""), "the answer is empty"),
        (
            claude_client,
            anthropic_message(stop_reason="max_tokens", thought=""),
            "the answer is empty; raise mentor.client.max_tokens",
        ),
        (claude_client, anthropic_message("No.", stop_reason="refusal"), "the model refused"),
        (claude_client, anthropic_message("- a", stop_reason=None), "the answer broke off"),
    ],
)
def test_an_unusable_answer_is_an_error_and_still_costs(connect: Connect, response: Response, expected: str) -> None:
    exchange, _ = ask(connect, response)
    assert exchange.error == expected
    assert exchange.answered is not None
    assert exchange.cost_usd


@pytest.mark.parametrize(
    ("connect", "response", "stop_reason"),
    [
        (openai_client, openai_chat("- a film\n- the re", "length"), "length"),
        (claude_client, anthropic_message("- a film\n- the re", stop_reason="max_tokens"), "max_tokens"),
    ],
)
def test_a_truncated_answer_stays_usable_and_says_so(connect: Connect, response: Response, stop_reason: str) -> None:
    exchange, _ = ask(connect, response)
    assert (exchange.reply, exchange.stop_reason, exchange.error) == ("- a film\n- the re", stop_reason, None)


@pytest.mark.parametrize("connect", CLIENTS)
@pytest.mark.parametrize(
    ("status", "mend"), [(401, "TEST_KEY"), (404, "mentor.client.model"), (403, "may not use"), (400, "bad input")]
)
def test_a_status_that_stays_fails_at_once_with_the_mend(connect: Connect, status: int, mend: str) -> None:
    exchange, server = ask(connect, error(status, "bad input"))
    assert f"answered {status}" in str(exchange.error)
    assert str(exchange.error).endswith(": bad input")
    assert mend in str(exchange.error)
    assert len(server.requests) == exchange.attempts == 1
    assert exchange.answered is None


def test_an_exhausted_quota_is_not_tried_again() -> None:
    exchange, server = ask(openai_client, error(429, "You exceeded your quota", code="insufficient_quota"))
    assert "You exceeded your quota" in str(exchange.error)
    assert len(server.requests) == 1


@pytest.mark.parametrize(("connect", "good"), PROVIDERS)
def test_too_many_requests_waits_as_told_and_then_succeeds(connect: Connect, good: Callable[..., Response]) -> None:
    exchange, _ = ask(connect, error(429, "slow down", {"retry-after": "1.5"}), good("- a film"))
    assert (exchange.reply, exchange.attempts, exchange.error) == ("- a film", 2, None)
    assert 1.5 <= exchange.latency_s < 4


@pytest.mark.parametrize(("connect", "good"), PROVIDERS)
def test_a_wait_beyond_the_bound_is_not_begun(connect: Connect, good: Callable[..., Response]) -> None:
    exchange, server = ask(connect, error(429, "slow down", {"retry-after": "3600"}), good("- a"), retry_s=60)
    assert "the server asks to wait 3600 s" in str(exchange.error)
    assert "mentor.client.retry_s=60" in str(exchange.error)
    assert len(server.requests) == 1
    assert exchange.latency_s < 30


@pytest.mark.parametrize(("connect", "good"), PROVIDERS)
@pytest.mark.parametrize("status", [500, 408, 409, 529])
def test_a_failure_that_passes_is_tried_again(connect: Connect, good: Callable[..., Response], status: int) -> None:
    exchange, server = ask(connect, error(status, "not now", {"retry-after-ms": "10"}), good("- a film"))
    assert (exchange.reply, exchange.attempts) == ("- a film", 2)
    assert len(server.requests) == 2


def test_retries_leave_the_global_random_stream_alone() -> None:
    random.seed(5)
    wanted = random.random()
    random.seed(5)
    exchange, _ = ask(openai_client, error(503, "not now"), openai_chat("- a"))
    assert exchange.attempts == 2
    assert random.random() == wanted


@pytest.mark.parametrize(("connect", "good"), PROVIDERS)
def test_a_server_that_does_not_answer_in_time_is_left(connect: Connect, good: Callable[..., Response]) -> None:
    exchange, _ = ask(connect, replace(good("- a"), delay_s=60), timeout_s=0.3, retry_s=0)
    assert "within timeout_s=0.3" in str(exchange.error)
    assert "given up after 1 try" in str(exchange.error)
    assert exchange.latency_s < 15


@pytest.mark.parametrize(("connect", "good"), PROVIDERS)
def test_a_server_that_drips_is_left_at_the_same_deadline(connect: Connect, good: Callable[..., Response]) -> None:
    exchange, _ = ask(connect, replace(good("- a"), drip_s=0.5), timeout_s=0.5, retry_s=0)
    assert "within timeout_s=0.5" in str(exchange.error)
    assert exchange.latency_s < 15  # all bytes take minutes


@pytest.mark.parametrize("connect", CLIENTS)
def test_a_refused_connection_is_an_error_after_its_retries(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        exchange = connect(url, retry_s=3).complete(MESSAGES, 0, 7)
    assert "no connection to http://127.0.0.1" in str(exchange.error)
    assert exchange.attempts >= 2
    assert exchange.latency_s < 8


@pytest.mark.parametrize(("connect", "good"), PROVIDERS)
def test_a_key_that_the_server_echoes_is_replaced_everywhere(connect: Connect, good: Callable[..., Response]) -> None:
    refused, _ = ask(
        connect, error(401, f"Incorrect API key provided: {KEY}", {"x-request-id": KEY, "request-id": KEY})
    )
    assert "Incorrect API key provided: [key]" in str(refused.error)
    assert refused.request_id == "[key]"
    answered, _ = ask(connect, good(f"- your key is {KEY}", model=KEY))
    assert (answered.reply, answered.answered) == ("- your key is [key]", "[key]")
    broken, _ = ask(connect, raw(f"<html>{KEY}</html>", content_type="text/html", headers={"x-request-id": KEY}))
    assert broken.error


def test_a_key_is_replaced_in_percent_encoding_too(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "test/key+0123456789=abcdef"
    monkeypatch.setenv("TEST_KEY", key)
    for form in (key, quote(key), quote(key, safe="")):
        exchange, _ = ask(openai_client, error(401, f"GET /check?key={form}&x=1"))
        assert str(exchange.error).endswith("GET /check?key=[key]&x=1")


@pytest.mark.parametrize("connect", CLIENTS)
def test_a_key_at_the_edge_of_a_shortened_error_leaves_no_half_of_itself(connect: Connect) -> None:
    for before in range(340, 460, 12):
        message = "x" * before + KEY + "y" * 600
        for response in (error(401, message), raw(message, content_type="text/html")):
            exchange, _ = ask(connect, response)
            assert len(str(exchange.error)) == http.LONGEST_ERROR
            assert KEY[:6] not in str(exchange.error)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the SDKs' __del__, half built
@pytest.mark.parametrize("connect", CLIENTS)
def test_a_proxy_that_cannot_be_used_is_an_error_too(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "nonsense://127.0.0.1:1")
    exchange = connect("http://127.0.0.1:9", retry_s=0).complete(MESSAGES, 0, 7)
    gc.collect()
    assert "nonsense" in str(exchange.error)


def test_half_a_surrogate_pair_from_a_server_can_be_recorded() -> None:
    exchange, _ = ask(openai_client, openai_chat("- a \ud800 film"))
    assert exchange.reply == "- a ? film"


@pytest.mark.parametrize("connect", CLIENTS)
def test_preflight_wants_a_clean_key_and_never_shows_it(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect("http://127.0.0.1:9")
    monkeypatch.setenv("TEST_KEY", f"  {KEY}\n")
    client.preflight()
    for broken, wanted in [
        ("", "TEST_KEY is not set or empty"),
        (" \n", "TEST_KEY is not set or empty"),
        ("secret with-space", "TEST_KEY holds a space"),
        ("secret\nsecond", "TEST_KEY holds a space"),
        ("sécret", "TEST_KEY holds a space"),
    ]:
        monkeypatch.setenv("TEST_KEY", broken)
        with pytest.raises(ConfigurationError, match=wanted) as caught:
            client.preflight()
        assert "cret" not in str(caught.value)
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(ConfigurationError, match="TEST_KEY is not set or empty"):
        client.preflight()
    assert KEY not in repr(client)


def reach(connect: Connect, *lookups: Response, **settings: Any) -> tuple[str, list[str]]:
    """What `reach` complains of ('' where it does not), and the paths that it asked for."""
    complaint = ""
    with serve(lookups=lookups) as server:
        try:
            connect(server.url, **settings).check_reachable()
        except ConfigurationError as error:
            complaint = str(error)
    assert server.requests == []
    assert KEY not in complaint
    return complaint, server.looked_up


@pytest.mark.parametrize("connect", CLIENTS)
def test_a_model_that_the_server_knows_is_looked_up_once(connect: Connect) -> None:
    complaint, paths = reach(connect, model="some/model")
    assert complaint == ""
    assert paths == ["/v1/models/some%2Fmodel"]


@pytest.mark.parametrize("connect", CLIENTS)
@pytest.mark.parametrize(("status", "mend"), [(401, "TEST_KEY"), (403, "may not use")])
def test_a_refused_key_is_found_before_training_and_not_shown(connect: Connect, status: int, mend: str) -> None:
    complaint, paths = reach(connect, error(status, f"Incorrect API key: {KEY}"))
    assert f"answered {status}" in complaint
    assert "Incorrect API key: [key]" in complaint
    assert mend in complaint
    assert len(paths) == 1


@pytest.mark.parametrize("connect", CLIENTS)
def test_an_unknown_model_is_found_before_training_with_the_nearest_name(connect: Connect) -> None:
    lookups = error(404, "not found"), model_list(*(f"model-{i:02d}" for i in range(12)), "good-model")
    complaint, _ = reach(connect, *lookups, model="god-model")
    assert "does not know mentor.client.model=god-model" in complaint
    assert "it has good-model, model-00, " in complaint
    assert "and 5 more (did you mean good-model?)" in complaint
    assert "mentor.client.check_model=false" in complaint
    assert "it has none" in reach(connect, error(404, "not found"), model_list())[0]


@pytest.mark.parametrize("connect", CLIENTS)
@pytest.mark.parametrize(
    "lookups",
    [
        pytest.param([error(404, "no route"), model_list("other", "my-model")], id="a list that has it"),
        pytest.param(
            [error(404, "no route"), model_list("my-model:latest")], id="a list that has it with Ollama's tag"
        ),
        pytest.param([error(404, "no route"), error(404, "no route")], id="no route for models"),
        pytest.param([error(404, "no route"), error(403, "no right to list")], id="no right to list"),
        pytest.param([error(404, "no route"), raw("{}")], id="a list that is none"),
        pytest.param([error(404, "no route"), raw("<html>", content_type="text/html")], id="a page in place of a list"),
        pytest.param([raw("<html>", content_type="text/html")], id="a page in place of a model"),
        pytest.param([raw("{not json")], id="invalid JSON"),
        pytest.param([error(429, "slow down", {"retry-after": "60"})], id="too many requests"),
        pytest.param([error(405, "no GET")], id="a method that is not allowed"),
        pytest.param([error(500, "oh")], id="a server's error"),
        pytest.param([error(529, "overloaded")], id="overload"),
        pytest.param([replace(model("my-model"), reset=True)], id="a reset connection"),
    ],
)
def test_what_may_pass_or_says_nothing_does_not_stop_a_run(connect: Connect, lookups: list[Response]) -> None:
    complaint, paths = reach(connect, *lookups, model="my-model")
    assert complaint == ""
    assert len(paths) == len(lookups)


@pytest.mark.parametrize("connect", CLIENTS)
def test_a_server_that_does_not_answer_does_not_hold_up_a_run(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "REACH_S", 0.5)
    begun = time.monotonic()
    assert reach(connect, replace(model("m"), delay_s=60))[0] == ""
    assert reach(connect, replace(model("m"), drip_s=0.2))[0] == ""
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize("connect", CLIENTS)
def test_a_server_that_is_not_there_is_found_before_training(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigurationError, match=r"no connection to http://127.* refused; check mentor\.client\."):
            connect(url).check_reachable()
    with pytest.raises(ConfigurationError, match=r"no connection to http://no-such-host\.invalid"):
        connect("http://no-such-host.invalid").check_reachable()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the SDKs' __del__, half built
@pytest.mark.parametrize("connect", CLIENTS)
def test_a_proxy_that_cannot_be_used_is_found_before_training(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "nonsense://127.0.0.1:1")
    with pytest.raises(ConfigurationError, match=r"can be made: .*nonsense"):
        connect("http://127.0.0.1:9").check_reachable()
    gc.collect()


@pytest.mark.parametrize("connect", CLIENTS)
def test_with_check_model_false_nobody_is_asked(connect: Connect) -> None:
    assert reach(connect, error(401, "no"), check_model=False) == ("", [])


def test_names_of_models_are_shown_without_terminal_escapes() -> None:
    complaint, _ = reach(openai_client, error(404, "no"), model_list("\x1b[31mred", "two\nlines"), model="mine")
    assert "it has red, two lines" in complaint


@pytest.mark.parametrize("connect", CLIENTS)
@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"temperature": -1}, "mentor.client.temperature=-1 is too small"),
        ({"max_tokens": 0}, "mentor.client.max_tokens=0 is too small"),
        ({"retry_s": -1}, "mentor.client.retry_s=-1 is too small"),
        ({"key_variable": "sk-proj-0123456789"}, "must be the .name. of an environment variable"),
    ],
)
def test_bad_settings_are_named(connect: Connect, settings: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ConfigurationError, match=wanted) as caught:
        connect("http://127.0.0.1:9", **settings)
    assert "sk-proj" not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://user:secret@host"])
def test_an_address_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="base_url"):
        OpenAIChat(model="m", base_url=url)


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(ConfigurationError, match="pip install no_such_package"):
        http.require_package("no_such_package")


def test_retry_after_is_read_in_all_its_forms() -> None:
    assert http.retry_after({"retry-after": "2"}) == 2
    assert http.retry_after({"retry-after-ms": "1500"}) == 1.5
    assert http.retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert http.retry_after({"retry-after": "-3"}) == 0
    assert http.retry_after({"retry-after": "soon"}) is None
    assert http.retry_after({"retry-after": "inf"}) is None
    assert http.retry_after({}) is None


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random GPT-2 of two small layers and the tiny tokenizer."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(0)
    size = len(tokenizer())
    config = GPT2Config(vocab_size=size, n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=2, eos_token_id=3)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def test_a_local_model_answers_repeatably_by_seed_and_leaves_the_global_stream_alone(tiny_model: Path) -> None:
    client = LocalModel(str(tiny_model), device="cpu", temperature=1.0, max_tokens=12)
    client.preflight()
    state = torch.random.get_rng_state()
    first, again, other = (client.complete(MESSAGES, 2, seed) for seed in (1, 1, 2))
    assert first.error is None
    assert first.reply == again.reply != other.reply
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (first.stage, first.asked, first.cost_usd) == (2, str(tiny_model), 0.0)
    assert first.parameters == {"max_tokens": 12, "seed": 1, "temperature": 1.0}
    assert first.input_tokens == len(tokenizer()("You write prompts.\n\nThree, please.").input_ids)
    assert first.output_tokens is not None
    assert 1 <= first.output_tokens <= 12


def test_a_greedy_local_model_does_not_depend_on_the_seed(tiny_model: Path) -> None:
    client = LocalModel(str(tiny_model), device="cpu", temperature=0.0, max_tokens=5)
    assert client.complete(MESSAGES, 0, 1).reply == client.complete(MESSAGES, 0, 2).reply


def test_a_chat_template_is_used_also_one_that_knows_no_system_message(tiny_model: Path) -> None:
    from llm_catalyst.mentors.clients.huggingface import encode_messages

    chat = tokenizer().__class__.from_pretrained(tiny_model)
    chat.chat_template = "{% for m in messages %}{{ m.role }} : {{ m.content }} {% endfor %}tell :"
    plain = (Message("system", "a good film"), Message("user", "a bad movie"))
    shown = chat.decode(encode_messages(chat, plain)["input_ids"][0])
    assert shown.endswith("a bad movie tell :")
    assert "a good film" in shown
    chat.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + chat.chat_template
    )
    shown = chat.decode(encode_messages(chat, plain)["input_ids"][0])
    assert shown.endswith("a good film a bad movie tell :")


def test_a_request_longer_than_the_local_model_reads_is_an_error(tiny_model: Path) -> None:
    exchange = LocalModel(str(tiny_model), device="cpu").complete([Message("user", "film " * 80)], 0, 1)
    assert "the request has 80 tokens, the model reads 64" in str(exchange.error)


def test_a_local_model_that_is_not_there_is_found_before_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no folder with a config\.json"):
        LocalModel(str(tmp_path / "missing")).preflight()
    exchange = LocalModel(str(tmp_path), device="cpu").complete(MESSAGES, 0, 1)
    assert "could not answer" in str(exchange.error)
    with pytest.raises(ConfigurationError, match=r"mentor\.client\.device=nowhere"):
        LocalModel("hub/name", device="nowhere").preflight()


def recorded(folder: Path, *replies: tuple[int, str]) -> Replay:
    """A replay of a run with these (stage, reply) answers, as OpenAI gave them."""
    lines = []
    for stage, reply in replies:
        with serve(openai_chat(reply)) as server:
            lines.append(to_json(openai_client(server.url).complete(MESSAGES, stage, 7)))
    (folder / "exchanges.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return Replay(str(folder))


def test_a_replay_gives_each_stage_its_answers_in_their_order_and_costs_nothing(tmp_path: Path) -> None:
    client = recorded(tmp_path, (0, "- first"), (0, "- second"), (1, "- third"))
    client.preflight()
    assert [client.complete(MESSAGES, 0, 1, number, number).reply for number in (1, 0, 1)] == [
        "- second",
        "- first",
        "- second",
    ]
    third = client.complete(MESSAGES, 1, 1)
    assert (third.reply, third.asked, third.answered) == ("- third", "gpt-4o-mini", "gpt-4o-mini")
    assert (third.input_tokens, third.cost_usd, third.latency_s) == (100, 0.0, 0.0)
    assert third.parameters == {"max_completion_tokens": 1200, "seed": 7}
    assert (third.reused, third.billed) == (str(tmp_path), False)


def test_a_replay_says_when_the_messages_differ(tmp_path: Path) -> None:
    exchange = recorded(tmp_path, (0, "- first")).complete([Message("user", "Another question")], 0, 1)
    assert exchange.reused == f"{tmp_path}, where the messages were others"
    assert exchange.messages == (Message("user", "Another question"),)


def test_a_replay_that_is_used_up_or_missing_says_so(tmp_path: Path) -> None:
    client = recorded(tmp_path, (0, "- first"))
    with pytest.raises(NotRecordedError, match=r"holds 1 answers for stage 0 \(from 0\), and all are used up"):
        client.complete(MESSAGES, 0, 1, 1)
    with pytest.raises(ConfigurationError, match=r"replay\.run=.* holds no exchanges\.jsonl to replay"):
        Replay(str(tmp_path / "missing")).preflight()
    (tmp_path / "exchanges.jsonl").write_text("{}\n")
    with pytest.raises(ConfigurationError, match=r"exchanges\.jsonl, line 1 is not an? LLMCall record"):
        Replay(str(tmp_path)).preflight()
    (tmp_path / "exchanges.jsonl").write_text("")
    with pytest.raises(ConfigurationError, match="asked no language model"):
        Replay(str(tmp_path)).preflight()


HUMAN = """
import sys
from llm_catalyst.mentors.clients.human import Human
from llm_catalyst.runs.records import Message, to_json
human = Human()
human.preflight()
messages = [Message("system", "Role [bold]x[/y] \\x1b[31mred"), Message("user", "Pool")]
if len(sys.argv) > 2:
    messages += [Message("assistant", "nonsense"), Message("user", "Once more")]
exchange = human.complete(messages, 3, 0)
open(sys.argv[1], "w").write(to_json(exchange))
"""


def person(path: Path, *arguments: str) -> "pexpect.spawn[str]":
    return pexpect.spawn(sys.executable, ["-c", HUMAN, str(path), *arguments], timeout=120, encoding="utf-8")


def test_a_person_sees_the_messages_as_plain_text_and_answers_line_by_line(tmp_path: Path) -> None:
    terminal = person(tmp_path / "exchange.json")
    terminal.expect_exact("> ")
    assert "Role [bold]x[/y] red" in str(terminal.before)
    terminal.sendline("a good film")
    terminal.expect_exact("> ")
    terminal.sendline("  what is the mood ")
    terminal.expect_exact("> ")
    terminal.sendline("")
    terminal.expect(pexpect.EOF)
    exchange = from_json(LLMCall, (tmp_path / "exchange.json").read_bytes())
    assert exchange.reply == "a good film\nwhat is the mood"
    assert (exchange.answered, exchange.cost_usd, exchange.error) == ("human", 0.0, None)


def test_a_person_who_types_nothing_is_asked_with_the_reminder_alone(tmp_path: Path) -> None:
    terminal = person(tmp_path / "exchange.json", "again")
    terminal.expect_exact("> ")
    assert "Once more" in str(terminal.before)
    assert "Pool" not in str(terminal.before)
    terminal.sendeof()
    terminal.expect(pexpect.EOF)
    exchange = from_json(LLMCall, (tmp_path / "exchange.json").read_bytes())
    assert (exchange.reply, exchange.error) == ("", "no proposal was typed")


def test_without_a_terminal_a_person_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/null", encoding="utf-8") as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        with pytest.raises(ConfigurationError, match="mentor=human needs a terminal"):
            Human().preflight()
        assert "needs a terminal" in str(Human().complete(MESSAGES, 0, 0).error)


def test_the_clients_module_loads_neither_sdk_nor_torch() -> None:
    names = ("openai", "anthropic", "huggingface", "replay", "human")
    imports = "; ".join(f"import llm_catalyst.mentors.clients.{name}" for name in names)
    heavy = ("openai", "anthropic", "torch", "transformers")
    found = f"[m for m in {heavy} if m in sys.modules]"
    check = f"import sys, json, time; {imports}; print(json.dumps([{found}, time.process_time()]))"
    output = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout
    loaded, seconds = json.loads(output)
    assert loaded == []
    assert seconds < 20
