"""THE METHOD (Guo et al., arXiv 2405.19732, section 3): gradient stages, and a mentor's restarts between them."""

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from llm_catalyst.doers.doer import Doer, Member
from llm_catalyst.mentors.consultation import Consultation, Mentor
from llm_catalyst.outcome import conclude
from llm_catalyst.problem import Problem
from llm_catalyst.progress import View
from llm_catalyst.randomness import derive
from llm_catalyst.records import Emit, Exchange, Origin, Outcome, Prompt, Record, Restart, Score, Snapshot
from llm_catalyst.run_directory import RunDirectory
from llm_catalyst.selection import evaluate, fall_back, score_prompts, settle, weigh
from llm_catalyst.settings import Settings
from llm_catalyst.state import State, pack, unpack


@dataclass(frozen=True)
class Experiment:
    """What is optimized (a soft prompt for a problem), by whom, and for how many steps in each stage."""

    problem: Problem
    doer: Doer
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
            state = consult(experiment, state, emit, directory.answered(stage))
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
        state = state.at(step.number).spent(gradient_steps=k, train_examples=step.examples)
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


def consult(experiment: Experiment, state: State, emit: Emit, answered: Sequence[Exchange] = ()) -> State:
    """Show the mentor the pool, weigh its proposals on dev, and restart from the best (or the first, or all)."""
    problem, settings, exchanges = experiment.problem, experiment.settings, list(answered)

    def record(exchange: Exchange) -> None:
        emit(exchange)
        exchanges.append(exchange)

    rng = random.Random(derive(settings.seed, "mentor", state.stage))
    stages, paid = len(experiment.plan), tuple(answered)
    advice = experiment.mentor.propose(
        Consultation(problem.description, state.pool, state.stage, stages, problem.space, rng, record, paid)
    )
    state, proposals = state.paid(exchanges), advice.proposals
    if advice.fallback:
        state, proposals = fall_back(state, advice.fallback, emit)
    if not proposals:
        return state
    state, considered = weigh(problem, state, proposals, emit)
    chosen = considered if settings.restart == "all" else considered[:1]
    for i, (proposal, score) in enumerate(chosen):
        reason = f"{settings.restart} of {len(considered)}" + f": {proposal.rationale}" * bool(proposal.rationale)
        emit(
            Restart(
                state.stage,
                i,
                proposal.prompt,
                reason,
                state.score,
                score,
                considered,
                advice.rejected,
                advice.fallback,
            )
        )
    rows = problem.space.embed([proposal.prompt for proposal, _ in chosen])
    keep = settings.moments == "keep"
    return replace(state, members=tuple(state.members[0].restarted(prompt, keep) for prompt in rows))
