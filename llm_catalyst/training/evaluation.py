"""Scores on dev: of soft and discrete prompts, the best state of the run, and the member that trains on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from llm_catalyst.models.base import Parameters
from llm_catalyst.optimizers.base import Member, StepResult
from llm_catalyst.runs import records
from llm_catalyst.runs.records import Criterion, Emit, Origin, Prompt, Score, ScoredPrompt
from llm_catalyst.training.problem import Problem
from llm_catalyst.training.scoring import Results
from llm_catalyst.training.state import State, rank_entries


def enter_start_texts(problem: Problem, state: State, emit: Emit) -> State:
    """The state whose pool has the prompts of prompt.start=task or file, scored on dev, and whose member is the best.

    The same state for another start.
    """
    settings, space = problem.settings, problem.space
    if settings.prompt.start not in ("task", "file"):
        return state
    prompts = [space.fit(text)[0] for text in space.start_texts]
    state, scored, _ = score_prompts(problem, state, dict.fromkeys(prompts, "user"), emit)
    state = state.with_pool(scored, settings.pool.size, settings.prompt_criterion)
    return replace(state, members=(Member.of(choose_start(problem, state)),))


def choose_start(problem: Problem, state: State) -> dict[str, Tensor]:
    """The parameters of the start: those of `problem.start`, or of the best on dev of the prompts that a user gave."""
    start = problem.start()
    given = rank_entries([e for e in state.scored if e.origin == "user"], problem.settings.prompt_criterion)
    return {**start, "prompt": problem.space.embed_each([given[-1].prompt])[0]} if given else start


def score_on_dev(problem: Problem, state: State, members: Sequence[Parameters]) -> tuple[State, Results]:
    """The members' results on dev (None where the loss is not finite), and the state with their cost."""
    return state.spent(scored_examples=len(members) * len(problem.splits["dev"])), problem.score(members)


def list_scores(results: Results) -> list[Score | None]:
    """The scores of these results."""
    return [result.score if result else None for result in results]


def evaluate_members(problem: Problem, state: State, emit: Emit) -> tuple[State, Results]:
    """The members' results on dev (None where not finite), and the state that remembers the best of the run.

    Without `protocol.count_start` the untrained start cannot be the best.
    """
    state, results = score_on_dev(problem, state, state.parameters)
    state, projected = score_projections(problem, state, [i for i, result in enumerate(results) if result])
    for i, (result, parameters) in enumerate(zip(results, state.parameters, strict=True)):
        if result is None:
            continue
        number = state.members[i].number
        measured = result.score, result.metrics, problem.label(result.constant), projected.get(i)
        emit(records.Evaluation(state.stage, state.step, number, "dev", *measured))
        counts = state.step > 0 or problem.settings.protocol.count_start
        if counts and (
            state.best is None or result.score.better_than(state.best.score, problem.settings.result_criterion)
        ):
            (prompt,), (similarity,) = problem.project([parameters])
            best = records.Best(state.stage, state.step, number, result.score, prompt, similarity)
            state = replace(state, best=best, best_parameters={n: p.clone() for n, p in parameters.items()})
    return state, results


def score_projections(problem: Problem, state: State, members: Sequence[int]) -> tuple[State, dict[int, Score | None]]:
    """The dev scores of these members' projections, each under its own head; none unless `evaluate.projected` asks.

    They are scored apart from the soft prompts: whose scores, to the last bit, do not depend on whether this is asked.
    """
    if not members or not problem.settings.evaluate.projected:
        return state, {}
    parameters = [state.parameters[i] for i in members]
    rows = problem.space.embed_each(problem.project(parameters)[0])
    discrete = [{**member, "prompt": row} for member, row in zip(parameters, rows, strict=True)]
    state, results = score_on_dev(problem, state, discrete)
    return state, dict(zip(members, list_scores(results), strict=True))


def record_snapshots(problem: Problem, state: State, step: StepResult, emit: Emit) -> State:
    """The state whose trajectory holds the members' projections after this step, of those whose loss is finite."""
    rows = zip(state.members, step.losses, *problem.project(state.parameters), strict=True)
    place = state.stage, step.number
    snapshots = [records.Snapshot(*place, m.number, loss, p, s) for m, loss, p, s in rows if math.isfinite(loss)]
    for snapshot in snapshots:
        emit(snapshot)
    return replace(state, trajectory=(*state.trajectory, *snapshots))


def record_memory(problem: Problem, state: State, emit: Emit) -> None:
    """Emit an event for each time that memory ran out since the last call."""
    for words in problem.model.limits.take_messages():
        emit(records.Event(state.stage, state.step, "out_of_memory", words))


def settle_members(state: State, results: Results, criterion: Criterion, emit: Emit) -> State:
    """The state with the best member alone, or with the best state of the run if every member diverged."""
    if None in results:
        message = "loss or gradient was not finite; the best finite state is kept (a smaller optimizer.lr may help)"
        emit(records.Event(state.stage, state.step, "diverged", message))
        state = replace(state, diverged=tuple(dict.fromkeys((*state.diverged, state.stage))))
    finite = {i: result for i, result in enumerate(results) if result is not None}
    if finite:
        i = max(finite, key=lambda i: finite[i].score.rank_by(criterion))
        return replace(state, members=(state.members[i],), score=finite[i].score, losses=finite[i].losses)
    if state.best is None:
        return replace(state, members=state.members[:1], score=None, losses=None)
    return replace(state, members=(Member.of(state.best_parameters),), score=state.best.score, losses=None)


def score_prompts(
    problem: Problem, state: State, prompts: Mapping[Prompt, Origin], emit: Emit
) -> tuple[State, list[ScoredPrompt], Results]:
    """Discrete prompts with their dev scores under the current head, and the results of all in their order.

    Without a finite one a prompt is left out. The origin of a prompt that the pool holds already stays that of its
    first proposer.
    """
    results = problem.score_prompts(list(prompts), state.parameters[0])
    origins = {**prompts, **{entry.prompt: entry.origin for entry in state.pool}}
    scored = [ScoredPrompt(p, r.score, origins[p], state.stage) for p, r in zip(prompts, results, strict=True) if r]
    for entry in scored:
        emit(entry)
    record_memory(problem, state, emit)
    state = replace(state, scored=(*state.scored, *scored))
    return state.spent(scored_examples=len(prompts) * len(problem.splits["dev"])), scored, results


def known_scores(problem: Problem, state: State, entries: Sequence[ScoredPrompt]) -> tuple[ScoredPrompt, ...]:
    """The entries whose scores are still valid: a trained head has moved since the stages before."""
    trained = problem.model.head.trained
    valid = [entry for entry in entries if entry.stage == state.stage or not trained]
    return rank_entries(valid, problem.settings.prompt_criterion)
