"""Where a sweep's jobs stand, in words: a line for each that ends, and what became of all."""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

from llm_catalyst.config.errors import BUDGET_SPENT, FAILED
from llm_catalyst.runs.analysis import first_of, format_count
from llm_catalyst.sweeps.job import ENDED, WAITING, JobStatus, read_status, read_statuses
from llm_catalyst.utils.signals import INTERRUPTED, STOPPED
from llm_catalyst.utils.terminal import escape_controls

Jobs = Mapping[int, Sequence[str]]  # overrides by number


@contextmanager
def print_endings(folder: Path, jobs: Jobs) -> Iterator[None]:
    """While entered, print a line for each job that ends: one view over all processes and machines."""
    names, console, told = distinguish_jobs(jobs), Console(soft_wrap=True), set[int]()
    over = threading.Event()

    def tell() -> None:
        for note in [read_status(folder, number) for number in jobs if number not in told]:
            if note.state == ENDED:
                told.add(note.number)
                dev = "" if note.dev is None else f", dev {note.dev:.3f}"
                console.print(Text(f"[{len(told)}/{len(jobs)}] {names[note.number]}: {note.status}{dev}"))

    def watch() -> None:
        while not over.wait(1.0):
            tell()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        tell()


@contextmanager
def conclude_sweep(folder: Path) -> Iterator[None]:
    """When left, what became of the sweep's jobs is printed; then ends the process where not all have finished."""
    try:
        yield
    finally:
        notes = read_statuses(folder)
        print_estimates(notes)
        for line in summarize_jobs(notes, folder) if notes else []:
            Console(stderr=True, soft_wrap=True).print(line)
    code = max((FAILED if note.code is None else note.code for note in notes.values()), default=0)
    if code:
        raise SystemExit(code)


def print_estimates(notes: Mapping[int, JobStatus]) -> None:
    """Print the sum of what dry runs have estimated."""
    found = [note.estimate for note in notes.values() if note.estimate]
    if found:
        from pydantic import TypeAdapter

        from llm_catalyst.training.estimate import Estimate, render_estimate, sum_estimates

        Console().print(render_estimate(sum_estimates([TypeAdapter(Estimate).validate_python(one) for one in found])))


def summarize_jobs(notes: Mapping[int, JobStatus], folder: Path) -> list[Text]:
    """'38 of 40 runs finished; 1 failed; 1 was not run; the same command goes on with them', and who failed and why."""
    kinds: dict[str, list[JobStatus]] = {"finished": [], "failed": [], "stopped": [], "not run": []}
    for note in notes.values():
        kinds[classify_ending(note)].append(note)
    done, failed, stopped, waiting = kinds.values()
    verb = "estimated" if any(note.estimate for note in done) else "finished"
    parts = [f"{len(done)} of {format_count(len(notes), 'run')} {verb}"]
    parts += [f"{len(failed)} failed"] if failed else []
    parts += [f"{len(stopped)} stopped before the end"] if stopped else []
    parts += [f"{len(waiting)} {'was' if len(waiting) == 1 else 'were'} not run"] if waiting else []
    left = len(notes) - len(done)
    parts += [f"the same command goes on with {'it' if left == 1 else 'them'} ({folder})"] if left else []
    names = distinguish_jobs({note.number: note.overrides for note in notes.values()})
    reasons: dict[str, list[str]] = {}
    for note in (*failed, *stopped):
        there = note.directory and Path(note.directory).is_dir()
        reasons.setdefault(note.message or "cut off", []).append(
            os.path.relpath(note.directory) if there else names[note.number]
        )
    lines = [Text("; ".join(parts), "bold red" if failed else "")]
    for message, places in reasons.items():
        lines.append(Text(escape_controls(f"  {first_of(places)}: {message}"), "red"))
    return lines


def classify_ending(note: JobStatus) -> str:
    """What a note says, as the summary counts it."""
    if note.state != ENDED:
        return "not run" if note.state == WAITING else "stopped"
    return {0: "finished", BUDGET_SPENT: "stopped", STOPPED: "stopped", INTERRUPTED: "stopped"}.get(
        note.code or 0, "failed"
    )


def distinguish_jobs(jobs: Jobs) -> dict[int, str]:
    """What tells each job from the others: the overrides that not all have."""
    shared = set.intersection(*(set(overrides) for overrides in jobs.values())) if len(jobs) > 1 else set()
    return {
        number: escape_controls(" ".join(word for word in overrides if word not in shared))
        for number, overrides in jobs.items()
    }
