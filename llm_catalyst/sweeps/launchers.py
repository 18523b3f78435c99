"""Launch the jobs of a sweep, and forward signals to them; status.py holds how they ended."""

import itertools
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock
from hydra.core.config_loader import ConfigLoader
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from llm_catalyst.callbacks.base import RunCallback
from llm_catalyst.callbacks.progress_bars import ProgressBars
from llm_catalyst.config.errors import FAILED, run_with_exit_code
from llm_catalyst.sweeps import status as statuses
from llm_catalyst.sweeps.status import Jobs, JobStatus, end_job, read_status
from llm_catalyst.utils.files import take_lock
from llm_catalyst.utils.signals import PATIENCE_S, RunInterrupted, SignalHandler, list_signals, stop_now
from llm_catalyst.utils.terminal import escape_controls

LATE_S = 60.0  # for the status of a job that has ended on another machine to appear
GRACE_S = 15.0  # for jobs on this machine to save themselves after a signal


@dataclass(frozen=True)
class Sweep:
    """A launcher, what it composes jobs from, and whether a line is printed for each job that ends."""

    launcher: Launcher
    config: DictConfig
    loader: ConfigLoader
    prints: bool = True

    @property
    def folder(self) -> Path:
        return Path(self.config.hydra.sweep.dir)

    @property
    def kind(self) -> str:
        return type(self.launcher).__name__

    @property
    def local(self) -> bool:
        """Whether jobs are processes of this machine; those of a cluster continue without this one."""
        return self.kind != "SlurmLauncher"

    @property
    def stopped(self) -> bool:
        """Whether no further job is to begin."""
        return (self.folder / statuses.STATUS_FOLDER / statuses.STOP_FILE).exists()


def begin_sweep(sweep: Sweep) -> None:
    """Lock the sweep's folder and remove the statuses of an earlier launch; a finished run's directory says so itself.

    Waits for the workers of a launch that was killed. Raises ConfigurationError where another process holds the lock.
    """
    sweep.folder.mkdir(parents=True, exist_ok=True)
    lock_folder(sweep.folder)
    deadline = time.monotonic() + GRACE_S
    while list_local_jobs(sweep.folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    shutil.rmtree(sweep.folder / statuses.STATUS_FOLDER, ignore_errors=True)
    OmegaConf.save(sweep.config, sweep.folder / "multirun.yaml")


@cache
def lock_folder(folder: Path) -> FileLock:
    """The lock of a sweep's folder, which is held until this process ends."""
    return take_lock(folder / ".lock", f"another process carries out the sweep in {folder}; wait for it or stop it")


def launch_jobs(sweep: Sweep, jobs: Jobs) -> dict[int, JobStatus]:
    """Have the launcher carry out jobs; their statuses. A job that fails, or loses its process, ends no other.

    Raises RunInterrupted at a signal, after the jobs on this machine have saved themselves.
    """
    for number, overrides in jobs.items():
        statuses.write_status(sweep.folder, JobStatus(number, tuple(overrides)))
    ready = {number: overrides for number, overrides in jobs.items() if check_composition(sweep, number, overrides)}
    if sweep.kind == "BasicLauncher":
        for number, overrides in ready.items():  # of a launch, it keeps all configurations until the end
            launch_all(sweep, {number: overrides})
    elif sweep.kind == "Together":
        launch_together(sweep, ready)
    else:
        with forward_signals(sweep), show_endings(sweep, jobs):
            launch = launch_separately if sweep.kind in ("LocalLauncher", "SlurmLauncher") else launch_all
            launch(sweep, ready)
    return {number: read_status(sweep.folder, number) for number in jobs}


def show_endings(sweep: Sweep, jobs: Jobs) -> AbstractContextManager[None]:
    """While entered, a line is printed for each job that ends, if the sweep prints such lines."""
    return statuses.print_endings(sweep.folder, jobs) if sweep.prints else nullcontext()


def check_composition(sweep: Sweep, number: int, overrides: Sequence[str]) -> bool:
    """Whether a job's configuration can be composed; if not, its status says why."""
    code, failure = run_with_exit_code(lambda: sweep.loader.load_sweep_config(sweep.config, list(overrides)))
    if code:
        end_job(sweep.folder, JobStatus(number, tuple(overrides)), code=code, **failure)
    return not code


def launch_together(sweep: Sweep, jobs: Jobs) -> None:
    """The jobs that can share a backbone at once, each in a thread of this process.

    Raises RunInterrupted at a signal.
    """
    from llm_catalyst.training.shared_backbone import SharedBackboneRuns

    launcher: Any = sweep.launcher
    for group in group_by_backbone(sweep, jobs, launcher.at_once):
        # A step of all runs takes as long as the steps of each together.
        with SignalHandler(PATIENCE_S * len(group)) as signals, show_bars(sweep, group) as callbacks:
            runs = SharedBackboneRuns(len(group), launcher.joint, signals, callbacks)

            def launch(number: int, overrides: Sequence[str], runs: SharedBackboneRuns = runs) -> None:
                with suppress(RunInterrupted), runs.seat(number):
                    if runs.signals.number is None:
                        launch_all(sweep, {number: overrides})

            for thread in start_threads(launch, group):
                thread.join()
            signals.check()


@contextmanager
def show_bars(sweep: Sweep, jobs: Jobs) -> Iterator[Mapping[int, RunCallback]]:
    """While entered, jobs that share a terminal have a bar each, as their callbacks.

    Elsewhere they have none, and a line is printed for each that ends.
    """
    console = Console(soft_wrap=True)
    if sweep.prints and console.is_terminal and not console.is_dumb_terminal:
        with ProgressBars(statuses.distinguish_jobs(jobs), console) as bars:
            yield bars.callbacks
    else:
        with show_endings(sweep, jobs):
            yield dict.fromkeys(jobs, RunCallback())


def group_by_backbone(sweep: Sweep, jobs: Jobs, at_once: int) -> Iterator[dict[int, Sequence[str]]]:
    """The jobs in groups of at most `at_once` that can share a backbone, ordered by the first job of each."""
    groups: dict[str, list[int]] = {}
    for number, overrides in jobs.items():
        config = sweep.loader.load_sweep_config(sweep.config, list(overrides))
        alike = {key: OmegaConf.select(config, key) for key in ("task", "backbone", "head", "protocol", "device")}
        groups.setdefault(OmegaConf.to_yaml({**alike, "m": config.prompt.length}, resolve=True), []).append(number)
    for numbers in groups.values():
        for i in range(0, len(numbers), at_once):
            yield {number: jobs[number] for number in numbers[i : i + at_once]}


def launch_separately(sweep: Sweep, jobs: Jobs) -> None:
    """Each job by a launch of its own: submitit stops waiting for all of a launch where one has lost its process."""
    free = threading.Semaphore(sweep.config.hydra.launcher.get("array_parallelism") or os.cpu_count() or 1)

    def launch(number: int, overrides: Sequence[str]) -> None:
        with free:
            if not sweep.stopped:
                launch_all(sweep, {number: overrides})

    threads = start_threads(launch, jobs)
    try:
        for thread in threads:
            thread.join()
    except RunInterrupted:
        deadline = time.monotonic() + GRACE_S
        for thread in threads if sweep.local else []:
            thread.join(max(0.0, deadline - time.monotonic()))
        raise


def start_threads(launch: Callable[[int, Sequence[str]], None], jobs: Jobs) -> list[threading.Thread]:
    """A thread for each job, started, which calls `launch` with its number and overrides."""
    threads = [threading.Thread(target=launch, args=job, daemon=True) for job in jobs.items()]
    for thread in threads:
        thread.start()
    return threads


def launch_all(sweep: Sweep, jobs: Jobs) -> None:
    """All jobs by one launch. With a lost process joblib ends all jobs: then each that ran gets a launch of its own.

    So the job at fault is found, and the others resume from their checkpoints. Where none ran, the first gets its own.
    """
    groups = group_consecutive(jobs)
    while groups:
        chunk = groups.pop(0)
        error = None
        try:
            sweep.launcher.launch([*chunk.values()], next(iter(chunk)))
        except Exception as raised:
            error = raised
        if error is None or len(chunk) == 1:
            record_lost(sweep, [*chunk], error)
            continue
        states = {number: read_status(sweep.folder, number).state for number in chunk}
        waiting = [number for number, state in states.items() if state == "waiting"]
        begun = [number for number, state in states.items() if state == "running"] or waiting[:1]
        rest = {number: chunk[number] for number in waiting if number not in begun}
        groups = [{number: chunk[number]} for number in begun] + group_consecutive(rest) + groups


def group_consecutive(jobs: Jobs) -> list[dict[int, Sequence[str]]]:
    """The jobs in groups with consecutive numbers, because a launcher numbers its jobs so."""
    groups = itertools.groupby(enumerate(sorted(jobs)), key=lambda place: place[1] - place[0])
    return [{number: jobs[number] for _, number in group} for _, group in groups]


def record_lost(sweep: Sweep, numbers: Sequence[int], error: Exception | None) -> None:
    """Record as lost each of these jobs that has not recorded its own end."""
    for number in numbers:
        status = read_status(sweep.folder, number) if error else read_last_status(sweep, number)
        if status.state != "ended" and not sweep.stopped:
            what = "its process is lost" if status.state == "running" else "it cannot begin"
            message = f"{what} ({describe_cause(error)})" if error else "it ended without a status"
            end_job(sweep.folder, status, code=FAILED, status="lost", message=message)


def describe_cause(error: Exception) -> str:
    """The error in one line; of a traceback that a launcher passes on from a job's process, its last line."""
    ends = re.findall(r"^[\w.]+(?:Error|Exception|Exit|Interrupt): .+$", str(error), re.MULTILINE)
    return escape_controls(ends[-1] if ends else f"{type(error).__name__}: {str(error).strip()}".partition("\n")[0])


def read_last_status(sweep: Sweep, number: int) -> JobStatus:
    """The status of a job that has ended, which a network file system may show late."""
    deadline = time.monotonic() + (0.0 if sweep.local else LATE_S)
    while (status := read_status(sweep.folder, number)).state != "ended" and time.monotonic() < deadline:
        time.sleep(1.0)
    return status


@contextmanager
def forward_signals(sweep: Sweep) -> Iterator[None]:
    """While entered, a signal lets the jobs on this machine save themselves, and then raises RunInterrupted.

    A second signal raises it at once.
    """

    def stop(number: int, frame: Any) -> None:
        for one in before:
            signal.signal(one, stop_now)
        if sweep.local:
            (sweep.folder / statuses.STATUS_FOLDER / statuses.STOP_FILE).touch()
            stop_local_jobs(sweep.folder)
        raise RunInterrupted(number)

    before = {number: signal.signal(number, stop) for number in list_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_local_jobs(folder: Path) -> None:
    """Send SIGTERM to the jobs that run on this machine, and wait until they have ended, at most GRACE_S seconds."""
    signalled: set[int] = set()
    deadline = time.monotonic() + GRACE_S
    while (running := list_local_jobs(folder)) and time.monotonic() < deadline:
        for status in running:
            if status.pid not in signalled:
                with suppress(ProcessLookupError):
                    os.kill(status.pid, signal.SIGTERM)
                signalled.add(status.pid)
        time.sleep(0.1)


def list_local_jobs(folder: Path) -> list[JobStatus]:
    """The status of each job whose process lives on this machine."""
    return [status for status in statuses.read_statuses(folder).values() if status.runs_here()]
