"""A sweep, in the process that was started: a launcher gets its jobs, whose notes (jobs.py) tell how they ended."""

import os
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.config_loader import ConfigLoader
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from llm_catalyst.callbacks.base import RunCallback
from llm_catalyst.callbacks.progress_bars import ProgressBars
from llm_catalyst.config.errors import FAILED, WRONG_USE, explain_config_error, print_error
from llm_catalyst.sweeps.job import (
    ENDED,
    RUNNING,
    STATUS_FOLDER,
    STOP_FILE,
    WAITING,
    JobStatus,
    read_status,
    read_statuses,
    write_status,
)
from llm_catalyst.sweeps.status import Jobs, distinguish_jobs, print_endings
from llm_catalyst.utils.signals import PATIENCE_S, SIGNALS, RunInterrupted, SignalHandler, stop_now
from llm_catalyst.utils.terminal import escape_controls
from llm_catalyst.utils.validation import ConfigurationError

GRACE_S = 15.0  # for jobs on this machine to save themselves after a signal
LATE_S = 60.0


@dataclass(frozen=True)
class Sweep:
    """A launcher, what it composes jobs from, and whether ends of jobs are printed as they come."""

    launcher: Launcher
    config: DictConfig
    loader: ConfigLoader
    tells: bool = True

    @property
    def folder(self) -> Path:
        return Path(self.config.hydra.sweep.dir)

    @property
    def kind(self) -> str:
        return type(self.launcher).__name__


def begin_sweep(sweep: Sweep) -> None:
    """Take the sweep's folder, and forget how its jobs ended before; a finished run knows it itself.

    Raises ConfigurationError where another process is carrying it out. Waits for workers of one that was killed.
    """
    sweep.folder.mkdir(parents=True, exist_ok=True)
    lock_folder(sweep.folder)
    deadline = time.monotonic() + GRACE_S
    while list_local_jobs(sweep.folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    shutil.rmtree(sweep.folder / STATUS_FOLDER, ignore_errors=True)
    OmegaConf.save(sweep.config, sweep.folder / "multirun.yaml")


@cache
def lock_folder(folder: Path) -> FileLock:
    """The lock of a sweep's folder, which is held until this process ends."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigurationError(f"another process carries out the sweep in {folder}; wait for it or stop it") from None
    return lock


def launch_jobs(sweep: Sweep, jobs: Jobs) -> dict[int, JobStatus]:
    """Have the launcher carry out jobs; their notes. One that fails, or loses its process, takes no other down.

    Raises Stopped at a signal, after the jobs on this machine have saved themselves.
    """
    for number, overrides in jobs.items():
        write_status(sweep.folder, JobStatus(number, tuple(overrides)))
    ready = {number: overrides for number, overrides in jobs.items() if check_composition(sweep, number, overrides)}
    kinds = {
        "BasicLauncher": launch_in_turn,
        "Together": launch_together,
        "LocalLauncher": launch_separately,
        "SlurmLauncher": launch_separately,
    }
    carry_out = kinds.get(sweep.kind, launch_in_pool)
    with nullcontext() if carry_out in (launch_in_turn, launch_together) else forward_signals(sweep, jobs):
        carry_out(sweep, ready)
    notes = read_statuses(sweep.folder)
    return {number: notes[number] for number in jobs}


def check_composition(sweep: Sweep, number: int, overrides: Sequence[str]) -> bool:
    """Whether a job's configuration can be composed; where not, its note says why."""
    try:
        sweep.loader.load_sweep_config(sweep.config, list(overrides))
    except Exception as error:
        message = explain_config_error(error)
        print_error(message)
        lost = JobStatus(number, tuple(overrides), ENDED, code=WRONG_USE, status="failed", message=message)
        write_status(sweep.folder, lost)
        return False
    return True


# --- four kinds of launchers


def launch_in_turn(sweep: Sweep, jobs: Jobs) -> None:
    """One job after the other, in this process."""
    for number, overrides in jobs.items():
        try:
            sweep.launcher.launch([overrides], number)
        except Exception as error:
            record_lost(sweep, [number], error)
        else:
            record_lost(sweep, [number], None)


def launch_together(sweep: Sweep, jobs: Jobs) -> None:
    """Those that can share a backbone at once, each in a thread of this process. Raises Stopped at a signal."""
    from llm_catalyst.training.shared_backbone import SharedBackboneRuns

    launcher: Any = sweep.launcher
    for group in group_by_backbone(sweep, jobs, launcher.at_once):
        # A step of all of them takes as long as theirs do.
        with SignalHandler(PATIENCE_S * len(group)) as interruption, show_bars(sweep, group) as views:
            company = SharedBackboneRuns(len(group), launcher.joint, interruption, views)

            def one(number: int, overrides: Sequence[str], company: SharedBackboneRuns = company) -> None:
                with suppress(RunInterrupted), company.seat(number):
                    if company.interruption.number is None:
                        launch_in_turn(sweep, {number: overrides})

            threads = [threading.Thread(target=one, args=job, daemon=True) for job in group.items()]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            interruption.check()


@contextmanager
def show_bars(sweep: Sweep, jobs: Jobs) -> Iterator[Mapping[int, RunCallback]]:
    """While entered, jobs that share a terminal have a bar each, which are their views; elsewhere none has any.

    Then a line is printed for each that ends.
    """
    console = Console(soft_wrap=True)
    if not sweep.tells:
        yield dict.fromkeys(jobs, RunCallback())
    elif console.is_terminal and not console.is_dumb_terminal:
        with ProgressBars(distinguish_jobs(jobs), console) as bars:
            yield bars.callbacks
    else:
        with print_endings(sweep.folder, jobs):
            yield dict.fromkeys(jobs, RunCallback())


def group_by_backbone(sweep: Sweep, jobs: Jobs, at_once: int) -> Iterator[dict[int, Sequence[str]]]:
    """The jobs in groups of at most `at_once` that can share a backbone, in the order of their first ones."""
    groups: dict[str, list[int]] = {}
    for number, overrides in jobs.items():
        config = sweep.loader.load_sweep_config(sweep.config, list(overrides))
        alike = {key: OmegaConf.select(config, key) for key in ("task", "backbone", "head", "protocol", "device")}
        groups.setdefault(OmegaConf.to_yaml({**alike, "m": config.prompt.length}, resolve=True), []).append(number)
    for numbers in groups.values():
        for i in range(0, len(numbers), at_once):
            yield {number: jobs[number] for number in numbers[i : i + at_once]}


def launch_separately(sweep: Sweep, jobs: Jobs) -> None:
    """Each job by a launch of its own, as submitit's stops waiting for all where one has lost its process."""
    free = threading.Semaphore(sweep.config.hydra.launcher.get("array_parallelism") or os.cpu_count() or 1)

    def one(number: int, overrides: Sequence[str]) -> None:
        with free:
            if not (sweep.folder / STATUS_FOLDER / STOP_FILE).exists():
                launch_in_turn(sweep, {number: overrides})

    threads = [threading.Thread(target=one, args=job, daemon=True) for job in jobs.items()]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except RunInterrupted:
        deadline = time.monotonic() + GRACE_S
        for thread in threads if on_this_machine(sweep) else []:
            thread.join(max(0.0, deadline - time.monotonic()))
        raise


def launch_in_pool(sweep: Sweep, jobs: Jobs) -> None:
    """All jobs by one launch. Where a process is lost, joblib ends all: then each that was under way gets its own.

    So the one at fault is found, and the others go on from their checkpoints. Where none was, the first gets its own.
    """
    groups = group_consecutive(jobs)
    while groups:
        chunk = groups.pop(0)
        try:
            sweep.launcher.launch([*chunk.values()], next(iter(chunk)))
        except Exception as error:
            if len(chunk) == 1:
                record_lost(sweep, [*chunk], error)
                continue
            notes = read_statuses(sweep.folder)
            waiting = [number for number in chunk if notes[number].state == WAITING]
            begun = [number for number in chunk if notes[number].state == RUNNING] or waiting[:1]
            rest = {number: chunk[number] for number in waiting if number not in begun}
            groups = [{number: chunk[number]} for number in begun] + group_consecutive(rest) + groups
        else:
            record_lost(sweep, [*chunk], None)


def group_consecutive(jobs: Jobs) -> list[dict[int, Sequence[str]]]:
    """The jobs in groups with numbers in a row, as launchers count them."""
    groups: list[dict[int, Sequence[str]]] = []
    for number, overrides in sorted(jobs.items()):
        if not groups or number - 1 not in groups[-1]:
            groups.append({})
        groups[-1][number] = overrides
    return groups


def record_lost(sweep: Sweep, numbers: Sequence[int], error: Exception | None) -> None:
    """Note that these jobs ended without a word, but for those that have said something."""
    for number in numbers:
        note = read_status(sweep.folder, number) if error else read_last_status(sweep, number)
        if note.state != ENDED and not (sweep.folder / STATUS_FOLDER / STOP_FILE).exists():
            what = "its process is lost" if note.state == RUNNING else "it cannot begin"
            message = f"{what} ({describe_cause(error)})" if error else "it ended without a word"
            write_status(sweep.folder, replace(note, state=ENDED, code=FAILED, status="lost", message=message))


def describe_cause(error: Exception) -> str:
    """What went wrong, in one line: where a launcher hands on the traceback of a job's process, the end of that."""
    ends = re.findall(r"^[\w.]+(?:Error|Exception|Exit|Interrupt): .+$", str(error), re.MULTILINE)
    return escape_controls(ends[-1] if ends else f"{type(error).__name__}: {str(error).strip()}".partition("\n")[0])


def read_last_status(sweep: Sweep, number: int) -> JobStatus:
    """The note of a job that has ended, which a network file system may show late."""
    deadline = time.monotonic() + (0.0 if on_this_machine(sweep) else LATE_S)
    while (note := read_status(sweep.folder, number)).state != ENDED and time.monotonic() < deadline:
        time.sleep(1.0)
    return note


# --- while jobs go on elsewhere


@contextmanager
def forward_signals(sweep: Sweep, jobs: Jobs) -> Iterator[None]:
    """While entered, a signal is passed on to the jobs, and a line is printed for each that ends."""
    with pass_signals_on(sweep), print_endings(sweep.folder, jobs) if sweep.tells else nullcontext():
        yield


def on_this_machine(sweep: Sweep) -> bool:
    """Whether jobs are this process's own; those of a cluster go on without it."""
    return sweep.kind != "SlurmLauncher"


@contextmanager
def pass_signals_on(sweep: Sweep) -> Iterator[None]:
    """While entered, a signal lets the jobs on this machine save themselves, and then raises Stopped.

    A second signal raises it at once.
    """

    def stop(number: int, frame: Any) -> None:
        for one in before:
            signal.signal(one, stop_now)
        if on_this_machine(sweep):
            (sweep.folder / STATUS_FOLDER / STOP_FILE).touch()
            stop_local_jobs(sweep.folder)
        raise RunInterrupted(number)

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_local_jobs(folder: Path) -> None:
    """Send SIGTERM to the jobs that run on this machine, and wait until they have ended, but not for ever."""
    told: set[int] = set()
    deadline = time.monotonic() + GRACE_S
    while (running := list_local_jobs(folder)) and time.monotonic() < deadline:
        for note in running:
            if note.pid not in told:
                with suppress(ProcessLookupError):
                    os.kill(note.pid, signal.SIGTERM)
                told.add(note.pid)
        time.sleep(0.1)


def list_local_jobs(folder: Path) -> list[JobStatus]:
    """The notes of jobs whose processes live on this machine."""
    return [note for note in read_statuses(folder).values() if note.state == RUNNING and runs_here(note)]


def runs_here(note: JobStatus) -> bool:
    """Whether the process of a job that runs lives on this machine."""
    if note.host != socket.gethostname():
        return False
    try:
        os.kill(note.pid, 0)
    except OSError:  # none has the number, or another user's
        return False
    return True
