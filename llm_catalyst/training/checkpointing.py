"""Save checkpoints; stop on a signal or an exhausted budget."""

import time
from dataclasses import replace
from pathlib import Path

import torch

from llm_catalyst.callbacks.base import RunCallback
from llm_catalyst.config.settings import Budget, Settings, SweepSettings
from llm_catalyst.runs.reader import FILES
from llm_catalyst.runs.records import Emit, Event, ScoredPrompt, Snapshot, Usage
from llm_catalyst.runs.spending import sum_folder
from llm_catalyst.runs.writer import RunDirectory
from llm_catalyst.training.state import State, pack_state, unpack_state
from llm_catalyst.utils.format import format_duration
from llm_catalyst.utils.memory import PassLimits
from llm_catalyst.utils.signals import BudgetExceededError, SignalHandler


class Checkpointer:
    """Saves the state of one run, and measures its time, from which a resumed run continues."""

    def __init__(self, directory: RunDirectory, settings: Settings, signals: SignalHandler, limits: PassLimits) -> None:
        self.directory, self.settings, self.signals, self.limits = directory, settings, signals, limits
        self._began = self._saved = time.monotonic()
        self._saved_step = 0

    @property
    def seconds(self) -> float:
        """Seconds that the run has taken so far, those before it was resumed included."""
        return time.monotonic() - self._began

    def restore(self, emit: Emit, callback: RunCallback, device: torch.device) -> State | None:
        """The newest state that was saved, if any; the callback then gets the records that led to it."""
        restored = self.directory.restore(emit)
        if restored is None:
            return None
        state = unpack_state(*restored, device)
        trajectory = tuple(s for s in self.directory.read(Snapshot) if s.stage == state.stage)
        state = replace(state, trajectory=trajectory, scored=self.directory.read(ScoredPrompt))
        self._began -= state.seconds
        if state.room:
            self.limits.narrow(*state.room)
        self._saved_step = state.step
        callback.on_resume(state.stage, state.step, [record for kind in FILES for record in self.directory.read(kind)])
        return state

    def after_step(self, state: State) -> None:
        """Within a stage: save where that is due, or before the run stops."""
        spent = self._minutes_spent()
        due = self.settings.checkpoint.due(state.step - self._saved_step, time.monotonic() - self._saved)
        if spent or due or self.signals.number is not None:
            self.checkpoint(state)
        self._end(spent)

    def checkpoint(self, state: State) -> State:
        """Save a state within a stage."""
        state = self._stamp(state)
        self.directory.checkpoint(state.stage, state.step, *pack_state(state))
        return state

    def end_stage(self, stage: int, state: State, last: bool) -> State:
        """Save the end of a stage; stop there where the run must.

        After the last stage only a signal stops it: the rest costs no more than a score on test.
        """
        state = self._stamp(state)
        self.directory.commit(stage, *pack_state(state))
        self._end(self._minutes_spent() and not last)
        return state

    def check_budget(self, ledger: Usage, estimated: int = 0) -> None:
        """Raise BudgetExceededError where a mentor may not be asked any more, unless budget.when_spent=conclude.

        `estimated` are the tokens of answers without usage, which the ledger lacks.
        The cost of calls under way is not known: with `at_once` of them, that of `at_once` - 1 may come on top.
        """
        if self.settings.budget.when_spent == "stop" and (why := spent_budget(self.settings.budget, ledger, estimated)):
            raise BudgetExceededError(why)
        check_sweep_budget(self.settings.sweep)

    def allows_mentor(self, state: State, emit: Emit, estimated: int = 0) -> bool:
        """Whether the mentor is asked: not once its budget is spent (budget.when_spent=conclude); an event says so."""
        concludes = self.settings.budget.when_spent == "conclude"
        why = spent_budget(self.settings.budget, state.ledger, estimated) if concludes else ""
        if why:
            emit(Event(state.stage, state.step, "budget", f"{why}; the mentor is asked no more"))
        return not why

    def _stamp(self, state: State) -> State:
        """The state with the time and the limits at which it is saved."""
        self._saved, self._saved_step = time.monotonic(), state.step
        return replace(state, seconds=self.seconds, room=(self.limits.examples, self.limits.tokens))

    def _minutes_spent(self) -> bool:
        minutes = self.settings.budget.minutes
        return minutes is not None and self.seconds >= 60 * minutes

    def _end(self, minutes_spent: bool) -> None:
        self.signals.check()
        if minutes_spent:
            raise BudgetExceededError(
                f"budget.minutes={self.settings.budget.minutes:g} is used up: the run has taken "
                f"{format_duration(self.seconds)}"
            )


def check_sweep_budget(sweep: SweepSettings) -> None:
    """Raise BudgetExceededError where the runs of a sweep have together used up its budget.

    Calls under way do not count yet: with n runs at a time, those of n - 1 may come on top.
    """
    budget = sweep.budget
    if sweep.folder is None or (budget.usd is None and budget.tokens is None):
        return
    used, estimated = sum_folder(Path(sweep.folder))
    tokens = used.input_tokens + used.output_tokens + estimated
    if budget.usd is not None and used.unpriced:
        raise BudgetExceededError(
            f"sweep.budget.usd={budget.usd:g} cannot be kept: an answer in {sweep.folder} has no known price; "
            "sweep.budget.tokens can"
        )
    if budget.usd is not None and used.cost_usd >= budget.usd:
        raise BudgetExceededError(
            f"sweep.budget.usd={budget.usd:g} is used up: the runs in {sweep.folder} have spent ${used.cost_usd:.4f}"
        )
    if budget.tokens is not None and tokens >= budget.tokens:
        raise BudgetExceededError(
            f"sweep.budget.tokens={budget.tokens:,} is used up: the runs in {sweep.folder} have exchanged {tokens:,}"
        )


def spent_budget(budget: Budget, ledger: Usage, estimated: int = 0) -> str:
    """The part of its budget that a run's mentor has used up, in words; '' where something is left of each.

    `estimated` tokens, of answers that came without usage, are added to those of the ledger.
    """
    if budget.usd is not None and ledger.unpriced_calls:
        return (
            f"budget.usd={budget.usd:g} cannot be kept: an answer has no known price (conf/models.yaml); "
            "budget.tokens can"
        )
    scored, tokens = ledger.scored_examples, ledger.input_tokens + ledger.output_tokens + estimated
    note = f", {estimated:,} of them estimated: answers came without usage" if estimated else ""
    limits = (
        (budget.usd, ledger.cost_usd, "usd={:g} is used up: ${:.4f} is spent"),
        (budget.tokens, tokens, "tokens={:,} is used up: {:,} tokens are spent" + note),
        (budget.scored_examples, scored, "scored_examples={:,} is used up: {:,} examples are scored"),
    )
    spent = [words.format(most, used) for most, used, words in limits if most is not None and used >= most]
    return f"budget.{spent[0]}" if spent else ""
