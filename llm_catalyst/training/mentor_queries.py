"""What a mentor is asked about after a stage, and its advice: awaited at once, or while the next stage goes on."""

import random
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from llm_catalyst.mentors.background import start_call, wait_for
from llm_catalyst.mentors.base import Mentor, MentorContext, overlaps
from llm_catalyst.runs.records import Advice, Emit, LLMCall, ScoredPrompt
from llm_catalyst.training.checkpointing import Checkpointer
from llm_catalyst.training.evaluation import known_scores
from llm_catalyst.training.problem import Problem
from llm_catalyst.training.prompt_probe import PromptProbe
from llm_catalyst.training.state import State
from llm_catalyst.utils.rng import derive_seed


@dataclass(frozen=True)
class MentorScheduler:
    """The mentor of a run of so many stages, and how it is asked.

    With `mentor.overlap` the question after a stage is put when the next one begins, and the advice is used at the end
    of that. What it is about and what comes of it do not depend on when the answer comes, nor on whether the run is
    resumed meanwhile: the state says what the mentor is shown, and an answer changes it only when it is used.
    """

    problem: Problem
    mentor: Mentor
    stages: int
    safe: Checkpointer
    emit: Emit

    @property
    def overlaps(self) -> bool:
        """Whether the mentor answers while a stage goes on."""
        return overlaps(self.mentor)

    def ask(self, state: State) -> tuple[State, Advice]:
        """The advice after this stage, and the state that has paid for it; prompts may be tried on the model."""
        trials = PromptProbe(self.problem, state)
        context = replace(
            self._make_context(state, state.stage, state.pool),
            before_call=lambda: self.safe.before_call(trials.paid(self._paid(state, state.stage)).ledger),
            attempt=trials.attempt,
            hints=trials.hints,
        )
        advice = self.mentor.propose(context)
        return trials.paid(self._paid(state, state.stage)).remembering(advice), advice

    def note(self, state: State, left: Sequence[int]) -> State:
        """The state after a stage that says whether, and about what, the mentor is asked while the next one goes on.

        There must be a stage after that one, in which the advice can be used.
        """
        asked = len(left) > 1 and self.safe.mentor_may_speak(state, self.emit)
        return replace(state, shown=state.pool if asked else None)

    def begin(self, state: State) -> "Future[Advice] | None":
        """The advice about the stage before this one, for which the mentor is asked from now on, if it is (`note`)."""
        if state.shown is None:
            return None
        context = self._make_context(state, state.stage - 1, state.shown)
        return start_call(lambda: self.mentor.propose(context))

    def collect(self, advice: "Future[Advice]", state: State) -> tuple[State, Advice]:
        """The advice that was begun, and the state that has paid for it. Raises what the mentor raised."""
        told = wait_for(advice)
        return self._paid(state, state.stage - 1).remembering(told), told

    def _make_context(self, state: State, stage: int, pool: tuple[ScoredPrompt, ...]) -> MentorContext:
        directory = self.safe.directory
        entries = [entry for entry in directory.scored() if entry.stage <= stage]

        def before_call() -> None:
            directory.refuse_closed()
            self.safe.before_call(self._paid(state, stage).ledger)

        return MentorContext(
            task=self.problem.description,
            pool=pool,
            scored=known_scores(self.problem, replace(state, stage=stage), entries),
            stage=stage,
            stages=self.stages,
            space=self.problem.space,
            rng=random.Random(derive_seed(self.problem.settings.seed, "mentor", stage)),
            record=self.emit,
            answered=up_to_the_last_answer(directory.answered(stage)),
            before_call=before_call,
            memory=state.memory,
        )

    def _paid(self, state: State, stage: int) -> State:
        return state.paid(self.safe.directory.answered(stage))


def up_to_the_last_answer(exchanges: Sequence[LLMCall]) -> tuple[LLMCall, ...]:
    """What a resumed run need not ask again. Failures after it are: they may be mended, as MentorFailed says."""
    last = max((i for i, exchange in enumerate(exchanges) if exchange.answered is not None), default=-1)
    return tuple(exchanges[: last + 1])
