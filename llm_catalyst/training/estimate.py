"""Estimate a run: count its steps and calls, measure time and memory on a few real steps, keep nothing."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain, repeat, zip_longest
from typing import Any

import torch
from rich.console import Group, RenderableType
from rich.text import Text

from llm_catalyst.optimizers.base import Member
from llm_catalyst.optimizers.schedule import StepRange
from llm_catalyst.runs.analysis import MentorUsage
from llm_catalyst.runs.records import Split
from llm_catalyst.tasks.batching import scoring_rows
from llm_catalyst.training.counting import count_work
from llm_catalyst.training.final_evaluation import device_name
from llm_catalyst.training.loop import Experiment
from llm_catalyst.training.problem import Problem
from llm_catalyst.utils.format import format_count, format_dollars, format_duration, format_mebibytes
from llm_catalyst.utils.memory import peak_memory
from llm_catalyst.utils.terminal import escape_controls, indent_text, make_heading, make_pairs

REPEATS, PATIENCE_S = 3, 2.0  # the most repetitions of a measurement, and the seconds after which it is not repeated


@dataclass(frozen=True)
class Estimate:
    """The cost of `runs` runs, as plain numbers.

    `steps` are the gradient steps of each stage, over all members; they, `train_examples` and `scored_examples`
    equal the usage of a run without divergence. They are upper bounds if a mentor proposes less than asked for, or a
    stage projects twice to one prompt. `test_examples` are scored at the end.
    `bill` holds if the first answer of each request is used, and the model does not reason at length; `most` is that of
    every attempt, those of fallbacks too, with the longest answers. Cached responses are counted.
    Seconds are on this device, without the waits for a mentor. `peak_memory_bytes` is measured as in a run's
    outcome: memory allocated on a GPU, or a CPU process's resident size, libraries and data included, which
    a long run was seen to exceed by a quarter, as its heap fragments. A local mentor's model is in neither.
    `compile_seconds` are added where the backbone is compiled: fewer if torch still has the program on disk.
    `trained` is the number of parameters of one member; `notes` say when memory ran out.
    """

    steps: tuple[int, ...]
    train_examples: int
    scored_examples: int
    test_examples: int
    consultations: int
    bill: MentorUsage
    most: MentorUsage
    unpriced: tuple[str, ...]
    train_seconds: float
    score_seconds: float
    measured_steps: int
    peak_memory_bytes: int
    weight_bytes: int
    trained: int
    device: str
    notes: tuple[str, ...] = ()
    runs: int = 1
    compile_seconds: float | None = None


def estimate_run(experiment: Experiment) -> Estimate:
    """The cost of a run. Nothing of it is kept, no random stream moves.

    Trains a few of its steps on copies and scores a pass of dev; asks no mentor. Raises ConfigurationError where
    not even one example fits into memory.
    """
    problem, plan = experiment.problem, experiment.plan
    counted, stages, asked = count_work(experiment)
    limits = replace(problem.model.limits, messages=[])
    trial = replace(experiment, problem=replace(problem, model=replace(problem.model, limits=limits)))
    devices = [problem.device] if problem.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):  # dropout draws from the global generators
        forward, times = time_steps(trial, stages.members, counted.tokens_of)
        token_seconds = time_scored_token(trial.problem, max(counted.passes["dev"]))
    members = [k for k, steps in zip(stages.members, plan, strict=True) for _ in range(steps)]
    scored = {split: sum(passes) for split, passes in counted.passes.items()}
    return Estimate(
        steps=tuple(k * steps for k, steps in zip(stages.members, plan, strict=True)),
        train_examples=forward * sum(k * count for k, count in zip(members, counted.examples_of, strict=True)),
        scored_examples=scored["dev"] * len(problem.splits["dev"]) + asked.tried,
        test_examples=scored["test"] * len(problem.splits["test"]),  # soft prompt, best discrete one, start
        consultations=asked.requests,
        bill=asked.bill,
        most=asked.most,
        unpriced=tuple(experiment.mentor.unpriced_models()),
        train_seconds=sum(statistics.median_low(times[k]) for k in members),
        score_seconds=token_seconds * sum(n * count_split_tokens(problem, split) for split, n in scored.items()),
        measured_steps=sum(map(len, times.values())),
        peak_memory_bytes=peak_memory(problem.device),
        weight_bytes=sum(p.numel() * p.element_size() for p in problem.model.backbone.parameters()),
        trained=sum(tensor.numel() for tensor in problem.start().values()),
        device=device_name(problem.device),
        notes=tuple(limits.messages),
        compile_seconds=problem.compile_seconds,
    )


def count_split_tokens(problem: Problem, split: Split) -> int:
    """Tokens of scoring one prompt on a split."""
    data = problem.splits[split]
    passes = scoring_rows(data, problem.model.limits.tokens, problem.space.length, problem.padding)
    return sum(problem.count_tokens(data, rows) for rows in passes)


def time_steps(trial: Experiment, members: Sequence[int], tokens: Sequence[int]) -> tuple[int, dict[int, list[float]]]:
    """How often a step sends each example forward, and the seconds of steps of about the mean size, by their members.

    A step's time grows with its tokens: the mean size gives the time of them all, where the median would not.
    """
    longest, mean = tokens.index(max(tokens)), statistics.fmean(tokens)
    usual = min(range(len(tokens)), key=lambda step: abs(tokens[step] - mean))
    # The longest step determines the peak of memory, and warms up.
    forward = make_step(trial, max(members), longest)()
    steps = {k: make_step(trial, k, usual) for k in sorted(set(members))}
    return forward, {k: time_calls(step, trial.problem.compile_seconds is not None) for k, step in steps.items()}


def make_step(trial: Experiment, k: int, done: int) -> Callable[[], int]:
    """A function that takes the run's step after `done`, with k new members; it returns each example's passes."""
    start, batch = trial.problem.start(), next(trial.problem.batches(k, done))
    step_range = StepRange(done, done + 1, sum(trial.plan), done)
    optimizer = trial.optimizer.in_space(trial.problem.space)

    def train() -> int:
        members = [Member.of(start) for _ in range(k)]
        steps = optimizer.train(trial.problem.model, members, repeat(batch), step_range)
        return sum(step.examples for step in steps) // batch.labels.numel()

    return train


def time_scored_token(problem: Problem, k: int) -> float:
    """Seconds of the largest pass over dev, of k prompts together, by its tokens."""
    dev, prompt = problem.splits["dev"], problem.start()
    passes = scoring_rows(dev, max(1, problem.model.limits.tokens // k), problem.space.length, problem.padding)
    tokens, rows = max((problem.count_tokens(dev, rows), rows) for rows in passes)
    sample = replace(problem, splits={**problem.splits, "dev": dev.pick(rows)})
    times = time_calls(lambda: sample.score([prompt] * k), problem.compile_seconds is not None)
    return statistics.median_low(times) / (k * tokens)


def time_calls(work: Callable[[], object], compiled: bool) -> list[float]:
    """Seconds of each repetition; on a GPU too, as losses and answers come back only when they are there.

    What is `compiled` is done once before, as that takes its time when shapes of a new kind come.
    """
    if compiled:
        work()
    times: list[float] = []
    while len(times) < REPEATS and sum(times) < PATIENCE_S:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return times


def sum_estimates(estimates: Sequence[Estimate]) -> Estimate:
    """The estimate of at least one run, all of them one after another: sums, but the largest memory and sizes."""
    columns = {field.name: [getattr(estimate, field.name) for estimate in estimates] for field in fields(Estimate)}
    others: dict[str, Any] = {
        **{name: max(columns[name]) for name in ("peak_memory_bytes", "weight_bytes", "trained")},
        **{name: tuple(dict.fromkeys(chain(*columns[name]))) for name in ("unpriced", "notes")},
        **{name: sum(columns[name], MentorUsage()) for name in ("bill", "most")},
        "steps": tuple(map(sum, zip_longest(*columns["steps"], fillvalue=0))),
        "device": ", ".join(dict.fromkeys(columns["device"])),
        "compile_seconds": sum(filter(None, columns["compile_seconds"])) or None,
    }
    return Estimate(**others, **{name: sum(values) for name, values in columns.items() if name not in others})


def render_estimate(estimate: Estimate) -> RenderableType:
    """The estimate of one run, or the total of a sweep, for the terminal."""
    bill, most, count = estimate.bill, estimate.most, format_count
    trained = count(estimate.trained, "parameter")
    training, scoring = estimate.train_seconds, estimate.score_seconds
    split = f"training {format_seconds(training)}, scoring {format_seconds(scoring)}"
    heap = "; a long run's heap can grow by a quarter" if "cpu" in estimate.device else ""
    rows = {
        "training": f"{describe_stages(estimate)}, on {count(estimate.train_examples, 'example')}",
        "scoring": f"up to {count(estimate.scored_examples, 'example')}, and {estimate.test_examples:,} at the end",
        "time": f"about {format_seconds(training + scoring)} on {escape_controls(estimate.device)}: {split}",
    }
    if estimate.compile_seconds:
        rows["compiling"] = f"up to {format_seconds(estimate.compile_seconds)} more, when training and scoring begin"
    rows |= {
        "peak memory": f"about {format_mebibytes(estimate.peak_memory_bytes)}" + heap,
        "model": f"{format_mebibytes(estimate.weight_bytes)} of weights, {trained} trained",
        "mentor": f"{count(estimate.consultations, 'consultation')}, {format_range(bill.calls, most.calls)} calls",
    }
    if most.input_tokens:
        sent, received = (bill.input_tokens, most.input_tokens), (bill.output_tokens, most.output_tokens)
        rows["tokens"] = f"about {format_range(*sent)} sent, {format_range(*received)} received"
    rows["cost"] = format_cost(estimate)
    return Group(
        *make_heading("Estimate" if estimate.runs == 1 else f"Estimate: {estimate.runs} runs, one after another"),
        make_pairs(rows),
        *(indent_text(Text(escape_controls(note), "yellow")) for note in estimate.notes),
        indent_text(Text(describe_caution(estimate), "dim")),
    )


def describe_stages(estimate: Estimate) -> str:
    """'800 steps in 4 stages of 200', '800 steps in stages of 200, 600'; of a sweep only the sum."""
    steps, whole = estimate.steps, format_count(sum(estimate.steps), "step")
    if estimate.runs > 1 or len(steps) == 1:
        return whole
    if len(set(steps)) == 1:
        return f"{whole} in {len(steps)} stages of {steps[0]:,}"
    return f"{whole} in stages of {', '.join(f'{n:,}' for n in steps)}"


def describe_caution(estimate: Estimate) -> str:
    """The basis of the figures, which shows how far they can be wrong."""
    steps, each = format_count(estimate.measured_steps, "step"), " each run" if estimate.runs > 1 else ""
    measured = f"Time and memory were measured here, on {steps} and a scoring pass{each}; a busier machine is slower"
    if not estimate.most.calls:
        return f"{measured}."
    return (
        f"{measured}, and the mentor's answers take their own time. Tokens are counted by the backbone's tokenizer; "
        "a model that reasons at length comes near the upper figures."
    )


def format_cost(estimate: Estimate) -> str:
    """'nothing', '$0.0021 to $0.08', or the models without a known price."""
    bill, most = estimate.bill, estimate.most
    unknown = f"unknown: conf/models.yaml has no price for {', '.join(map(escape_controls, estimate.unpriced))}"
    least = f"about {format_dollars(bill.cost_usd)}"
    if bill.unpriced:
        return unknown
    if most.unpriced:
        return f"{least} without fallbacks; with them {unknown}"
    if not most.cost_usd:
        return "nothing"
    return least if bill.cost_usd == most.cost_usd else f"{least}, at most {format_dollars(most.cost_usd)}"


def format_range(least: int, most: int) -> str:
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def format_seconds(seconds: float) -> str:
    return format_duration(math.ceil(seconds))
