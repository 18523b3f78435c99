"""Clients of providers behind a network: keys, deadlines, checks of the server, and reading its responses."""

import importlib.util
import os
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import TimeoutError as DeadlineExceeded
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

from annotated_types import Ge

from llm_catalyst.mentors.background import start_call
from llm_catalyst.mentors.clients.base import LONGEST_ERROR, Client, ClientResponse, TemporaryError, redact_key
from llm_catalyst.mentors.clients.model_lookup import ModelLookup, describe_refused, list_entries, look_up_model
from llm_catalyst.mentors.clients.rate_limit import limit_rate
from llm_catalyst.mentors.reply_parser import clean_line
from llm_catalyst.runs.records import Message
from llm_catalyst.utils.proxies import name_proxy
from llm_catalyst.utils.validation import ConfigurationError, NonNegative, PositiveInt, config_dataclass

VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
REACH_S = 10.0
REMEDIES = {
    401: "check the key in the environment variable that mentor.client.key_variable names",
    403: "this key may not use this model",
    404: "check mentor.client.model and mentor.client.base_url",
}


@config_dataclass("mentor.client")
class HTTPClient(Client):
    """A provider's API by its own SDK, the package `package`; both SDKs name their exceptions alike.

    A subclass defines `package`, `sdk`, `connection_class` (its name there), `send` and `read_response`, and declares
    the defaults of its fields.
    """

    paid = True
    background = True
    package: ClassVar[str]
    connection_class: ClassVar[str]

    model: str
    base_url: str = ""
    key_variable: str | None = None
    temperature: NonNegative | None = None
    max_tokens: PositiveInt | None = 1200
    timeout_s: Annotated[float, Ge(0.001)] = 120.0
    retry_s: NonNegative = 300.0
    at_once: PositiveInt = 4
    per_minute: PositiveInt | None = None
    check_model: bool = True

    def __post_init__(self) -> None:
        if self.key_variable is not None and not VARIABLE.fullmatch(self.key_variable):
            raise ConfigurationError(
                "mentor.client.key_variable must be the *name* of an environment variable in capitals, such as "
                "OPENAI_API_KEY; the key itself never stands in a configuration"
            )
        url, parts = self.base_url, urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(f"mentor.client.base_url={url} is no address; try https://api.openai.com/v1")
        if parts.username or parts.password:
            raise ConfigurationError("mentor.client.base_url must not hold a user or password; use key_variable")

    @property
    @abstractmethod
    def sdk(self) -> Any:
        """The SDK's module, imported when it is needed."""

    @abstractmethod
    def send(self, connection: Any, messages: Sequence[Message], seed: int) -> Any:
        """The SDK's response to the messages."""

    @abstractmethod
    def read_response(self, response: Any) -> ClientResponse:
        """The reply in the SDK's response, or its error. Any AttributeError, LookupError or TypeError is caught."""

    def preflight(self) -> None:
        """Raise ConfigurationError if the SDK or the key is missing, or the key is not clean."""
        require_package(self.package)
        self.read_key()

    def read_key(self) -> str:
        """The key in the environment variable `key_variable`, stripped; '' if none is named.

        Raises ConfigurationError, which never holds the key.
        """
        variable = self.key_variable
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

    def wait_for_turn(self) -> None:
        limit_rate(self.base_url, self.model, self.per_minute)()

    def connect(self, timeout_s: float) -> Any:
        """A connection of the SDK, which wants a key even if the server takes none."""
        connect = getattr(self.sdk, self.connection_class)
        return connect(api_key=self.read_key() or "none", base_url=self.base_url, timeout=timeout_s, max_retries=0)

    def respond(self, messages: Sequence[Message], seed: int) -> ClientResponse:
        """The response to one try. Every exception becomes an error: a long run must not end because of a mentor."""
        sdk, url = self.sdk, self.base_url
        try:
            with self.connect(self.timeout_s) as connection:
                # The SDKs' own timeouts count from one read to the next, so a server that drips bytes outlives them.
                response = start_call(lambda: self.send(connection, messages, seed)).result(self.timeout_s)
        except (sdk.APITimeoutError, DeadlineExceeded):
            raise TemporaryError(
                ClientResponse(error=f"no answer from {url} within timeout_s={self.timeout_s:g}")
            ) from None
        except sdk.APIConnectionError as failure:
            raise TemporaryError(
                ClientResponse(error=f"no connection to {url}{name_proxy(url)}: {failure.__cause__ or failure}")
            ) from None
        except sdk.APIStatusError as failure:
            answer = status_response(failure, url)
            if is_temporary(failure):
                raise TemporaryError(answer, retry_after(failure.response.headers)) from None
            return answer
        except Exception as failure:
            return ClientResponse(error=f"the answer of {url} could not be read: {type(failure).__name__}: {failure}")
        try:
            return self.read_response(response)
        except (AttributeError, LookupError, TypeError):  # the SDKs check nothing: a page of HTML arrives as a str
            shown = " ".join(str(response).split())
            return ClientResponse(error=f"no answer of a model came back (check mentor.client.base_url): {shown}")

    def suggest_url(self) -> str:
        """The address to try where the server has no models at this one; '' if this one has the usual form."""
        return ""

    def check_reachable(self) -> list[str]:
        """Warnings of the model's shutdown and of parameters that it refuses.

        One free request, or two. What may pass (a busy server, no response within REACH_S seconds) and what says
        nothing about the model (a server without a list of models) is no error; then conf/models.yaml decides.

        Raises:
            ConfigurationError: The server is not there, refuses the key or does not know the model, or the model was
                shut down.
        """
        if not self.check_model:
            return []
        sdk, key, url = self.sdk, self.read_key(), self.base_url
        try:
            connection = self.connect(REACH_S)
        except Exception as error:
            raise ConfigurationError(f"no connection to {url} can be made: {redact_key(str(error), key)}") from None
        found = ModelLookup(self.model)
        fault: str | None = None
        try:
            with connection:
                found = start_call(lambda: look_up_model(sdk, connection, self.model)).result(REACH_S)
            fault = found.find_fault(url, self.suggest_url())
        except sdk.APIConnectionError as failure:
            cause = failure.__cause__
            # Without a connection at all; one that breaks, and a timeout, may pass.
            if type(cause).__name__ == "ConnectError":
                place = f"{url}{name_proxy(url)}"
                fault = f"no connection to {place}: {cause}; check mentor.client.base_url, the server and the network"
        except sdk.APIStatusError as failure:
            fault = status_response(failure, url).error if failure.status_code in (401, 403) else None
        except Exception:  # a response that cannot be read says nothing about the model
            pass
        ending = found.lifecycle
        if fault is None and ending.over:
            fault = ending.describe_end()
        if fault:
            hint = "mentor.client.check_model=false skips this check"
            raise ConfigurationError(f"{clean_line(redact_key(fault, key))[:LONGEST_ERROR]} ({hint})") from None
        refused = describe_refused(self.model, self.parameters(0))
        return [*filter(None, (ending.warn(), refused))]

    def list_models(self) -> list[Any]:
        """The SDK's objects of the server's models, by one free request; ConfigurationError where none come."""
        sdk, key, url = self.sdk, self.read_key(), self.base_url
        try:
            with self.connect(REACH_S) as connection:
                entries = start_call(lambda: list_entries(connection)).result(REACH_S)
            if entries is not None:
                return entries
            fault: str | None = f"the answer of {url} is no list of models"
        except sdk.NotFoundError as failure:
            other = self.suggest_url()
            fault = (
                f"{url} has no list of models; did you mean {other}?" if other else status_response(failure, url).error
            )
        except sdk.APIStatusError as failure:
            fault = status_response(failure, url).error
        except Exception as failure:
            why = failure.__cause__ or failure
            fault = f"no list of models came from {url}{name_proxy(url)}: {str(why) or type(why).__name__}"
        raise ConfigurationError(clean_line(redact_key(fault or "", key))[:LONGEST_ERROR])


def is_temporary(error: Any) -> bool:
    """Whether a status may pass; an exhausted quota (also 429) does not."""
    passing = error.status_code in (408, 409, 429) or error.status_code >= 500
    return passing and "insufficient_quota" not in str(error.body)


def status_response(error: Any, url: str) -> ClientResponse:
    """The response for an HTTP status error, with the remedy if the status shows it."""
    remedy = f" ({REMEDIES[error.status_code]})" if error.status_code in REMEDIES else ""
    message = f"{url}{name_proxy(url)} answered {error.status_code}{remedy}: {server_message(error.body)}"
    return ClientResponse(request_id=error.request_id, error=message)


def server_message(body: Any) -> str:
    """The message in an error body of either provider, or the body itself, on one line."""
    inner = body.get("error", body) if isinstance(body, dict) else body
    message = inner.get("message", inner) if isinstance(inner, dict) else inner
    return " ".join(str(message).split())


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, from retry-after-ms or retry-after (seconds or a date)."""
    milliseconds, value = headers.get("retry-after-ms"), headers.get("retry-after", "")
    with suppress(ValueError):
        seconds = float(milliseconds) / 1000 if milliseconds else float(value)
        return max(0.0, seconds) if seconds < float("inf") else None
    with suppress(TypeError, ValueError):
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(timezone.utc)).total_seconds())
    return None


def require_package(name: str) -> None:
    """Raise ConfigurationError where a package that a client needs is not installed."""
    if importlib.util.find_spec(name) is None:
        raise ConfigurationError(f"this mentor needs the package {name}, which is not installed: pip install {name}")


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
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def read_name(value: Any) -> str | None:
    """A name as a server sent it, or None where it is no text."""
    return value if isinstance(value, str) and value else None
