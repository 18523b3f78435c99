"""The base of every client, and what all share: retries, records of calls, redaction of keys."""

import json
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, ClassVar
from urllib.parse import quote

from llm_catalyst.mentors.catalogue import TokenCounts, compute_cost
from llm_catalyst.runs.records import LLMCall, Message
from llm_catalyst.utils.validation import SHORTEST_SECRET

LONGEST_ERROR = 500


class NoResponseError(RuntimeError):
    """A request got no response at all: the next one would not get one either."""


class NotRecordedError(NoResponseError):
    """A replay is sent a request that the recorded run has no response to: this run is not the recorded one."""


@dataclass(frozen=True)
class ClientResponse:
    """What one try brought: a reply, or the error that says why there is none.

    `input_tokens` counts all that were sent; `cached_tokens` of them were read from the provider's cache, and
    `cache_write_tokens` written to it.
    """

    reply: str = ""
    answered: str | None = None  # the name of the model that answered
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    request_id: str | None = None
    stop_reason: str | None = None
    error: str | None = None


class TemporaryError(Exception):
    """A failure that may pass: worth another try, after `wait_s` seconds if the server named them."""

    def __init__(self, response: ClientResponse, wait_s: float | None = None) -> None:
        super().__init__(response.error)
        self.response = response
        self.wait_s = wait_s


class Client(ABC):
    """Answers requests: messages in, one recorded call out. The base of every client.

    A subclass is usually a frozen dataclass whose fields are the keys of `mentor.client`. It must have `model` and
    define `respond`; every other member has a default.

    Attributes:
        model: The name of the model that is asked.
        base_url: The provider's address, by which the package genai-prices knows it; '' if there is none.
        temperature: Replaced by a strategy's own, unless it is None.
        max_tokens: The most tokens of a response; None if there is no limit.
        at_once: How many requests may be under way at a time, from other threads; None: one, in the run's thread.
        retry_s: For how many seconds a failure that may pass is tried again.
        paid: Whether a provider sends a bill.
        background: Whether it may answer while this process trains.
        interactive: Whether it asks a person at the terminal: no live view is drawn, and no tokens are counted.
        replays: Whether its responses are those of an earlier run: it costs nothing.
    """

    paid: ClassVar[bool] = False
    background: ClassVar[bool] = False
    interactive: ClassVar[bool] = False
    replays: ClassVar[bool] = False

    model: str
    base_url: str = ""
    temperature: float | None = None
    max_tokens: int | None = None
    at_once: int | None = None
    retry_s: float = 0.0

    @abstractmethod
    def respond(self, messages: Sequence[Message], seed: int) -> ClientResponse:
        """The response to one try; raises TemporaryError if another may help, and nothing else."""

    @property
    def unsent(self) -> tuple[str, ...]:
        """The settings that the provider does not accept, for the record."""
        return ()

    def parameters(self, seed: int) -> dict[str, Any]:
        """The sampling settings that go with each request."""
        return {}

    def wanted(self, seed: int) -> dict[str, Any]:
        """The sampling settings that would go with a request if the server took all: they identify it in the cache."""
        return self.parameters(seed)

    def has_roles(self) -> bool:
        """Whether the model tells messages of a system, a user and itself apart; others continue one text."""
        return True

    def preflight(self) -> None:
        """Raise ConfigurationError if `respond` is bound to fail. Called before training; uses no network."""

    def check_reachable(self) -> Sequence[str]:
        """What a user must know of the model before training (`Mentor.check_reachable`).

        Raises ConfigurationError if the provider is not there, refuses the key, or does not know the model any more.
        """
        return ()

    def terms_of_use(self) -> Sequence[str]:
        """The model's terms, before its first use on this machine (`Mentor.terms_of_use`)."""
        return ()

    def read_key(self) -> str:
        """The provider's key, which appears in no record; '' if there is none."""
        return ""

    def wait_for_turn(self) -> None:
        """Return when the next try may begin."""

    def complete(
        self, messages: Sequence[Message], stage: int, seed: int, number: int = 0, repetition: int = 0
    ) -> LLMCall:
        """The call with the response to `messages`; what fails for good is its `error`.

        `latency_s` counts all tries and the waits between them, not the wait for the first one.

        Args:
            messages: The conversation so far.
            stage: The stage after which the mentor is asked.
            seed: Goes with the request if the provider takes one.
            number: Counts the requests of this context, from 0.
            repetition: Counts those with the same messages, from 0.

        Raises:
            NotRecordedError: By a replay that has no response.
        """
        key = self.read_key()
        self.wait_for_turn()
        date, begun = utc_now(), time.monotonic()
        response, attempts = retry_response(lambda: self.respond(messages, seed), self.retry_s, self.wait_for_turn)
        received: dict[str, Any] = dict(vars(response))
        received |= {name: redact_key(value, key) for name, value in received.items() if isinstance(value, str)}
        received["error"] = (received["error"] or "")[:LONGEST_ERROR] or None  # cut last: no half of a key
        tokens = TokenCounts(
            response.input_tokens, response.output_tokens, response.cached_tokens, response.cache_write_tokens
        )
        return LLMCall(
            **received,
            stage=stage,
            messages=tuple(messages),
            asked=self.model,
            parameters=self.parameters(seed),
            not_sent=self.unsent,
            cost_usd=compute_cost(response.answered or self.model, tokens, self.base_url or "") if self.paid else 0.0,
            latency_s=round(time.monotonic() - begun, 3),
            date=date,
            attempts=attempts,
        )


def retry_response(
    respond: Callable[[], ClientResponse], retry_s: float, wait_for_turn: Callable[[], None] = lambda: None
) -> tuple[ClientResponse, int]:
    """The first response, or the last failure once `retry_s` seconds do not suffice for another try; the tries.

    Each try but the first waits for its turn, after the time that lets the failure pass.
    """
    rng = random.Random()  # not the global stream: a retry must not move a run's random numbers
    begun, tries = time.monotonic(), 1
    while True:
        try:
            return respond(), tries
        except TemporaryError as failure:
            backoff = rng.uniform(0.5, 1) * min(2.0 ** (tries - 1), 30)
            pause = failure.wait_s or backoff  # a date that has passed, by another clock, says nothing
            if time.monotonic() - begun + pause >= retry_s:
                tried = f"given up after {tries} {'try' if tries == 1 else 'tries'}"
                asked = f"; the server asks to wait {failure.wait_s:.0f} s" if failure.wait_s else ""
                error = f"{tried} (mentor.client.retry_s={retry_s:g}{asked}): {failure.response.error}"
                return replace(failure.response, error=error), tries
        time.sleep(pause)
        wait_for_turn()
        tries += 1


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


def utc_now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
