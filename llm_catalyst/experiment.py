"""THE METHOD (Guo et al., arXiv 2405.19732, section 3): gradient stages, and a mentor's restarts between them."""

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from llm_catalyst.doers.gradient import Gradient, Member
from llm_catalyst.mentors.consultation import Consultation, Mentor
from llm_catalyst.problem import Problem
from llm_catalyst.progress import View
from llm_catalyst.randomness import derive
from llm_catalyst.outcome import conclude
from llm_catalyst.records import (
    Best, Evaluation, Event, Exchange, Origin, Outcome, Prompt, Proposal, Record, Restart, Score, Scored, Snapshot,
)
from llm_catalyst.run_directory import RunDirectory
from llm_catalyst.settings import Settings
from llm_catalyst.state import State, pack, unpack

Emit = Callable[[Record], None]


@dataclass(frozen=True)
class Experiment:
    """What is optimized (a soft prompt for a problem), by whom, and for how many steps in each stage."""

    problem: Problem
    doer: Gradient
    mentor: Mentor
    settings: Settings
    plan: tuple[int, ...]


def run(experiment: Experiment, directory: RunDirectory, view: View) -> Outcome:
    """Train stage by stage, each after the first from the mentor's restart point; report on test once."""

    def emit(record: Record) -> None:
        directory.append(record)
        view.show(record)

    restored = directory.restore()
    state = unpack(*restored, experiment.problem.device) if restored else start(experiment, emit)
    for stage in range(state.stage, len(experiment.plan)):
        began = time.monotonic()
        state, snapshots = train(experiment, state, emit, view)
        state = grow_pool(experiment, state, snapshots, emit)
        if stage + 1 < len(experiment.plan):
            state = consult(experiment, state, emit)
        state = replace(state, stage=stage + 1, seconds=state.seconds + time.monotonic() - began)
        directory.commit(stage, *pack(state))
    outcome = conclude(experiment.problem, state)
    directory.finish(outcome)
    return outcome


def start(experiment: Experiment, emit: Emit) -> State:
    """One member at the configured starting point, scored on dev before any training."""
    began = time.monotonic()
    state = State((Member.of(experiment.problem.start()),))
    state, _ = evaluate(experiment.problem, state, emit)
    return replace(state, seconds=time.monotonic() - began)


def train(experiment: Experiment, state: State, emit: Emit, view: View) -> tuple[State, list[Snapshot]]:
    """The doer's stage: the state with its best member, and the trajectory, projected, on the way there."""
    problem, settings = experiment.problem, experiment.settings
    record, measure = settings.every("record", problem.examples), settings.every("evaluate", problem.examples)
    steps, first, k = experiment.plan[state.stage], state.step, len(state.members)
    snapshots: list[Snapshot] = []
    scores: list[Score | None] = [None] * k
    training = experiment.doer.train(
        problem.model, state.members, problem.batches(k, first), first, steps, sum(experiment.plan)
    )
    for step in training:
        view.tick(state.stage, step.number, step.losses)
        state = state.at(step.number).spent(gradient_steps=k, train_examples=k * settings.batch_size)
        ends = step.number == first + steps
        if ends or step.number % record == 0:
            taken = problem.snapshots(state.stage, step, state.parameters)
            snapshots += taken
            for snapshot in taken:
                emit(snapshot)
        if ends or step.number % measure == 0:
            state, scores = evaluate(problem, state, emit)
        scores = [score if math.isfinite(loss) else None for loss, score in zip(step.losses, scores, strict=True)]
    return settle(state.at(first + steps), scores, emit), snapshots


def evaluate(problem: Problem, state: State, emit: Emit) -> tuple[State, list[Score | None]]:
    """The members' dev scores (None where not finite), and the state that remembers the best of the run."""
    results = problem.score(state.parameters)
    state = state.spent(scored_examples=len(results) * len(problem.splits["dev"]))
    for i, (result, parameters) in enumerate(zip(results, state.parameters, strict=True)):
        if result is None:
            continue
        emit(Evaluation(state.stage, state.step, i, "dev", result.score, result.metrics, problem.label(result.constant)))
        if state.best is None or result.score.better_than(state.best.score):
            (prompt,), (similarity,) = problem.space.project(parameters["prompt"][None])
            best = Best(state.stage, state.step, i, result.score, prompt, similarity)
            state = replace(state, best=best, best_parameters={n: p.clone() for n, p in parameters.items()})
    return state, [result and result.score for result in results]


def settle(state: State, scores: Sequence[Score | None], emit: Emit) -> State:
    """The stage's best member goes on alone; where every member diverged, the best state of the run does."""
    if None in scores:
        message = "loss or gradient was not finite; the best finite state goes on (a smaller optimizer.lr may help)"
        emit(Event(state.stage, state.step, "diverged", message))
        state = replace(state, diverged=(*state.diverged, state.stage))
    finite = [i for i, score in enumerate(scores) if score is not None]
    if finite:
        i = min(finite, key=lambda i: scores[i].loss)
        return replace(state, members=(state.members[i],), score=scores[i])
    if state.best is None:
        return replace(state, members=state.members[:1], score=None)
    return replace(state, members=(Member.of(state.best_parameters),), score=state.best.score)


def grow_pool(experiment: Experiment, state: State, snapshots: Sequence[Snapshot], emit: Emit) -> State:
    """The trajectory's distinct prompts, embedded anew and scored on dev, enter the pool: the best stand last.

    A head that was trained has changed since, so earlier entries are scored again under it.
    """
    new: dict[Prompt, Origin] = dict.fromkeys(experiment.problem.candidates(snapshots), "gradient")
    old = {s.prompt: s for s in state.pool if s.prompt not in new} if experiment.settings.pool.keep else {}
    if experiment.problem.has_trained_head:
        new, old = {prompt: s.origin for prompt, s in old.items()} | new, {}
    state, scored = score_prompts(experiment.problem, state, new, emit)
    return state.with_pool([*old.values(), *scored], experiment.settings.pool.size)


def score_prompts(
    problem: Problem, state: State, prompts: Mapping[Prompt, Origin], emit: Emit
) -> tuple[State, list[Scored]]:
    """Discrete prompts, each with its dev score under the current head; those without a finite one are left out."""
    results = problem.score_prompts(list(prompts), state.parameters[0])
    scored = [Scored(p, r.score, o, state.stage) for (p, o), r in zip(prompts.items(), results, strict=True) if r]
    for entry in scored:
        emit(entry)
    return state.spent(scored_examples=len(prompts) * len(problem.splits["dev"])), scored


def consult(experiment: Experiment, state: State, emit: Emit) -> State:
    """Show the mentor the pool, weigh its proposals on dev, and restart from the best (or the first, or all)."""
    problem, settings, exchanges = experiment.problem, experiment.settings, list[Exchange]()

    def record(exchange: Exchange) -> None:
        emit(exchange)
        exchanges.append(exchange)

    rng = random.Random(derive(settings.seed, "mentor", state.stage))
    stages = len(experiment.plan)
    advice = experiment.mentor.propose(
        Consultation(problem.description, state.pool, state.stage, stages, problem.space, rng, record)
    )
    state, proposals = state.paid(exchanges), advice.proposals
    if advice.fallback:
        emit(Event(state.stage, state.step, "fallback", f"{advice.fallback}; the pool's best restarts"))
        state = replace(state, fallbacks=state.fallbacks + 1)
        proposals = tuple(Proposal(scored.prompt, "the pool's best") for scored in state.pool[-1:])
    if not proposals:
        return state
    scores: dict[Prompt, Score] = {}
    if settings.restart != "first":
        state, scored = score_prompts(problem, state, {p.prompt: "mentor" for p in proposals}, emit)
        state, scores = state.with_pool([*state.pool, *scored], settings.pool.size), {s.prompt: s.score for s in scored}
        proposals = tuple(sorted(proposals, key=lambda p: scores[p.prompt].loss if p.prompt in scores else math.inf))
    chosen = proposals if settings.restart == "all" else proposals[:1]
    considered = tuple((p, scores.get(p.prompt)) for p in proposals)
    for i, p in enumerate(chosen):
        reason = f"{settings.restart} of {len(proposals)}: {p.rationale}"
        emit(Restart(state.stage, i, p.prompt, reason, state.score, scores.get(p.prompt), considered, advice.rejected, advice.fallback))
    keep = settings.moments == "keep"
    rows = problem.space.embed([p.prompt for p in chosen])
    return replace(state, members=tuple(state.members[0].restarted(prompt, keep) for prompt in rows))
