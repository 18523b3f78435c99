"""The end of a run: the test split is used here, once, and nowhere else."""

import datetime
import time
from statistics import harmonic_mean
from typing import Any

import torch

from llm_catalyst.runs.records import Outcome, Score
from llm_catalyst.runs.resolved import Predictions
from llm_catalyst.training.evaluation import choose_start
from llm_catalyst.training.problem import Problem
from llm_catalyst.training.scoring import ScoringResult
from llm_catalyst.training.state import State
from llm_catalyst.utils.memory import peak_memory


def evaluate_outcome(problem: Problem, state: State, start_dev: Score | None) -> tuple[Outcome, Predictions]:
    """The outcome and the answers behind it: the prompts that dev chose, scored on the reporting split.

    The soft prompt is scored with its own head, the pool's best discrete prompt under the last stage's, and beside them
    the initial prompt with the untrained head.

    Args:
        start_dev: the score of the initial prompt on dev.
    """
    began = time.monotonic()
    soft = problem.score([state.best_parameters], "test")[0] if state.best else None
    start = problem.score([choose_start(problem, state)], "test")[0]
    best_prompt = state.pool[-1] if state.pool else None
    discrete = problem.score_prompts([best_prompt.prompt], state.parameters[0], "test")[0] if best_prompt else None
    outcome = Outcome(
        status="done" if soft else "diverged",
        message=describe_verdict(problem, state, soft),
        protocol=problem.settings.protocol.name,
        reported_on=problem.settings.protocol.report_on,
        best=state.best,
        test=soft.score if soft else None,
        test_metrics=dict(soft.metrics) | on_unseen(problem, state, soft) if soft else {},
        best_prompt=best_prompt,
        test_best_prompt=discrete.score if discrete else None,
        majority=problem.majority,
        majority_metric=problem.majority_metric,
        diverged_stages=state.diverged,
        fallbacks=state.fallbacks,
        ledger=state.ledger,
        seconds=state.seconds + time.monotonic() - began,
        peak_memory_bytes=peak_memory(problem.device),
        device=device_name(problem.device),
        finished=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        compile_seconds=problem.compile_seconds,
        start_dev=start_dev,
        start_test=start.score if start else None,
        distinct=state.distinct,
    )
    rows = problem.data.test
    results = {"soft_prompt": soft, "best_prompt": discrete, "start": start}
    answers = {name: result.answers if result else None for name, result in results.items()}
    marks = {name: result.marks for name, result in results.items() if result and result.marks}
    labels: Any = tuple(row.targets[0] if row.targets else row.label for row in rows)
    split = problem.settings.protocol.report_on
    return outcome, Predictions(split, tuple(row.row for row in rows), labels, **answers, marks=marks)


def on_unseen(problem: Problem, state: State, result: ScoringResult) -> dict[str, float]:
    """Accuracy on the classes that were trained, on those that were not, and their harmonic mean (base-to-new)."""
    new = problem.unseen.score([state.best_parameters], "test")[0] if problem.unseen else None
    if new is None:
        return {}
    base, other = result.metrics["accuracy"], new.metrics["accuracy"]
    return {"base_accuracy": base, "new_accuracy": other, "harmonic_mean": harmonic_mean([base, other])}


def describe_verdict(problem: Problem, state: State, result: ScoringResult | None) -> str:
    """One sentence that compares the reported metric with that of always answering the most frequent label."""
    if result is None:
        return "no finite state was found; try a smaller optimizer.lr or backbone.dtype=float32"
    if result.constant is not None:
        return f"every answer is {problem.label(result.constant)!r}: nothing was learned beyond one class"
    name, score, majority = problem.data.task.metric, result.score.metric, problem.majority_metric
    untrained = state.best is not None and state.best.step == 0
    start = "; on dev nothing was better than the start, before any training" if untrained else ""
    if score == majority:
        return f"{name} {score:.3f} only meets the majority class{start}"
    verdict = "beats" if score > majority else "does NOT reach"
    return f"{name} {score:.3f} {verdict} the majority class ({majority:.3f}){start}"


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
