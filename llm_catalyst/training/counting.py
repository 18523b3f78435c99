"""Stubs for `run_experiment`, which a dry run carries out on them: they count the work of the run.

No batch is made, nothing is trained, scored or written. Every projection and every proposal is a new random prompt.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch

from llm_catalyst.callbacks.base import RunCallback
from llm_catalyst.config.settings import Budget
from llm_catalyst.mentors.base import Mentor, MentorContext, Trial
from llm_catalyst.mentors.catalogue import TokenCounts, compute_cost
from llm_catalyst.mentors.clients.base import Client
from llm_catalyst.mentors.conversation import run_dialogue
from llm_catalyst.mentors.llm import LanguageModel, apply_history
from llm_catalyst.mentors.strategies.base import Request, Response, Strategy
from llm_catalyst.models.base import Parameters, PromptedModel
from llm_catalyst.optimizers.base import Member, PromptOptimizer, StepResult
from llm_catalyst.optimizers.schedule import StepRange
from llm_catalyst.runs.analysis import MentorUsage
from llm_catalyst.runs.records import Advice, Emit, Outcome, Prompt, Proposal, Record, Score, Split
from llm_catalyst.runs.resolved import Predictions
from llm_catalyst.runs.writer import RunDirectory
from llm_catalyst.tasks.batching import training_rows
from llm_catalyst.training.loop import Experiment, run_experiment
from llm_catalyst.training.mentor_queries import HINT_TOKENS, MOVE_TOKENS
from llm_catalyst.training.problem import Problem
from llm_catalyst.training.scoring import Results, ScoringResult
from llm_catalyst.utils.rng import make_generator

DRAWS = 20  # tries to draw a prompt that was not drawn before
AROUND_A_PROPOSAL = 3  # tokens of a response beside each prompt: the dash, the line's end
WORDS_OF_ITS_OWN = 150  # tokens of a response without prompts: a critique, a direction


@dataclass(frozen=True)
class CountingProblem(Problem):
    """A problem that computes nothing.

    `examples_of` and `tokens_of` hold the examples and tokens of each training batch, for one member; tokens as padded,
    prompts included. `passes` holds for each split the numbers of prompts that were scored together, time after time.
    """

    examples_of: list[int] = field(default_factory=list)
    tokens_of: list[int] = field(default_factory=list)
    passes: dict[Split, list[int]] = field(default_factory=lambda: defaultdict(list))
    drawn: set[Prompt] = field(default_factory=set)
    generator: torch.Generator = field(default_factory=torch.Generator)

    def draw(self) -> Prompt:
        """A random prompt, another one each time."""
        for _ in range(DRAWS):
            prompt = self.space.sample(self.generator)
            if prompt not in self.drawn:
                break
        self.drawn.add(prompt)
        return prompt

    def batches(self, k: int, first_step: int) -> Iterator[Any]:
        """None for each batch, whose size is counted."""
        train, settings = self.splits["train"], self.settings
        for rows in training_rows(train, settings.batch_size, settings.seed, first_step, settings.bucket_batches):
            self.examples_of.append(len(rows))
            self.tokens_of.append(self.count_tokens(train, rows))
            yield None

    def score(self, members: Sequence[Parameters], split: Split = "dev") -> Results:
        """A made-up score for each member."""
        self.passes[split].append(len(members))
        return [ScoringResult(Score(1.0, 0.5, len(self.splits[split])), {"accuracy": 0.5}, None) for _ in members]

    def project(self, members: Sequence[Parameters]) -> tuple[list[Prompt], list[float]]:
        """A random prompt for each member."""
        return [self.draw() for _ in members], [1.0] * len(members)


@dataclass
class CountingOptimizer(PromptOptimizer):
    """An optimizer that takes no step; `members` holds the number of members in each stage."""

    trains: bool
    members: list[int] = field(default_factory=list)

    def train(
        self, model: PromptedModel, members: Sequence[Member], batches: Iterator[Any], step_range: StepRange
    ) -> Iterator[StepResult]:
        """The steps of a stage (see `PromptOptimizer.train`), none of which changes a member."""
        k = len(members)
        self.members.append(k)
        for number, _ in enumerate(islice(batches, step_range.end - step_range.done), step_range.done + 1):
            yield StepResult(number, (0.0,) * k, 0)


class CountingMentor(Mentor):
    """Proposes random prompts in a mentor's place, and counts the requests that the mentor would send.

    `requests` counts the requests for advice. `bill` is the usage if the first response to each request of `mentor` can
    be used, `most` that of all calls that there can be, of fallbacks too. `tried` counts the training examples on which
    the mentor tries prompts.
    """

    def __init__(self, mentor: Mentor, draw: Callable[[], Prompt], trains: bool) -> None:
        self.mentor, self.draw, self.overlap, self.trains = mentor, draw, mentor.overlap, trains
        self.proposals = max(each.proposals for each in (mentor, *mentor.fallbacks))
        self.requests = self.tried = 0
        self.bill = self.most = MentorUsage()
        self._memories: dict[int, Mapping[str, Any]] = {}

    def propose(self, context: MentorContext) -> Advice:
        """As many new prompts as the mentor proposes at most."""
        if not self.proposals:
            return Advice()
        self.requests += 1
        if self.trains and not self.overlap:  # the stub of an optimizer moves nothing
            token = context.space.allowed_ids[0]
            context = replace(context, moves=((token,) * MOVE_TOKENS,) * context.space.length)
        models = self.mentor.language_models()
        for number, model in enumerate(models):
            if not model.client.replays:
                shown = apply_history(context, models[0].history)
                self._count_calls(number, model, replace(shown, memory=self._memories.get(number, {})))
        return Advice(tuple(Proposal(self.draw()) for _ in range(self.proposals)))

    def _count_calls(self, number: int, mentor: LanguageModel, context: MentorContext) -> None:
        requests, tried, self._memories[number] = carry_out_dialogue(context, mentor.strategy)
        self.tried += tried if mentor is self.mentor else 0
        for request in requests:
            usual = request.prompts * (context.space.length + AROUND_A_PROPOSAL) or WORDS_OF_ITS_OWN
            longest = mentor.client.max_tokens or usual
            sent = count_request_tokens(context, request, mentor.attempts, longest)
            self.most = sum((estimate_call(mentor.client, tokens, longest) for tokens in sent), self.most)
            if mentor is self.mentor:
                self.bill += estimate_call(mentor.client, sent[0], min(usual, longest))


def carry_out_dialogue(context: MentorContext, strategy: Strategy) -> tuple[list[Request], int, Mapping[str, Any]]:
    """The requests of a strategy if every response can be used, the examples that it tries prompts on, its memory."""
    space, generator = context.space, make_generator(context.stage, "answers")
    requests: list[Request] = []
    tried: list[int] = []

    def respond(sent: Sequence[Request]) -> tuple[Response, ...]:
        requests.extend(sent)
        drawn = [tuple(Proposal(space.sample(generator)) for _ in range(request.prompts)) for request in sent]
        return tuple(Response(one) if one else Response(texts=("a " * WORDS_OF_ITS_OWN,)) for one in drawn)

    def attempt(prompts: Sequence[Prompt], rows: Sequence[int]) -> list[list[Trial]]:
        tried.append(len(prompts) * len(rows))
        return [[Trial(1.0, "", row % 2 == 0) for row in rows] for _ in prompts]

    def hint(prompts: Sequence[Prompt]) -> list[tuple[tuple[int, ...], ...]]:
        near = (space.allowed_ids[0],) * HINT_TOKENS
        return [tuple(near for _ in prompt.tokens) for prompt in prompts]

    advice = run_dialogue(strategy.propose(replace(context, attempt=attempt, hints=hint)), respond)
    return requests, sum(tried), context.memory if advice.memory is None else advice.memory


def count_request_tokens(context: MentorContext, request: Request, attempts: int, answer: int) -> list[int]:
    """Tokens that each attempt sends, after unusable responses of `answer` tokens; by the backbone's tokenizer."""
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
    cost = compute_cost(client.model, TokenCounts(sent, received), client.base_url) if client.paid else 0.0
    return MentorUsage(1, sent, received, cost_usd=cost or 0.0, unpriced=int(cost is None))


class UnsavedRun(RunDirectory):
    """A run directory that is on no disk and keeps nothing."""

    def __init__(self) -> None: ...

    def restore(self, emit: Emit) -> None: ...

    def read(self, kind: type[Any]) -> tuple[Any, ...]:
        """No record."""
        return ()

    def append(self, record: Record) -> None: ...

    def commit(self, stage: int, tensors: Mapping[str, Any], state: Mapping[str, Any]) -> None: ...

    def checkpoint(self, stage: int, step: int, tensors: Mapping[str, Any], state: Mapping[str, Any]) -> None: ...

    def finish(self, outcome: Outcome, predictions: Predictions | None = None) -> None: ...


def count_work(experiment: Experiment) -> tuple[CountingProblem, CountingOptimizer, CountingMentor]:
    """The work of a run without a budget, in which nothing diverges and no prompt comes twice."""
    problem = experiment.problem
    settings = replace(problem.settings, budget=Budget())
    generator = make_generator(settings.seed, "estimate")
    parts = problem.data, problem.splits, problem.model, problem.space, settings
    counted, stages = CountingProblem(*parts, generator=generator), CountingOptimizer(experiment.optimizer.trains)
    asked = CountingMentor(experiment.mentor, counted.draw, experiment.optimizer.trains)
    run_experiment(Experiment(counted, stages, asked, experiment.plan), UnsavedRun(), RunCallback())
    return counted, stages, asked
