"""Where a run's wall time goes, and how long it takes to begin:   scripts/bench/overhead.py

Two runs as the command makes them, each in a process of its own: experiment=quickstart, and SST-2 on MiniLM under the
mentor `evolution`. Functions of the package are timed from outside, each without those that it calls and that are timed
themselves. What is neither a forward or backward pass nor a wait for a mentor is overhead; loading stands apart.
The view is a live one whose terminal nobody sees, or plain with --view plain. Start-up is timed on the command itself,
its processes without any wrapper.

Run it with the project's Python (.venv/bin/python), in which the quickstart extra is installed. The second run needs
data: CATALYST_DATA=FOLDER with sst2/ (docs/guide.md). Three minutes on two slow cores.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from time import perf_counter
from typing import Any

RUNS = {
    "quickstart": ["experiment=quickstart"],
    "SST-2": ["task=sst2", "backbone=minilm", "mentor=evolution", "optimizer.lr=2e-2", "stages=2", "device=cpu"],
}
# What begins -> the words of the command, and the line of its output at which the clock stops (none: its end).
STARTS = {
    "catalyst --help": (["--help"], ""),
    "catalyst run experiment=quickstart --cfg job": (["run", "experiment=quickstart", "--cfg", "job"], ""),
    "the first step of quickstart": (["run", "experiment=quickstart", "view=plain"], "stage 1/3 begins"),
}
WORK = ("forward and backward, training", "forward, scoring", "waiting for the mentor")
LOADING = ("imports", "loading data and model", "composing the configuration, and the rest")
# Name of a part -> the functions that it is: module (a dot before one of the package), class (or none), attribute.
PARTS = {
    "forward and backward, training": [".models.base PromptedModel losses", "torch Tensor backward"],
    "forward, scoring": [".training.scoring - forward_passes"],
    "waiting for the mentor": [".mentors.controls Evolution propose"],
    "loading data and model": [".training.run - load_problem"],
    "optimizer": [
        ".optimizers.backprop GradientDescent _step",
        ".optimizers.backprop GradientDescent _restore_optimizer",
    ],
    "batches": [
        ".tasks.batching Encoded batch",
        ".tasks.batching - epoch_rows",
        ".tasks.batching Batch expand",
        ".tasks.batching TextBatch parts",
    ],
    "scoring, without its forward passes": [
        ".training.problem Problem score",
        ".training.problem Problem score_prompts",
    ],
    "projection": [
        ".models.soft_prompt PromptSpace project",
        ".training.problem Problem candidates",
    ],
    "records": [".runs.writer RunDirectory append", ".runs.writer RunDirectory snapshots"],
    "saved states": [
        ".training.checkpointing Checkpointer checkpoint",
        ".training.checkpointing Checkpointer stage_ended",
    ],
    "configuration, manifest, checksums": [
        ".runs.writer RunDirectory write_config",
        ".runs.writer RunDirectory finish",
        ".training.run - build_manifest",
    ],
    "view": [
        ".callbacks.base CallbackList on_step",
        ".callbacks.base CallbackList on_record",
        ".callbacks.base CallbackList on_run_start",
        ".callbacks.base CallbackList on_run_end",
    ],
    "view, drawn beside the run": ["rich.live Live refresh"],
    "the method's own lines, and what is not named": [".training.run - run_training"],
}


class Watch:
    """Seconds of each part, without those of the parts inside it, for each thread by itself."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.here = threading.local()

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            inside = self.here.__dict__.setdefault("inside", [])
            inside.append(0.0)
            begin = perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                taken = perf_counter() - begin
                self.seconds[part] += taken - inside.pop()
                if inside:
                    inside[-1] += taken

        return timed


def main() -> int:
    options = parser().parse_args()
    if options.words:
        print(json.dumps(carry_out(options.words)), file=sys.stderr)
        return 0
    for name, words in RUNS.items():
        if name in options.only:
            taken = [in_a_process([*words, f"view={options.view}"]) for _ in range(options.times)]
            report(name, taken)
    print("\nstart-up, the median of five")
    for name, (words, sign) in STARTS.items():
        seconds = [until(words, sign) for _ in range(5)]
        print(
            f"  {name:46}{statistics.median(seconds):9.2f} s   ({min(seconds):.2f} to {max(seconds):.2f})", flush=True
        )
    return 0


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--times", type=int, default=1, help="each run is made, the median of each part counts (1)")
    options.add_argument("--view", choices=("live", "plain", "none"), default="live", help="of the run (live)")
    options.add_argument("--only", nargs="+", default=list(RUNS), choices=list(RUNS), help="which runs (both)")
    options.add_argument("--words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return options


def until(words: list[str], sign: str) -> float:
    """Seconds from the start of the command to the line of its output that holds `sign`, or to its end."""
    begin = perf_counter()
    command = [Path(sys.executable).with_name("catalyst"), *words]
    with (
        tempfile.TemporaryDirectory(prefix="bench-start-") as folder,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) as process,
    ):
        for line in process.stdout or ():
            if sign and sign in line:
                break
        else:
            process.wait()
        seconds = perf_counter() - begin
        process.kill()
        process.wait()
    return seconds


def in_a_process(words: list[str]) -> dict[str, float]:
    """The parts of one run, made in an empty folder by a process of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-overhead-") as folder:
        command = [sys.executable, __file__, "--words", *words]
        # rich then takes a pipe for a terminal, and draws.
        environment = {**os.environ, "TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1", "PYTHONIOENCODING": "utf-8"}
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    parts: dict[str, float] = json.loads(done.stderr.splitlines()[-1])
    return parts


def carry_out(words: list[str]) -> dict[str, float]:
    """Make a run with its functions timed: seconds of each part."""
    began = perf_counter()
    import importlib

    watch = Watch()
    for part, functions in PARTS.items():
        for module, owner, name in map(str.split, functions):
            place: Any = importlib.import_module(module, "llm_catalyst")
            place = place if owner == "-" else getattr(place, owner)
            setattr(place, name, watch.timed(part, getattr(place, name)))
    from llm_catalyst.cli.main import main as catalyst

    imported = perf_counter()
    try:
        catalyst(["run", *words])
    except SystemExit as end:
        if end.code:
            raise
    whole = perf_counter() - began
    parts = {**watch.seconds, "imports": imported - began}
    beside = parts.get("view, drawn beside the run", 0.0)
    parts[LOADING[-1]] = whole - sum(parts.values()) + beside
    return parts


def report(name: str, taken: list[dict[str, float]]) -> None:
    """The parts in seconds, and as shares of the time after loading."""
    parts = {
        part: statistics.median(one.get(part, 0.0) for one in taken) for part in (*LOADING[:1], *PARTS, LOADING[-1])
    }
    run = {part: seconds for part, seconds in parts.items() if part not in LOADING}
    beside = run["view, drawn beside the run"]
    whole = sum(run.values()) - beside  # another thread's, within the times of the others
    print(f"\n{name}: {sum(parts.values()) - beside:.1f} s, of which {whole:.1f} after loading")
    for part in (*WORK, *(part for part in run if part not in WORK), *LOADING):
        share = f"{run[part] / whole:8.2%}" if part in run else ""
        print(f"  {part:46}{parts[part]:9.3f} s{share}")
    overhead = sum(seconds for part, seconds in run.items() if part not in WORK)
    print(f"  {'overhead':46}{overhead:9.3f} s{overhead / whole:8.2%}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
