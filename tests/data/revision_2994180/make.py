#!/usr/bin/env python3
"""Makes the files beside it: run directories as revision 2994180 wrote them, and what its configuration consisted of.

To be run AT REVISION 2994180 only; what a later one writes is no evidence that old directories stay usable:

    git worktree add /tmp/first 2994180
    PYTHONPATH=/tmp/first PATH=$PWD/.venv/bin:$PATH .venv/bin/python tests/data/revision_2994180/make.py /tmp/first

It takes about four minutes on two cores, and writes
    <case>.tar.gz       a working directory with outputs/ in it, after the case's command
    commands.json       by case the words of its command, the folder that it writes and how it ended; and the machine
    targets.txt         every `_target_` below conf/, with its file
    config_keys.txt     every dotted key of the configuration that `catalyst run` composes without a word

Two things are not as the command left them: files have no dates (mtime 0), and the notes of a sweep's jobs name another
host, so that no process of the machine that tests is taken for a job that still goes on.
"""

import gzip
import io
import json
import os
import platform
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
REVISION = "2994180"
TIME_LIMIT_S = 300
# Where the package comes from, and what the last digits of figures depend on.
WHERE = "import llm_catalyst, torch; print(llm_catalyst.__file__, torch.backends.cpu.get_cpu_capability(), sep='\\n')"
ELSEWHERE = "another-host"

QUIET = ("device=cpu", "threads=1", "view=none")
# A sample and splits so small that a run takes seconds; none of these keys names a place on a disk.
DATA = ("task=quickstart", "task.shots=16", "task.test=validation", "backbone=minilm", "batch_size=8")
SMALL = (*DATA, "prompt.length=4", "pool.candidates=2", *QUIET)
GEPA = (
    *("run", *SMALL, "head=classifier", "mentor=rehearsal", "strategy=gepa", "mentor.fallbacks=[evolution]"),
    *("stage.steps=[4,4,12,4]", "record.steps=1", "evaluate.steps=4", "checkpoint.every=4"),
    "hydra.run.dir=outputs/gepa",
)
NO_DOER = (
    *("run", *SMALL, "head=similarity", "doer=none", "stages=6", "mentor=rehearsal", "strategy=opro"),
    "hydra.run.dir=outputs/no_doer",
)


@dataclass(frozen=True)
class Case:
    """A command, the folder that it writes, and when which signal ends it: as soon as `until` holds for the folder."""

    words: tuple[str, ...]
    folder: str
    number: signal.Signals | None = None
    until: Callable[[Path], bool] = lambda folder: False
    ended: str = "finished"


def reached(step: int) -> Callable[[Path], bool]:
    """Whether the trajectory of a run has got to a step."""

    def holds(folder: Path) -> bool:
        path = folder / "trajectory.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return bool(lines) and json.loads(lines[-1])["step"] >= step

    return holds


def there(pattern: str) -> Callable[[Path], bool]:
    """Whether there is a file below the folder that matches."""
    return lambda folder: any(not path.name.endswith(".part") for path in folder.glob(pattern))


CASES = {
    "evolution": Case(
        (
            *("run", "experiment=quickstart", "task.shots=16", "task.test=validation", "batch_size=8", *QUIET),
            *("stage.steps=[4,4,6]", "record.steps=2", "evaluate.steps=4", "pool.candidates=3"),
            "hydra.run.dir=outputs/evolution",
        ),
        "outputs/evolution",
    ),
    "gepa": Case(GEPA, "outputs/gepa"),
    "gepa_cut": Case(
        GEPA,
        "outputs/gepa",
        signal.SIGKILL,
        reached(17),
        "by SIGKILL within the third of four stages, some steps after its checkpoint",
    ),
    "no_doer": Case(NO_DOER, "outputs/no_doer"),
    "no_doer_cut": Case(
        NO_DOER, "outputs/no_doer", signal.SIGKILL, there("stages/02"), "by SIGKILL after the third of six stages"
    ),
    "zeroth_order": Case(
        (
            *("run", *SMALL, "head=similarity", "optimizer=zo_momentum", "schedule.name=cosine", "mentor=random"),
            *("stage.steps=[6,6]", "record.steps=3", "evaluate.steps=6", "hydra.run.dir=outputs/zeroth_order"),
        ),
        "outputs/zeroth_order",
    ),
    "shapes": Case(
        (
            *("run", "experiment=shapes", "task.shots=4", "stage.steps=[4,6]", "view=none"),
            "hydra.run.dir=outputs/shapes",
        ),
        "outputs/shapes",
    ),
    "sweep": Case(
        (
            *("run", "-m", *SMALL, "mentor=none,evolution", "seed=1,2", "stage.steps=[4,12]"),
            *("record.steps=2", "evaluate.steps=4", "checkpoint.every=3"),
        ),
        "outputs/sweeps",
        signal.SIGTERM,
        there("*/quickstart/minilm/evolution/2_seed1/stages/01.step*"),
        "by SIGTERM within the third of four runs",
    ),
    "table": Case(
        (
            *("reproduce", "methods", "--smoke", "task.test=validation", "device=cpu", "threads=1"),
            *("--only", "row=AdamW,AdamW with CAPO", "column=SST-2"),
        ),
        "outputs/tables",
        signal.SIGKILL,
        there("methods_smoke*/*/*/seed2/stages/00"),
        "by SIGKILL within the third of four runs",
    ),
}


def environment(checkout: Path, cache: Path) -> dict[str, str]:
    """One thread, no network, no keys, and the checkout's own code."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CATALYST", "OPENAI", "ANTHRO"))}
    plain = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    return kept | plain | {"PYTHONPATH": str(checkout), "CATALYST_CACHE": str(cache)}


def make(case: Case, home: Path, env: dict[str, str]) -> None:
    """Carry out a case's command in `home`, and end it where that is asked for."""
    process = subprocess.Popen(["catalyst", *case.words], cwd=home, env=env, stdin=subprocess.DEVNULL)
    deadline = time.monotonic() + TIME_LIMIT_S
    while process.poll() is None and not (case.number and case.until(home / case.folder)):
        assert time.monotonic() < deadline, f"{case.words} takes too long"
        time.sleep(0.002)
    if process.poll() is None and case.number:
        process.send_signal(case.number)
    code = process.wait(TIME_LIMIT_S)
    wanted = {None: 0, signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 75}[case.number]
    assert code == wanted, f"{case.words} ended with {code}, not {wanted}"


def elsewhere(path: Path) -> bytes:
    """The note of a sweep's job, as it would read on another host."""
    note: dict[str, Any] = json.loads(path.read_text())
    return json.dumps(note | {"host": note["host"] and ELSEWHERE}).encode() + b"\n"


def pack(home: Path, target: Path) -> None:
    """All that lies in `home` as one archive, whose bytes follow from names and contents."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(path for path in home.rglob("*") if path.is_file()):
            data = elsewhere(path) if path.match("jobs/*.json") else path.read_bytes()
            member = tarfile.TarInfo(path.relative_to(home).as_posix())
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    target.write_bytes(gzip.compress(content.getvalue(), 9, mtime=0))


def targets(node: Any) -> Iterator[str]:
    """Every `_target_` in nested mappings and lists."""
    if isinstance(node, dict):
        yield from [node["_target_"]] if "_target_" in node else []
        yield from (target for value in node.values() for target in targets(value))
    elif isinstance(node, list):
        yield from (target for value in node for target in targets(value))


def dotted(node: dict[str, Any], above: str = "") -> Iterator[str]:
    """Every key of nested mappings, those of inner ones too."""
    for name, value in node.items():
        yield above + name
        yield from dotted(value, f"{above}{name}.") if isinstance(value, dict) else []


def write_lists(checkout: Path, env: dict[str, str]) -> None:
    """targets.txt and config_keys.txt."""
    found = [
        f"{target}  {path.relative_to(checkout).as_posix()}"
        for path in sorted((checkout / "conf").rglob("*.yaml"))
        for target in targets(yaml.safe_load(path.read_text()))
    ]
    (HERE / "targets.txt").write_text("\n".join(sorted(found)) + "\n")
    words = ["catalyst", "run", "--cfg", "job", "--resolve"]
    composed = subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout
    (HERE / "config_keys.txt").write_text("\n".join(dotted(yaml.safe_load(composed))) + "\n")


def write_commands(vectors: str) -> None:
    """commands.json."""
    cases = {name: {"words": case.words, "folder": case.folder, "ended": case.ended} for name, case in CASES.items()}
    machine = {"machine": platform.machine(), "vectors": vectors, "cpu": cpu()}
    text = json.dumps({"made_on": machine, "cases": cases}, indent=1)
    (HERE / "commands.json").write_text(text + "\n")


def cpu() -> str:
    """What the processor calls itself; '' where it does not tell."""
    path = Path("/proc/cpuinfo")
    told = path.read_text() if path.exists() else ""
    return next((line.partition(": ")[2] for line in told.splitlines() if line.startswith("model name")), "")


def main(checkout: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="first-runs-") as scratch:
        env = environment(checkout, Path(scratch) / "cache")
        words = [sys.executable, "-c", WHERE]
        told = subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout
        file, vectors = told.splitlines()
        assert Path(file).parents[1] == checkout, f"{file} is imported, and not what lies in {checkout}"
        for words, wanted in ((["rev-parse", "--short=7", "HEAD"], REVISION), (["status", "--porcelain"], "")):
            told = subprocess.run(["git", "-C", checkout, *words], capture_output=True, text=True, check=True).stdout
            assert told.strip() == wanted, f"{checkout} is not revision {REVISION} as it was committed: {told}"
        write_lists(checkout, env)
        for name, case in CASES.items():
            began = time.monotonic()
            home = Path(scratch) / name
            home.mkdir()
            make(case, home, env)
            pack(home, HERE / f"{name}.tar.gz")
            size = (HERE / f"{name}.tar.gz").stat().st_size
            print(f"{name}: {time.monotonic() - began:.0f} s, {size / 1024:.0f} KiB", flush=True)
    write_commands(vectors)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
