"""What a mentor will cost: calls, tokens and dollars, from the questions that it will be asked."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llm_catalyst.mentors.base import Mentor, MentorContext, Trial
from llm_catalyst.mentors.clients.base import Client
from llm_catalyst.mentors.clients.human import Human
from llm_catalyst.mentors.clients.replay import Replay
from llm_catalyst.mentors.conversation import run_dialogue
from llm_catalyst.mentors.llm import LanguageModel, apply_history
from llm_catalyst.mentors.pricing import compute_cost
from llm_catalyst.mentors.strategies.base import Request, Response, Strategy
from llm_catalyst.runs.records import Prompt, Proposal, Score, ScoredPrompt
from llm_catalyst.training.problem import Problem
from llm_catalyst.training.prompt_probe import HINT_TOKENS
from llm_catalyst.utils.rng import derive_seed, make_generator

AROUND_A_PROPOSAL = 3  # tokens of an answer beside each prompt: the dash, the line's end
WORDS_OF_ITS_OWN = 150  # tokens of an answer that is no prompt: a critique, a direction


@dataclass(frozen=True)
class MentorCost:
    """Calls of language models, their tokens, and US dollars: None, never zero, where a price is not known."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = 0.0


@dataclass(frozen=True)
class CostAccount:
    """What a mentor takes in a run: where its first answers are used, and the most.

    `unpriced` are the models without a known price, `tried` the training examples on which it tries prompts.
    """

    usual: MentorCost
    most: MentorCost
    unpriced: tuple[str, ...]
    tried: int


def estimate_mentor_cost(problem: Problem, mentor: Mentor, pools: Sequence[int], stages: int) -> CostAccount:
    """What the mentor will take; `pools` are the numbers of prompts in the pool at each consultation."""
    usual: list[MentorCost] = []
    most: list[MentorCost] = []
    unpriced: dict[str, None] = {}
    tried = 0
    memories: dict[int, Mapping[str, Any]] = {}
    for stage, size in enumerate(pools):
        context = apply_history(imagine_context(problem, stage, stages, size), getattr(mentor, "history", True))
        for number, who in enumerate(list_mentors(mentor)):
            if not isinstance(who, LanguageModel) or isinstance(who.client, Replay):
                continue
            talk = Talk(replace(context, memory=memories.get(number, {})), who.strategy)
            memories[number] = talk.memory
            tried += talk.tried * (who is mentor)
            for question in talk.questions:
                answer = question.prompts * (problem.space.length + AROUND_A_PROPOSAL) or WORDS_OF_ITS_OWN
                longest = getattr(who.client, "max_tokens", answer)
                attempts = question_tokens(context, question, who.attempts, longest)
                if who is mentor:
                    usual.append(cost_of_call(who.client, attempts[0], min(answer, longest)))
                calls = [cost_of_call(who.client, tokens, longest) for tokens in attempts]
                if any(bill.cost_usd is None for bill in calls):
                    unpriced[who.client.model] = None
                most += calls
    return CostAccount(sum_costs(usual), sum_costs(most), tuple(unpriced), tried)


def list_mentors(mentor: Mentor) -> list[Mentor]:
    """The mentor, and those that stand in for it."""
    return [mentor, *getattr(mentor, "fallbacks", ())]


def imagine_context(problem: Problem, stage: int, stages: int, size: int) -> MentorContext:
    """A consultation whose pool holds random prompts, about as long as real ones; their scores are made up."""
    generator = make_generator(problem.settings.seed, "estimate", stage)
    made_up = Score(1.0, 0.5, len(problem.splits["dev"]))
    pool = tuple(ScoredPrompt(problem.space.sample(generator), made_up, "gradient", stage) for _ in range(size))
    near = problem.space.allowed_ids[0]
    return MentorContext(
        task=problem.description,
        pool=pool,
        stage=stage,
        stages=stages,
        space=problem.space,
        rng=random.Random(derive_seed(problem.settings.seed, "estimate", stage)),
        record=lambda exchange: None,
        scored=pool,
        hints=lambda prompts: [tuple((near,) * HINT_TOKENS for _ in prompt.tokens) for prompt in prompts],
    )


class Talk:
    """An imagined consultation, in which every answer is usable: what is asked, tried and remembered."""

    def __init__(self, context: MentorContext, strategy: Strategy) -> None:
        self.questions: list[Request] = []
        self.tried = 0
        self._space, self._generator = context.space, make_generator(context.stage, "answers")
        advice = run_dialogue(strategy.propose(replace(context, attempt=self._attempt)), self._answers)
        self.memory = context.memory if advice.memory is None else advice.memory

    def _answers(self, questions: Sequence[Request]) -> tuple[Response, ...]:
        self.questions += questions
        return tuple(map(self._answer, questions))

    def _answer(self, question: Request) -> Response:
        if not question.prompts:
            return Response(texts=("a " * WORDS_OF_ITS_OWN,))
        return Response(tuple(Proposal(self._space.sample(self._generator)) for _ in range(question.prompts)))

    def _attempt(self, prompts: Sequence[Prompt], rows: Sequence[int]) -> list[list[Trial]]:
        self.tried += len(prompts) * len(rows)
        return [[Trial(1.0, 0, row % 2 == 0) for row in rows] for _ in prompts]


def question_tokens(context: MentorContext, question: Request, attempts: int, answer: int) -> list[int]:
    """Tokens of what each attempt sends, after unusable answers of `answer` tokens; by the backbone's tokenizer."""
    tokenizer, messages = context.space.tokenizer, list(question.messages)
    tokens = []
    for _ in range(attempts):
        texts = [message.content for message in messages]
        tokens.append(sum(map(len, tokenizer(texts, add_special_tokens=False, verbose=False).input_ids)))
        messages += question.remind("a " * answer)
    return tokens


def cost_of_call(client: Client, question: int, answer: int) -> MentorCost:
    """One call; what a person reads and types is not counted."""
    if isinstance(client, Human):
        return MentorCost(1)
    return MentorCost(1, question, answer, compute_cost(client.model, question, answer) if client.paid else 0.0)


def sum_costs(bills: Sequence[MentorCost]) -> MentorCost:
    """The sum of bills; its price is unknown where that of one is."""
    costs = [bill.cost_usd for bill in bills if bill.cost_usd is not None]
    return MentorCost(
        calls=sum(bill.calls for bill in bills),
        input_tokens=sum(bill.input_tokens for bill in bills),
        output_tokens=sum(bill.output_tokens for bill in bills),
        cost_usd=sum(costs) if len(costs) == len(bills) else None,
    )
