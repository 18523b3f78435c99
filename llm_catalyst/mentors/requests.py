"""The requests of one context: each gets what a run that was cut off recorded, or a new call of a client."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from llm_catalyst.mentors import response_cache
from llm_catalyst.mentors.background import run_concurrently
from llm_catalyst.mentors.clients.base import Client, NoResponseError, NotRecordedError
from llm_catalyst.runs.records import LLMCall, Message


@dataclass(frozen=True)
class ClientRequest:
    """Messages for a client, and the seed that goes with them if the client takes one.

    `withheld` names the settings of the strategy that the client is not to send.
    """

    client: Client
    messages: tuple[Message, ...]
    seed: int
    withheld: tuple[str, ...] = ()


@dataclass
class RequestRunner:
    """Sends the requests of a mentor and its fallbacks in one context.

    A request that a run which was cut off has sent already gets what came then, failures included, so that a resumed
    context takes the same way. Equal requests without a seed cannot be distinguished: their responses are used in the
    order in which they were recorded, in a resumed context and in the first one. The arguments are the members of
    MentorContext with these names.
    """

    stage: int
    record: Callable[[LLMCall], None]
    answered: Sequence[LLMCall] = ()
    before_call: Callable[[], None] = lambda: None
    _recording: Any = field(default_factory=threading.Lock, init=False)
    _sent: Counter[tuple[str, tuple[Message, ...]]] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        self._unused = list(self.answered)  # in the order of the record

    def send(
        self, requests: Sequence[ClientRequest], cache: bool
    ) -> tuple[list[LLMCall | None], NoResponseError | None]:
        """The call of each request, in their order, recorded before it is used; and the error of a replay without one.

        `at_once` of the client says how many are under way at a time. After one without any response no further one is
        sent: those have None. Raises what `before_call` raises, once all that are under way have come.
        """
        pending, refusal = [], None
        known = match_calls(requests, self._unused)
        for request, call in zip(requests, known, strict=True):
            key = (request.client.model, request.messages)
            if call is None:
                pending.append(partial(self._call, request, self._sent.total(), self._sent[key], cache))
            self._sent[key] += 1
        if any(call and has_no_response(call) for call in known):
            pending.clear()
        try:
            if (at_once := requests[0].client.at_once) is None:
                all(has_response() for has_response in pending)
            else:
                run_concurrently(pending, at_once)
        except NotRecordedError as error:
            refusal = error
        found = match_calls(requests, self._unused)
        for call in filter(None, found):
            self._unused.remove(call)
        return found, refusal

    def _call(self, request: ClientRequest, number: int, repetition: int, cache: bool) -> bool:
        """Whether a response of any kind came."""
        client, messages, seed = request.client, request.messages, request.seed

        def complete() -> LLMCall:
            self.before_call()
            call = client.complete(messages, self.stage, seed, number, repetition)
            return self._recorded(replace(call, not_sent=(*dict.fromkeys((*request.withheld, *call.not_sent)),)))

        call = response_cache.get_response(client, messages, seed, complete, repetition) if cache else complete()
        if cache and call.reused == response_cache.REUSED:
            self._recorded(replace(call, stage=self.stage))
        return not has_no_response(call)

    def _recorded(self, call: LLMCall) -> LLMCall:
        """The call, recorded before anything else happens: it is paid for."""
        with self._recording:
            self.record(call)
            self._unused.append(call)
        return call


def has_no_response(call: LLMCall) -> bool:
    """Whether no response came at all; the same request would fail the same way."""
    return call.error is not None and call.answered is None


def match_calls(requests: Sequence[ClientRequest], calls: Sequence[LLMCall]) -> list[LLMCall | None]:
    """The call that belongs to each request, None if there is none; each belongs to one request.

    The messages must be the same, and the seed if one was sent, unless a request would go without a call: a resumed
    run may have other attempts, and then draws its seeds in another order.
    """
    left = list(calls)
    found: list[LLMCall | None] = [None] * len(requests)
    for by_seed in (True, False):
        for i, request in enumerate(requests):
            if found[i] is None:
                found[i] = next((call for call in left if matches_request(call, request, by_seed)), None)
                left = [call for call in left if call is not found[i]]
    return found


def matches_request(call: LLMCall, request: ClientRequest, by_seed: bool) -> bool:
    """Whether a call has the request's messages and, if `by_seed`, no other seed."""
    same_seed = call.parameters.get("seed", request.seed) == request.seed
    return call.messages == request.messages and (same_seed or not by_seed)
