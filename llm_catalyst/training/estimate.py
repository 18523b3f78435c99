"""What a run will take: steps and calls counted, time and memory measured on a few real steps, nothing kept."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import repeat, zip_longest

import torch
from rich.console import Group, RenderableType
from rich.text import Text

from llm_catalyst.mentors.base import Mentor
from llm_catalyst.models.base import PromptedModel
from llm_catalyst.optimizers.base import Member, PromptOptimizer, StepRange
from llm_catalyst.runs.records import Split
from llm_catalyst.tasks.batching import scoring_rows
from llm_catalyst.training.counting import Work, count_padded_tokens, count_work
from llm_catalyst.training.final_evaluation import device_name
from llm_catalyst.training.mentor_cost import MentorCost, sum_costs
from llm_catalyst.training.problem import Problem
from llm_catalyst.training.scoring import score_members
from llm_catalyst.utils.format import format_count, format_dollars, format_duration, format_mebibytes
from llm_catalyst.utils.memory import PassLimits, peak_memory
from llm_catalyst.utils.terminal import escape_controls, indent_text, make_heading, make_pairs

REPEATS, PATIENCE_S = 3, 2.0  # a measurement is repeated so many times, but not beyond so many seconds


@dataclass(frozen=True)
class Estimate:
    """What `runs` runs take, as plain numbers.

    `steps` are the gradient steps of each stage, over all members; they, `train_examples` and `scored_examples`
    are what the ledger of a run without divergence holds. They are the most where a mentor proposes less than
    asked for, or a stage projects twice to one prompt. `test_examples` are scored at the end.
    `bill` holds where the first answer of each consultation is used, and the model does not reason at length;
    `most` is that of every attempt, those of fallbacks too, with the longest answers. What a cache holds is counted.
    Seconds are on this device, without the waits for a mentor. `peak_memory_bytes` is the measure that a run's
    outcome reports: memory allocated on a GPU, or a CPU process's resident size, libraries and data included, which
    a long run was seen to exceed by a quarter, as its heap fragments. A local mentor's model is in neither.
    `compile_seconds` come on top where the backbone is compiled: less where torch still has the program on disk, from
    this measurement or before. `trained` are the parameters of one member; `notes` tell of memory that ran out.
    """

    steps: tuple[int, ...]
    train_examples: int
    scored_examples: int
    test_examples: int
    consultations: int
    bill: MentorCost
    most: MentorCost
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


@dataclass(frozen=True)
class Measured:
    """Seconds of a step by its number of members, and of scoring a token; steps timed, peak bytes, notes on memory.

    `passes` is how often a step sends each example of its batch forward.
    """

    step: dict[int, float]
    token: float
    steps: int
    passes: int
    peak: int
    notes: tuple[str, ...]


def estimate_run(problem: Problem, optimizer: PromptOptimizer, mentor: Mentor, plan: tuple[int, ...]) -> Estimate:
    """What a run of `plan` (steps of each stage) will take. Nothing of it is kept, no random stream moves.

    Trains a few of its steps on copies and scores a pass of dev; asks no mentor. Raises ConfigurationError where
    not even one example fits into memory.
    """
    work = count_work(problem, optimizer, mentor, plan)
    devices = [problem.device] if problem.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):  # dropout draws from the global generators
        measured = measure_run(problem, optimizer, work)
    members = [k for k, steps in zip(work.members, plan, strict=True) for _ in range(steps)]
    examples, splits, passes = work.problem.examples_of, problem.splits, work.problem.passes
    return Estimate(
        steps=tuple(k * steps for k, steps in zip(work.members, plan, strict=True)),
        train_examples=measured.passes * sum(k * count for k, count in zip(members, examples, strict=True)),
        scored_examples=sum(passes["dev"]) * len(splits["dev"]) + work.mentor.tried,
        test_examples=sum(passes["test"]) * len(splits["test"]),  # the soft prompt and the best discrete one
        consultations=work.mentor.requests,
        bill=sum_costs(work.mentor.usual),
        most=sum_costs(work.mentor.most),
        unpriced=tuple(work.mentor.unpriced),
        train_seconds=sum(measured.step[k] for k in members),
        score_seconds=measured.token * sum(sum(passes[s]) * count_split_tokens(problem, s) for s in passes),
        measured_steps=measured.steps,
        peak_memory_bytes=measured.peak,
        weight_bytes=sum(p.numel() * p.element_size() for p in problem.model.backbone.parameters()),
        trained=sum(tensor.numel() for tensor in problem.start().values()),
        device=device_name(problem.device),
        notes=measured.notes,
        compile_seconds=problem.compile_seconds,
    )


def count_split_tokens(problem: Problem, split: Split) -> int:
    """Tokens of scoring one prompt on a split."""
    data = problem.splits[split]
    passes = scoring_rows(data, problem.model.limits.tokens, problem.space.length, problem.padding)
    return sum(count_padded_tokens(problem, data, rows) for rows in passes)


def measure_run(problem: Problem, optimizer: PromptOptimizer, work: Work) -> Measured:
    """Time of a step of about the mean size and of a scoring pass, and the memory that they and the longest step take.

    A step's time grows with its tokens: the mean size gives the time of them all, where the median would not.
    """
    limits, tokens = problem.model.limits, work.problem.tokens_of
    model = replace(problem.model, limits=PassLimits(limits.examples, limits.tokens))
    longest, mean = tokens.index(max(tokens)), statistics.fmean(tokens)
    usual = min(range(len(tokens)), key=lambda step: abs(tokens[step] - mean))
    passes = make_step(problem, optimizer, model, max(work.members), longest, len(tokens))()  # it warms up, too
    times = {
        k: time_calls(make_step(problem, optimizer, model, k, usual, len(tokens)), problem.compiled)
        for k in sorted(set(work.members))
    }
    token = time_scored_token(problem, model, max(work.problem.passes["dev"]))
    return Measured(
        step={k: statistics.median_low(seconds) for k, seconds in times.items()},
        token=token,
        steps=sum(map(len, times.values())),
        passes=passes,
        peak=peak_memory(problem.device),
        notes=tuple(model.limits.take_messages()),
    )


def make_step(
    problem: Problem, optimizer: PromptOptimizer, model: PromptedModel, k: int, done: int, total: int
) -> Callable[[], int]:
    """A function that takes the run's step after `done`, with k new members, and says how often each example passed."""
    start, batch = problem.start(), next(problem.batches(k, done))

    def train() -> int:
        members = [Member.of(start) for _ in range(k)]
        steps = list(optimizer.train(model, members, repeat(batch), StepRange(done, done + 1, total, done)))
        return sum(step.examples for step in steps) // batch.labels.numel()

    return train


def time_scored_token(problem: Problem, model: PromptedModel, k: int) -> float:
    """Seconds of the largest pass over dev, of k prompts together, by its tokens."""
    dev, prompt = problem.splits["dev"], problem.start()
    passes = scoring_rows(dev, max(1, model.limits.tokens // k), problem.space.length, problem.padding)
    tokens, rows = max((count_padded_tokens(problem, dev, rows), rows) for rows in passes)
    sample, metric = dev.pick(rows), problem.data.task.metric
    times = time_calls(lambda: score_members(model, [prompt] * k, sample, metric, problem.padding), problem.compiled)
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
    """At least one run, all of them one after another: sums, but the largest memory and sizes."""
    return Estimate(
        steps=tuple(map(sum, zip_longest(*(e.steps for e in estimates), fillvalue=0))),
        train_examples=sum(e.train_examples for e in estimates),
        scored_examples=sum(e.scored_examples for e in estimates),
        test_examples=sum(e.test_examples for e in estimates),
        consultations=sum(e.consultations for e in estimates),
        bill=sum_costs([e.bill for e in estimates]),
        most=sum_costs([e.most for e in estimates]),
        unpriced=tuple(dict.fromkeys(name for e in estimates for name in e.unpriced)),
        train_seconds=sum(e.train_seconds for e in estimates),
        score_seconds=sum(e.score_seconds for e in estimates),
        measured_steps=sum(e.measured_steps for e in estimates),
        peak_memory_bytes=max(e.peak_memory_bytes for e in estimates),
        weight_bytes=max(e.weight_bytes for e in estimates),
        trained=max(e.trained for e in estimates),
        device=", ".join(dict.fromkeys(e.device for e in estimates)),
        notes=tuple(dict.fromkeys(note for e in estimates for note in e.notes)),
        runs=sum(e.runs for e in estimates),
        compile_seconds=sum(e.compile_seconds or 0.0 for e in estimates) or None,
    )


def render_estimate(estimate: Estimate) -> RenderableType:
    """The estimate of one run, or the total of a sweep, at a glance."""
    bill, most, test = estimate.bill, estimate.most, f"{estimate.test_examples:,}"
    training, scoring = estimate.train_seconds, estimate.score_seconds
    split = f"training {format_seconds(training)}, scoring {format_seconds(scoring)}"
    heap = "; a long run's heap can grow by a quarter" if "cpu" in estimate.device else ""
    rows = [
        ("training", f"{describe_stages(estimate)}, on {format_count(estimate.train_examples, 'example')}"),
        ("scoring", f"up to {format_count(estimate.scored_examples, 'example')}, and {test} at the end"),
        ("time", f"about {format_seconds(training + scoring)} on {escape_controls(estimate.device)}: {split}"),
        ("peak memory", f"about {format_mebibytes(estimate.peak_memory_bytes)}" + heap),
        (
            "model",
            f"{format_mebibytes(estimate.weight_bytes)} of weights, "
            f"{format_count(estimate.trained, 'parameter')} trained",
        ),
        (
            "mentor",
            f"{format_count(estimate.consultations, 'consultation')}, {format_range(bill.calls, most.calls)} calls",
        ),
    ]
    if estimate.compile_seconds:
        more = f"up to {format_seconds(estimate.compile_seconds)} more, when training and scoring begin"
        rows.insert(3, ("compiling", more))
    if most.input_tokens:
        sent, received = (bill.input_tokens, most.input_tokens), (bill.output_tokens, most.output_tokens)
        rows.append(("tokens", f"about {format_range(*sent)} sent, {format_range(*received)} received"))
    rows.append(("cost", format_cost(estimate)))
    return Group(
        *make_heading("Estimate" if estimate.runs == 1 else f"Estimate: {estimate.runs} runs, one after another"),
        make_pairs([(name, Text(value)) for name, value in rows]),
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
    """What the figures rest on, and so how far they can be wrong."""
    measured = (
        f"Time and memory were measured here, on {format_count(estimate.measured_steps, 'step')} and a scoring pass"
    )
    alone = f"{measured} each run" if estimate.runs > 1 else measured
    if not estimate.most.calls:
        return f"{alone}; a busier machine is slower."
    return (
        f"{alone}; a busier machine is slower, and the mentor's answers take their own time. Tokens are counted "
        "by the backbone's tokenizer; a model that reasons at length comes near the upper figures."
    )


def format_cost(estimate: Estimate) -> str:
    """'nothing', '$0.0021 to $0.08', or for which model there is no price."""
    least, most = estimate.bill.cost_usd, estimate.most.cost_usd
    unknown = f"unknown: conf/prices.yaml has no price for {', '.join(map(escape_controls, estimate.unpriced))}"
    if most == 0:
        return "nothing"
    if least is None:
        return unknown
    if most is None:
        return f"about {format_dollars(least)} without fallbacks; with them {unknown}"
    return (
        f"about {format_dollars(least)}"
        if least == most
        else f"about {format_dollars(least)}, at most {format_dollars(most)}"
    )


def format_range(least: int, most: int) -> str:
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def format_seconds(seconds: float) -> str:
    return format_duration(math.ceil(seconds))
