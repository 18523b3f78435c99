"""`catalyst run` and `catalyst resume`: from the words of the command line to a finished run directory."""

import errno
import itertools
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.text import Text

from llm_catalyst.utils import checksums
from llm_catalyst.utils.paths import conf_directory
from llm_catalyst.utils.signals import BudgetSpent
from llm_catalyst.utils.validation import ConfigurationError, did_you_mean

FAILED, WRONG_USE, BUDGET_SPENT = 1, 2, 3
SWEEP = ("-m", "--multirun")
# Libraries that tell of each request; a line of theirs would run through the live view.
CHATTY = ("huggingface_hub", "filelock", "datasets")
SDKS = ("openai", "anthropic", "httpx2", "httpcore2")


def run_command(words: Sequence[str]) -> int:
    """Run what Hydra makes of `words` (one run, a sweep, help, completion); the exit code, if the process goes on."""
    import hydra

    from llm_catalyst.config.build import refuse_secrets
    from llm_catalyst.sweeps.job import Job

    def start() -> None:
        given = map(quoted_template, seeds_as_sweep(words))
        # Hydra finds this flag in front of overrides only, and overrides in front of its other options only.
        ordered = sorted(given, key=lambda word: 0 if word in SWEEP else 1 if is_override(word) else 2)
        # A sweep writes its overrides to disk before any job could refuse them.
        for name, _, value in (word.partition("=") for word in ordered):
            refuse_secrets({name: value})
        swept = sum(word in SWEEP for word in ordered)
        sys.argv = ["catalyst", *ordered[:swept], *sweep_folder(ordered), *ordered[swept:]]
        hydra.main(version_base="1.3", config_path=str(conf_directory()), config_name="config")(Job(tuple(ordered)))()

    # Hydra then raises its errors instead of printing them, so that they look like ours.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    warn_of_hidden_files(words)
    return guarded(start)[0]


def resume_command(directory: Path, words: Sequence[str] = ()) -> int:
    """Go on with the run in `directory` from its newest saved state; the exit code.

    `words` are overrides of keys that may change on the way, such as a budget or the device.
    """
    from omegaconf import OmegaConf

    from llm_catalyst.runs.reader import read_manifest
    from llm_catalyst.runs.writer import read_config

    def go_on() -> dict[str, Any]:
        manifest = read_manifest(directory)
        merged = OmegaConf.merge(OmegaConf.create(read_config(directory)), OmegaConf.from_dotlist(list(words)))
        config: Any = OmegaConf.to_container(merged, resolve=True)
        return execute(with_fallbacks(config, [conf_directory()]), manifest.choices, directory, manifest.command)

    return guarded(go_on)[0]


def execute_composed(config: Any, words: Sequence[str]) -> dict[str, Any]:
    """One run of a sweep, or the only one, from what Hydra composed."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    runtime = HydraConfig.get().runtime
    choices = {group: name for group, name in runtime.choices.items() if name and not group.startswith("hydra/")}
    folders = [Path(source.path) for source in runtime.config_sources if source.schema == "file"]
    return execute(anchored(with_fallbacks(plain, folders)), choices, Path(runtime.output_dir), words)


def with_fallbacks(config: dict[str, Any], folders: Sequence[Path]) -> dict[str, Any]:
    """The configuration with the mentors that mentor.fallbacks names written out, from files below `folders`."""
    from omegaconf import OmegaConf

    from llm_catalyst.config.build import expand_fallbacks

    def read(path: Path) -> dict[str, Any]:
        node: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
        return dict(node)

    return expand_fallbacks(config, folders, read)


def anchored(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with relative paths to what is there made absolute, as a resume may start elsewhere."""
    mentors = [config["mentor"], *config["mentor"].get("fallbacks", [])]
    clients = [mentor["client"] for mentor in mentors if "client" in mentor]
    places = [(config["task"], "path"), (config["backbone"], "name"), (config.get("replay", {}), "run")]
    places += [(mentor, key) for mentor in mentors for key in ("runs", "backbone")]
    for node, key in [*places, *((client, key) for client in clients for key in ("run", "model"))]:
        if node.get(key) and Path(node[key]).expanduser().exists():
            node[key] = str(Path(node[key]).expanduser().absolute())
    return config


def execute(config: dict[str, Any], choices: Mapping[str, str], path: Path, words: Sequence[str]) -> dict[str, Any]:
    """One run from a resolved configuration; its outcome in a few plain values, as sweepers want it."""
    from llm_catalyst.config.build import parts_of

    quiet_libraries()
    parts = parts_of(config)
    from llm_catalyst.training.run import dry_run, run_session

    if parts.settings.dry_run:
        return {"status": "dry run", "estimate": dry_run(parts)}
    outcome = run_session(parts, config, choices, path, words)
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


def guarded(action: Callable[[], Any]) -> tuple[int, Any]:
    """The exit code and result of `action`; what goes wrong is printed as one message, and recorded by the run.

    An exception never leaves a job: it would end a sweep, and some SDKs' exceptions do not even unpickle.
    With CATALYST_DEBUG=1 the traceback is printed, too.
    """
    try:
        return 0, action()
    except Exception as error:
        if os.environ.get("CATALYST_DEBUG"):
            traceback.print_exc()
        if isinstance(error, BudgetSpent):
            complain(f"{error}; the run can go on with a larger one", "stopped")
            return BUDGET_SPENT, {"status": "stopped", "message": str(error)}
        expected = isinstance(error, ConfigurationError) or type(error).__module__.startswith(("hydra", "omegaconf"))
        message = explanation(error) if expected else failure(error)
        complain(message)
        return WRONG_USE if expected else FAILED, {"status": "failed", "message": message}


def failure(error: Exception) -> str:
    """What went wrong outside the configuration; for a file system's refusal with the mend."""
    mends = {
        errno.ENOSPC: "free some space and resume the run",
        errno.EDQUOT: "free some of your quota and resume the run",
        errno.EFBIG: "raise the limit of file sizes (ulimit -f) and resume the run",
        errno.EROFS: "choose a directory that can be written: hydra.run.dir=DIR",
        errno.EACCES: "choose a directory that can be written: hydra.run.dir=DIR",
        errno.ENOTDIR: "choose another directory: hydra.run.dir=DIR",
    }
    if isinstance(error, OSError) and error.errno in mends:
        return f"{error.filename or 'the run directory'}: {error.strerror}; {mends[error.errno]}"
    return f"{type(error).__name__}: {error} (CATALYST_DEBUG=1 shows where)"


def explanation(error: Exception) -> str:
    """What went wrong in the configuration, with the nearest known key or choice where Hydra did not find one."""
    message = str(error).split("Config search path")[0].strip()
    if missing := re.search(r"Missing mandatory value.*full_key: (\S+)", message, re.DOTALL):
        return f"{missing[1]} must be given: add {missing[1]}=…"
    if key := re.search(r"Could not override '([^'@]+)", message):
        if key[1] in known_keys():
            group = key[1].partition(".")[0]
            return (
                f"there is no key {key[1]} under this choice of {group}; another one has it "
                f"(in a sweep over {group}, write {key[1]}=choice(…) for it to reach each choice)"
            )
        return message + did_you_mean(key[1], known_keys())
    if re.search(r"Could not (?:find|load) 'hydra/launcher/(?:joblib|submitit_\w+)'", message):
        return f"{message}; that launcher comes with: pip install 'llm-catalyst[sweep]'"
    if choice := re.search(r"(?:Could not find|Could not load) '([\w/]+)/(\w+)'", message):
        return message + did_you_mean(choice[2], [file.stem for file in (conf_directory() / choice[1]).glob("*.yaml")])
    return message


def remove_if_empty(path: Path) -> None:
    """Take away the folder that Hydra made for a run which then was refused, and its empty parents up to here."""
    if not path.is_dir() or {file.name for file in path.iterdir()} - {".lock"}:
        return
    (path / ".lock").unlink(missing_ok=True)
    for folder in (path, *path.parents):
        if Path.cwd() not in folder.parents or any(folder.iterdir()):
            return
        folder.rmdir()


def complain(message: str, kind: str = "error") -> None:
    Console(stderr=True).print(Text(f"{kind}: ", style="bold red") + Text(message), soft_wrap=True)


def is_override(word: str) -> bool:
    """Whether a word of the command line is no option of Hydra's, nor the value of one."""
    return ("=" in word and not word.startswith("-")) or word.startswith("~")


def quoted_template(word: str) -> str:
    """`task.text={review}`, as a shell hands it over, in the quotes that Hydra wants around braces."""
    match = re.fullmatch(r"(task\.(?:text|pair|cloze))=([^'\"]*\{\w+\}[^'\"]*)", word)
    return f"{match[1]}='{match[2]}'" if match else word


def seeds_as_sweep(words: Sequence[str]) -> list[str]:
    """The words, with `seeds_together=[1,2]` written out: a sweep over these seeds by hydra/launcher=together.

    With --cfg, which shows the configuration of one run, the first seed alone.
    Raises ConfigurationError where it names no seeds, or another seed or launcher stands beside it.
    """
    given = [word.partition("=")[2] for word in words if re.match(r"\+{0,2}seeds_together=", word)]
    if not given:
        return list(words)
    kept = [word for word in words if not re.match(r"\+{0,2}seeds_together=", word)]
    seeds = given[-1].strip("[] ").replace(" ", "")
    if not re.fullmatch(r"\d+(,\d+)*|range\(\d+(,\d+)*\)", seeds):
        raise ConfigurationError(f"seeds_together={given[-1]} names no seeds; write seeds_together=[1,2,3]")
    if other := [word for word in kept if re.match(r"seed=|hydra/launcher=(?!together$)", word)]:
        raise ConfigurationError(f"seeds_together={given[-1]} leaves {other[0]} nothing to say; drop one of the two")
    if {"--cfg", "-c"} & {*kept}:
        return [*kept, f"seed={re.findall('[0-9]+', seeds)[0]}"]
    launcher = [] if "hydra/launcher=together" in kept else ["hydra/launcher=together"]
    return [*(word for word in kept if word not in SWEEP), "-m", f"seed={seeds}", *launcher]


def sweep_folder(words: Sequence[str]) -> list[str]:
    """The override that gives a sweep a folder by its words, so that the same command goes on with it."""
    if not {*SWEEP} & {*words} or any(word.startswith("hydra.sweep.dir=") for word in words):
        return []
    return [f"hydra.sweep.dir=outputs/sweeps/{sweep_name(words) or 'sweep'}"]


def sweep_name(words: Sequence[str]) -> str:
    """A folder's name that follows from the words, '' where there are none that count.

    Those that say where and how long it runs, such as a budget, do not, nor do options and Hydra's own, but for those
    that say which values a sweeper chooses.
    """
    from llm_catalyst.runs.writer import PLACE

    passed_over = rf"hydra(?!/sweeper$|\.sweeper\.(sampler|seed|params)).*|{PLACE}"
    overrides = [word for word in words if is_override(word)]
    kept = [word for word in overrides if not re.fullmatch(passed_over, word.partition("=")[0].lstrip("+"))]
    digest = checksums.sha256("\n".join(kept).encode())[:8]
    return f"{folder_name('_'.join(kept))[:60]}_{digest}" if kept else ""


def folder_name(name: Any) -> str:
    """A name from a configuration as one folder's name: it cannot lead out of the output directory."""
    return re.sub(r"[^\w.-]+", "_", str(name)).strip(".") or "_"


def known_keys() -> list[str]:
    """Every key and group that an override can name, dotted."""
    keys: list[str] = []
    for file in conf_directory().rglob("*.yaml"):
        group = file.relative_to(conf_directory()).parent.as_posix()
        text = file.read_text()
        content = yaml.safe_load(text) or {}
        prefix = "" if group == "." or group.startswith("hydra") or "@package _global_" in text else group
        keys += [group] * bool(prefix) + dotted(content, prefix)
    return sorted(set(keys) - {"defaults"})


def dotted(node: Mapping[str, Any], prefix: str) -> list[str]:
    """The dotted paths of all keys below a node."""
    keys = []
    for key, value in node.items():
        path = f"{prefix}.{key}".lstrip(".")
        keys += [path, *(dotted(value, path) if isinstance(value, dict) else [])]
    return keys


def warn_of_hidden_files(words: Sequence[str]) -> None:
    """Say where a file of the user's --config-dir has the name of a packaged one, which Hydra takes in silence."""
    given = [word.partition("=")[2] for word in words if word.startswith("--config-dir=")]
    given += [after for word, after in itertools.pairwise(words) if word in ("--config-dir", "-cd")]
    for folder in map(Path, given):
        for file in sorted(folder.rglob("*.yaml")):
            if (conf_directory() / file.relative_to(folder)).exists():
                complain(f"{file} is not used: a packaged choice has the same name; rename yours", "warning")
