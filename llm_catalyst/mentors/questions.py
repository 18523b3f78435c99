"""The questions of one consultation: each is answered by what is known already, or by a client."""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from llm_catalyst.mentors import answer_cache
from llm_catalyst.mentors.clients import Client
from llm_catalyst.mentors.consultation import Consultation
from llm_catalyst.records import Exchange, Message


class Questions:
    """Asks in order, whichever of the mentor and its fallbacks wants to know.

    What a run that was cut off has asked is taken as it happened then, failures included, so that a resumed
    consultation goes the way of the first one.
    """

    def __init__(self, consultation: Consultation) -> None:
        self._consultation = consultation
        self._kept = deque(consultation.answered)
        self._asked: list[tuple[str, tuple[Message, ...]]] = []

    def ask(self, client: Client, messages: Sequence[Message], seed: int, cache: bool) -> Exchange:
        """The answer to `messages`, which is on the disk when it is given back.

        Raises what `before_call` raises, and NotRecorded.
        """
        number, asked = len(self._asked), (client.model, tuple(messages))
        repetition = self._asked.count(asked)
        self._asked.append(asked)
        if self._kept and self._kept[0].messages == tuple(messages):
            return self._kept.popleft()

        def anew() -> Exchange:
            self._consultation.before_call()
            exchange = client.complete(messages, self._consultation.stage, seed, number)
            self._consultation.record(exchange)  # before anything else: it is paid for
            return exchange

        if not cache:
            return anew()
        exchange = answer_cache.answer(client.model, client.parameters(seed), messages, anew, repetition)
        if exchange.reused == answer_cache.REUSED:
            exchange = replace(exchange, stage=self._consultation.stage)
            self._consultation.record(exchange)
        return exchange
