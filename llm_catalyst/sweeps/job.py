"""Carry out one job of a sweep, or the only run, in the process that a launcher has chosen; record its status."""

import itertools
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.text import Text

from llm_catalyst.config.backbone import find_backbone_choice, name_backbone, settle_backbone
from llm_catalyst.config.build import build_components, build_node, record_checked
from llm_catalyst.config.errors import DIVERGED, run_with_exit_code
from llm_catalyst.config.overrides import absolutize_paths, expand_short_names, sanitize_folder_name
from llm_catalyst.mentors.catalogue import read_own_models
from llm_catalyst.report.summary import summarize_run
from llm_catalyst.runs.analysis import read_answers
from llm_catalyst.runs.old_configs import (
    find_parent,
    keep_earlier_values,
    lacks_keys,
    translate_config,
    translate_target,
)
from llm_catalyst.runs.reader import read_manifest, read_run, run_directories
from llm_catalyst.runs.run_config import PLACE, load_written_config
from llm_catalyst.runs.writer import find_replaced_files
from llm_catalyst.sweeps.baseline import (
    configure_baseline,
    name_command,
    needs_baseline,
    place_baseline,
    print_gain,
)
from llm_catalyst.sweeps.fallbacks import resolve_fallbacks
from llm_catalyst.sweeps.status import STATUS_FOLDER, STOP_FILE, JobStatus, end_job, write_status
from llm_catalyst.utils.files import take_lock
from llm_catalyst.utils.paths import conf_directory
from llm_catalyst.utils.signals import STOPPED, RunInterrupted, handle_signals, stop_now
from llm_catalyst.utils.terminal import escape_controls, list_names, open_console
from llm_catalyst.utils.validation import ConfigurationError, get_nested

WATCH_S, LEAVE_S = 0.5, 10.0  # seconds until a worker notices that its sweep was killed, and until it then ends
# Libraries that log each request; their lines would disturb the live view.
CHATTY = ("huggingface_hub", "filelock", "datasets")
SDKS = ("openai", "anthropic", "httpx2", "httpcore2")


def name_composed_backbone(*, _root_: Any) -> str:
    """The folder of a run's backbone: the choice's name, or that of the model that backbone.name names in its place."""
    runtime, node = _root_.hydra.runtime, _root_.backbone
    choice = find_backbone_choice(runtime.choices.backbone, config_folders(runtime))
    if OmegaConf.is_missing(node, "name"):
        return choice.name
    plain: Any = OmegaConf.to_container(node, resolve=True)
    return sanitize_folder_name(name_backbone(choice, plain))


# A launcher's worker names the run's directory, which needs these, before it calls the job. It has read this file then.
OmegaConf.register_new_resolver("folder", sanitize_folder_name, replace=True)
OmegaConf.register_new_resolver("backbone_folder", name_composed_backbone, replace=True)


@dataclass(frozen=True)
class Job:
    """The task function that Hydra calls for the only run or for each run of a sweep; `words` is the command."""

    words: tuple[str, ...]

    def __call__(self, config: DictConfig) -> float:
        """The best metric on dev, for Hydra's sweepers; NaN where there is none. The only run exits with its code."""
        hydra = HydraConfig.get()
        if hydra.mode != RunMode.RUN:
            dev = carry_out_job(config, self.words).dev
        else:
            try:
                code, result = run_with_exit_code(lambda: execute_composed(config, self.words))
            finally:  # also where a signal has stopped it before it wrote anything
                remove_if_empty(Path(hydra.runtime.output_dir))
            code = code or decide_exit_code(result)
            if code:
                sys.exit(code)
            dev = result.get("dev")
        return float("nan") if dev is None else dev


def carry_out_job(config: DictConfig, words: Sequence[str]) -> JobStatus:
    """Carry out one job of a sweep from the configuration that Hydra composed; its status, also written to the folder.

    Raises RunInterrupted where the job shares its process with the sweep, and nothing else.
    """
    hydra = HydraConfig.get()
    sweep, directory = Path(hydra.sweep.dir), find_directory(hydra)
    status = JobStatus(hydra.job.num, tuple(hydra.overrides.task), directory=str(directory))
    if (sweep / STATUS_FOLDER / STOP_FILE).exists():
        remove_if_empty(Path(hydra.runtime.output_dir))
        return status
    shared = hydra.launcher._target_.endswith(".Together")
    alone = not (shared or hydra.launcher._target_.endswith(".BasicLauncher"))
    if alone:
        prepare_worker(config, sweep)
    if config.view == "auto" and (alone or shared):
        config.view = "none"  # it would draw over those of other jobs
    status = write_status(sweep, replace(status, state="running", host=socket.gethostname(), pid=os.getpid()))
    try:
        code, result = run_with_exit_code(lambda: execute_composed(config, words))
    except RunInterrupted as stopped:
        message = f"stopped {stopped}"
        if stopped.name == "SIGUSR2" and os.environ.get("SUBMITIT_EXECUTOR"):
            message += f"; {requeue_job(sweep, status)}"
        status = end_job(sweep, status, code=stopped.code, status="stopped", message=message)
        if alone:
            return status
        raise
    remove_if_empty(Path(hydra.runtime.output_dir))
    return end_job(sweep, status, code=code or decide_exit_code(result), **result)


def decide_exit_code(ending: Mapping[str, Any]) -> int:
    """The exit code of a run that came to its end with these fields of its JobStatus."""
    return DIVERGED if ending["status"] == "diverged" else 0


def prepare_worker(config: DictConfig, sweep: Path) -> None:
    """Give a worker's process the signal handlers of a command, and a GPU of its own."""
    handle_signals()
    if os.environ.get("SUBMITIT_EXECUTOR") == "local":  # a cluster's SIGTERM is followed by SIGUSR2; this one is not
        signal.signal(signal.SIGTERM, stop_now)
    if "joblib" in HydraConfig.get().launcher._target_:
        end_after_parent(os.getppid())
        if config.device in ("auto", "cuda"):
            take_gpu(sweep)


@cache
def end_after_parent(parent: int) -> None:
    """If the sweep's own process is killed from now on, let the current run save itself, and end this worker."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_S)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(LEAVE_S)
        os._exit(STOPPED)

    threading.Thread(target=watch, daemon=True).start()


def take_gpu(sweep: Path) -> None:
    """Let this process see one GPU only, another than the sweep's other workers, where there are several.

    A worker keeps its GPU until it ends; where there are more workers than GPUs, some share one.
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
    """The first number that no other process holds, and its lock, which is held until this process ends."""
    for place in itertools.count():
        with suppress(ConfigurationError):
            return place, take_lock(folder / f"worker{place}.lock", "another worker has this number")
    raise AssertionError


def requeue_job(sweep: Path, status: JobStatus) -> str:
    """Have submitit queue this process's job again, after the signal that announces the loss of its machine.

    The process then ends, and the job waits. Returns only where submitit refuses, the reason: it was queued too often.
    """
    write_status(sweep, replace(status, state="waiting"))
    handler: Any = signal.getsignal(signal.SIGUSR2)
    try:
        handler(signal.SIGUSR2, None)
    except Exception as error:
        return str(error)
    raise AssertionError


def execute_composed(config: Any, words: Sequence[str]) -> dict[str, Any]:
    """Carry out one run of a sweep, or the only one, from the configuration that Hydra composed (see `execute_run`)."""
    plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    hydra = HydraConfig.get()
    choices = {group: name for group, name in hydra.runtime.choices.items() if name and "/" not in group}
    folders = config_folders(hydra.runtime)
    choice = find_backbone_choice(choices["backbone"], folders)
    choices["backbone"] = name_backbone(choice, plain["backbone"])
    waits = plain["view"] != "none" and not Path(str(plain["backbone"]["name"])).exists()  # for the hub
    with Console().status("reading the model's config.json …") if waits else nullcontext():
        plain["backbone"] = settle_backbone(choice, plain["backbone"], hydra.overrides.task)
    plain["models"] = read_own_models(folders) | plain["models"]
    path = find_directory(hydra)
    config = keep_as_begun(absolutize_paths(resolve_fallbacks(plain, folders)), path, words)
    if hydra.mode != RunMode.RUN:  # of a table it is not set
        config = place_budget(config, Path(hydra.sweep.dir).absolute())
        refuse_other_model(build_node(config["backbone"], "backbone"), Path(hydra.sweep.dir))
    ending = execute_run(config, choices, path, words)
    # In a sweep the baseline is a job of its own: mentor=none,evolution.
    if hydra.mode == RunMode.RUN and needs_baseline(config) and "estimate" not in ending:
        execute_baseline(config, choices, path, words)
    return ending


def place_budget(config: dict[str, Any], sweep: Path) -> dict[str, Any]:
    """The configuration in which a budget of the whole sweep counts the runs in its folder."""
    limits = get_nested(config, "sweep", "budget")
    if not isinstance(limits, Mapping) or all(limit is None for limit in limits.values()):
        return config
    return {**config, "sweep": {**config["sweep"], "folder": config["sweep"].get("folder") or str(sweep)}}


def execute_baseline(config: dict[str, Any], choices: Mapping[str, str], path: Path, words: Sequence[str]) -> None:
    """Carry out the baseline of the run in `path`, unless it is finished, and print what the mentor has gained."""
    place, mentor, shown = place_baseline(path, choices["mentor"]), choices["mentor"], config["view"] != "none"
    if shown:
        line = f"the baseline of mentor={mentor}: the same run without a mentor (baseline=null leaves it out)"
        open_console().print(Text(), Text(escape_controls(line), "bold"), sep="\n", soft_wrap=True)
    execute_run(*configure_baseline(config, choices), place, name_command(words))
    if shown:
        print_gain(path, place)


def refuse_other_model(backbone: Any, sweep: Path) -> None:
    """Raise ConfigurationError where a run of the sweep had other files in the backbone's folder than lie there now.

    The hub's models are told apart by their commit, which each manifest names.
    """
    if not (sweep.is_dir() and (folder := Path(backbone.location())).is_dir()):
        return
    begun = [read_manifest(run).backbone for run in run_directories(sweep)]
    before = [facts for facts in begun if facts.get("files") and facts.get("location") == backbone.location()]
    if not before:
        return
    from llm_catalyst.models.backbones.local_files import hash_files

    now = {"files": hash_files(folder, getattr(backbone, "trust_remote_code", False))}
    for facts in before:
        if replaced := find_replaced_files(facts, now):
            raise ConfigurationError(
                f"the model or its tokenizer has changed since the sweep in {sweep} began: other content in "
                f"{list_names(replaced)} of {folder}; put the former files there, or begin another sweep in its own "
                "directory: hydra.sweep.dir=DIR"
            )


def keep_as_begun(config: dict[str, Any], path: Path, words: Sequence[str]) -> dict[str, Any]:
    """The configuration as an earlier revision had it, where that began the run, its table, or what it replays."""
    if (path / "config.yaml").exists() and (own := keep_own(config, path, words)):
        return own
    hydra = HydraConfig.get()
    folders = [path, *[Path(hydra.sweep.dir)] * (hydra.mode != RunMode.RUN)]
    folders += [Path(run)] if (run := get_nested(config, "replay", "run")) else []
    begun = [run for folder in folders if folder.is_dir() for run in run_directories(folder)]
    if not begun:
        return config
    given = {word.partition("=")[0].lstrip("+") for word in expand_short_names([*words, *hydra.overrides.task])}
    return keep_earlier_values(config, find_like(config, begun), given)


def find_like(config: Mapping[str, Any], runs: Sequence[Path]) -> dict[str, Any]:
    """The configuration, as it was written, of the first of these runs with a mentor of the same class.

    Of the first one where none has: its mentor has not the keys of this one.
    """
    wanted = get_nested(config, "mentor", "_target_")
    written = map(load_written_config, runs)
    first = next(written)
    alike = (one for one in (first, *written) if translate_target(str(get_nested(one, "mentor", "_target_"))) == wanted)
    return next(alike, first)


def keep_own(config: Mapping[str, Any], path: Path, words: Sequence[str]) -> dict[str, Any] | None:
    """The configuration with which the same command began the run in `path` under an earlier revision.

    Keys of place, speed and budgets are those of today's command. Where the configuration has today's keys, only the
    model that a packaged mentor asks is that of then, as a role (mentor=openai_small) may ask another one today. None
    where other words began the run.
    """

    def split_words(command: Sequence[str]) -> tuple[set[str], list[str]]:
        keys = [word.partition("=")[0].lstrip("+") for word in command]
        movable = [key for key in keys if re.fullmatch(PLACE, key)]
        return {word for word, key in zip(command, keys, strict=True) if key not in movable}, movable

    written = load_written_config(path)
    (kept, movable), (before, _) = split_words(words), split_words(read_manifest(path).command)
    if kept != before:
        return None
    if not lacks_keys(written):
        return keep_model(config, written)
    own = translate_config(written)
    for key in movable:
        node, name = find_parent(own, key)
        if node is not None:
            node[name] = get_nested(config, *key.split("."))
    return own


def keep_model(config: Mapping[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the model, and its settings, that a packaged mentor asked when the run began."""
    own, then = get_nested(config, "mentor", "client"), get_nested(written, "mentor", "client")
    choices: Any = HydraConfig.get().runtime.choices
    packaged = (conf_directory() / "mentor" / f"{choices['mentor']}.yaml").is_file()
    if not (own and then and packaged):
        return dict(config)
    free = rf"{PLACE}|mentor\.client\.(base_url|run)"  # where the model is asked, today's command says
    moved = {key: value for key, value in then.items() if not re.fullmatch(free, f"mentor.client.{key}")}
    replaces = get_nested(written, "mentor", "replaces")
    return {**config, "mentor": {**config["mentor"], "client": {**own, **moved}, "replaces": replaces}}


def find_directory(hydra: Any) -> Path:
    """The run's directory; in a sweep that an earlier revision began, the one that it named after the choice."""
    path, sweep = Path(hydra.runtime.output_dir), Path(hydra.sweep.dir).absolute()
    if hydra.mode == RunMode.RUN or sweep not in path.parents:
        return path
    task, *rest = path.relative_to(sweep).parts
    before = Path(sweep, task, sanitize_folder_name(hydra.runtime.choices.backbone), *rest[1:])
    return before if (before / "config.yaml").exists() else path


def config_folders(runtime: Any) -> list[Path]:
    """The folders of YAMLs that a configuration was composed from."""
    return [Path(source.path) for source in runtime.config_sources if source.schema == "file"]


def execute_run(config: dict[str, Any], choices: Mapping[str, str], path: Path, words: Sequence[str]) -> dict[str, Any]:
    """Carry out one run from a resolved configuration; those fields of its JobStatus that its end decides."""
    quiet_libraries()
    parts = build_components(config)
    config = record_checked(config, parts)
    from llm_catalyst.training.run import dry_run, read_finished, run_training

    if parts.settings.dry_run:
        return {"status": "dry run", "estimate": asdict(dry_run(parts))}
    outcome = read_finished(path, config)
    if outcome is not None:
        line = f"finished already, nothing to do: {path} ({outcome.status}: {outcome.message})"
        open_console().print(Text(escape_controls(line)), soft_wrap=True)
    else:
        outcome = run_training(parts, config, choices, path, words)
        if parts.settings.view != "none":
            open_console().print(summarize_run(read_run(path)), crop=False)
    best = outcome.best.score if outcome.best else None
    ending: dict[str, Any] = {
        "status": ", ".join(filter(None, (outcome.status, read_answers(path).words))),
        "dev": best and best.metric,
        "dev_examples": best and best.examples,
    }
    if outcome.status == "diverged" or len(outcome.diverged_stages) == len(parts.settings.plan(examples=1)):
        ending |= {"status": "diverged", "message": "the loss or gradient of every stage was not finite"}
    return ending


def quiet_libraries() -> None:
    """Log no requests of libraries, and nothing at all of the SDKs: a server's response may contain the key.

    They would log with OPENAI_LOG or ANTHROPIC_LOG in the environment, or with hydra.verbose.
    """
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in SDKS:
        logging.getLogger(name).propagate = False
        logging.getLogger(name).handlers = [logging.NullHandler()]


def remove_if_empty(path: Path) -> None:
    """Remove the folder that Hydra made for a run that was refused, and its empty parents below the current one."""
    if not path.is_dir() or {file.name for file in path.iterdir()} - {".lock"}:
        return
    (path / ".lock").unlink(missing_ok=True)
    for folder in (path, *path.parents):
        if Path.cwd() not in folder.parents or any(folder.iterdir()):
            return
        folder.rmdir()
