"""What servers really send, through the providers' SDKs: parts, errors inside answers, refused parameters, thinking."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from helpers.loopback import Loopback, Request, Response, anthropic_message, error, openai_chat, raw, serve
from helpers.tiny import consultation

from llm_catalyst.mentors.clients.anthropic import Claude
from llm_catalyst.mentors.clients.openai import OpenAIChat
from llm_catalyst.mentors.llm import LanguageModel, MentorError
from llm_catalyst.mentors.strategies.opro import Opro
from llm_catalyst.mentors.strategies.paper import Paper
from llm_catalyst.runs.records import Advice, LLMCall
from llm_catalyst.runs.spending import estimate_tokens
from llm_catalyst.utils.validation import ConfigurationError

GOOD = "- it was great\n- a fine story\n- tell me the mood"
ARGUMENTS = json.dumps({"prompts": GOOD[2:].split("\n- ")})
FITTED = ["it was great it", "a fine story a", "tell me the mood"]
KEY = "test-key-0123456789abcdef"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)


def gpt(server: Loopback, **settings: Any) -> OpenAIChat:
    return OpenAIChat("m", server.url + "/v1", **{"key_variable": "TEST_KEY", "retry_s": 0, "timeout_s": 5, **settings})


def claude(server: Loopback, **settings: Any) -> Claude:
    return Claude("c", server.url, **{"key_variable": "TEST_KEY", "retry_s": 0, "timeout_s": 5, **settings})


def ask(client: Any, strategy: Any = None, **settings: Any) -> tuple[Advice, list[LLMCall]]:
    calls: list[LLMCall] = []
    mentor = LanguageModel(client, strategy or Paper(), **settings)
    advice = mentor.propose(replace(consultation(), record=calls.append))
    return advice, calls


def chat(message: dict[str, Any], finish_reason: str = "stop", **usage: Any) -> Response:
    """A chat completion with any message."""
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
    body["choices"] = [{"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", **message}}]
    body["usage"] = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120, **usage}
    return raw(json.dumps(body))


# --- E17


@pytest.mark.parametrize(
    "message",
    [
        {"content": [{"type": "text", "text": GOOD}]},
        {"content": [{"type": "text", "text": GOOD[:9]}, {"type": "text", "text": GOOD[9:]}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "- hm"}]}, GOOD]},
        {"content": [{"type": "reasoning", "text": "- hm hm"}, {"type": "output_text", "text": GOOD}]},
        {"content": {"type": "text", "text": GOOD}},
        {"content": [GOOD]},
        {"content": [{"text": {"value": GOOD}, "type": "text"}]},
        {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": ARGUMENTS}}]},
        {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": json.loads(ARGUMENTS)}}]},
        {"content": GOOD, "reasoning_content": "- not this one"},
    ],
    ids=str,
)
def test_content_in_parts_is_read_without_the_thinking_in_it(message: dict[str, Any]) -> None:
    with serve(chat(message)) as server:
        advice, calls = ask(gpt(server))
    assert [proposal.prompt.text for proposal in advice.proposals] == [
        "it was great it",
        "a fine story a",
        "tell me the mood",
    ]
    assert [call.error for call in calls] == [None]


# --- E18


LIMIT = {"error": {"message": "Rate limit exceeded", "code": 429}}


@pytest.mark.parametrize(
    "body",
    [
        LIMIT,
        [LIMIT],
        {"error": {"message": "try later", "code": "503"}},
        {"error": {"message": "try later", "type": "overloaded_error"}},
        {"type": "error", "error": {"type": "api_error", "message": "Internal server error"}},
        {"object": "error", "message": "busy", "code": 408},
        {"error": "Rate limit reached for m"},
        {"id": "1", "choices": [{"index": 0, "message": None, "error": {"code": 502, "message": "upstream"}}]},
    ],
    ids=str,
)
@pytest.mark.parametrize("text", [False, True], ids=["json", "text"])
def test_an_error_inside_an_answer_that_may_pass_is_tried_again(body: Any, text: bool) -> None:
    kind = "text/plain" if text else "application/json"
    with serve(raw(json.dumps(body), content_type=kind), openai_chat(GOOD)) as server:
        advice, calls = ask(gpt(server, retry_s=10))
    assert len(advice.proposals) == 3
    assert [(call.attempts, call.error) for call in calls] == [(2, None)]


@pytest.mark.parametrize("make", [gpt, claude])
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "Insufficient credits", "code": 402}}, "error 402: Insufficient credits"),
        ({"error": {"message": "No auth credentials found", "code": 401}}, "error 401 (check the key .*No auth"),
        ({"detail": "Model not loaded"}, "answered 200 with an error: Model not loaded"),
        ({"error": {"message": "out", "code": 429, "type": "insufficient_quota"}}, "error 429: out"),
    ],
)
def test_another_error_inside_an_answer_is_shown_and_stops(make: Callable[..., Any], body: Any, words: str) -> None:
    with serve(raw(json.dumps(body))) as server:
        with pytest.raises(MentorError, match=words.replace("(", r"\(")):
            ask(make(server, retry_s=10))
        assert len(server.requests) == 1


@pytest.mark.parametrize("make", [gpt, claude])
@pytest.mark.parametrize("body", ["", '{"id": "1", "choices": [{"message": {"content": "- it w', '{"id": "1"'])
def test_a_body_that_ends_before_its_end_is_asked_for_again(make: Callable[..., Any], body: str) -> None:
    good = openai_chat(GOOD) if make is gpt else anthropic_message(GOOD)
    with serve(raw(body), good) as server:
        advice, calls = ask(make(server, retry_s=10))
    assert len(advice.proposals) == 3
    assert calls[0].attempts == 2


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (
            raw("<!DOCTYPE html><title>Blocked</title><style>a{}</style>", 403, "text/html"),
            "403: a page of HTML: Blocked",
        ),
        (raw("<html>x", 401, "text/html"), "answered 401: a page of HTML"),
        (raw('data: {"choices": []}\n\n', content_type="text/event-stream"), r"\(the server streams it, which was not"),
        (raw('{"message": "Forbidden"}'), "came back .*: Forbidden"),
        (raw('{"status": "error", "message": "GPU busy"}'), "200 with an error: GPU busy"),
        (
            raw('{"error": {"message": "{\\"error\\": {\\"code\\": 429}}"}}'),
            "given up after 1 try .* with an error 429",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_came_instead_of_an_answer_is_named(response: Response, words: str) -> None:
    with serve(response) as server, pytest.raises(MentorError, match=words) as stopped:
        ask(gpt(server))
    assert "this key may not" not in str(stopped.value)
    assert "check the key" not in str(stopped.value)


def test_a_redirect_of_the_api_is_named() -> None:
    """A client repeats a POST that is redirected by 301 as a GET (RFC 9110, 15.4.2), to which no API answers."""
    with serve(lookups=[error(405, "Method Not Allowed")]) as other:
        to = f"{other.url}/v1/chat/completions"
        with serve(raw("", 301, headers={"location": to})) as server, pytest.raises(MentorError, match=f"to {to};"):
            ask(gpt(server))


@pytest.mark.parametrize("value", ["Wed, 21 Oct 2015 07:28:00 GMT", "0", "-5"])
def test_a_time_to_wait_that_is_over_does_not_hurry_the_next_try(value: str) -> None:
    with serve(*[error(429, "busy", {"retry-after": value})] * 50) as server:
        call = gpt(server, retry_s=2).complete([], 0, 1)
    assert call.attempts <= 3  # 2 s hold no more tries with pauses of at least 0.5 s and 1 s
    assert "given up" in (call.error or "")


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": "100", "completion_tokens": 20.0}, (100, 20)),
        ({"prompt_tokens": 10**30, "completion_tokens": -1}, (None, None)),
        ({"prompt_tokens": "many", "completion_tokens": 20.5}, (None, None)),
        (None, (None, None)),
        ("none", (None, None)),
    ],
    ids=str,
)
def test_only_what_is_a_count_of_tokens_is_counted(usage: Any, tokens: tuple[int | None, ...]) -> None:
    body = json.loads(openai_chat(GOOD).body) | {"usage": usage}
    with serve(raw(json.dumps(body))) as server:
        call = gpt(server).complete([], 0, 1)
    assert (call.input_tokens, call.output_tokens) == tokens


@pytest.mark.parametrize("make", [gpt, claude])
def test_names_from_a_server_reach_no_terminal_table_or_file_with_control_characters(make: Callable[..., Any]) -> None:
    good = json.loads((openai_chat if make is gpt else anthropic_message)(GOOD).body)
    odd = {"model": "\x1b[31mm\u202e\n= 1" + "x" * 10_000, "id": "\x07id\x1b]0;title\x07"}
    with serve(raw(json.dumps(good | odd))) as server:
        call = make(server).complete([], 0, 1)
    assert (call.answered or "").startswith("m = 1xxx")
    assert len(call.answered or "") <= 200
    assert call.request_id == "id"


@pytest.mark.parametrize("tail", [" /v1", "/v1 ", "/v1?version=1", "/v1#a", ":port/v1", ":99999999/v1"])
def test_an_address_to_which_no_path_can_be_added_is_refused(tail: str) -> None:
    with pytest.raises(ConfigurationError, match="is no address"):
        OpenAIChat("m", f"http://127.0.0.1{tail}")
    with pytest.raises(ConfigurationError, match="is no address"):
        OpenAIChat("m", "http://[::1/v1")


# --- E19


def test_an_address_without_v1_is_named_where_it_fails() -> None:
    def reply(request: Request) -> Response:
        return openai_chat(GOOD) if request.path == "/v1/chat/completions" else error(404, "Not Found")

    with serve(reply=reply) as server:
        with pytest.raises(MentorError, match=rf"did you mean mentor\.client\.base_url={server.url}/v1\?"):
            ask(replace(gpt(server), base_url=server.url))
        with pytest.raises(MentorError, match=rf"did you mean mentor\.client\.base_url={server.url}\?"):
            ask(replace(claude(server), base_url=f"{server.url}/v1"))
        with pytest.raises(MentorError, match=rf"did you mean mentor\.client\.base_url={server.url}/v1\?"):
            ask(replace(gpt(server), base_url=f"{server.url}/v1/chat/completions"))
        with pytest.raises(MentorError, match=rf"did you mean mentor\.client\.base_url={server.url}\?"):
            ask(replace(claude(server), base_url=f"{server.url}/v1/messages"))
        assert ask(gpt(server))[0].proposals
    with (
        serve(raw("<html>", content_type="text/html")) as server,
        pytest.raises(MentorError, match=rf"did you mean .*{server.url}/v1\?"),
    ):
        ask(replace(gpt(server), base_url=server.url))


# --- E20


def test_an_answer_without_usage_counts_by_its_characters() -> None:
    body = json.loads(openai_chat(GOOD).body)
    del body["usage"]
    with serve(raw(json.dumps(body)), openai_chat(GOOD)) as server:
        (unknown,) = ask(gpt(server))[1]
        (known,) = ask(gpt(server))[1]
    letters = sum(len(message.content) for message in unknown.messages) + len(GOOD)
    assert letters / 4 < estimate_tokens(unknown) < letters / 2
    assert estimate_tokens(known) == 0
    assert estimate_tokens(replace(unknown, cost_usd=0.0)) == 0  # of a person


# --- E22 and thinking alone


@pytest.mark.parametrize(
    ("message", "usage"),
    [
        ({"content": "", "reasoning_content": "Let me think about it"}, {}),
        ({"content": None, "reasoning": "Let me think about it"}, {}),
        ({"content": [{"type": "thinking", "thinking": "Let me think about it"}]}, {}),
        ({"content": ""}, {"completion_tokens_details": {"reasoning_tokens": 20}}),
    ],
    ids=str,
)
@pytest.mark.parametrize("attempts", [1, 2])
def test_an_answer_of_thinking_alone_is_named_and_asked_once_with_more_space(
    message: dict[str, Any], usage: dict[str, Any], attempts: int
) -> None:
    with serve(chat(message, "length", **usage), openai_chat(GOOD)) as server:
        advice, calls = ask(gpt(server, max_tokens=300), attempts=attempts)
        first, second = (request.body for request in server.requests)
    assert len(advice.proposals) == 3
    assert str(calls[0].error).startswith("the answer is only thinking, 2")
    assert "mentor.client.max_tokens" in str(calls[0].error)
    assert (first["max_completion_tokens"], second["max_completion_tokens"]) == (300, 600)
    assert first["messages"] == second["messages"]
    assert [call.parameters["max_completion_tokens"] for call in calls] == [300, 600]


def test_thinking_alone_twice_is_an_unusable_answer() -> None:
    with serve(*[anthropic_message(stop_reason="max_tokens")] * 2) as server:
        advice, _ = ask(claude(server), attempts=2)
        sent = [request.body["max_tokens"] for request in server.requests]
    assert str(advice.fallback).startswith("the answer is only thinking")
    assert sent == [4000, 8000]


# --- parameters that are refused


def refuse(name: str, form: str) -> Response:
    """How a server words that it does not take a parameter."""
    first, *others = name.split("_")
    camel = first + "".join(map(str.title, others))
    forbidden = [{"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"}]
    unknown = f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.'
    only = {"message": "Only the default (1) value is supported", "param": name, "code": "unsupported_value"}
    bodies: dict[str, tuple[int, Any]] = {
        "openai": (400, {"error": {"message": f"Unsupported parameter: '{name}'", "param": name}}),
        "value": (400, {"error": only}),
        "mistral": (422, {"object": "error", "message": {"detail": forbidden}}),
        "fastapi": (422, {"detail": forbidden}),
        "gemini": (400, [{"error": {"code": 400, "message": unknown}}]),
        "grok": (400, {"error": f"Argument not supported on this model: {camel}"}),
        "200": (200, {"error": {"message": f"{name} is not supported", "code": 400}}),
    }
    status, body = bodies[form]
    return raw(json.dumps(body), status)


FORMS = ["openai", "value", "mistral", "fastapi", "gemini", "grok", "200"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["seed", "temperature", "presence_penalty"])
def test_a_refused_parameter_is_left_out_from_then_on_and_recorded(name: str, form: str) -> None:
    with serve(refuse(name, form), openai_chat(GOOD), openai_chat(GOOD)) as server:
        client = gpt(server, temperature=0.7, presence_penalty=0.5)
        advice, calls = ask(client)
        again = ask(client)[1]
        first, second, third = (request.body for request in server.requests)
    assert len(advice.proposals) == 3
    assert name in first
    assert name not in second.keys() | third.keys()
    assert {*first} - {*second} == {name}
    for (call,) in (calls, again):
        assert call.not_sent == (name,)
        assert name not in call.parameters
        assert call.error is None


@pytest.mark.parametrize(
    ("sent", "other"), [("max_tokens", "max_completion_tokens"), ("max_completion_tokens", "max_tokens")]
)
def test_the_limit_of_tokens_has_its_other_name_where_the_first_is_refused(sent: str, other: str) -> None:
    words = f"Unsupported parameter: '{sent}' is not supported with this model. Use '{other}' instead."
    body = {"error": {"message": words, "param": sent, "code": "unsupported_parameter"}}
    with serve(raw(json.dumps(body), 400), openai_chat(GOOD)) as server:
        (call,) = ask(gpt(server, max_tokens_name=sent, max_tokens=500))[1]
        second = server.requests[1].body
    assert second[other] == call.parameters[other] == 500
    assert sent not in second


def test_several_refused_parameters_are_left_out_one_after_the_other_and_others_stop() -> None:
    script = refuse("seed", "openai"), refuse("temperature", "openai"), openai_chat(GOOD)
    with serve(*script) as server:
        (call,) = ask(gpt(server, temperature=0.7))[1]
    assert call.not_sent == ("seed", "temperature")
    for fault in (
        refuse("messages", "openai"),
        error(400, "max_tokens is too large: at most 4096"),
        refuse("seed", "openai"),
    ):
        with serve(fault) as server, pytest.raises(MentorError):
            ask(gpt(server, send_seed=False))
        assert len(server.requests) == 1


def test_a_strategys_temperature_that_the_client_does_not_send_is_recorded() -> None:
    with serve(openai_chat(GOOD), openai_chat(GOOD)) as server:
        (left,) = ask(gpt(server), Opro(proposals=1, temperature=0.9))[1]
        (sent,) = ask(gpt(server, temperature=1.0), Opro(proposals=1, temperature=0.9))[1]
    assert ("temperature" in left.not_sent, left.parameters.get("temperature")) == (True, None)
    assert ("temperature" in sent.not_sent, sent.parameters.get("temperature")) == (False, 0.9)


# --- fields of the clients


def test_openais_fields_go_over_the_wire() -> None:
    with serve(openai_chat(GOOD)) as server:
        client = gpt(server, reasoning_effort="low", extra_body={"top_p": 0.5}, default_headers={"X-Title": "mine"})
        (call,) = ask(client)[1]
        (request,) = server.requests
    assert (request.body["reasoning_effort"], request.body["top_p"]) == ("low", 0.5)
    assert request.headers["x-title"] == "mine"
    assert (call.parameters["reasoning_effort"], call.parameters["extra_body"]) == ("low", '{"top_p": 0.5}')
    with pytest.raises(ConfigurationError, match=r"default_headers\.Authorization would write a secret"):
        OpenAIChat("m", default_headers={"Authorization": "x"})


@pytest.mark.parametrize(
    ("thinking", "sent", "room"),
    [
        ("disabled", {"type": "disabled"}, 4000),
        (2048, {"type": "enabled", "budget_tokens": 2048}, 6048),
        (None, None, 4000),
    ],
)
def test_claudes_fields_go_over_the_wire_and_its_limit_leaves_space_for_thinking(
    thinking: Any, sent: Any, room: int
) -> None:
    with serve(anthropic_message(GOOD)) as server:
        (call,) = ask(claude(server, effort="low", thinking=thinking))[1]
        (request,) = server.requests
    assert request.body["output_config"] == {"effort": "low"}
    assert request.body.get("thinking") == sent
    assert request.body["max_tokens"] == call.parameters["max_tokens"] == room
    assert (call.parameters["effort"], call.parameters.get("thinking")) == ("low", thinking)


@pytest.mark.parametrize("token", [False, True])
def test_azures_own_class_asks_the_deployment_by_key_or_token(token: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "entra-token-0123456789")
    with serve(openai_chat(GOOD)) as server:
        client = OpenAIChat(
            "mine",
            f"{server.url}/openai",
            None if token else "TEST_KEY",
            provider="azure",
            api_version="2024-10-21",
            retry_s=0,
        )
        assert ask(client)[0].proposals
        (request,) = server.requests
    assert request.path == "/openai/deployments/mine/chat/completions?api-version=2024-10-21"
    name, value = ("authorization", "Bearer entra-token-0123456789") if token else ("api-key", KEY)
    assert request.headers[name] == value
    with pytest.raises(ConfigurationError, match="api_version"):
        OpenAIChat("mine", "http://a/openai", provider="azure")


@pytest.mark.parametrize("provider", ["bedrock", "vertex", "foundry"])
def test_the_clouds_of_claude_are_asked_by_the_sdks_own_classes(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip({"bedrock": "boto3", "vertex": "google.auth"}.get(provider, "anthropic"))
    for name, value in (
        ("AWS_REGION", "us-east-1"),
        ("CLOUD_ML_REGION", "us-east5"),
        ("ANTHROPIC_VERTEX_PROJECT_ID", "p"),
    ):
        monkeypatch.setenv(name, value)
    with serve(anthropic_message(GOOD)) as server:
        client = claude(server, provider=provider)
        client.preflight()
        client.check_reachable()
        assert ask(client)[0].proposals
        (request,) = server.requests
    places = {
        "bedrock": "/model/c/invoke",
        "vertex": "/projects/p/locations/us-east5/publishers/anthropic/models/c:rawPredict",
    }
    assert request.path == places.get(provider, "/v1/messages")
    assert server.looked_up == []


def test_a_cloud_needs_no_address_and_names_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Claude("c", None, None, provider="vertex")
    assert client.place == "vertex"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "google.auth" else object())
    with pytest.raises(ConfigurationError, match=r"pip install 'anthropic\[vertex\]'"):
        client.preflight()
    with pytest.raises(ConfigurationError, match="is no address"):
        Claude("c", None)


@pytest.mark.parametrize(("effort", "sent"), [("none", True), ("low", False), (None, False)])
def test_a_temperature_is_sent_where_the_model_takes_one_under_its_effort(effort: str | None, sent: bool) -> None:
    with serve(openai_chat(GOOD)) as server:
        client = replace(gpt(server, temperature=1.0, reasoning_effort=effort), model="gpt-6-luna")
        (call,) = ask(client, Opro(proposals=1, temperature=0.9))[1]
        (request,) = server.requests
    assert request.body.get("temperature") == call.parameters.get("temperature") == (0.9 if sent else None)
    assert ("temperature" in call.not_sent) is not sent


def test_several_requests_at_once_are_each_sent_again_without_a_refused_parameter() -> None:
    def reply(request: Request) -> Response:
        if "temperature" in request.body:
            return replace(refuse("temperature", "openai"), delay_s=0.2)
        return openai_chat(GOOD)

    with serve(reply=reply) as server:
        advice, calls = ask(gpt(server, temperature=0.5, at_once=4), Opro(proposals=4))
    assert advice.proposals
    assert [(call.error, call.not_sent) for call in calls] == [(None, ("temperature",))] * len(calls)
    assert len(calls) > 1
