"""Read what servers really send: content in parts, errors inside an answer, reasoning without an answer."""

import json
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from llm_catalyst.mentors.clients.base import ClientResponse
from llm_catalyst.mentors.reply_parser import strip_invisible

LONGEST_NAME = 200  # characters, of a model or a request
MOST_TOKENS = 10**12  # more is no count
THINKING_ONLY = "the answer is only thinking"
TEXT_PARTS = ("text", "output_text", "input_text")
THOUGHT_PARTS = ("thinking", "reasoning", "reasoning_content", "redacted_thinking")
THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking", "thoughts")
# What the words of an error's code or type stand for, where it is no number.
CODES = {
    "rate_limit": 429,
    "ratelimit": 429,
    "too_many_requests": 429,
    "resource_exhausted": 429,
    "overloaded": 529,
    "timeout": 408,
    "unavailable": 503,
    "server_error": 500,
    "internal": 500,
    "api_error": 500,
    "authentication": 401,
    "permission": 403,
    "not_found": 404,
    "invalid_request": 400,
}
REFUSING = re.compile(
    r"(?i)unsupported|not (?:be )?(?:supported|permitted|allowed|accepted|recogni[sz]ed)|does ?n.t support"
    r"|does not support|unknown|unexpected|unrecogni[sz]ed|extra|forbidden|deprecated|cannot find field"
    r"|only the default|instead|removed"
)


def get_field(value: Any, name: str) -> Any:
    """A field of an object or a mapping; None if it has none of that name."""
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def read_content(content: Any) -> tuple[str, str]:
    """The text of a message's content and the thinking in it: a string, parts of several types, or nothing."""
    if isinstance(content, str):
        return content, ""
    if isinstance(content, list | tuple):
        pairs = [read_content(part) for part in content]
        return "".join(text for text, _ in pairs), "".join(thought for _, thought in pairs)
    kind = get_field(content, "type")
    if kind in THOUGHT_PARTS:
        inner = next((get_field(content, name) for name in (*THOUGHT_PARTS, "text") if get_field(content, name)), "")
        return "", inner if isinstance(inner, str) else "".join(read_content(inner)) or str(inner)
    if kind in (*TEXT_PARTS, None) and (text := get_field(content, "text")) is not None:
        return (text, "") if isinstance(text, str) else (str(get_field(text, "value") or ""), "")
    if kind == "tool_use" and isinstance(given := get_field(content, "input"), Mapping):
        return json.dumps(given), ""
    return "", ""


def read_message(message: Any) -> tuple[str, str]:
    """The text of a chat completion's message and the reasoning beside it; of one without, its calls' arguments."""
    text, thought = read_content(get_field(message, "content"))
    beside = [get_field(message, name) for name in THOUGHT_FIELDS]
    thought += next((read_content(each)[0] for each in beside if each), "")
    if not text.strip():
        calls = [get_field(call, "function") for call in get_field(message, "tool_calls") or []]
        given = [get_field(call, "arguments") for call in (*calls, get_field(message, "function_call"))]
        given = [json.dumps(each) if isinstance(each, Mapping) else each for each in given]
        text = "\n".join(each for each in given if isinstance(each, str))
    return text, thought


def describe_thinking(thought: str, tokens: int | None = None) -> str:
    """The error of an answer without text whose tokens went into thinking; '' if nothing was thought."""
    if not thought and not tokens:
        return ""
    size = f"{len(thought):,} characters" if thought else f"{tokens:,} tokens"
    return f"{THINKING_ONLY}, {size} of it, and no text; raise mentor.client.max_tokens, or lower the effort"


def find_inner_error(response: Any) -> tuple[int | None, Any] | None:
    """The status and the body of an error that came as an answer; None if there is none.

    OpenAI's form, Anthropic's, and those of gateways: `error`, `detail`, `object: error`, an error of the first choice,
    or the same as a text.
    """
    if isinstance(response, str):
        with suppress(ValueError):
            return find_inner_error(json.loads(response))
        return None
    if isinstance(response, list) and len(response) == 1:
        return find_inner_error(response[0])
    choices = get_field(response, "choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    error = get_field(response, "error") or get_field(choice, "error")
    if not error and (choice is not None or get_field(response, "content")):
        return None
    if not error and "error" in [get_field(response, name) for name in ("object", "type", "status")]:
        error = {name: get_field(response, name) for name in ("message", "code", "type", "param")}
    error = error or get_field(response, "detail") or get_field(response, "errors")
    return (read_status(error), error) if error else None


def read_status(error: Any) -> int | None:
    """The HTTP status that an error names by its code, status or type, or that its message says."""
    named = [get_field(error, name) for name in ("code", "status", "status_code", "type")]
    for value in named:
        digits = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
        if digits.isdigit() and 400 <= int(digits) < 600:
            return int(digits)
    words = " ".join(
        str(value) for value in (*named, get_field(error, "message"), error if isinstance(error, str) else "")
    )
    if within := find_inner_error(get_field(error, "message")):  # of a provider behind a gateway
        return within[0]
    flat = words.lower().replace(" ", "_")
    return next((status for word, status in CODES.items() if word in flat), None)


def name_refused(body: Any, sent: Collection[str]) -> str | None:
    """The first of the parameters sent that the body of a 400 or 422 refuses; None if it refuses none of them."""
    inner = get_field(body, "error") or body
    named = str(get_field(inner, "param") or "").rpartition(".")[2]
    text = json.dumps(body, default=str, ensure_ascii=False)
    for name in sent:
        camel = re.sub("_(.)", lambda letter: letter[1].upper(), name)
        mentioned = re.search(rf"(?<![\w]){name}(?![\w])|(?<![\w]){camel}(?![\w])", text)
        if (named == name or mentioned) and REFUSING.search(text):
            return name
    return named if named in sent and not named.startswith("max") else None


def model_response(
    response: Any,
    text: str,
    stop_reason: str | None,
    error: str | None,
    token_names: tuple[str, str],
    cut_off: str,
    cached: tuple[int, int] = (0, 0),
) -> ClientResponse:
    """A model's response, from what both SDKs share.

    Args:
        response: The SDK's response.
        text: The text in it.
        stop_reason: Why it ends.
        error: Why the text is unusable.
        token_names: The fields of its usage for the tokens sent and received.
        cut_off: The stop reason of a truncated response.
        cached: The tokens sent that were read from the provider's cache, and those that were written to it.
    """
    if error is None and not text.strip():
        error = "the answer is empty" + ("; raise mentor.client.max_tokens" if stop_reason == cut_off else "")
    usage = getattr(response, "usage", None)
    sent, received = (read_count(getattr(usage, name, None)) for name in token_names)
    request_id = read_name(getattr(response, "_request_id", None)) or read_name(response.id)
    model = read_name(response.model) or "unnamed"
    return ClientResponse(text, model, sent, received, *cached, request_id, stop_reason, error)


def read_count(value: Any) -> int | None:
    """A token count as a server sent it, or None where it is no count."""
    if isinstance(value, str) or (isinstance(value, float) and value.is_integer()):
        with suppress(ValueError):
            value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST_TOKENS else None


def read_name(value: Any) -> str | None:
    """A name as a server sent it, on one line and without control characters; None where it is no text."""
    name = " ".join(strip_invisible(value).split()) if isinstance(value, str) else ""
    return name[:LONGEST_NAME] or None
