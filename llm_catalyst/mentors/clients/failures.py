"""Failures of requests to a server: what they say, whether they may pass, and what to do about them."""

import json
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from llm_catalyst.mentors.clients.answers import name_refused
from llm_catalyst.mentors.clients.base import ClientResponse
from llm_catalyst.utils.proxies import name_proxy

LONGEST_WAIT_S = 1e9  # that a server may ask for
PAGE = re.compile(r"(?is)\s*<(?:!doctype|html|head|body)\b")
TITLE = re.compile(r"(?i)<title[^<>]{0,80}>([^<]{1,200})")
REMEDIES = {
    401: "check the key in the environment variable {variable}",
    403: "this key may not use this model",
    404: "check mentor.client.model and mentor.client.base_url",
}


class ParameterRefusedError(Exception):
    """A server refuses a request because of an optional parameter, `name`; `response` is its error."""

    def __init__(self, name: str, response: ClientResponse) -> None:
        super().__init__(response.error)
        self.name, self.response = name, response


def note_refusal(status: int | None, body: Any, answer: ClientResponse, sent: Collection[str]) -> None:
    """Raise ParameterRefusedError if a 400 or 422 names an optional parameter that was sent."""
    if status in (400, 422) and (name := name_refused(body, sent)):
        raise ParameterRefusedError(name, answer)


def is_temporary(error: Any) -> bool:
    """Whether a status error may pass."""
    return may_pass(error.status_code, error.body)


def is_cut_off(failure: Exception) -> bool:
    """Whether a JSON body could not be read because it is empty, or ends before its end."""
    if not isinstance(failure, json.JSONDecodeError):
        return False
    return failure.msg.startswith("Unterminated") or failure.pos >= len(failure.doc.rstrip())


def may_pass(status: int, body: Any) -> bool:
    """Whether a status may pass; an exhausted quota (also 429) does not."""
    return (status in (408, 409, 429) or status >= 500) and "insufficient_quota" not in str(body)


def status_response(error: Any, url: str, remedies: Callable[[int], str], other_url: str = "") -> ClientResponse:
    """The response for an HTTP status error, with the remedy if the status shows it.

    Args:
        error: The SDK's exception.
        url: The address that was asked.
        remedies: What to do about a status of REMEDIES.
        other_url: The one to try if this one has no such route.
    """
    known = error.status_code in REMEDIES and not PAGE.match(str(error.body))  # a page is no provider's answer
    remedy = f" ({remedies(error.status_code)})" if known else ""
    if error.response.history:
        remedy = f" (redirected to {error.response.url}; name the address of the API in mentor.client.base_url)"
    elif error.status_code in (404, 405) and other_url:
        remedy = f" (did you mean mentor.client.base_url={other_url}?)"
    message = f"{url}{name_proxy(url)} answered {error.status_code}{remedy}: {server_message(error.body)}"
    return ClientResponse(request_id=error.request_id, error=message)


def server_message(body: Any) -> str:
    """The message in an error body of either provider, or the body itself, on one line."""
    inner = body.get("error", body) if isinstance(body, dict) else body
    message = inner.get("message", inner) if isinstance(inner, dict) else inner
    if isinstance(message, str) and PAGE.match(message):
        title = TITLE.search(message)
        message = f"a page of HTML{f': {title[1]}' if title else ''}"
    return " ".join(str(message).split())


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, from retry-after-ms or retry-after (seconds or a date)."""
    milliseconds, value = headers.get("retry-after-ms"), headers.get("retry-after", "")
    with suppress(ValueError):
        seconds = float(milliseconds) / 1000 if milliseconds else float(value)
        return max(0.0, min(seconds, LONGEST_WAIT_S)) if seconds < float("inf") else None
    with suppress(TypeError, ValueError):
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(timezone.utc)).total_seconds())
    return None
