"""Answers without a model: lines of words from the question. For a rehearsal of a run that will be paid for."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from llm_catalyst.mentors.clients.http import Answer, make_call
from llm_catalyst.runs.records import LLMCall, Message
from llm_catalyst.utils.rng import derive_seed
from llm_catalyst.utils.validation import check_at_least

WORD = re.compile(r"[^\W\d_]{2,}")
QUOTED = re.compile(r'"(.*)"')  # how prompts stand in a question


@dataclass(frozen=True)
class MockModel:
    """The `mentor.client` node of a rehearsal: `lines` lines of 3 to `words` words, which the question quotes.

    It knows nothing: what it proposes is a random mixture of the prompts that it is shown. Every strategy can read its
    answers, so that a whole run, its records and its report can be seen before a model is paid. Its tokens are words.
    """

    model: ClassVar[str] = "rehearsal"
    paid: ClassVar[bool] = False
    background: ClassVar[bool] = True

    lines: int = 8
    words: int = 8

    def __post_init__(self) -> None:
        check_at_least("mentor.client.lines", self.lines, 1)
        check_at_least("mentor.client.words", self.words, 3)

    def preflight(self) -> None:
        """Nothing can fail."""

    def reach(self) -> None:
        """Nothing: nobody is asked."""

    def parameters(self, seed: int) -> dict[str, float | int | str]:
        """What the answer depends on, beside the question."""
        return {"lines": self.lines, "words": self.words, "seed": seed}

    def complete(
        self, messages: Sequence[Message], stage: int, seed: int, number: int = 0, repetition: int = 0
    ) -> LLMCall:
        """The answer as an exchange, the same for the same question and seed. Costs no money."""
        parameters = self.parameters(seed)
        return make_call(
            lambda: self._answer(messages, seed),
            messages=messages,
            stage=stage,
            model=self.model,
            parameters=parameters,
            free=True,
        )

    def _answer(self, messages: Sequence[Message], seed: int) -> Answer:
        question = "\n".join(message.content for message in messages)
        vocabulary = WORD.findall("\n".join(QUOTED.findall(question))) or WORD.findall(question) or ["anything"]
        rng = random.Random(derive_seed(seed, question))
        lines = [" ".join(rng.choices(vocabulary, k=rng.randint(3, self.words))) for _ in range(self.lines)]
        reply = "\n".join(f"- {line}" for line in lines)
        tokens = len(question.split()), len(reply.split())
        return Answer(reply, self.model, *tokens, stop_reason="stop")
