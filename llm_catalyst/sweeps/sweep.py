"""A sweep: its folder, and the signals that its jobs on this machine receive."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock
from hydra.core.config_loader import ConfigLoader
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf

from llm_catalyst.sweeps.status import STATUS_FOLDER, STOP_FILE, JobStatus, read_statuses
from llm_catalyst.utils.files import take_lock
from llm_catalyst.utils.signals import SIGNALS, RunInterrupted, stop_now

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
        return (self.folder / STATUS_FOLDER / STOP_FILE).exists()


def begin_sweep(sweep: Sweep) -> None:
    """Lock the sweep's folder and remove the statuses of an earlier launch; a finished run's directory says so itself.

    Waits for the workers of a launch that was killed. Raises ConfigurationError where another process holds the lock.
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
    return take_lock(folder / ".lock", f"another process carries out the sweep in {folder}; wait for it or stop it")


@contextmanager
def forward_signals(sweep: Sweep) -> Iterator[None]:
    """While entered, a signal lets the jobs on this machine save themselves, and then raises RunInterrupted.

    A second signal raises it at once.
    """

    def stop(number: int, frame: Any) -> None:
        for one in before:
            signal.signal(one, stop_now)
        if sweep.local:
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
    return [status for status in read_statuses(folder).values() if status.runs_here()]
