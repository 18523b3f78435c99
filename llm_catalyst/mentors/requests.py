"""The questions of one consultation: each is answered by what is known already, or by a client."""

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from llm_catalyst.mentors import response_cache
from llm_catalyst.mentors.background import run_concurrently
from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.clients.base import Client, NotRecordedError
from llm_catalyst.runs.records import LLMCall, Message


@dataclass(frozen=True)
class ClientRequest:
    """One conversation that a client is to answer; `seed` goes with it where the client takes one."""

    client: Client
    messages: tuple[Message, ...]
    seed: int


class RequestRunner:
    """Asks whatever the mentor and its fallbacks want to know.

    What a run that was cut off has asked is taken as it happened then, failures included, so that a resumed
    consultation goes the way of the first one. Who asks the same question several times without a seed cannot tell the
    answers apart: they are used in the order in which they were recorded, in a resumed consultation and in the first.
    """

    def __init__(self, context: MentorContext) -> None:
        self._context = context
        self._unused = list(context.answered)  # in the order of the record
        self._recording = threading.Lock()
        self._asked: Counter[tuple[str, tuple[Message, ...]]] = Counter()

    def ask(self, requests: Sequence[ClientRequest], cache: bool) -> list[LLMCall | NotRecordedError | None]:
        """What each request brought, in their order; each exchange was on the disk before the next step.

        A provider has as many under way at once as its client's `at_once` says. After one without any answer no further
        one is begun: those have None. Raises what `before_call` raises, when all that are under way have come.
        """
        known = match_calls(requests, self._unused)
        refused: dict[int, NotRecordedError] = {}
        calls = []
        for i, request in enumerate(requests):
            asked = (request.client.model, request.messages)
            call = partial(self._ask, request, self._asked.total(), self._asked[asked], cache)
            self._asked[asked] += 1
            if known[i] is None:
                calls.append(partial(self._goes_on, call, i, refused))
        if any(exchange and has_no_response(exchange) for exchange in known):
            calls.clear()
        at_once: int | None = getattr(requests[0].client, "at_once", None)
        if at_once is None:
            all(call() for call in calls)
        else:
            run_concurrently(calls, at_once)
        found = match_calls(requests, self._unused)
        for exchange in found:
            if exchange is not None:
                self._unused.remove(exchange)
        return [exchange or refused.get(i) for i, exchange in enumerate(found)]

    def _goes_on(self, call: partial[LLMCall], i: int, refused: dict[int, NotRecordedError]) -> bool:
        """Whether there was an answer of any kind; a replay that has none tells it in `refused`."""
        try:
            exchange = call()
        except NotRecordedError as error:
            refused[i] = error
            return False
        return not has_no_response(exchange)

    def _ask(self, request: ClientRequest, number: int, repetition: int, cache: bool) -> LLMCall:
        client, messages, seed = request.client, request.messages, request.seed

        def anew() -> LLMCall:
            self._context.before_call()
            return self._recorded(client.complete(messages, self._context.stage, seed, number, repetition))

        if not cache:
            return anew()
        exchange = response_cache.get_response(client.model, client.parameters(seed), messages, anew, repetition)
        if exchange.reused == response_cache.REUSED:
            self._recorded(replace(exchange, stage=self._context.stage))
        return exchange

    def _recorded(self, exchange: LLMCall) -> LLMCall:
        """The exchange, on the disk before anything else happens to it: it is paid for."""
        with self._recording:
            self._context.record(exchange)
            self._unused.append(exchange)
        return exchange


def has_no_response(exchange: LLMCall) -> bool:
    """Whether nobody answered at all; the same question would fail the same way."""
    return exchange.error is not None and exchange.answered is None


def match_calls(requests: Sequence[ClientRequest], exchanges: Sequence[LLMCall]) -> list[LLMCall | None]:
    """Which of the exchanges answers which request, None where none does; each answers one.

    The messages must be the same, and the seed where it was sent, unless a request would go without: a run may go on
    with other attempts, and then draws its seeds in another order.
    """
    left = list(exchanges)
    found: list[LLMCall | None] = [None] * len(requests)
    for by_seed in (True, False):
        for i, request in enumerate(requests):
            if found[i] is None:
                found[i] = next((e for e in left if matches_request(e, request, by_seed)), None)
                left = [exchange for exchange in left if exchange is not found[i]]
    return found


def matches_request(exchange: LLMCall, request: ClientRequest, by_seed: bool) -> bool:
    """Whether an exchange has the request's messages and, if that is asked, no other seed."""
    same_seed = exchange.parameters.get("seed", request.seed) == request.seed
    return exchange.messages == request.messages and (same_seed or not by_seed)
