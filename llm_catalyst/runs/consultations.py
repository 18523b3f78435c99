"""A mentor's consultations: what it was asked after a stage, what it answered, and what became of its proposals."""

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

from llm_catalyst.runs.reader import RunRecords
from llm_catalyst.runs.records import LLMCall, Proposal, Rejected, Score
from llm_catalyst.runs.restart_effects import RestartEffect, Role, find_role, trace_restarts
from llm_catalyst.utils.validation import get_nested

Status = Literal["answered", "reused", "failed", "no answer yet"]
Fate = Literal["lower", "within the error", "higher", "error unknown", "not chosen", "fallback", "not used"]
DESCRIPTIONS: dict[Fate, str] = {
    "lower": "its proposal restarted, with a lower loss there",
    "within the error": "its proposal restarted, with the same loss there, within the error",
    "higher": "its proposal restarted, with a higher loss there",
    "error unknown": "its proposal restarted; the error of the difference is not known",
    "not chosen": "training went on from the running prompt",
    "fallback": "nothing usable; the pool's best restarted",
    "not used": "no restart followed",
}


@dataclass(frozen=True)
class Consultation:
    """The calls about one stage, and the restarts that followed from them.

    `effects` has one restart, or several where all proposals trained side by side; none where the mentor's advice was
    never used.
    """

    stage: int
    calls: tuple[LLMCall, ...]
    effects: tuple[RestartEffect, ...]

    @property
    def proposals(self) -> tuple[tuple[Proposal, Score | None], ...]:
        """The proposals that were considered, with the scores of the points from which training would start."""
        return self.effects[0].restart.considered if self.effects else ()

    @property
    def rejected(self) -> tuple[Rejected, ...]:
        """The lines of the answer that became no proposal."""
        return self.effects[0].restart.rejected if self.effects else ()

    @property
    def fallback(self) -> str | None:
        """Why the pool's best took the place of the mentor's proposals; None where it did not."""
        return next((effect.restart.fallback for effect in self.effects if effect.restart.fallback), None)

    @property
    def leading(self) -> RestartEffect | None:
        """The restart that trained on: of several side by side the winner, or before that the lowest loss."""
        known = [effect for effect in self.effects if effect.won] or self.effects
        return min(known, key=lambda effect: effect.at.loss if effect.at else math.inf, default=None)

    def role(self, proposal: Proposal) -> Role:
        """What became of this proposal."""
        return find_role(self.effects, proposal.prompt)

    @property
    def status(self) -> Status:
        """Whether a model has answered the last call."""
        if not self.calls:
            return "no answer yet"
        last = self.calls[-1]
        return "failed" if last.error is not None else "reused" if last.reused is not None else "answered"

    @property
    def fate(self) -> Fate:
        """What became of the proposals; of one that restarted, what the restart itself did to the loss."""
        leading = self.leading
        if leading is None:
            return "not used"
        if self.fallback:
            return "fallback"
        return "not chosen" if leading.restart.kept else leading.change or "error unknown"


def collect_consultations(run: RunRecords) -> list[Consultation]:
    """The consultations of language models in a run, in order.

    With `mentor.overlap` the advice about a stage is used at the end of the next one.
    """
    later = int(bool(get_nested(run.config, "mentor", "overlap")))
    calls = defaultdict[int, list[LLMCall]](list)
    for call in run.exchanges:
        calls[call.stage].append(call)
    effects = defaultdict[int, list[RestartEffect]](list)
    for effect in trace_restarts(run):
        effects[effect.restart.stage - later].append(effect)
    return [Consultation(stage, tuple(calls[stage]), tuple(effects[stage])) for stage in sorted(calls)]
