"""THE METHOD (Guo et al., arXiv 2405.19732, section 3): gradient stages, and a mentor's restarts between them."""

import math
import threading
from dataclasses import dataclass, replace

from llm_catalyst.callbacks.base import RunCallback
from llm_catalyst.mentors.base import Mentor
from llm_catalyst.optimizers.base import Member, PromptOptimizer
from llm_catalyst.optimizers.schedule import StepRange
from llm_catalyst.runs.records import Emit, Evaluation, LLMCall, Origin, Outcome, Prompt, Record
from llm_catalyst.runs.writer import RunDirectory
from llm_catalyst.tasks.base import steps_per_epoch
from llm_catalyst.training import evaluation
from llm_catalyst.training.checkpointing import Checkpointer
from llm_catalyst.training.final_evaluation import evaluate_outcome
from llm_catalyst.training.mentor_queries import MentorScheduler
from llm_catalyst.training.problem import Problem
from llm_catalyst.training.restarts import restart_stage
from llm_catalyst.training.scoring import Results
from llm_catalyst.training.state import State
from llm_catalyst.utils.signals import SignalHandler


@dataclass(frozen=True)
class Experiment:
    """A run's problem, with which optimizer and mentor it is solved, and the steps of each stage (`plan`)."""

    problem: Problem
    optimizer: PromptOptimizer
    mentor: Mentor
    plan: tuple[int, ...]


def run_experiment(
    experiment: Experiment, directory: RunDirectory, callback: RunCallback, signals: SignalHandler | None = None
) -> Outcome:
    """Train stage by stage, each after the first from the mentor's restart point; report on test once.

    With mentor.overlap that point is one stage late (`MentorScheduler`). Raises RunInterrupted where a signal asks for
    it, and BudgetExceededError; the run can then be resumed.
    """
    lock = threading.Lock()  # a mentor may record its calls while a stage trains

    def emit(record: Record) -> None:
        with lock:
            directory.append(record)
            callback.on_record(record)

    problem, plan = experiment.problem, experiment.plan
    checkpointer = Checkpointer(directory, problem.settings, signals or SignalHandler(), problem.model.limits)
    state = checkpointer.restore(emit, callback, problem.device) or start_state(experiment, emit)
    start_score = next((each.score for each in directory.read(Evaluation) if each.step == 0), None)
    calls = list(directory.read(LLMCall))
    scheduler = MentorScheduler(problem, experiment.mentor, len(plan), checkpointer, emit, calls)
    while left := plan[state.stage :]:
        advice = scheduler.start_request(state)
        if not state.trained:
            state = train_stage(experiment, state, emit, callback, checkpointer)
            state = grow_pool(problem, state, emit)
            state = checkpointer.checkpoint(replace(state, trained=True))
        left = left[1:]
        if advice:
            state = restart_stage(problem, *scheduler.collect_advice(advice, state), emit)
        if experiment.mentor.overlap:
            state = scheduler.plan_request(state, left)
        elif left and checkpointer.allows_mentor(state, emit, scheduler.estimated_tokens):
            state = restart_stage(problem, *scheduler.request_advice(state), emit)
        elif not experiment.optimizer.trains:
            left = ()  # neither the mentor nor the optimizer would move the prompt any more
        stage, state = state.stage, replace(state, stage=len(plan) - len(left), trained=False, trajectory=())
        state = checkpointer.end_stage(stage, state, last=not left)
    outcome, predictions = evaluate_outcome(problem, state, start_score)
    evaluation.record_memory(problem, state, emit)
    directory.finish(outcome, predictions)
    return outcome


def start_state(experiment: Experiment, emit: Emit) -> State:
    """One member at the configured starting point, scored on dev before any training."""
    state = State((Member.of(experiment.problem.start()),))
    if not experiment.optimizer.trains:
        state = evaluation.enter_start_texts(experiment.problem, state, emit)
    return evaluation.evaluate_members(experiment.problem, state, emit)[0]


def train_stage(
    experiment: Experiment, state: State, emit: Emit, callback: RunCallback, checkpointer: Checkpointer
) -> State:
    """The state after the stage, or the rest of it, with its best member; records the trajectory on the way.

    Where its members race, it trains all of them for `restart.race_steps`, and then the best one alone.
    """
    plan, settings = experiment.plan, experiment.problem.settings
    begin, end = sum(plan[: state.stage]), sum(plan[: state.stage + 1])
    if state.step == begin:
        for number, member in enumerate(state.members):
            member.number, member.stage_start = number, member.parameters["prompt"].detach().clone()
    if state.racing:
        raced = min(begin + settings.restart.race_steps, end)
        state = train_until(experiment, state, raced, emit, callback, checkpointer)
        state = replace(state, racing=False)
        if raced == end:
            return state
        state = checkpointer.checkpoint(state)
    return train_until(experiment, state, end, emit, callback, checkpointer)


def train_until(
    experiment: Experiment, state: State, last: int, emit: Emit, callback: RunCallback, checkpointer: Checkpointer
) -> State:
    """The state after the step `last` of its stage, with the best of its members."""
    problem, settings, plan = experiment.problem, experiment.problem.settings, experiment.plan
    record, measure = settings.every("record", problem.examples), settings.every("evaluate", problem.examples)
    begin, end, k = sum(plan[: state.stage]), sum(plan[: state.stage + 1]), len(state.members)
    results: Results = [None] * k
    epoch = steps_per_epoch(problem.examples, settings.batch_size)
    step_range = StepRange(begin, end, sum(plan), state.step, settings.restart.warm_up, epoch)
    optimizer = experiment.optimizer.in_space(problem.space)
    steps = optimizer.train(problem.model, state.members, problem.batches(k, state.step), step_range)
    for step in steps:
        callback.on_step(state.stage, step.number, step.losses)
        state = state.after(step, moved=k if optimizer.trains else 0)
        if step.number == end or step.number % record == 0:
            state = evaluation.record_snapshots(problem, state, step, emit)
        if step.number == last or step.number % measure == 0:
            state, results = evaluation.evaluate_members(problem, state, emit)
        results = [result if math.isfinite(loss) else None for loss, result in zip(step.losses, results, strict=True)]
        evaluation.record_memory(problem, state, emit)
        if step.number < last:
            checkpointer.after_step(state)
        elif last < end:
            break
    return evaluation.settle_members(replace(state, step=last), results, settings.prompt_criterion, emit)


def grow_pool(problem: Problem, state: State, emit: Emit) -> State:
    """The trajectory's distinct prompts, embedded anew and scored on dev, enter the pool: the best stand last.

    No prompt is scored twice, unless the head was trained since: then the pool's are, too.
    """
    pool = problem.settings.pool
    entries: dict[Prompt, Origin] = {scored.prompt: scored.origin for scored in state.pool if pool.keep}
    entries |= dict.fromkeys(problem.candidates(state.trajectory), "gradient")
    known = {scored.prompt: scored for scored in evaluation.known_scores(problem, state, state.scored)}
    new = {prompt: origin for prompt, origin in entries.items() if prompt not in known}
    state, scored, _ = evaluation.score_prompts(problem, state, new, emit)
    state = replace(state, distinct=(*state.distinct, len({s.prompt.tokens for s in state.trajectory})))
    old = [known[prompt] for prompt in entries if prompt in known]
    return state.with_pool([*old, *scored], pool.size, problem.settings.prompt_criterion)
