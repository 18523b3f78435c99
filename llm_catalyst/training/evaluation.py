"""Scores on dev: of soft and discrete prompts, the best state of the run, and the member that trains on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from llm_catalyst.models.base import Parameters
from llm_catalyst.optimizers.base import Member, StepResult
from llm_catalyst.runs import records
from llm_catalyst.runs.records import Emit, Origin, Prompt, Proposal, Score, ScoredPrompt
from llm_catalyst.training.problem import Problem
from llm_catalyst.training.scoring import Results
from llm_catalyst.training.state import State, rank_entries

Considered = tuple[tuple[Proposal, Score | None], ...]


def score_on_dev(problem: Problem, state: State, members: Sequence[Parameters]) -> tuple[State, Results]:
    """The members' results on dev (None where the loss is not finite), and the state with their cost."""
    return state.spent(scored_examples=len(members) * len(problem.splits["dev"])), problem.score(members)


def list_scores(results: Results) -> list[Score | None]:
    """The scores of these results."""
    return [result.score if result else None for result in results]


def evaluate_members(problem: Problem, state: State, emit: Emit) -> tuple[State, list[Score | None]]:
    """The members' dev scores (None where not finite), and the state that remembers the best of the run."""
    state, results = score_on_dev(problem, state, state.parameters)
    state, projected = score_projections(problem, state, [i for i, result in enumerate(results) if result])
    for i, (result, parameters) in enumerate(zip(results, state.parameters, strict=True)):
        if result is None:
            continue
        measured = result.score, result.metrics, problem.label(result.constant), projected.get(i)
        emit(records.Evaluation(state.stage, state.step, i, "dev", *measured))
        if state.best is None or result.score.better_than(state.best.score):
            (prompt,), (similarity,) = problem.project([parameters])
            best = records.Best(state.stage, state.step, i, result.score, prompt, similarity)
            state = replace(state, best=best, best_parameters={n: p.clone() for n, p in parameters.items()})
    return state, list_scores(results)


def score_projections(problem: Problem, state: State, members: Sequence[int]) -> tuple[State, dict[int, Score | None]]:
    """The dev scores of these members' projections, each under its own head; none unless `evaluate.projected` asks.

    They are scored apart from the soft prompts: whose scores, to the last bit, do not depend on whether this is asked.
    """
    if not members or not problem.settings.evaluate.projected:
        return state, {}
    parameters = [state.parameters[i] for i in members]
    rows = problem.space.embed(problem.project(parameters)[0])
    discrete = [{**member, "prompt": row} for member, row in zip(parameters, rows, strict=True)]
    state, results = score_on_dev(problem, state, discrete)
    return state, dict(zip(members, list_scores(results), strict=True))


def record_snapshots(problem: Problem, state: State, step: StepResult, emit: Emit) -> State:
    """The state whose trajectory holds the members' projections after this step, of those whose loss is finite."""
    rows = enumerate(zip(step.losses, *problem.project(state.parameters), strict=True))
    place = state.stage, step.number
    snapshots = [records.Snapshot(*place, i, loss, p, s) for i, (loss, p, s) in rows if math.isfinite(loss)]
    for snapshot in snapshots:
        emit(snapshot)
    return replace(state, trajectory=(*state.trajectory, *snapshots))


def record_memory(problem: Problem, state: State, emit: Emit) -> None:
    """Emit an event for each time that memory ran out since the last call."""
    for words in problem.model.limits.take_messages():
        emit(records.Event(state.stage, state.step, "out_of_memory", words))


def settle_stage(state: State, scores: Sequence[Score | None], emit: Emit) -> State:
    """The state with the stage's best member alone, or with the best state of the run if every member diverged."""
    if None in scores:
        message = "loss or gradient was not finite; the best finite state is kept (a smaller optimizer.lr may help)"
        emit(records.Event(state.stage, state.step, "diverged", message))
        state = replace(state, diverged=(*state.diverged, state.stage))
    finite = [(score.loss, i) for i, score in enumerate(scores) if score is not None]
    if finite:
        _, i = min(finite)
        return replace(state, members=(state.members[i],), score=scores[i])
    if state.best is None:
        return replace(state, members=state.members[:1], score=None)
    return replace(state, members=(Member.of(state.best_parameters),), score=state.best.score)


def score_prompts(
    problem: Problem, state: State, prompts: Mapping[Prompt, Origin], emit: Emit
) -> tuple[State, list[ScoredPrompt]]:
    """Discrete prompts, each with its dev score under the current head; those without a finite one are left out.

    The origin of a prompt that the pool holds already stays that of its first proposer.
    """
    results = problem.score_prompts(list(prompts), state.parameters[0])
    origins = {**prompts, **{entry.prompt: entry.origin for entry in state.pool}}
    scored = [ScoredPrompt(p, r.score, origins[p], state.stage) for p, r in zip(prompts, results, strict=True) if r]
    for entry in scored:
        emit(entry)
    record_memory(problem, state, emit)
    state = replace(state, scored=(*state.scored, *scored))
    return state.spent(scored_examples=len(prompts) * len(problem.splits["dev"])), scored


def rank_proposals(
    problem: Problem, state: State, advice: records.Advice, emit: Emit
) -> tuple[State, Considered, Tensor]:
    """The proposals with their dev scores, lowest loss first, and their rows (n, m, d) in the same order.

    With `restart=first` unscored and in their own order. The rows of a mentor that proposes soft prompts are scored
    themselves, and their projections, which are other prompts, do not enter the pool.
    """
    prompts = [proposal.prompt for proposal in advice.proposals]
    rows = problem.space.embed(prompts) if advice.rows is None else advice.rows.to(problem.device)
    if problem.settings.restart == "first":
        return state, tuple((proposal, None) for proposal in advice.proposals), rows
    if advice.rows is None:
        state, scored = score_prompts(problem, state, dict.fromkeys(prompts, "mentor"), emit)
        state = state.with_pool([*state.pool, *scored], problem.settings.pool.size)
        known = {entry.prompt: entry.score for entry in scored}
        scores = [known.get(prompt) for prompt in prompts]
    else:
        state, results = score_on_dev(problem, state, [{**state.parameters[0], "prompt": row} for row in rows])
        scores = list_scores(results)
    losses = [score.loss if score else math.inf for score in scores]
    order = sorted(range(len(rows)), key=losses.__getitem__)
    return state, tuple((advice.proposals[i], scores[i]) for i in order), rows[order]


def record_restarts(
    problem: Problem, state: State, chosen: Considered, considered: Considered, advice: records.Advice, emit: Emit
) -> None:
    """Emit a record for each prompt from which the next stage starts, with all that were considered."""
    spread = problem.space.spread([proposal.prompt for proposal, _ in considered])
    for i, (proposal, score) in enumerate(chosen):
        rationale = f": {proposal.rationale}" * bool(proposal.rationale)
        reason = f"{problem.settings.restart} of {len(considered)}{rationale}"
        choices = considered, advice.rejected, advice.fallback, spread
        emit(records.Restart(state.stage, i, proposal.prompt, reason, state.score, score, *choices))


def known_scores(problem: Problem, state: State, entries: Sequence[ScoredPrompt]) -> tuple[ScoredPrompt, ...]:
    """The entries whose scores are still valid: a trained head has moved since the stages before."""
    trained = problem.model.head.trained
    return rank_entries([entry for entry in entries if entry.stage == state.stage or not trained])


def use_fallback(state: State, advice: records.Advice, emit: Emit) -> tuple[State, records.Advice]:
    """The advice of a mentor that could not answer, with the pool's best as its proposal."""
    emit(records.Event(state.stage, state.step, "fallback", f"{advice.fallback}; the pool's best restarts"))
    proposals = tuple(Proposal(scored.prompt, "the pool's best") for scored in state.pool[-1:])
    return replace(state, fallbacks=state.fallbacks + 1), replace(advice, proposals=proposals)
