"""The cost of a mentor in a dry run: calls, tokens and dollars, from the requests that it would be sent."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llm_catalyst.mentors.base import Mentor, MentorContext, Trial
from llm_catalyst.mentors.clients.base import Client
from llm_catalyst.mentors.conversation import run_dialogue
from llm_catalyst.mentors.llm import LanguageModel, apply_history
from llm_catalyst.mentors.pricing import compute_cost
from llm_catalyst.mentors.strategies.base import Request, Response, Strategy
from llm_catalyst.runs.analysis import MentorUsage
from llm_catalyst.runs.records import Advice, Prompt, Proposal
from llm_catalyst.training.prompt_probe import HINT_TOKENS
from llm_catalyst.utils.rng import make_generator

AROUND_A_PROPOSAL = 3  # tokens of an answer beside each prompt: the dash, the line's end
WORDS_OF_ITS_OWN = 150  # tokens of an answer that is no prompt: a critique, a direction


class CountingMentor(Mentor):
    """Proposes random prompts in a mentor's place, and counts what that mentor would be asked.

    `requests` counts the requests for advice; `usual` are the calls of a model whose first answers can be used, `most`
    all calls that there can be, of fallbacks too. `unpriced` are the models without a known price, `tried` counts the
    training examples on which the mentor tries prompts.
    """

    def __init__(self, mentor: Mentor, draw: Callable[[], Prompt]) -> None:
        self.mentor, self.draw, self.overlap = mentor, draw, mentor.overlap
        self.proposals = max(each.proposals for each in (mentor, *mentor.fallbacks))
        self.requests = self.tried = 0
        self.usual: list[MentorUsage] = []
        self.most: list[MentorUsage] = []
        self.unpriced: dict[str, None] = {}
        self._memories: dict[int, Mapping[str, Any]] = {}

    def propose(self, context: MentorContext) -> Advice:
        """As many new prompts as the mentor proposes at most."""
        if not self.proposals:
            return Advice()
        self.requests += 1
        models = self.mentor.language_models()
        for number, model in enumerate(models):
            if not model.client.replays:
                shown = apply_history(context, models[0].history)
                self._count_calls(number, model, replace(shown, memory=self._memories.get(number, {})))
        return Advice(tuple(Proposal(self.draw()) for _ in range(self.proposals)))

    def _count_calls(self, number: int, mentor: LanguageModel, context: MentorContext) -> None:
        talk = Talk(context, mentor.strategy)
        self._memories[number] = talk.memory
        for request in talk.requests:
            answer = request.prompts * (context.space.length + AROUND_A_PROPOSAL) or WORDS_OF_ITS_OWN
            longest = mentor.client.max_tokens or answer
            attempts = count_request_tokens(context, request, mentor.attempts, longest)
            if mentor is self.mentor:
                self.usual.append(estimate_call(mentor.client, attempts[0], min(answer, longest)))
            calls = [estimate_call(mentor.client, tokens, longest) for tokens in attempts]
            if any(call.unpriced for call in calls):
                self.unpriced[mentor.client.model] = None
            self.most += calls
        if mentor is self.mentor:
            self.tried += talk.tried


class Talk:
    """A dialogue of a strategy in which every response can be used: its requests, and its tries of prompts."""

    def __init__(self, context: MentorContext, strategy: Strategy) -> None:
        self.requests: list[Request] = []
        self.tried = 0
        self._space, self._generator = context.space, make_generator(context.stage, "answers")
        context = replace(context, attempt=self._attempt, hints=self._hint)
        advice = run_dialogue(strategy.propose(context), self._respond)
        self.memory = context.memory if advice.memory is None else advice.memory

    def _respond(self, requests: Sequence[Request]) -> tuple[Response, ...]:
        self.requests += requests
        return tuple(
            Response(tuple(Proposal(self._space.sample(self._generator)) for _ in range(request.prompts)))
            if request.prompts
            else Response(texts=("a " * WORDS_OF_ITS_OWN,))
            for request in requests
        )

    def _attempt(self, prompts: Sequence[Prompt], rows: Sequence[int]) -> list[list[Trial]]:
        self.tried += len(prompts) * len(rows)
        return [[Trial(1.0, 0, row % 2 == 0) for row in rows] for _ in prompts]

    def _hint(self, prompts: Sequence[Prompt]) -> list[tuple[tuple[int, ...], ...]]:
        near = (self._space.allowed_ids[0],) * HINT_TOKENS
        return [tuple(near for _ in prompt.tokens) for prompt in prompts]


def count_request_tokens(context: MentorContext, request: Request, attempts: int, answer: int) -> list[int]:
    """Tokens that each attempt sends, after unusable answers of `answer` tokens; by the backbone's tokenizer."""
    tokenizer, messages = context.space.tokenizer, list(request.messages)
    tokens = []
    for _ in range(attempts):
        texts = [message.content for message in messages]
        tokens.append(sum(map(len, tokenizer(texts, add_special_tokens=False, verbose=False).input_ids)))
        messages += request.remind("a " * answer)
    return tokens


def estimate_call(client: Client, sent: int, received: int) -> MentorUsage:
    """The usage of one call, by its tokens; those that a person reads and types are not counted."""
    if client.interactive:
        return MentorUsage(calls=1)
    cost = compute_cost(client.model, sent, received) if client.paid else 0.0
    return MentorUsage(1, sent, received, cost_usd=cost or 0.0, unpriced=int(cost is None))
