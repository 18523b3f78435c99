"""What the clients share: keys, deadlines, retries, redaction, and an Exchange from what came back."""

import importlib.util
import itertools
import json
import os
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import TimeoutError as DeadlineExceeded
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import tenacity

from llm_catalyst.mentors import pricing
from llm_catalyst.mentors.background import start_call
from llm_catalyst.mentors.reply_parser import clean_line
from llm_catalyst.runs.records import LLMCall, Message
from llm_catalyst.utils.validation import SHORTEST_SECRET, ConfigurationError, check_at_least, did_you_mean

VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
LONGEST_ERROR = 500
MOST_NAMED = 8  # of the models that a server has
REACH_S = 10.0
PASSING_STATUS = (408, 409, 429)

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """What one request brought: a reply, or the error that says why there is none."""

    reply: str = ""
    answered: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    request_id: str | None = None
    stop_reason: str | None = None
    error: str | None = None


class TemporaryError(Exception):
    """A failure that may pass: worth another try, after `wait_s` seconds where the server named them."""

    def __init__(self, answer: Answer, wait_s: float | None = None) -> None:
        super().__init__(answer.error)
        self.answer = answer
        self.wait_s = wait_s


def wait_for_nothing() -> None:
    """For who may begin at any time."""


def make_call(
    ask: Callable[[], Answer],
    *,
    messages: Sequence[Message],
    stage: int,
    model: str,
    parameters: Mapping[str, float | int | str],
    not_sent: tuple[str, ...] = (),
    key: str = "",
    retry_s: float = 0.0,
    turn: Callable[[], None] = wait_for_nothing,
    free: bool = False,
) -> LLMCall:
    """The exchange that `ask` brings, asked again while failures may pass and `retry_s` seconds last.

    Each attempt waits for its `turn`. `latency_s` counts all attempts and the waits between them, not that for the
    first one. `free` is for whoever sends no bill.
    """
    turn()
    date, begun = utc_now(), time.monotonic()
    answer, attempts = ask_until_answered(ask, retry_s, turn)
    asked = answer.answered or model
    return LLMCall(
        stage=stage,
        messages=tuple(messages),
        reply=redact_key(answer.reply, key),
        asked=model,
        answered=redact_key(answer.answered, key) if answer.answered else None,
        parameters=dict(parameters),
        not_sent=not_sent,
        input_tokens=answer.input_tokens,
        output_tokens=answer.output_tokens,
        cost_usd=0.0 if free else pricing.compute_cost(asked, answer.input_tokens, answer.output_tokens),
        latency_s=round(time.monotonic() - begun, 3),
        date=date,
        request_id=redact_key(answer.request_id, key) if answer.request_id else None,
        stop_reason=redact_key(answer.stop_reason, key) if answer.stop_reason else None,
        attempts=attempts,
        error=redact_key(answer.error, key)[:LONGEST_ERROR] if answer.error else None,  # cut last: no half of a key
    )


def ask_until_answered(
    ask: Callable[[], Answer], retry_s: float, turn: Callable[[], None] = wait_for_nothing
) -> tuple[Answer, int]:
    """The first answer, or the last failure once `retry_s` seconds do not suffice for another try; the tries.

    Each try but the first waits for its `turn`, after the time that lets the failure pass.
    """
    dice = random.Random()  # not the global stream: a retry must not move a run's random numbers

    def pause(state: tenacity.RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome else None
        if isinstance(failure, TemporaryError) and failure.wait_s is not None:
            return failure.wait_s
        return dice.uniform(0.5, 1) * min(2.0 ** (state.attempt_number - 1), 30)

    def rest(seconds: float) -> None:
        time.sleep(seconds)
        turn()

    tries = tenacity.Retrying(
        sleep=rest,
        retry=tenacity.retry_if_exception_type(TemporaryError),
        wait=pause,
        stop=tenacity.stop_before_delay(retry_s),
        reraise=True,
    )
    try:
        return tries(ask), count_attempts(tries)
    except TemporaryError as failure:
        attempts = count_attempts(tries)
        wait = f"; the server asks to wait {failure.wait_s:.0f} s" if failure.wait_s else ""
        tried = f"given up after {attempts} {'try' if attempts == 1 else 'tries'}"
        error = f"{tried} (mentor.client.retry_s={retry_s:g}{wait}): {failure.answer.error}"
        return replace(failure.answer, error=error), attempts


def count_attempts(tries: tenacity.Retrying) -> int:
    return int(tries.statistics["attempt_number"])


def send_request(
    sdk: Any, kind: Any, key: str, url: str, timeout_s: float, send: Callable[[Any], T], read: Callable[[T], Answer]
) -> Answer:
    """What `read` makes of one request, or an Answer with an error. Raises PassingError where a retry may help.

    `sdk` is the module openai or anthropic, which name their exceptions alike; `kind` is its client's class.
    Any other exception becomes an error too: a run that has trained for hours must not die of a mentor.
    """
    try:
        with kind(api_key=key, base_url=url, timeout=timeout_s, max_retries=0) as connection:
            response = run_with_deadline(timeout_s, lambda: send(connection))
    except (sdk.APITimeoutError, DeadlineExceeded):
        raise TemporaryError(Answer(error=f"no answer from {url} within timeout_s={timeout_s:g}")) from None
    except sdk.APIConnectionError as error:
        raise TemporaryError(Answer(error=f"no connection to {url}: {error.__cause__ or error}")) from None
    except sdk.APIStatusError as error:
        raise_if_temporary(error, url)
        return status_answer(error, url)
    except Exception as error:
        return Answer(error=f"the answer of {url} could not be read: {type(error).__name__}: {error}")
    return read(response)


def run_with_deadline(seconds: float, call: Callable[[], T]) -> T:
    """What `call` returns. Raises DeadlineExceeded after `seconds` in all.

    The SDKs' own timeouts count from one read to the next, so a server that drips bytes outlives them.
    """
    return start_call(call).result(timeout=seconds)


def raise_if_temporary(error: Any, url: str) -> None:
    """Raise PassingError for a status that may pass; an exhausted quota (also 429) does not."""
    if "insufficient_quota" in str(error.body):
        return
    if error.status_code in PASSING_STATUS or error.status_code >= 500:
        raise TemporaryError(status_answer(error, url), retry_after(error.response.headers)) from None


def status_answer(error: Any, url: str) -> Answer:
    """The Answer for an HTTP status error, with the mend where the status tells it."""
    mends = {
        401: "check the key in the environment variable that mentor.client.key_variable names",
        403: "this key may not use this model",
        404: "check mentor.client.model and mentor.client.base_url",
    }
    mend = f" ({mends[error.status_code]})" if error.status_code in mends else ""
    said = server_message(error.body)
    return Answer(request_id=error.request_id, error=f"{url} answered {error.status_code}{mend}: {said}")


def server_message(body: Any) -> str:
    """The message in an error body of either provider, or the body itself, on one line."""
    inner = body.get("error", body) if isinstance(body, dict) else body
    message = inner.get("message", inner) if isinstance(inner, dict) else inner
    return " ".join(str(message).split())


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, from retry-after-ms or retry-after (seconds or a date)."""
    try:
        if value := headers.get("retry-after-ms"):
            return max(0.0, float(value) / 1000)
        value = headers.get("retry-after") or ""
        return max(0.0, float(value)) if float(value) < float("inf") else None
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value or "") - datetime.now(timezone.utc)).total_seconds())
    except (TypeError, ValueError):
        return None


def read_key(variable: str | None) -> str:
    """The key in the environment variable of that name, stripped; '' where no variable is named.

    Raises ConfigurationError, which never holds the key.
    """
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigurationError(
            f"the environment variable {variable} is not set or empty; set it to the provider's API key "
            f"(export {variable}=...), or try mentor=none, mentor=local or mentor=human, which need no key"
        )
    if not all("!" <= character <= "~" for character in key):
        raise ConfigurationError(
            f"the environment variable {variable} holds a space, a line break or a character that is not ASCII; "
            "an API key has none: copy it again"
        )
    return key


def check_settings(
    temperature: float | None, max_tokens: int, timeout_s: float, retry_s: float, key_variable: str | None, url: str
) -> None:
    """Raise ConfigurationError unless the settings that the providers' clients share can be used."""
    check_at_least("mentor.client.temperature", temperature, 0)
    check_at_least("mentor.client.max_tokens", max_tokens, 1)
    check_at_least("mentor.client.timeout_s", timeout_s, 0.001)
    check_at_least("mentor.client.retry_s", retry_s, 0)
    check_key_variable(key_variable)
    check_url(url)


def check_rate(at_once: int, per_minute: int | None) -> None:
    """Raise ConfigurationError unless so many requests can be under way at once, and begin in a minute."""
    check_at_least("mentor.client.at_once", at_once, 1)
    check_at_least("mentor.client.per_minute", per_minute, 1)


def check_key_variable(variable: str | None) -> None:
    """Raise ConfigurationError unless `variable` looks like a variable's name. Its value is not repeated."""
    if variable is not None and not VARIABLE.fullmatch(variable):
        raise ConfigurationError(
            "mentor.client.key_variable must be the *name* of an environment variable in capitals, such as "
            "OPENAI_API_KEY; the key itself never stands in a configuration"
        )


def check_url(url: str) -> None:
    """Raise ConfigurationError unless `url` is an http(s) address without user and password."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(f"mentor.client.base_url={url} is no address; try https://api.openai.com/v1")
    if parts.username or parts.password:
        raise ConfigurationError("mentor.client.base_url must not hold a user or password; use key_variable")


def require_package(name: str) -> None:
    """Raise ConfigurationError where a package that a client needs is not installed."""
    if importlib.util.find_spec(name) is None:
        raise ConfigurationError(f"this mentor needs the package {name}, which is not installed: pip install {name}")


def check_package_and_key(package: str, key_variable: str | None) -> None:
    """Raise ConfigurationError where the SDK or the key is missing, or the key is not clean."""
    require_package(package)
    read_key(key_variable)


def check_server(sdk: Any, kind: Any, key: str, url: str, model: str) -> None:
    """Raise ConfigurationError where the server is not there, refuses the key or does not know the model.

    One free request, or two. What may pass (a busy server, no answer within REACH_S seconds) and what says
    nothing about the model (a server without a list of models) is no error.
    """
    try:
        connection = kind(api_key=key, base_url=url, timeout=REACH_S, max_retries=0)
    except Exception as error:
        raise ConfigurationError(f"no connection to {url} can be made: {redact_key(str(error), key)}") from None
    fault: str | None = None
    try:
        with connection:
            names = run_with_deadline(REACH_S, lambda: list_models_unless_known(sdk, connection, model))
        if names is not None:
            known = f"it has {list_some(names)}{did_you_mean(model, names)}"
            fault = f"{url} does not know mentor.client.model={model}; {known}"
    except sdk.APIConnectionError as failure:
        cause = failure.__cause__
        # Without a connection at all; one that breaks, and a timeout, may pass.
        if type(cause).__name__ == "ConnectError":
            fault = f"no connection to {url}: {cause}; check mentor.client.base_url, the server and the network"
    except sdk.APIStatusError as failure:
        fault = status_answer(failure, url).error if failure.status_code in (401, 403) else None
    except Exception:
        return  # an answer that cannot be read says nothing about the model
    if fault:
        hint = "mentor.client.check_model=false skips this check"
        raise ConfigurationError(f"{clean_line(redact_key(fault, key))[:LONGEST_ERROR]} ({hint})") from None


def list_models_unless_known(sdk: Any, connection: Any, model: str) -> list[str] | None:
    """The models that a server has where `model` is none of them; None where it is one, or where nothing is known."""
    try:
        connection.models.retrieve(model)
        return None
    except sdk.NotFoundError:
        pass  # no such model, or no such route
    try:
        page = connection.models.list()
    except sdk.APIStatusError:
        return None
    if "data" not in page.model_fields_set:
        return None
    names = [entry.id for entry in itertools.islice(page, 10_000) if isinstance(entry.id, str)]
    return None if {model, f"{model}:latest"} & {*names} else names  # Ollama adds the tag


def list_some(names: Sequence[str]) -> str:
    """Some of these names, in one line."""
    shown = ", ".join(sorted(names)[:MOST_NAMED])
    return "none" if not names else f"{shown}, and {len(names) - MOST_NAMED} more" if names[MOST_NAMED:] else shown


def unreadable_response(response: Any) -> Answer:
    """The Answer for a response of another kind. The SDKs check nothing: a page of HTML arrives as a str."""
    shown = " ".join(str(response).split())
    return Answer(error=f"no answer of a model came back (check mentor.client.base_url): {shown}")


def model_answer(
    response: Any, text: str, stop_reason: str | None, usage: tuple[Any, Any], error: str | None, cut_off: str
) -> Answer:
    """The Answer of a model, from what both providers' responses share; `cut_off` is a truncated one's stop reason."""
    if error is None and not text.strip():
        error = "the answer is empty" + ("; raise mentor.client.max_tokens" if stop_reason == cut_off else "")
    return Answer(
        reply=text,
        answered=read_name(response.model) or "unnamed",
        input_tokens=read_count(usage[0]),
        output_tokens=read_count(usage[1]),
        request_id=read_name(getattr(response, "_request_id", None)) or read_name(response.id),
        stop_reason=stop_reason,
        error=error,
    )


def redact_key(text: str, key: str) -> str:
    """`text` without the key, should a server echo it, and without the halves of broken UTF-16 pairs.

    The latter can stand in JSON, but not in a file of UTF-8.
    """
    text = text.encode("utf-8", "replace").decode("utf-8")
    if len(key) < SHORTEST_SECRET:
        return text
    for form in {key, json.dumps(key)[1:-1], quote(key), quote(key, safe="")}:
        text = text.replace(form, "[key]")
    return text


def read_count(value: Any) -> int | None:
    """A token count as a server sent it, or None where it is no count."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def read_name(value: Any) -> str | None:
    """A name as a server sent it, or None where it is no text."""
    return value if isinstance(value, str) and value else None


def utc_now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
