"""What a mentor will cost: calls, tokens and dollars, from the questions that it will be asked."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from llm_catalyst.mentors.clients import Client
from llm_catalyst.mentors.clients.human import Human
from llm_catalyst.mentors.clients.replay import Replay
from llm_catalyst.mentors.consultation import Consultation, Mentor, Trial
from llm_catalyst.mentors.language_model import LanguageModel, carry_on, shown
from llm_catalyst.mentors.prices import cost
from llm_catalyst.mentors.strategies import Question, Reply, Strategy
from llm_catalyst.problem import Problem
from llm_catalyst.randomness import derive, stream
from llm_catalyst.records import Proposal, Score, Scored
from llm_catalyst.trials import HINT_TOKENS

AROUND_A_PROPOSAL = 3  # tokens of an answer beside each prompt: the dash, the line's end
WORDS_OF_ITS_OWN = 150  # tokens of an answer that is no prompt: a critique, a direction


@dataclass(frozen=True)
class Bill:
    """Calls of language models, their tokens, and US dollars: None, never zero, where a price is not known."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = 0.0


def bills(problem: Problem, mentor: Mentor, pools: Sequence[int], stages: int) -> tuple[Bill, Bill, tuple[str, ...]]:
    """What the mentor costs where its first answers are used, the most, and the models without a known price.

    `pools` are the numbers of prompts in the pool at each consultation.
    """
    usual: list[Bill] = []
    most: list[Bill] = []
    unpriced: dict[str, None] = {}
    for stage, size in enumerate(pools):
        consultation = shown(imagined(problem, stage, stages, size), getattr(mentor, "history", True))
        for who in asked(mentor):
            if not isinstance(who, LanguageModel) or isinstance(who.client, Replay):
                continue
            for question in imagined_questions(consultation, who.strategy):
                answer = question.prompts * (problem.space.length + AROUND_A_PROPOSAL) or WORDS_OF_ITS_OWN
                longest = getattr(who.client, "max_tokens", answer)
                attempts = question_tokens(consultation, question, who.attempts, longest)
                if who is mentor:
                    usual.append(call(who.client, attempts[0], min(answer, longest)))
                calls = [call(who.client, tokens, longest) for tokens in attempts]
                if any(bill.cost_usd is None for bill in calls):
                    unpriced[who.client.model] = None
                most += calls
    return together(usual), together(most), tuple(unpriced)


def asked(mentor: Mentor) -> list[Mentor]:
    """The mentor, and those that stand in for it."""
    return [mentor, *getattr(mentor, "fallbacks", ())]


def imagined(problem: Problem, stage: int, stages: int, size: int) -> Consultation:
    """A consultation whose pool holds random prompts, about as long as real ones; their scores are made up."""
    generator = stream(problem.settings.seed, "estimate", stage)
    made_up = Score(1.0, 0.5, len(problem.splits["dev"]))
    pool = tuple(Scored(problem.space.sample(generator), made_up, "gradient", stage) for _ in range(size))
    near = problem.space.decode(problem.space.allowed_ids[:1])
    return Consultation(
        task=problem.description,
        pool=pool,
        stage=stage,
        stages=stages,
        space=problem.space,
        rng=random.Random(derive(problem.settings.seed, "estimate", stage)),
        record=lambda exchange: None,
        scored=pool,
        attempt=lambda prompts, rows: [[Trial(1.0, 0, i % 2 == 0) for i in rows] for _ in prompts],
        hints=lambda prompts: [tuple((near,) * HINT_TOKENS for _ in prompt.tokens) for prompt in prompts],
    )


def imagined_questions(consultation: Consultation, strategy: Strategy) -> list[Question]:
    """What a strategy asks in a consultation in which every answer is usable. It remembers nothing of those before."""
    questions: list[Question] = []
    space, generator = consultation.space, stream(consultation.stage, "answers")

    def answered(question: Question) -> Reply:
        questions.append(question)
        if not question.prompts:
            return Reply(texts=("a " * WORDS_OF_ITS_OWN,))
        return Reply(tuple(Proposal(space.sample(generator)) for _ in range(question.prompts)))

    carry_on(strategy.propose(consultation), answered)
    return questions


def question_tokens(consultation: Consultation, question: Question, attempts: int, answer: int) -> list[int]:
    """Tokens of what each attempt sends, after unusable answers of `answer` tokens; by the backbone's tokenizer."""
    tokenizer, messages = consultation.space.tokenizer, list(question.messages)
    tokens = []
    for _ in range(attempts):
        texts = [message.content for message in messages]
        tokens.append(sum(map(len, tokenizer(texts, add_special_tokens=False, verbose=False).input_ids)))
        messages += question.remind("a " * answer)
    return tokens


def call(client: Client, question: int, answer: int) -> Bill:
    """One call; what a person reads and types is not counted."""
    if isinstance(client, Human):
        return Bill(1)
    return Bill(1, question, answer, cost(client.model, question, answer) if client.paid else 0.0)


def together(bills: Sequence[Bill]) -> Bill:
    """The sum of bills; its price is unknown where that of one is."""
    costs = [bill.cost_usd for bill in bills if bill.cost_usd is not None]
    return Bill(
        calls=sum(bill.calls for bill in bills),
        input_tokens=sum(bill.input_tokens for bill in bills),
        output_tokens=sum(bill.output_tokens for bill in bills),
        cost_usd=sum(costs) if len(costs) == len(bills) else None,
    )
