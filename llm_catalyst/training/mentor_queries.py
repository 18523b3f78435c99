"""Requests to the mentor after each stage: answered at once, or while the next stage trains (`mentor.overlap`)."""

import random
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from llm_catalyst.mentors.background import start_call, wait_for
from llm_catalyst.mentors.base import Mentor, MentorContext
from llm_catalyst.runs.records import Advice, Emit, LLMCall, ScoredPrompt
from llm_catalyst.training.checkpointing import Checkpointer
from llm_catalyst.training.evaluation import known_scores
from llm_catalyst.training.problem import Problem
from llm_catalyst.training.prompt_probe import PromptProbe
from llm_catalyst.training.state import State
from llm_catalyst.utils.rng import derive_seed


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
        probe = PromptProbe(self.problem, state)
        context = replace(
            self._make_context(state, state.stage, state.pool),
            before_call=lambda: self.checkpointer.check_budget(probe.paid(self._paid(state, state.stage)).ledger),
            attempt=probe.attempt,
            hints=probe.hints,
        )
        advice = self.mentor.propose(context)
        return probe.paid(self._paid(state, state.stage)).remembering(advice), advice

    def plan_request(self, state: State, left: Sequence[int]) -> State:
        """The state after a stage that says about which pool the mentor is asked while the next of `left` trains.

        About none where no stage comes after that one, in which the advice could be used.
        """
        asked = len(left) > 1 and self.checkpointer.allows_mentor(state, self.emit)
        return replace(state, shown=state.pool if asked else None)

    def start_request(self, state: State) -> "Future[Advice] | None":
        """The coming advice about the stage before this one, where `plan_request` has planned that request."""
        if state.shown is None:
            return None
        context = self._make_context(state, state.stage - 1, state.shown)
        return start_call(lambda: self.mentor.propose(context))

    def collect_advice(self, advice: "Future[Advice]", state: State) -> tuple[State, Advice]:
        """The advice of `start_request`, and the state with its cost. Raises what the mentor raised."""
        received = wait_for(advice)
        return self._paid(state, state.stage - 1).remembering(received), received

    def _make_context(self, state: State, stage: int, pool: tuple[ScoredPrompt, ...]) -> MentorContext:
        entries = [entry for entry in state.scored if entry.stage <= stage]

        def before_call() -> None:
            self.checkpointer.directory.refuse_closed()
            self.checkpointer.check_budget(self._paid(state, stage).ledger)

        return MentorContext(
            task=self.problem.description,
            pool=pool,
            scored=known_scores(self.problem, replace(state, stage=stage), entries),
            stage=stage,
            stages=self.stages,
            space=self.problem.space,
            rng=random.Random(derive_seed(self.problem.settings.seed, "mentor", stage)),
            record=self._record,
            answered=up_to_the_last_answer(self._calls_of(stage)),
            before_call=before_call,
            memory=state.memory,
        )

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
