"""Clients of providers behind a network: keys, deadlines, checks of the server, and reading its responses."""

import importlib.util
import os
import re
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import TimeoutError as DeadlineExceeded
from contextlib import suppress
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

from annotated_types import Ge

from llm_catalyst.mentors.background import start_call
from llm_catalyst.mentors.catalogue import find_refused
from llm_catalyst.mentors.clients.answers import find_inner_error
from llm_catalyst.mentors.clients.base import LONGEST_ERROR, Client, ClientResponse, TemporaryError, redact_key
from llm_catalyst.mentors.clients.failures import (
    REMEDIES,
    ParameterRefusedError,
    is_cut_off,
    is_temporary,
    may_pass,
    note_refusal,
    retry_after,
    server_message,
    status_response,
)
from llm_catalyst.mentors.clients.model_lookup import (
    SAMPLING,
    ModelLookup,
    describe_refused,
    list_entries,
    look_up_model,
)
from llm_catalyst.mentors.clients.rate_limit import limit_rate
from llm_catalyst.mentors.clients.refused import refused_parameters
from llm_catalyst.mentors.reply_parser import clean_line
from llm_catalyst.runs.records import Message
from llm_catalyst.utils.proxies import name_proxy
from llm_catalyst.utils.validation import ConfigurationError, NonNegative, PositiveInt, config_dataclass

SECRET_HEADER = re.compile(r"(?i)auth|key|token|cookie|secret|password")
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
NO_ADDRESS = re.compile(r"[\s?#\x00-\x1f]")  # in the address of an API, to whose end the SDKs add a path
REACH_S = 10.0


@config_dataclass("mentor.client")
class HTTPClient(Client):
    """A provider's API by its own SDK, the package `package`; both SDKs name their exceptions alike.

    A subclass defines `package`, `sdk`, `connection_class` (its name there), `wanted`, `send` and `read_response`, and
    declares the defaults of its fields. `optional` names the parameters without which a request that a server refuses
    because of them is sent again.
    """

    paid = True
    background = True
    optional: ClassVar[tuple[str, ...]] = ()
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
        url, parts = str(self.base_url or ""), urlsplit("")
        with suppress(ValueError):  # brackets or a port that are none
            parts = urlsplit(url) if urlsplit(url).port != 0 and not NO_ADDRESS.search(url) else parts
        if parts.scheme not in ("http", "https") or not parts.hostname:
            likely = f"http://{url}" if url and "://" not in url and not NO_ADDRESS.search(url) else "https://…/v1"
            raise ConfigurationError(
                f"mentor.client.base_url={clean_line(url)} is no address; try {clean_line(likely)} (no blank, ? or #)"
            )
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
        limit_rate(self.place, self.model, self.per_minute)()

    def connect(self, timeout_s: float) -> Any:
        """A connection of the SDK, which wants a key even if the server takes none."""
        connect = getattr(self.sdk, self.connection_class)
        return connect(api_key=self.read_key() or "none", base_url=self.base_url, timeout=timeout_s, max_retries=0)

    def respond(self, messages: Sequence[Message], seed: int) -> ClientResponse:
        """The response to one try, sent again without each optional parameter that the server refuses."""
        while True:
            # Taken before the request: another thread may note a refusal meanwhile.
            sent = [name for name in self.optional if name in self.parameters(seed)]
            try:
                return self._respond_once(messages, seed, sent)
            except ParameterRefusedError as refusal:
                refused_parameters(self.place, self.model).add(refusal.name)

    def _respond_once(self, messages: Sequence[Message], seed: int, sent: Collection[str]) -> ClientResponse:
        """The response to one request. Exceptions but TemporaryError and ParameterRefusedError become an error."""
        sdk, url = self.sdk, self.place
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
            answer = status_response(failure, url, self.remedy, self.suggest_url())
            if is_temporary(failure):
                raise TemporaryError(answer, retry_after(failure.response.headers)) from None
            note_refusal(failure.status_code, failure.body, answer, sent)
            return answer
        except Exception as failure:
            answer = ClientResponse(error=f"the answer of {url} could not be read: {type(failure).__name__}: {failure}")
            if is_cut_off(failure):
                raise TemporaryError(answer) from None
            return answer
        if inner := find_inner_error(response):
            return self.read_inner_error(*inner, sent)
        try:
            return self.read_response(response)
        except (AttributeError, LookupError, TypeError):  # the SDKs check nothing: a page of HTML arrives as a str
            body = response.to_dict(warnings=False) if hasattr(response, "to_dict") else response
            shown, other = server_message(body), self.suggest_url()
            hint = f"did you mean mentor.client.base_url={other}?" if other else "check mentor.client.base_url"
            if shown.startswith(("data:", "event:")):
                hint = "the server streams it, which was not asked for"
            return ClientResponse(error=f"no answer of a model came back ({hint}): {shown}")

    def read_inner_error(self, status: int | None, body: Any, sent: Collection[str]) -> ClientResponse:
        """The error that came with HTTP status 200; raises TemporaryError or ParameterRefusedError as respond does."""
        remedy = f" ({self.remedy(status)})" if status in REMEDIES else ""
        code = f" {status}" if status else ""
        answer = ClientResponse(error=f"{self.place} answered 200 with an error{code}{remedy}: {server_message(body)}")
        if status is not None and may_pass(status, body):
            raise TemporaryError(answer)
        note_refusal(status, body, answer, sent)
        return answer

    def remedy(self, status: int) -> str:
        """What to do about an HTTP status of REMEDIES."""
        return REMEDIES[status].format(variable=self.key_variable or "that mentor.client.key_variable names")

    @property
    def place(self) -> str:
        """The address of the server, for messages and limits."""
        return self.base_url

    @property
    def refused(self) -> tuple[str, ...]:
        """The optional parameters that this server has refused for this model, or the model is known to refuse."""
        known = find_refused(self.model, SAMPLING, self.wanted(0).get("reasoning_effort"))
        return (*dict.fromkeys((*known, *refused_parameters(self.place, self.model).names)),)

    def suggest_url(self) -> str:
        """The address to try where the server has no models at this one; '' if this one has the usual form."""
        return ""

    @property
    def unsent(self) -> tuple[str, ...]:
        given = self.wanted(0)
        return tuple(name for name in self.refused if name in given)

    @abstractmethod
    def wanted(self, seed: int) -> dict[str, Any]:
        """The parameters of a request to a server that refuses none of them."""

    def parameters(self, seed: int) -> dict[str, Any]:
        refused = self.refused
        return {name: value for name, value in self.wanted(seed).items() if name not in refused}

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
            fault = status_response(failure, url, self.remedy).error if failure.status_code in (401, 403) else None
        except Exception:  # a response that cannot be read says nothing about the model
            pass
        ending = found.lifecycle
        if fault is None and ending.over:
            fault = ending.describe_end()
        if fault:
            hint = "mentor.client.check_model=false skips this check"
            raise ConfigurationError(f"{clean_line(redact_key(fault, key))[:LONGEST_ERROR]} ({hint})") from None
        refused = describe_refused(self.model, self.wanted(0))
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
            missing = f"{url} has no list of models; did you mean {other}?"
            fault = missing if other else status_response(failure, url, self.remedy).error
        except sdk.APIStatusError as failure:
            fault = status_response(failure, url, self.remedy).error
        except Exception as failure:
            why = failure.__cause__ or failure
            fault = f"no list of models came from {url}{name_proxy(url)}: {str(why) or type(why).__name__}"
        raise ConfigurationError(clean_line(redact_key(fault or "", key))[:LONGEST_ERROR])


def require_package(name: str, distribution: str | None = None) -> None:
    """Raise ConfigurationError where a package that a client needs, and its distribution brings, is not installed."""
    found = None
    with suppress(ModuleNotFoundError):  # the parent of a submodule
        found = importlib.util.find_spec(name)
    if found is None:
        install = f"pip install '{distribution}'" if distribution else f"pip install {name}"
        raise ConfigurationError(f"this mentor needs the package {name}, which is not installed: {install}")


def refuse_secret_headers(headers: Mapping[str, str]) -> None:
    """Raise ConfigurationError where a header of a configuration is one that holds a key."""
    if secret := [name for name in headers if SECRET_HEADER.search(name)]:
        raise ConfigurationError(
            f"mentor.client.default_headers.{secret[0]} would write a secret to disk; mentor.client.key_variable names "
            "the environment variable that holds the key"
        )


def read_secret(variable: str) -> str:
    """The stripped value of an environment variable. Raises ConfigurationError if it is empty."""
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ConfigurationError(f"the environment variable {variable} is not set or empty")
    return value
