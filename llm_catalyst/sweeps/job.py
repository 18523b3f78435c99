"""One job of a sweep, in whatever process a launcher has put it, and the note that tells what became of it.

<sweep folder>/jobs/<number>.json   the note of a job, replaced as a whole: it may be written on another machine
<sweep folder>/jobs/stop            is there from when no further job is to begin
"""

import itertools
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.text import Text

from llm_catalyst.config.errors import run_with_exit_code
from llm_catalyst.config.overrides import (
    absolutize_paths,
    sanitize_folder_name,
)
from llm_catalyst.report.summary import summarize_run as summarize_run
from llm_catalyst.runs.reader import read_run
from llm_catalyst.runs.records import from_json, to_json
from llm_catalyst.utils.files import write_atomically
from llm_catalyst.utils.signals import STOPPED, RunInterrupted, handle_signals, stop_now

STATUS_FOLDER, STOP_FILE = "jobs", "stop"
WAITING, RUNNING, ENDED = "waiting", "running", "ended"
WATCH_S, LEAVE_S = 0.5, 10.0  # how soon a worker hears that its sweep was killed, and how soon it is gone then

# A launcher's worker names the run's directory, which needs this, before it calls the job. It has read this file then.
OmegaConf.register_new_resolver("folder", sanitize_folder_name, replace=True)


@dataclass(frozen=True)
class JobStatus:
    """What a job tells of itself. `code` is the exit code that its run would have had alone, once it has ended.

    `dev` is the best metric on dev, which a search maximizes; `estimate` holds an Estimate's fields, of a dry run.
    """

    number: int
    overrides: tuple[str, ...]
    state: str = WAITING
    directory: str = ""
    host: str = ""
    pid: int = 0
    code: int | None = None
    status: str = ""
    message: str = ""
    dev: float | None = None
    estimate: dict[str, Any] | None = None


@dataclass(frozen=True)
class Job:
    """What `catalyst run` has Hydra call, for the only run or for each of a sweep. `words` are those of the command."""

    words: tuple[str, ...]

    def __call__(self, config: DictConfig) -> float:
        """The best metric on dev, as sweepers want it; NaN where there is none. The only run ends with its code."""
        hydra = HydraConfig.get()
        if hydra.mode != RunMode.RUN:
            dev = carry_out_job(config, self.words).dev
        else:
            code, result = run_with_exit_code(lambda: execute_composed(config, self.words))
            remove_if_empty(Path(hydra.runtime.output_dir))
            if code:
                sys.exit(code)
            dev = result.get("dev")
        return float("nan") if dev is None else dev


def carry_out_job(config: DictConfig, words: Sequence[str]) -> JobStatus:
    """One job of a sweep, from what Hydra composed: its note, which lies in the sweep's folder, too.

    No exception leaves it, and Stopped only where the job shares its process with the sweep.
    """
    hydra = HydraConfig.get()
    sweep, directory = Path(hydra.sweep.dir), Path(hydra.runtime.output_dir)
    note = JobStatus(hydra.job.num, tuple(hydra.overrides.task), directory=str(directory))
    if (sweep / STATUS_FOLDER / STOP_FILE).exists():
        remove_if_empty(directory)
        return note
    shared = hydra.launcher._target_.endswith(".Together")
    alone = not (shared or hydra.launcher._target_.endswith(".BasicLauncher"))
    if alone:
        prepare_worker(config, sweep)
    if config.view == "auto" and (alone or shared):
        config.view = "none"  # it would draw over those of the others
    note = write_status(sweep, replace(note, state=RUNNING, host=socket.gethostname(), pid=os.getpid()))
    try:
        code, result = run_with_exit_code(lambda: execute_composed(config, words))
    except RunInterrupted as stopped:
        message = f"stopped {stopped}"
        if stopped.name == "SIGUSR2" and os.environ.get("SUBMITIT_EXECUTOR"):
            message += f"; {requeue_job(sweep, note)}"
        note = write_status(sweep, replace(note, state=ENDED, code=stopped.code, status="stopped", message=message))
        if alone:
            return note
        raise
    remove_if_empty(directory)
    told = {name: result[name] for name in ("status", "message", "dev") if name in result}
    estimate = asdict(result["estimate"]) if "estimate" in result else None
    return write_status(sweep, replace(note, state=ENDED, code=code, estimate=estimate, **told))


def prepare_worker(config: DictConfig, sweep: Path) -> None:
    """Make a worker's process what a command's is: signals, and a GPU of its own."""
    handle_signals()
    if os.environ.get("SUBMITIT_EXECUTOR") == "local":  # a cluster's SIGTERM is followed by SIGUSR2; this one is not
        signal.signal(signal.SIGTERM, stop_now)
    if "joblib" in HydraConfig.get().launcher._target_:
        end_after_parent(os.getppid())
        if config.device in ("auto", "cuda"):
            take_gpu(sweep)


@cache
def end_after_parent(parent: int) -> None:
    """From now on, should the sweep's own process be killed, let the run in hand save itself, and end this worker."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_S)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(LEAVE_S)
        os._exit(STOPPED)

    threading.Thread(target=watch, daemon=True).start()


def take_gpu(sweep: Path) -> None:
    """Let this process see one GPU only, where there are several: another than the sweep's other workers see.

    A worker keeps its place for as long as it lives; where there are more workers than GPUs, some share one.
    """
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        gpus = visible.split(",")
    else:
        import torch

        gpus = [str(number) for number in range(torch.cuda.device_count())]
    if len(gpus) > 1:
        place, _ = lock_first_place(sweep / STATUS_FOLDER)
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[place % len(gpus)]


@cache
def lock_first_place(folder: Path) -> tuple[int, FileLock]:
    """The first place that no other process has, and its lock, which is held until this process ends."""
    for place in itertools.count():
        lock = FileLock(folder / f"worker{place}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        return place, lock
    raise AssertionError


def requeue_job(sweep: Path, note: JobStatus) -> str:
    """Have submitit queue this process's job again, at the signal by which a cluster takes its machine back.

    The process then ends, and the job is one that waits. Gives back only why it is not queued: it was too often before.
    """
    write_status(sweep, replace(note, state=WAITING))
    handler: Any = signal.getsignal(signal.SIGUSR2)
    try:
        handler(signal.SIGUSR2, None)
    except Exception as error:
        return str(error)
    raise AssertionError


def write_status(sweep: Path, note: JobStatus) -> JobStatus:
    """The note, once it lies in the sweep's folder."""
    (sweep / STATUS_FOLDER).mkdir(parents=True, exist_ok=True)
    write_atomically(sweep / STATUS_FOLDER / f"{note.number}.json", to_json(note).encode() + b"\n")
    return note


def read_status(sweep: Path, number: int) -> JobStatus:
    """The note of one job."""
    return from_json(JobStatus, (sweep / STATUS_FOLDER / f"{number}.json").read_bytes())


def read_statuses(sweep: Path) -> dict[int, JobStatus]:
    """The notes of a sweep's jobs, in the order of their numbers; without those that just vanish, as it begins anew."""
    notes = {}
    for number in sorted(int(path.stem) for path in (sweep / STATUS_FOLDER).glob("*.json")):
        with suppress(FileNotFoundError):
            notes[number] = read_status(sweep, number)
    return notes


# Libraries that tell of each request; a line of theirs would run through the live view.
CHATTY = ("huggingface_hub", "filelock", "datasets")


SDKS = ("openai", "anthropic", "httpx2", "httpcore2")


def execute_composed(config: Any, words: Sequence[str]) -> dict[str, Any]:
    """One run of a sweep, or the only one, from what Hydra composed."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    runtime = HydraConfig.get().runtime
    choices = {group: name for group, name in runtime.choices.items() if name and not group.startswith("hydra/")}
    folders = [Path(source.path) for source in runtime.config_sources if source.schema == "file"]
    return execute_run(absolutize_paths(load_fallbacks(plain, folders)), choices, Path(runtime.output_dir), words)


def load_fallbacks(config: dict[str, Any], folders: Sequence[Path]) -> dict[str, Any]:
    """The configuration with the mentors that mentor.fallbacks names written out, from files below `folders`."""
    from omegaconf import OmegaConf

    from llm_catalyst.config.build import resolve_fallbacks

    def read(path: Path) -> dict[str, Any]:
        node: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
        return dict(node)

    return resolve_fallbacks(config, folders, read)


def execute_run(config: dict[str, Any], choices: Mapping[str, str], path: Path, words: Sequence[str]) -> dict[str, Any]:
    """One run from a resolved configuration; its outcome in a few plain values, as sweepers want it."""
    from llm_catalyst.config.build import build_components

    quiet_libraries()
    parts = build_components(config)
    from llm_catalyst.training.run import dry_run, read_finished, run_training

    if parts.settings.dry_run:
        return {"status": "dry run", "estimate": dry_run(parts)}
    outcome = read_finished(path, config)
    if outcome is not None:
        Console().print(Text(f"finished already, nothing to do: {path} ({outcome.status}: {outcome.message})"))
    else:
        outcome = run_training(parts, config, choices, path, words)
        if parts.settings.view != "none":
            Console().print(summarize_run(read_run(path)))
    return {"status": outcome.status, "dev": outcome.best and outcome.best.score.metric, "directory": str(path)}


def quiet_libraries() -> None:
    """Let no library tell of each request, and the SDKs of none: what a server sent may be the key itself.

    They would with OPENAI_LOG or ANTHROPIC_LOG in the environment, or by hydra.verbose.
    """
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in SDKS:
        logging.getLogger(name).propagate = False
        logging.getLogger(name).handlers = [logging.NullHandler()]


def remove_if_empty(path: Path) -> None:
    """Take away the folder that Hydra made for a run which then was refused, and its empty parents up to here."""
    if not path.is_dir() or {file.name for file in path.iterdir()} - {".lock"}:
        return
    (path / ".lock").unlink(missing_ok=True)
    for folder in (path, *path.parents):
        if Path.cwd() not in folder.parents or any(folder.iterdir()):
            return
        folder.rmdir()
