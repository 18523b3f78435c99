"""Strategies driven through a real server: what a model is shown, and what comes of its answers."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from unittest import mock

from helpers.loopback import openai_chat, serve
from helpers.tiny import conversation

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.clients.openai import OpenAIChat
from llm_catalyst.mentors.llm import LanguageModel
from llm_catalyst.mentors.strategies.base import Request, Strategy
from llm_catalyst.runs.records import Advice, LLMCall, Score, ScoredPrompt


@dataclass
class Talk:
    """A consultation that took place: its advice, the exchanges, and the temperature of each request."""

    advice: Advice
    exchanges: list[LLMCall] = field(default_factory=list)
    temperatures: list[float | None] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        """The proposals, as texts."""
        return [proposal.prompt.text for proposal in self.advice.proposals]

    @property
    def transcript(self) -> str:
        """All that was said, and what came of it, as a golden file has it."""
        said = [
            f"##### question {i}, temperature {temperature}\n{conversation(exchange.messages)}"
            f"=== answer ===\n{exchange.reply}\n"
            for i, (exchange, temperature) in enumerate(zip(self.exchanges, self.temperatures, strict=True), start=1)
        ]
        proposed = [f"{p.prompt.text!r} {p.rationale}".strip() for p in self.advice.proposals]
        rejected = [f"{r.line!r}: {r.reason}" for r in self.advice.rejected]
        end = ["##### proposals", *proposed, "##### rejected", *rejected, f"##### memory {self.advice.memory}"]
        return "".join(said) + "\n".join(end) + "\n"


def first_request(strategy: Strategy, context: MentorContext) -> Request:
    """The first request of a consultation."""
    return next(strategy.propose(context))[0]


def talk(strategy: Strategy, consultation: MentorContext, *replies: str, attempts: int = 2) -> Talk:
    """The advice of a language model that gives these replies one by one, and nothing more."""
    exchanges: list[LLMCall] = []
    with serve(*map(openai_chat, replies)) as server, mock.patch.dict(os.environ, TEST_KEY="test-key-0123456789abcdef"):
        client = OpenAIChat("gpt-4o-mini", server.url + "/v1", "TEST_KEY", 0.3, timeout_s=5, retry_s=0, at_once=1)
        mentor = LanguageModel(client, strategy, attempts=attempts, on_failure="fallback")
        advice = mentor.propose(replace(consultation, record=exchanges.append))
    assert not server.script, "a scripted reply was never asked for"
    return Talk(advice, exchanges, [request.body.get("temperature") for request in server.requests])


def after(consultation: MentorContext, advice: Advice, losses: Sequence[float], size: int = 10) -> MentorContext:
    """The next consultation of a run without gradient steps: the proposals were scored, and the memory is at hand."""
    new = [
        ScoredPrompt(proposal.prompt, Score(loss, max(0.0, 1 - loss), 32), "mentor", consultation.stage)
        for proposal, loss in zip(advice.proposals, losses, strict=True)
    ]
    entries = tuple(sorted((*consultation.scored, *new), key=lambda entry: -entry.score.loss))
    memory = consultation.memory if advice.memory is None else advice.memory
    return replace(consultation, stage=consultation.stage + 1, pool=entries[-size:], scored=entries, memory=memory)
