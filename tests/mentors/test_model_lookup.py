"""What a server says of a model before training: retired, soon shut down, or not at this address."""

import datetime
import json
from collections.abc import Callable
from typing import Any

import pytest
from helpers import loopback
from helpers.loopback import Response, error, model, model_list, raw, serve

from llm_catalyst.mentors.clients.anthropic import Claude
from llm_catalyst.mentors.clients.openai import OpenAIChat
from llm_catalyst.mentors.llm import LanguageModel
from llm_catalyst.mentors.strategies.opro import Opro
from llm_catalyst.runs.records import Message
from llm_catalyst.utils.validation import ConfigurationError

TODAY = datetime.date.today()
GONE = loopback.gone_model("gpt-4-1106-preview")
LIVING = model_list("gpt-6.2-sol", "gpt-6-luna")

Connect = Callable[..., Any]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", "test-key-0123456789abcdef")


def openai_client(url: str, **settings: Any) -> OpenAIChat:
    return OpenAIChat(**{"model": "m", "base_url": f"{url}/v1", "key_variable": "TEST_KEY", **settings})


def claude_client(url: str, **settings: Any) -> Claude:
    return Claude(**{"model": "m", "base_url": url, "key_variable": "TEST_KEY", **settings})


def openai_model(name: str, days: int | None) -> Response:
    day = None if days is None else str(TODAY + datetime.timedelta(days=days))
    return loopback.openai_model(name, day)


def claude_model(name: str, lifecycle: str, days: int | None) -> Response:
    day = None if days is None else f"{TODAY + datetime.timedelta(days=days)}T00:00:00Z"
    facts = {"id": name, "type": "model", "display_name": name, "lifecycle": lifecycle, "retires_at": day}
    return raw(json.dumps(facts | {"created_at": "2025-01-01T00:00:00Z"}))


def check(connect: Connect, *lookups: Response, **settings: Any) -> list[str]:
    with serve(lookups=lookups) as server:
        notes: list[str] = connect(server.url, **settings).check_reachable()
    assert server.requests == []
    return notes


def refusal(connect: Connect, *lookups: Response, **settings: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        check(connect, *lookups, **settings)
    return str(caught.value)


def test_a_model_that_is_gone_is_refused_with_its_day_and_its_successor() -> None:
    message = refusal(openai_client, GONE, LIVING, model="gpt-4-1106-preview")
    assert "gpt-4-1106-preview was shut down on 2026-10-23" in message
    assert "mentor.client.model=gpt-6.2-sol" in message


def test_a_successor_that_the_server_does_not_have_is_not_named() -> None:
    message = refusal(openai_client, GONE, model_list("llama", "gpt-4-0106-preview"), model="gpt-4-1106-preview")
    assert "it has gpt-4-0106-preview, llama (did you mean gpt-4-0106-preview?)" in message
    assert "gpt-6.2-sol" not in message


@pytest.mark.parametrize("days", [0, -30])
def test_a_shutdown_date_of_the_server_that_has_come_is_refused(days: int) -> None:
    message = refusal(openai_client, openai_model("gpt-4o", days), model="gpt-4o")
    assert f"gpt-4o was shut down on {TODAY + datetime.timedelta(days=days)}" in message
    assert "ask its successor: mentor.client.model=gpt-6-luna" in message
    assert "mentor.client.check_model=false" in message


def test_a_retired_claude_is_refused_with_its_day() -> None:
    message = refusal(claude_client, claude_model("claude-x", "retired", -3), model="claude-x")
    assert f"claude-x was shut down on {TODAY - datetime.timedelta(days=3)}" in message
    assert "catalyst models" in message  # no successor is known


def test_a_deprecated_claude_past_its_day_still_answers_and_is_warned_of() -> None:
    (note,) = check(claude_client, claude_model("claude-x", "deprecated", -3), model="claude-x")
    assert note.startswith(f"claude-x was to be shut down on {TODAY - datetime.timedelta(days=3)}")


@pytest.mark.parametrize(
    ("connect", "answer"),
    [
        (openai_client, openai_model("gpt-4o", 60)),
        (claude_client, claude_model("gpt-4o", "deprecated", 60)),
        (claude_client, claude_model("gpt-4o", "active", 60)),
    ],
)
def test_a_shutdown_within_sixty_days_is_one_warning(connect: Connect, answer: Response) -> None:
    (note,) = check(connect, answer, model="gpt-4o")
    day = TODAY + datetime.timedelta(days=60)
    assert note == f"gpt-4o will be shut down on {day}, in 60 days; ask its successor: mentor.client.model=gpt-6-luna"


@pytest.mark.parametrize(
    ("connect", "answer"),
    [
        (openai_client, openai_model("gpt-4-1106-preview", None)),
        (openai_client, openai_model("gpt-4-1106-preview", 61)),
        (claude_client, claude_model("gpt-4-1106-preview", "active", None)),
    ],
)
def test_a_server_that_has_a_model_is_believed(connect: Connect, answer: Response) -> None:
    assert check(connect, answer, model="gpt-4-1106-preview") == []


def test_a_gateway_that_has_a_model_and_says_nothing_of_dates_is_asked_and_warned_of() -> None:
    (note,) = check(openai_client, model("gpt-4-1106-preview"), model="gpt-4-1106-preview")
    assert note.startswith("gpt-4-1106-preview was to be shut down on 2026-10-23; ask its successor")


@pytest.mark.parametrize(
    "lookups", [[error(500, "oh")], [error(404, "no"), error(404, "no")], [raw("<html>", content_type="text/html")]]
)
def test_where_the_server_says_nothing_our_own_table_decides(lookups: list[Response]) -> None:
    message = refusal(openai_client, *lookups, model="gpt-4-1106-preview")
    gone = "gpt-4-1106-preview was shut down on 2026-10-23; ask its successor: mentor.client.model=gpt-6.2-sol"
    assert gone in message
    assert check(openai_client, *lookups, model="gpt-4-1106-preview", check_model=False) == []


@pytest.mark.parametrize(
    ("connect", "path", "wanted"),
    [
        (openai_client, "", ""),
        (openai_client, "/", ""),
        (openai_client, "/api", "/api"),
    ],
)
def test_an_address_without_v1_is_suggested_with_it(connect: Connect, path: str, wanted: str) -> None:
    with serve(lookups=[error(404, "no route"), error(404, "no route")]) as server:
        with pytest.raises(ConfigurationError) as caught:
            connect(server.url, base_url=server.url + path).check_reachable()
        url = f"{server.url}{wanted}/v1"
    assert f"did you mean mentor.client.base_url={url}?" in str(caught.value)


def test_a_claude_address_with_v1_is_suggested_without_it() -> None:
    lookups = [error(404, "no route"), error(404, "no route")]
    with serve(lookups=lookups) as server, pytest.raises(ConfigurationError) as caught:
        claude_client(server.url, base_url=f"{server.url}/v1").check_reachable()
    assert f"did you mean mentor.client.base_url={server.url}?" in str(caught.value)


@pytest.mark.parametrize(
    ("path", "lookups"),
    [
        ("/v1beta/openai", [error(404, "no"), error(404, "no")]),
        ("/v1", [error(404, "no"), error(404, "no")]),
        ("/api", [error(404, "no"), error(403, "no")]),
        ("/api", [error(404, "no"), model_list("m")]),
        ("/api", [model("m")]),
    ],
)
def test_no_other_address_is_suggested_otherwise(path: str, lookups: list[Response]) -> None:
    with serve(lookups=lookups) as server:
        assert openai_client(server.url, base_url=server.url + path).check_reachable() == []


def test_a_parameter_that_the_model_is_known_to_refuse_is_warned_of() -> None:
    (note,) = check(openai_client, model="gpt-6.2-sol", temperature=0.8, presence_penalty=1.0)
    assert note.startswith("gpt-6.2-sol takes no temperature or presence_penalty")
    assert "mentor.client.temperature=null, mentor.client.presence_penalty=null" in note
    assert check(openai_client, model="gpt-6.2-sol") == []
    assert check(openai_client, model="unknown", temperature=0.8) == []
    assert check(claude_client, model="claude-haiku-5-5", temperature=0.8) == []  # the client sends none


def test_a_mentor_says_which_model_it_replaces_and_what_its_fallbacks_say() -> None:
    with serve(lookups=[openai_model("gpt-6.2-sol", None), openai_model("gpt-4o", 10)]) as server:
        client = openai_client(server.url, model="gpt-6.2-sol")
        second = LanguageModel(openai_client(server.url, model="gpt-4o"), Opro())
        mentor = LanguageModel(client, Opro(), fallbacks=[second], replaces="gpt-4-1106-preview")
        notes = mentor.check_reachable()
    assert notes[0] == "GPT-4 of the paper, gpt-4-1106-preview, was shut down on 2026-10-23; asking gpt-6.2-sol"
    assert notes[1].startswith("gpt-4o will be shut down on ")
    assert len(notes) == 2


# --- usage


def usage_of(body: dict[str, Any], connect: Connect) -> tuple[Any, ...]:
    with serve(raw(json.dumps(body))) as server:
        call = connect(server.url).complete([Message("user", "Three, please.")], 0, 1)
    return call.input_tokens, call.cached_tokens, call.cache_write_tokens, call.output_tokens, call.cost_usd


def test_openais_cached_input_is_part_of_its_input_and_costs_its_price() -> None:
    details = {"cached_tokens": 600, "cache_write_tokens": 100, "audio_tokens": 0}
    usage = {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050, "prompt_tokens_details": details}
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "- a film"}}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-6-luna", "choices": [choice]}
    wanted = (300 * 0.10 + 600 * 0.01 + 100 * 0.125 + 50 * 0.50) / 1e6
    assert usage_of(body | {"usage": usage}, openai_client) == (1000, 600, 100, 50, pytest.approx(wanted))


def test_anthropics_cached_input_is_counted_beside_its_input() -> None:
    usage = {"input_tokens": 400, "cache_read_input_tokens": 600, "cache_creation_input_tokens": 0, "output_tokens": 50}
    body = {"id": "m", "type": "message", "role": "assistant", "model": "claude-opus-5-5", "stop_reason": "end_turn"}
    body |= {"content": [{"type": "text", "text": "- a film"}], "usage": usage, "stop_sequence": None}
    wanted = (400 * 4 + 600 * 0.20 + 50 * 20) / 1e6
    assert usage_of(body, claude_client) == (1000, 600, 0, 50, pytest.approx(wanted))


@pytest.mark.parametrize(
    "details", [None, {}, {"cached_tokens": None}, {"cached_tokens": "x"}, [1], {"cached_tokens": -1}], ids=str
)
def test_odd_details_of_usage_count_as_no_cached_input(details: Any) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050, "prompt_tokens_details": details}
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "- a film"}}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-6-luna", "choices": [choice]}
    wanted = (1000 * 0.10 + 50 * 0.50) / 1e6
    assert usage_of(body | {"usage": usage}, openai_client) == (1000, 0, 0, 50, pytest.approx(wanted))
