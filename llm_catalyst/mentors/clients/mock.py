"""Responses without a model: lines of words from the request. For a rehearsal of a run that will be paid for."""

import random
import re
from collections.abc import Sequence
from typing import Annotated, Any

from annotated_types import Ge

from llm_catalyst.mentors.clients.base import Client, ClientResponse
from llm_catalyst.runs.records import Message
from llm_catalyst.utils.rng import derive_seed
from llm_catalyst.utils.validation import PositiveInt, config_dataclass

WORD = re.compile(r"[^\W\d_]{2,}")
QUOTED = re.compile(r'"(.*)"')  # how prompts stand in a request


@config_dataclass("mentor.client")
class MockModel(Client):
    """The `mentor.client` node of a rehearsal: `lines` lines of 3 to `words` words, which the request quotes.

    It knows nothing: it proposes a random mixture of the prompts that it is shown. Every strategy can read its
    responses, so that a whole run, its records and its report can be seen before a model is paid. The same request and
    seed give the same response. Its tokens are words.
    """

    model = "rehearsal"
    background = True

    lines: PositiveInt = 8
    words: Annotated[int, Ge(3)] = 8

    def parameters(self, seed: int) -> dict[str, Any]:
        return {"lines": self.lines, "words": self.words, "seed": seed}

    def respond(self, messages: Sequence[Message], seed: int) -> ClientResponse:
        request = "\n".join(message.content for message in messages)
        vocabulary = WORD.findall("\n".join(QUOTED.findall(request))) or WORD.findall(request) or ["anything"]
        rng = random.Random(derive_seed(seed, request))
        lines = [" ".join(rng.choices(vocabulary, k=rng.randint(3, self.words))) for _ in range(self.lines)]
        reply = "\n".join(f"- {line}" for line in lines)
        tokens = len(request.split()), len(reply.split())
        return ClientResponse(reply, self.model, *tokens, stop_reason="stop")
