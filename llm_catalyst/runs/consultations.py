"""A mentor's consultations: what it was asked after a stage, what it answered, and what became of its proposals."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

from llm_catalyst.runs.analysis import RestartEffect, trace_restarts
from llm_catalyst.runs.reader import RunRecords
from llm_catalyst.runs.records import LLMCall, Proposal, Rejected, Score
from llm_catalyst.utils.validation import get_nested

Status = Literal["answered", "reused", "failed", "no answer yet"]
Fate = Literal["better", "not better", "not chosen", "fallback", "not used", "still training"]
DESCRIPTIONS: dict[Fate, str] = {
    "better": "the stage from its proposal ended with a lower loss",
    "not better": "the stage from its proposal did not end with a lower loss",
    "not chosen": "training went on from the running prompt",
    "fallback": "nothing usable; the pool's best restarted",
    "not used": "no restart followed",
    "still training": "the stage from its proposal is not over",
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

    def is_chosen(self, proposal: Proposal) -> bool:
        """Whether the next stage started from this proposal."""
        return any(e.restart.prompt == proposal.prompt and not e.restart.kept for e in self.effects)

    @property
    def status(self) -> Status:
        """Whether a model has answered the last call."""
        if not self.calls:
            return "no answer yet"
        last = self.calls[-1]
        return "failed" if last.error is not None else "reused" if last.reused is not None else "answered"

    @property
    def fate(self) -> Fate:
        """What became of the proposals: better, where the loss after the stage is below that before the restart."""
        if not self.effects:
            return "not used"
        if self.fallback:
            return "fallback"
        started = [effect for effect in self.effects if not effect.restart.kept]
        if not started:
            return "not chosen"
        if not any(effect.ended for effect in started):
            return "still training"
        return "better" if any(effect.better for effect in started) else "not better"


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
