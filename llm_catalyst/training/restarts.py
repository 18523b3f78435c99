"""The restart between two stages: the candidates, which of them the next stage starts from, and the record of it.

The candidates are a mentor's proposals and, where `restart.choose` says so, the prompt that was trained so far.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from llm_catalyst.optimizers.base import Member
from llm_catalyst.runs import records
from llm_catalyst.runs.records import Advice, Criterion, Emit, Proposal, Score
from llm_catalyst.training.evaluation import score_on_dev, score_prompts
from llm_catalyst.training.problem import Problem
from llm_catalyst.training.scoring import Results
from llm_catalyst.training.state import State


@dataclass(frozen=True)
class Candidate:
    """A point that the next stage may start from.

    Args:
        proposal: The mentor's; of the running prompt, its projection.
        prompt: The soft prompt (m, d) there; None is the running one.
        score: Its score on dev; None where that is not finite, or was not taken.
        losses: Its loss (n,) on each row of dev in nats, where that is known.
    """

    proposal: Proposal
    prompt: Tensor | None
    score: Score | None = None
    losses: Tensor | None = None

    def rank(self, criterion: Criterion) -> tuple[float, float]:
        """A sort key, larger for the better one, the least without a score."""
        return self.score.rank_by(criterion) if self.score else (-math.inf, -math.inf)


def restart_stage(problem: Problem, state: State, advice: Advice, emit: Emit) -> State:
    """The state whose members start the next stage from the candidates that `restart.choose` names."""
    if advice.fallback:
        state, advice = use_fallback(state, advice, emit)
    elif advice.instead:
        emit(records.Event(state.stage, state.step, "fallback", advice.instead))
    if not advice.proposals:
        return state
    shown = len(state.pool if state.shown is None else state.shown)
    settings, running = problem.settings.restart, describe_running(problem, state)
    state, candidates = rank_proposals(problem, state, advice, emit)
    chosen = choose_candidates(candidates, running, problem)
    record_restarts(problem, state, chosen, candidates, running, advice, shown, emit)
    members = tuple(start_member(state.members[0], one, problem, state.step) for one in chosen)
    return replace(state, members=members, racing=settings.choose == "race" and len(members) > 1)


def start_member(member: Member, candidate: Candidate, problem: Problem, step: int) -> Member:
    """The member that trains on from a candidate; the running one with everything that it has."""
    if candidate.prompt is None:
        return member
    return member.restarted(candidate.prompt, problem.settings.restart.moments, step)


def describe_running(problem: Problem, state: State) -> Candidate:
    """The running prompt as a candidate."""
    (prompt,), _ = problem.project(state.parameters[:1])
    return Candidate(Proposal(prompt, "the running prompt"), None, state.score, state.losses)


def rank_proposals(problem: Problem, state: State, advice: Advice, emit: Emit) -> tuple[State, list[Candidate]]:
    """The proposals as candidates with their dev scores, the best first, and the state with their cost.

    With `restart.choose=first` unscored and in their own order. The text of a proposal enters the pool with a score of
    its own; the projection of a soft prompt that a mentor proposes, which is another prompt, does not.
    """
    prompts = [proposal.prompt for proposal in advice.proposals]
    texts, carried = advice.rows, None
    if texts is None:
        texts, carried = problem.space.embed_each(prompts), carry_residual(problem, state)
    rows = [row.to(problem.device) if carried is None else row + carried for row in texts]
    unscored = [Candidate(*pair) for pair in zip(advice.proposals, rows, strict=True)]
    results: Results
    if problem.settings.restart.choose == "first":
        return state, unscored
    if advice.rows is None:
        state, results = enter_pool(problem, state, advice.proposals, emit)
    if advice.rows is not None or carried is not None:
        state, results = score_on_dev(problem, state, [{**state.parameters[0], "prompt": row} for row in rows])
    pairs = zip(unscored, results, strict=True)
    found = [replace(one, score=result.score, losses=result.losses) if result else one for one, result in pairs]
    return state, sorted(found, key=lambda one: one.rank(problem.settings.prompt_criterion), reverse=True)


def enter_pool(problem: Problem, state: State, proposals: Sequence[Proposal], emit: Emit) -> tuple[State, Results]:
    """The state whose pool has the texts of the proposals, and their results on dev."""
    prompts = [proposal.prompt for proposal in proposals]
    state, scored, results = score_prompts(problem, state, dict.fromkeys(prompts, "mentor"), emit)
    state = state.with_pool([*state.pool, *scored], problem.settings.pool.size, problem.settings.prompt_criterion)
    found = dict(zip(dict.fromkeys(prompts), results, strict=True))
    return state, [found[prompt] for prompt in prompts]


def carry_residual(problem: Problem, state: State) -> Tensor | None:
    """What `restart.carry` adds to the tokens of a proposal: that share of P - embed(project(P)), (m, d).

    P is the running prompt. None where there is nothing to add: with prompt.fill=none prompts are tokens.
    """
    if problem.settings.prompt.as_written:
        return None
    running = state.parameters[0]["prompt"]
    (tokens,) = problem.space.embed(problem.project(state.parameters[:1])[0])
    residual = problem.settings.restart.carry * (running - tokens)
    return residual if residual.any() else None


def choose_candidates(candidates: Sequence[Candidate], running: Candidate, problem: Problem) -> list[Candidate]:
    """Those of the ranked candidates that `restart.choose` starts the next stage from."""
    settings, criterion = problem.settings.restart, problem.settings.prompt_criterion
    match settings.choose:
        case "all":
            return list(candidates)
        case "race":
            return [*(one for one in candidates if one.score), running]
        case "if_better":
            return [candidates[0] if candidates[0].rank(criterion) > running.rank(criterion) else running]
    return [candidates[0]]


def record_restarts(
    problem: Problem,
    state: State,
    chosen: Sequence[Candidate],
    candidates: Sequence[Candidate],
    running: Candidate,
    advice: Advice,
    shown: int,
    emit: Emit,
) -> None:
    """Emit a record for each point from which the next stage starts, with all that were considered."""
    considered = tuple((one.proposal, one.score) for one in candidates)
    spread = problem.space.spread([one.proposal.prompt for one in candidates])
    for i, one in enumerate(chosen):
        rationale = f": {one.proposal.rationale}" * bool(one.proposal.rationale)
        reason = f"{problem.settings.restart.choose} of {len(considered)}{rationale}"
        difference, error = (None, None) if one.prompt is None else compare_losses(one.losses, running.losses)
        restart = records.Restart(
            stage=state.stage,
            member=i,
            prompt=one.proposal.prompt,
            reason=reason,
            score_before=state.score,
            score=one.score,
            considered=considered,
            rejected=advice.rejected,
            fallback=advice.fallback,
            spread=spread,
            difference=difference,
            error=error,
            kept=one.prompt is None,
            distinct=state.distinct[-1] if state.distinct else None,
            shown=shown,
        )
        emit(restart)


def compare_losses(losses: Tensor | None, before: Tensor | None) -> tuple[float | None, float | None]:
    """The mean of losses - before over the rows of dev, and its standard error; None where it cannot be said."""
    if losses is None or before is None or len(losses) < 2:
        return None, None
    difference = losses.double() - before.double()
    return difference.mean().item(), difference.std().item() / math.sqrt(len(difference))


def use_fallback(state: State, advice: Advice, emit: Emit) -> tuple[State, Advice]:
    """The advice of a mentor that could not answer, with the pool's best as its proposal."""
    emit(records.Event(state.stage, state.step, "fallback", f"{advice.fallback}; the pool's best restarts"))
    proposals = tuple(Proposal(scored.prompt, "the pool's best") for scored in state.pool[-1:])
    return replace(state, fallbacks=state.fallbacks + 1), replace(advice, proposals=proposals)
