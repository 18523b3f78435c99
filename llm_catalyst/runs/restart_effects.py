"""What a restart did to the loss on dev, and which of several restart points trained on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from llm_catalyst.runs.reader import RunRecords
from llm_catalyst.runs.records import Criterion, Evaluation, Prompt, Restart, Score, ScoredPrompt
from llm_catalyst.utils.format import format_count
from llm_catalyst.utils.validation import get_nested

Change = Literal["lower", "higher", "within the error"]
Role = Literal["not chosen", "restart", "won", "lost"]
TRAINING = "what the loss does after a restart is the work of training, which lowers it without a mentor, too"
CARRIED = "with what was learned, carried over"


@dataclass(frozen=True)
class RestartEffect:
    """A restart's effect: the dev score before it, its own, and that after the stage it started.

    `ended` is False if that stage is not over: `after` is then its latest score. `snapshots` counts the projections
    that were recorded in the stage before it. `rivals` counts the points that began the stage with this one, side by
    side, and `won` says whether it was the best of them: None where that is not decided, or where there is no other.
    `alone` has the dev scores of the texts that were considered, by themselves.
    """

    restart: Restart
    before: Score | None
    at: Score | None
    after: Score | None
    ended: bool
    snapshots: int
    rivals: int = 0
    won: bool | None = None
    alone: Mapping[Prompt, Score] = field(default_factory=dict)

    @property
    def change(self) -> Change | None:
        """What the restart itself did to the loss; None where there was none, or its error is not known."""
        restart = self.restart
        if restart.kept or restart.difference is None or restart.error is None:
            return None
        return "within the error" if restart.within_error else "lower" if restart.difference < 0 else "higher"

    @property
    def shown(self) -> str | None:
        """What the mentor saw of the stage before; None in runs of revisions that did not record it."""
        if self.restart.distinct is None or self.restart.shown is None:
            return None
        prompts = f"{self.restart.distinct} of {format_count(self.snapshots, 'projection')} in the stage differ"
        return f"{prompts}; {format_count(self.restart.shown, 'prompt')} stood in the pool"

    @property
    def carries(self) -> bool:
        """Whether the scores of the considered points may differ from those of their texts alone."""
        return carries_over(self.restart, self.alone)


def trace_restarts(run: RunRecords) -> list[RestartEffect]:
    """The effect of each restart, stage by stage."""
    found, criterion = list[RestartEffect](), read_criterion(run)
    for stage in sorted({restart.stage for restart in run.restarts}):
        later = any(entry.stage > stage for entry in run.pool) or any(e.stage > stage + 1 for e in run.metrics)
        together = [restart for restart in run.restarts if restart.stage == stage]
        ended, snapshots = later or run.outcome is not None, sum(s.stage == stage for s in run.trajectory)
        found += trace_stage(together, run.metrics, run.pool, ended, criterion, snapshots)
    return found


def trace_stage(
    restarts: Sequence[Restart],
    evaluations: Iterable[Evaluation],
    pool: Iterable[ScoredPrompt],
    ended: bool,
    criterion: Criterion = "loss",
    snapshots: int = 0,
) -> list[RestartEffect]:
    """The effects of the restarts after one stage, side by side if there are several."""
    dev = [e for e in evaluations if e.split == "dev" and e.stage == restarts[0].stage + 1] if restarts else []
    alone = score_texts(restarts[0], pool) if restarts else {}
    winner = find_winner(dev, criterion, ended) if len(restarts) > 1 else None
    found = []
    for restart in restarts:
        own = [e for e in dev if e.member == restart.member]
        found.append(
            RestartEffect(
                restart,
                before=restart.score_before,
                at=restart.score,
                after=max(own, key=lambda e: e.step).score if own else None,
                ended=ended,
                snapshots=snapshots,
                rivals=len(restarts) - 1,
                won=None if winner is None else winner == restart.member,
                alone=alone,
            )
        )
    return found


def read_criterion(run: RunRecords) -> Criterion:
    """That by which the run ranks members (`Settings.prompt_criterion`)."""
    return "metric" if get_nested(run.config, "criterion") == "metric" else "loss"


def find_winner(dev: Sequence[Evaluation], criterion: Criterion, ended: bool) -> int | None:
    """The member that trained on, from the evaluations on dev of a stage that several began; None if not decided yet.

    Once a race is over, only the winner is evaluated. A stage that all of them trained to its end, which has `ended`,
    goes on from the best of the last evaluation.
    """
    last = [e for e in dev if e.step == max(e.step for e in dev)]
    if len(last) == 1 or (last and ended):
        return max(last, key=lambda e: e.score.rank_by(criterion)).member
    return None


def score_texts(restart: Restart, pool: Iterable[ScoredPrompt]) -> dict[Prompt, Score]:
    """The dev scores that the considered texts have by themselves, under the head of the restart, where recorded."""
    considered = {proposal.prompt for proposal, _ in restart.considered}
    return {entry.prompt: entry.score for entry in pool if entry.stage == restart.stage and entry.prompt in considered}


def carries_over(restart: Restart, alone: Mapping[Prompt, Score]) -> bool:
    """Whether a considered point may have another score than its text alone, as restart.carry makes it."""
    return any(score is not None and alone.get(proposal.prompt) != score for proposal, score in restart.considered)


def find_role(effects: Sequence[RestartEffect], prompt: Prompt) -> Role:
    """What became of a considered prompt, from the effects of one stage: of several restart points one won."""
    own = [effect for effect in effects if effect.restart.prompt == prompt and not effect.restart.kept]
    if not own:
        return "not chosen"
    if all(effect.won is None for effect in own):
        return "restart"
    return "won" if any(effect.won for effect in own) else "lost"


def group_effects(effects: Iterable[RestartEffect]) -> list[list[RestartEffect]]:
    """The effects by stage, in order."""
    stages: dict[int, list[RestartEffect]] = {}
    for effect in effects:
        stages.setdefault(effect.restart.stage, []).append(effect)
    return list(stages.values())
