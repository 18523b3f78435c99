"""The driver of a strategy's dialogue: many questions, replies in mind, a memory, and answers that fail on the way."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from helpers import loopback
from helpers.dialogues import after, talk
from helpers.loopback import error, openai_chat, serve
from helpers.tiny import consultation

from llm_catalyst.mentors.base import MentorContext
from llm_catalyst.mentors.clients.openai import OpenAIChat
from llm_catalyst.mentors.controls import NoMentor
from llm_catalyst.mentors.llm import LanguageModel, MentorError
from llm_catalyst.mentors.reply_parser import parse_proposals
from llm_catalyst.mentors.strategies.base import Dialogue, Request, Strategy
from llm_catalyst.runs.records import Advice, LLMCall, Message, Rejected
from llm_catalyst.utils.signals import BudgetExceededError
from llm_catalyst.utils.validation import ConfigurationError


@dataclass(frozen=True)
class Twice(Strategy):
    """Asks for a direction, then for prompts along it, then once more; remembers how often it was asked."""

    proposals: int = 4
    temperature: float | None = None

    def propose(self, context: MentorContext) -> Dialogue:
        (direction,) = yield (self.question("Which way?", lambda reply: ([reply] if "way" in reply else [], []), 0),)
        found = []
        for number in (1, 2):
            asked = f"{number}. Prompts along {direction.texts}, drawn: {context.rng.random():.3f}"
            (reply,) = yield (self.question(asked, parse_proposals, 2),)
            found += reply.proposals
        dropped = Rejected("x", "by the strategy")
        return Advice(tuple(found), (dropped,), memory={"asked": context.memory.get("asked", 0) + 1})

    def question(self, text: str, parse: Callable[[str], Any], prompts: int) -> Request:
        return Request((Message("user", text),), prompts, "Again.", parse, self.temperature, "along it")


def test_each_question_has_the_replies_before_it_in_mind_and_all_prompts_are_proposed() -> None:
    said = talk(
        Twice(), consultation(), "this way", "- it was great\n- a fine story\n- the mood", "- tell me\n- it was great"
    )
    assert [exchange.messages[-1].content[:26] for exchange in said.exchanges] == [
        "Which way?",
        "1. Prompts along ('this wa",
        "2. Prompts along ('this wa",
    ]
    assert said.texts == ["it was great it", "a fine story a", "tell me tell me"]
    assert {proposal.rationale for proposal in said.advice.proposals} == {"along it"}
    assert [rejected.reason for rejected in said.advice.rejected] == [
        "more than asked for",
        "the same tokens as a prompt that was scored, or as another proposal",
        "by the strategy",
    ]


def test_what_a_strategy_remembers_comes_back_at_its_next_consultation() -> None:
    first = talk(Twice(), consultation(), "this way", "- it was great", "- tell me")
    assert first.advice.memory == {"asked": 1}
    again = after(consultation(), first.advice, [0.2, 0.4])
    assert [entry.prompt.text for entry in again.pool[-2:]] == ["is it good or", "it was great it"]
    second = talk(Twice(), again, "that way", "- it was great\n- the mood", "- a story")
    assert second.advice.memory == {"asked": 2}
    assert second.texts == ["the mood the mood", "a story a story"]


def test_a_question_that_brings_nothing_is_asked_again_and_then_left(monkeypatch: pytest.MonkeyPatch) -> None:
    said = talk(Twice(), consultation(), "no idea", "none", "- it was great", "...", "???")
    assert [exchange.messages[-1].content[:9] for exchange in said.exchanges] == [
        "Which way",
        "Again.",
        "1. Prompt",
        "2. Prompt",
        "Again.",
    ]
    assert "along ()" in said.exchanges[2].messages[0].content
    assert said.texts == ["it was great it"]
    assert said.advice.fallback is None


def test_a_dialogue_without_any_usable_answer_is_a_failure_that_says_why() -> None:
    said = talk(Twice(), consultation(), "no", "...", "...", attempts=1)
    assert said.advice.fallback == "no usable proposal in the answer"
    assert said.advice.proposals == ()


@dataclass(frozen=True)
class Modest(Twice):
    """Understands every answer, and finds no prompt good enough."""

    def propose(self, context: MentorContext) -> Dialogue:
        yield (self.question("Which way?", lambda reply: ([reply], []), 0),)
        return Advice(memory={"seen": 1})


def test_a_strategy_may_propose_nothing_without_having_failed() -> None:
    said = talk(Modest(), consultation(), "this way")
    assert said.advice == Advice(memory={"seen": 1})
    with serve(openai_chat("this way")) as server:
        client = OpenAIChat("m", server.url + "/v1", None)
        mentor = LanguageModel(client, Modest(), on_unusable="stop", fallbacks=[NoMentor()])
        assert mentor.propose(consultation()) == Advice(memory={"seen": 1})


def test_what_was_paid_for_is_proposed_where_the_provider_goes_away() -> None:
    exchanges: list[LLMCall] = []
    with serve(openai_chat("this way"), openai_chat("- it was great"), error(401, "no")) as server:
        client = OpenAIChat("m", server.url + "/v1", None, retry_s=0)
        mentor = LanguageModel(client, Twice(), on_failure="fallback")
        advice = mentor.propose(replace(consultation(), record=exchanges.append))
    assert [proposal.prompt.text for proposal in advice.proposals] == ["it was great it"]
    assert (advice.fallback, advice.memory) == (None, None)
    assert len(server.requests) == len(exchanges) == 3


def test_a_run_that_stopped_amid_a_consultation_asks_only_the_rest_when_it_is_resumed() -> None:
    """The failure stands in the record, even before an answer: it is tried again, and what was paid for is used."""
    whole = talk(Twice(), consultation(), "this way", "- it was great", "- tell me")
    exchanges: list[LLMCall] = []
    replies = {"Which way": "this way", "1. Prompt": "- it was great", "2. Prompt": "- tell me"}
    failing = {"1. Prompt"}

    def reply(request: loopback.Request) -> loopback.Response:
        asked = request.body["messages"][-1]["content"][:9]
        return error(401, "no") if asked in failing else openai_chat(replies[asked])

    with serve(reply=reply) as server:
        mentor = LanguageModel(OpenAIChat("m", server.url + "/v1", None, retry_s=0, at_once=2), Twice())
        with pytest.raises(MentorError, match=r"did not answer after stage 1: .*no"):
            mentor.propose(replace(consultation(), record=exchanges.append))
        failing.clear()
        before = len(server.requests)
        for answered in (exchanges, sorted(exchanges, key=lambda call: call.error is None)):
            resumed = mentor.propose(replace(consultation(), answered=tuple(answered)))
            assert resumed == whole.advice
    assert len(server.requests) - before == 2 * 2


def test_a_temperature_stands_for_the_mentors_own_unless_that_is_null() -> None:
    assert talk(Twice(temperature=0.9), consultation(), "way", "- it was", "- tell").temperatures == [0.9] * 3
    assert talk(Twice(), consultation(), "way", "- it was", "- tell").temperatures == [0.3] * 3
    with serve(openai_chat("way"), openai_chat("- it was"), openai_chat("- tell")) as server:
        client = OpenAIChat("m", server.url + "/v1", None, temperature=None)
        LanguageModel(client, Twice(temperature=0.9)).propose(consultation())
    assert not any("temperature" in request.body for request in server.requests)


@pytest.mark.parametrize("kept", [1, 2])
def test_a_dialogue_that_was_cut_off_goes_on_with_the_same_questions_and_asks_only_the_rest(kept: int) -> None:
    replies = ["this way", "- it was great", "- tell me"]
    whole = talk(Twice(), consultation(), *replies)
    answered = tuple(whole.exchanges[:kept])
    rest = talk(Twice(), replace(consultation(), answered=answered), *replies[kept:])
    assert rest.advice == whole.advice
    assert [e.messages for e in rest.exchanges] == [e.messages for e in whole.exchanges[kept:]]


def test_a_budget_is_asked_for_before_every_question() -> None:
    calls: list[int] = []

    def before_call() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise BudgetExceededError("enough")

    with serve(openai_chat("way"), openai_chat("- it was")) as server:
        client = OpenAIChat("m", server.url + "/v1", None)
        with pytest.raises(BudgetExceededError):
            LanguageModel(client, Twice()).propose(replace(consultation(), before_call=before_call))
    assert len(server.requests) == 2


def test_a_truncated_answer_in_free_text_is_used_and_of_prompts_the_last_is_not() -> None:
    with serve(
        openai_chat("this way", "length"), openai_chat("- it was great\n- a fine", "length"), openai_chat("- tell me")
    ) as server:
        advice = LanguageModel(OpenAIChat("m", server.url + "/v1", None), Twice()).propose(consultation())
    assert [proposal.prompt.text for proposal in advice.proposals] == ["it was great it", "tell me tell me"]


def test_nothing_can_be_tried_where_there_is_no_model() -> None:
    bare = MentorContext(
        *(getattr(consultation(), name) for name in ("task", "pool", "stage", "stages", "space", "rng", "record"))
    )
    with pytest.raises(NotImplementedError, match="no model at hand"):
        bare.attempt([], [])


def test_a_strategy_with_bounds_names_its_key() -> None:
    from llm_catalyst.mentors.strategies.paper import Paper

    with pytest.raises(ConfigurationError, match=r"strategy\.proposals=0 is too small"):
        Paper(proposals=0)
