"""Seeds on one copy of the backbone against a process for each:   scripts/bench/together.py

The same runs are made three times by the command itself: one after the other, each in a process of its own; by
`seeds_together`, as it is on this device; and by it with the steps of all in one pass. Time is that of all commands,
imports and loading included; memory is the peak that the runs themselves record (outcome.json), which k processes side
by side would take k times. Runs made in one process are compared with those made alone.

Run it with the project's Python (.venv/bin/python), in which the quickstart extra is installed. Words behind the
options are overrides of all runs, for example: --seeds 8 device=cuda backbone=roberta_large task=sst2 head=classifier
Five minutes on two slow cores.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from llm_catalyst.runs.reader import RunRecords, read_run

SHORT = ["experiment=quickstart", "stage.steps=[20,20]", "evaluate.steps=20", "view=none"]
FILES = ("trajectory.jsonl", "pool.jsonl", "restarts.jsonl", "metrics.jsonl")


def main() -> int:
    options = parser().parse_args()
    words = [*SHORT, *options.words]
    seeds = range(1, options.seeds + 1)
    with tempfile.TemporaryDirectory(prefix="bench-together-") as folder:
        home = Path(folder)
        begin = perf_counter()
        for seed in seeds:
            command(home, [*words, f"seed={seed}", f"hydra.run.dir=alone/{seed}"])
        alone = [read_run(home / "alone" / str(seed)) for seed in seeds]
        show(f"{options.seeds} processes, one after the other", perf_counter() - begin, alone, alone)
        for joint in ("auto", "all"):
            begin = perf_counter()
            several = f"seeds_together=[{','.join(map(str, seeds))}]"
            command(home, [*words, several, f"hydra.launcher.joint={joint}", f"hydra.sweep.dir={joint}"])
            runs = [read_run(next((home / joint).glob(f"*/*/*/*_seed{seed}"))) for seed in seeds]
            show(f"seeds_together, hydra.launcher.joint={joint}", perf_counter() - begin, runs, alone)
    return 0


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=8, help="how many (8)")
    options.add_argument("words", nargs="*", metavar="KEY=VALUE", help="overrides of every run")
    return options


def command(home: Path, words: Sequence[str]) -> None:
    """Carry out `catalyst run` in a folder."""
    program = Path(sys.executable).with_name("catalyst")
    done = subprocess.run([program, "run", *words], cwd=home, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


def show(name: str, seconds: float, runs: Sequence[RunRecords], alone: Sequence[RunRecords]) -> None:
    """Time, memory, and how many of the runs wrote the same records as those made alone."""
    peak = max(run.outcome.peak_memory_bytes for run in runs if run.outcome) / 2**20
    pairs = list(zip(runs, alone, strict=True))
    same = sum(all((a.path / name).read_bytes() == (b.path / name).read_bytes() for name in FILES) for a, b in pairs)
    apart = max(
        abs(a.score.loss - b.score.loss)
        for one, other in pairs
        for a, b in zip(one.metrics, other.metrics, strict=True)
    )
    agreement = f"{same} of {len(runs)} to the byte as alone, dev losses at most {apart:.1e} apart"
    print(f"{name:45}{seconds:8.1f} s{peak:8.0f} MiB at the peak of a process; {agreement}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
