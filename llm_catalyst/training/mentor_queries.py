"""Requests to the mentor after each stage: answered at once, or while the next stage trains (`mentor.overlap`)."""

import random
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from llm_catalyst.mentors.background import start_call, wait_for
from llm_catalyst.mentors.base import Mentor, MentorContext, Trial
from llm_catalyst.models.base import Parameters, map_alike
from llm_catalyst.models.generator import PromptedGenerator
from llm_catalyst.optimizers.backprop import mean_gradients
from llm_catalyst.optimizers.base import Member
from llm_catalyst.runs.records import Advice, Emit, LLMCall, Prompt
from llm_catalyst.runs.spending import estimate_tokens
from llm_catalyst.tasks.batching import Batch
from llm_catalyst.training.checkpointing import Checkpointer
from llm_catalyst.training.evaluation import known_scores
from llm_catalyst.training.generation_scoring import generate_answers
from llm_catalyst.training.problem import Problem
from llm_catalyst.training.scoring import score_examples
from llm_catalyst.training.state import State
from llm_catalyst.utils.rng import derive_seed, make_generator

HINT_EXAMPLES = 64  # training examples over which a prompt's gradient is taken
HINT_TOKENS = MOVE_TOKENS = 3  # tokens named for each row
# In lengths of a row: with a shorter step the nearest tokens are its neighbours (figures: scripts/bench/README.md).
STEP = 4.0


@dataclass(frozen=True)
class MentorScheduler:
    """Asks the mentor of a run of `stages` stages.

    With `mentor.overlap` the request about a stage is sent when the next one begins, and its advice is used at the end
    of that. The request and its effect depend neither on when the response comes, nor on whether the run is resumed
    meanwhile: the state says what the mentor is shown, and advice changes it only when it is used.
    `calls` are all calls of language models in this run, those before it was resumed included.
    """

    problem: Problem
    mentor: Mentor
    stages: int
    checkpointer: Checkpointer
    emit: Emit
    calls: list[LLMCall] = field(default_factory=list)

    def request_advice(self, state: State) -> tuple[State, Advice]:
        """The advice after this stage, and the state with its cost; the mentor may try prompts on the model."""
        if self.mentor.proposals and not self.mentor.language_models():  # those check before each call
            self.checkpointer.check_budget(state.ledger)
        probe = PromptProbe(self.problem, state)
        context = self._make_context(state, state.stage, probe)
        advice = self.mentor.propose(replace(context, attempt=probe.attempt, hints=probe.hints))
        return probe.paid(self._paid(state, state.stage)).remembering(advice), advice

    def plan_request(self, state: State, left: Sequence[int]) -> State:
        """The state after a stage that says about which pool the mentor is asked while the next of `left` trains.

        About none where no stage comes after that one, in which the advice could be used.
        """
        asked = len(left) > 1 and self.checkpointer.allows_mentor(state, self.emit, self.estimated_tokens)
        return replace(state, shown=state.pool if asked else None)

    def start_request(self, state: State) -> "Future[Advice] | None":
        """The coming advice about the stage before this one, where `plan_request` has planned that request."""
        if state.shown is None:
            return None
        context = self._make_context(state, state.stage - 1)
        return start_call(lambda: self.mentor.propose(context))

    def collect_advice(self, advice: "Future[Advice]", state: State) -> tuple[State, Advice]:
        """The advice of `start_request`, and the state with its cost. Raises what the mentor raised."""
        received = wait_for(advice)
        return self._paid(state, state.stage - 1).remembering(received), received

    @property
    def estimated_tokens(self) -> int:
        """The tokens of the run's answers that came without usage (see `estimate_tokens`)."""
        return sum(estimate_tokens(call) for call in list(self.calls))

    def _make_context(self, state: State, stage: int, probe: "PromptProbe | None" = None) -> MentorContext:
        entries = [entry for entry in state.scored if entry.stage <= stage]
        sample = [self.mentor.sample] * (self.mentor.sample > 0)

        def before_call() -> None:
            self.checkpointer.directory.refuse_closed()
            paid = self._paid(state, stage)
            ledger = (probe.paid(paid) if probe else paid).ledger
            self.checkpointer.check_budget(ledger, self.estimated_tokens)

        return MentorContext(
            task=self.problem.description,
            pool=state.pool if state.shown is None else state.shown,
            scored=known_scores(self.problem, replace(state, stage=stage), entries),
            stage=stage,
            stages=self.stages,
            space=self.problem.space,
            rng=random.Random(derive_seed(self.problem.settings.seed, "mentor", stage, *sample)),
            record=self._record,
            answered=up_to_the_last_answer(self._calls_of(stage)),
            before_call=before_call,
            memory=state.memory,
            moves=self._name_moves(state) if state.shown is None else (),
        )

    def _name_moves(self, state: State) -> tuple[tuple[int, ...], ...]:
        """For each row of the running prompt, the tokens that point most along its way since the stage began."""
        start, prompt = state.members[0].stage_start, state.parameters[0]["prompt"]
        if start is None or torch.equal(start, prompt):
            return ()
        return tuple(map(tuple, self.problem.space.nearest_directions(prompt - start, MOVE_TOKENS).tolist()))

    def _record(self, call: LLMCall) -> None:
        self.emit(call)
        self.calls.append(call)

    def _calls_of(self, stage: int) -> list[LLMCall]:
        return [call for call in self.calls if call.stage == stage]

    def _paid(self, state: State, stage: int) -> State:
        return state.paid(self._calls_of(stage))


def up_to_the_last_answer(calls: Sequence[LLMCall]) -> tuple[LLMCall, ...]:
    """The calls that a resumed run need not repeat; failures after the last answer may not occur again."""
    last = max((i for i, call in enumerate(calls) if call.answered is not None), default=-1)
    return tuple(calls[: last + 1])


class PromptProbe:
    """The trials of one request for advice, under the head of the state at its beginning; training examples only.

    They cost as much as training and scoring: `paid` adds them to the usage.
    """

    def __init__(self, problem: Problem, state: State) -> None:
        self._problem, self._state = problem, state
        self._scored = self._differentiated = 0

    def paid(self, state: State) -> State:
        """The state with the trials so far in its usage."""
        return state.spent(scored_examples=self._scored, train_examples=self._differentiated)

    def attempt(self, prompts: Sequence[Prompt], rows: Sequence[int]) -> list[list[Trial]]:
        """Each prompt's answers to the training examples `rows`, in their order."""
        if not prompts or not rows:
            return [[] for _ in prompts]
        problem = self._problem
        data = problem.splits["train"].pick(rows)
        members = self._members(prompts)
        self._scored += len(prompts) * len(rows)
        if isinstance(problem.model, PromptedGenerator):
            answered = generate_answers(problem.model, members, problem.requests("train").pick(rows))
            return [[Trial(each.loss, each.response, each.score == 1) for each in one] for one in answered]
        losses, answers = score_examples(problem.model, members, data, problem.padding)
        names = problem.data.labels
        return [
            [
                Trial(loss, names[answer], answer == label)
                for loss, answer, label in zip(*pair, data.labels, strict=True)
            ]
            for pair in zip(losses.tolist(), answers.tolist(), strict=True)
        ]

    def hints(self, prompts: Sequence[Prompt]) -> list[tuple[tuple[int, ...], ...]]:
        """For each prompt and each of its m tokens, the nearest other tokens to e - eta dL/de, nearest first.

        e is the token's embedding, L the mean loss over some training examples, the same for all prompts of a
        request. eta is chosen for each row, so that the step is STEP times as long as e.
        """
        if not prompts:
            return []
        space = self._problem.space
        gradients = torch.cat(self._gradients(prompts))
        self._differentiated += len(prompts) * self._batch.size
        rows = torch.cat(space.embed_each(prompts))
        length = STEP * rows.norm(dim=-1, keepdim=True)
        target = rows - length * torch.nn.functional.normalize(gradients, dim=-1)
        near = space.nearest(target, HINT_TOKENS + 1).split([len(prompt.tokens) for prompt in prompts])
        return [
            tuple(
                tuple([other for other in found if other != token][:HINT_TOKENS])
                for token, found in zip(prompt.tokens, places.tolist(), strict=True)
            )
            for prompt, places in zip(prompts, near, strict=True)
        ]

    def _members(self, prompts: Sequence[Prompt]) -> list[Parameters]:
        head = self._state.parameters[0]
        return [{**head, "prompt": rows} for rows in self._problem.space.embed_each(prompts)]

    @cached_property
    def _batch(self) -> Batch:
        """The examples for gradients, drawn for this stage."""
        problem = self._problem
        train = problem.splits["train"]
        order = torch.randperm(len(train), generator=make_generator(problem.settings.seed, "hints", self._state.stage))
        return train.batch([order[:HINT_EXAMPLES].tolist()], problem.device, problem.padding)

    def _gradients(self, prompts: Sequence[Prompt]) -> list[Tensor]:
        """The gradient (n, d) of each prompt's mean loss in its n embeddings."""
        model = self._problem.model
        model.backbone.train(False)

        def work(alike: Sequence[Parameters]) -> list[Any]:
            members = []
            for parameters in alike:  # of the head, which is shared, no gradient is taken
                fixed = {n: nn.Parameter(tensor, requires_grad=n == "prompt") for n, tensor in parameters.items()}
                members.append(Member(fixed))
            mean_gradients(model, members, self._batch.expand(len(members)))
            return [member.parameters["prompt"].grad for member in members]

        return map_alike(self._members(prompts), work)
