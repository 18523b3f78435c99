"""What dev decides: the scores of soft and discrete prompts, the best state of the run, the member that goes on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from llm_catalyst.doers.doer import Member
from llm_catalyst.problem import Problem
from llm_catalyst.records import Best, Emit, Evaluation, Event, Origin, Prompt, Proposal, Score, Scored
from llm_catalyst.state import State


def evaluate(problem: Problem, state: State, emit: Emit) -> tuple[State, list[Score | None]]:
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
            (prompt,), (similarity,) = problem.space.project(parameters["prompt"][None])
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
    prompts, _ = problem.space.project(torch.stack([member["prompt"] for member in parameters]))
    discrete = [
        member | {"prompt": rows} for member, rows in zip(parameters, problem.space.embed(prompts), strict=True)
    ]
    results = problem.score(discrete)
    state = state.spent(scored_examples=len(results) * len(problem.splits["dev"]))
    return state, {i: result.score if result else None for i, result in zip(members, results, strict=True)}


def tell_memory(problem: Problem, state: State, emit: Emit) -> None:
    """An event for each time that memory ran out since the last call."""
    for words in problem.model.room.told():
        emit(Event(state.stage, state.step, "out_of_memory", words))


def settle(state: State, scores: Sequence[Score | None], emit: Emit) -> State:
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
) -> tuple[State, list[Scored]]:
    """Discrete prompts, each with its dev score under the current head; those without a finite one are left out.

    The origin of a prompt that the pool holds already stays that of its first proposer.
    """
    results = problem.score_prompts(list(prompts), state.parameters[0])
    origins = {**prompts, **{entry.prompt: entry.origin for entry in state.pool}}
    scored = [Scored(p, r.score, origins[p], state.stage) for p, r in zip(prompts, results, strict=True) if r]
    for entry in scored:
        emit(entry)
    tell_memory(problem, state, emit)
    return state.spent(scored_examples=len(prompts) * len(problem.splits["dev"])), scored


def weigh(
    problem: Problem, state: State, proposals: Sequence[Proposal], emit: Emit
) -> tuple[State, tuple[tuple[Proposal, Score | None], ...]]:
    """The proposals with their dev scores, lowest loss first; unscored and as they came with `restart=first`."""
    if problem.settings.restart == "first":
        return state, tuple((proposal, None) for proposal in proposals)
    state, scored = score_prompts(problem, state, {p.prompt: "mentor" for p in proposals}, emit)
    scores = {entry.prompt: entry.score for entry in scored}
    considered = [(proposal, scores.get(proposal.prompt)) for proposal in proposals]
    considered.sort(key=lambda pair: pair[1].loss if pair[1] else math.inf)
    return state.with_pool([*state.pool, *scored], problem.settings.pool.size), tuple(considered)


def fall_back(state: State, why: str, emit: Emit) -> tuple[State, tuple[Proposal, ...]]:
    """The pool's best as the proposal of a mentor that could not answer."""
    emit(Event(state.stage, state.step, "fallback", f"{why}; the pool's best restarts"))
    proposals = tuple(Proposal(scored.prompt, "the pool's best") for scored in state.pool[-1:])
    return replace(state, fallbacks=state.fallbacks + 1), proposals
