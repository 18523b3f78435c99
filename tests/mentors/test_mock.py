"""A mentor without a model: its answers are words of the question, and any strategy can read them."""

from dataclasses import replace

import pytest
from helpers.tiny import consultation

from llm_catalyst.mentors.clients.mock import MockModel
from llm_catalyst.mentors.llm import LanguageModel
from llm_catalyst.mentors.strategies.paper import Paper
from llm_catalyst.runs.records import LLMCall, Message
from llm_catalyst.utils.validation import ConfigurationError


def test_proposals_are_mixed_from_the_quoted_prompts_and_cost_nothing() -> None:
    exchanges: list[LLMCall] = []
    mentor = LanguageModel(MockModel(), Paper())
    mentor.preflight()
    mentor.check_reachable()
    advice = mentor.propose(replace(consultation(), record=exchanges.append))
    (exchange,) = exchanges
    assert len(advice.proposals) == 3
    lines = [line.removeprefix("- ").split() for line in exchange.reply.splitlines()]
    assert len(lines) == 8
    assert all(3 <= len(line) <= 8 for line in lines)
    assert {word for line in lines for word in line} <= {
        "dull",
        "of",
        "odd",
        "ing",
        "is",
        "it",
        "good",
        "or",
        "bad",
    } | {"é", "ub"}
    assert (exchange.cost_usd, mentor.unpriced_models(), exchange.billed) == (0, [], True)
    assert exchange.output_tokens == len(exchange.reply.split())


def test_the_same_question_and_seed_bring_the_same_answer_and_others_another() -> None:
    client, question = MockModel(), [Message("user", "Say it in other words, please.")]
    first, again = (client.complete(question, 0, 1).reply for _ in range(2))
    assert first == again
    assert client.complete(question, 0, 2).reply != first
    assert client.complete([Message("user", "Say it.")], 0, 1).reply != first
    assert client.complete([Message("user", "1 + 1 = ?")], 0, 1).reply.startswith("- anything")


def test_bad_settings_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"mentor\.client\.lines=0 is too small"):
        MockModel(lines=0)
    with pytest.raises(ConfigurationError, match=r"mentor\.client\.words=2 is too small"):
        MockModel(words=2)
