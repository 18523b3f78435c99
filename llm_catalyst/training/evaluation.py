"""Scores on dev: of soft and discrete prompts, the best state of the run, and the member that trains on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from llm_catalyst.optimizers.base import Member, StepResult
from llm_catalyst.runs.records import (
    Advice,
    Best,
    Emit,
    Evaluation,
    Event,
    Origin,
    Prompt,
    Proposal,
    Restart,
    Score,
    ScoredPrompt,
)
from llm_catalyst.training.problem import Problem
from llm_catalyst.training.state import State, rank_entries

Considered = tuple[tuple[Proposal, Score | None], ...]


def evaluate_members(problem: Problem, state: State, emit: Emit) -> tuple[State, list[Score | None]]:
    """The members' dev scores (None where not finite), and the state that remembers the best of the run."""
    results = problem.score(state.parameters)
    state = state.spent(scored_examples=len(results) * len(problem.splits["dev"]))
    state, projected = score_projections(problem, state, [i for i, result in enumerate(results) if result])
    for i, (result, parameters) in enumerate(zip(results, state.parameters, strict=True)):
        if result is None:
            continue
        constant = problem.label(result.constant)
        emit(Evaluation(state.stage, state.step, i, "dev", result.score, result.metrics, constant, projected.get(i)))
        if state.best is None or result.score.better_than(state.best.score):
            (prompt,), (similarity,) = problem.project(parameters["prompt"][None])
            best = Best(state.stage, state.step, i, result.score, prompt, similarity)
            state = replace(state, best=best, best_parameters={n: p.clone() for n, p in parameters.items()})
    return state, [result.score if result else None for result in results]


def score_projections(problem: Problem, state: State, members: Sequence[int]) -> tuple[State, dict[int, Score | None]]:
    """The dev scores of these members' projections, each under its own head; none unless `evaluate.projected` asks.

    They are scored apart from the soft prompts: whose scores, to the last bit, do not depend on whether this is asked.
    """
    if not members or not problem.settings.evaluate.projected:
        return state, {}
    parameters = [state.parameters[i] for i in members]
    prompts, _ = problem.project(torch.stack([member["prompt"] for member in parameters]))
    discrete = [
        member | {"prompt": rows} for member, rows in zip(parameters, problem.space.embed(prompts), strict=True)
    ]
    results = problem.score(discrete)
    state = state.spent(scored_examples=len(results) * len(problem.splits["dev"]))
    return state, {i: result.score if result else None for i, result in zip(members, results, strict=True)}


def record_snapshots(problem: Problem, state: State, step: StepResult, emit: Emit) -> State:
    """The state whose trajectory holds the members' projections after this step."""
    snapshots = problem.snapshots(state.stage, step, state.parameters)
    for snapshot in snapshots:
        emit(snapshot)
    return replace(state, trajectory=(*state.trajectory, *snapshots))


def record_memory(problem: Problem, state: State, emit: Emit) -> None:
    """An event for each time that memory ran out since the last call."""
    for words in problem.model.limits.take_messages():
        emit(Event(state.stage, state.step, "out_of_memory", words))


def settle_stage(state: State, scores: Sequence[Score | None], emit: Emit) -> State:
    """The stage's best member goes on alone; where every member diverged, the best state of the run does."""
    if None in scores:
        message = "loss or gradient was not finite; the best finite state goes on (a smaller optimizer.lr may help)"
        emit(Event(state.stage, state.step, "diverged", message))
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
    problem: Problem, state: State, proposals: Sequence[Proposal], soft: Tensor | None, emit: Emit
) -> tuple[State, Considered, Tensor]:
    """The proposals with their dev scores, lowest loss first, and their rows (n, m, d) in the same order.

    Unscored and as they came with `restart=first`. `soft` are the rows of a mentor that proposes soft prompts: they are
    scored themselves, and their projections, which are other prompts, do not enter the pool.
    """
    prompts = [proposal.prompt for proposal in proposals]
    rows = problem.space.embed(prompts) if soft is None else soft.to(problem.device)
    if problem.settings.restart == "first":
        return state, tuple((proposal, None) for proposal in proposals), rows
    if soft is None:
        state, scored = score_prompts(problem, state, dict.fromkeys(prompts, "mentor"), emit)
        state = state.with_pool([*state.pool, *scored], problem.settings.pool.size)
        known = {entry.prompt: entry.score for entry in scored}
        scores = [known.get(prompt) for prompt in prompts]
    else:
        results = problem.score([{**state.parameters[0], "prompt": row} for row in rows])
        state = state.spent(scored_examples=len(rows) * len(problem.splits["dev"]))
        scores = [result.score if result else None for result in results]
    losses = [score.loss if score else math.inf for score in scores]
    order = sorted(range(len(rows)), key=losses.__getitem__)
    return state, tuple((proposals[i], scores[i]) for i in order), rows[order]


def record_restarts(
    problem: Problem, state: State, chosen: Considered, considered: Considered, advice: Advice, emit: Emit
) -> None:
    """A record for each prompt that was chosen to restart from, with all that was weighed."""
    spread = problem.space.spread([proposal.prompt for proposal, _ in considered])
    for i, (proposal, score) in enumerate(chosen):
        rationale = f": {proposal.rationale}" * bool(proposal.rationale)
        reason = f"{problem.settings.restart} of {len(considered)}{rationale}"
        weighed = considered, advice.rejected, advice.fallback, spread
        emit(Restart(state.stage, i, proposal.prompt, reason, state.score, score, *weighed))


def known_scores(problem: Problem, state: State, entries: Sequence[ScoredPrompt]) -> tuple[ScoredPrompt, ...]:
    """Of all entries of a run those whose scores hold: a trained head has moved since the stages before."""
    trained = problem.model.head.trained
    return rank_entries([entry for entry in entries if entry.stage == state.stage or not trained])


def use_fallback(state: State, why: str, emit: Emit) -> tuple[State, tuple[Proposal, ...]]:
    """The pool's best as the proposal of a mentor that could not answer."""
    emit(Event(state.stage, state.step, "fallback", f"{why}; the pool's best restarts"))
    proposals = tuple(Proposal(scored.prompt, "the pool's best") for scored in state.pool[-1:])
    return replace(state, fallbacks=state.fallbacks + 1), proposals
