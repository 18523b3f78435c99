"""Exit codes, and one message for each error, which says what went wrong, where and what to do."""

import errno
import os
import re
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import yaml
from rich.console import Console
from rich.text import Text

from llm_catalyst.utils.paths import conf_directory, list_choices
from llm_catalyst.utils.signals import BudgetExceededError
from llm_catalyst.utils.validation import ConfigurationError, did_you_mean, flatten_leaves, locate_error

FAILED, WRONG_USE, BUDGET_SPENT, DIVERGED = 1, 2, 3, 4
WRONG_PLACE = (
    errno.EACCES,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
)  # where nothing can be written


def run_with_exit_code(action: Callable[[], Any]) -> tuple[int, Any]:
    """The exit code and the result of `action`; an exception is printed as one message, and is then the result.

    No exception leaves a job: it would end the sweep, and those of some SDKs cannot be unpickled.
    With CATALYST_DEBUG=1 the traceback is printed, too.
    """
    try:
        return 0, action()
    except Exception as error:
        if os.environ.get("CATALYST_DEBUG"):
            traceback.print_exc()
        if isinstance(error, BudgetExceededError):
            print_error(f"{error}; resume the run with a larger one", "stopped")
            return BUDGET_SPENT, {"status": "stopped", "message": str(error)}
        expected = is_config_error(error)
        message = explain_config_error(error) if expected else explain_failure(error)
        print_error(message)
        refused = expected or (isinstance(error, OSError) and error.errno in WRONG_PLACE)
        return WRONG_USE if refused else FAILED, {"status": "failed", "message": message}


def is_config_error(error: Exception) -> bool:
    """Whether the command or the configuration is at fault, by the class of the error."""
    library = type(error).__module__.partition(".")[0]
    return isinstance(error, ConfigurationError) or library in ("hydra", "omegaconf", "yaml")


def explain_failure(error: Exception) -> str:
    """An error outside the configuration as a message; for an error of the file system it says what to do."""
    remedies = {
        errno.ENOSPC: "free some space and resume the run, or start it again if it saved nothing yet",
        errno.EDQUOT: "free some of your quota and resume the run, or start it again if it saved nothing yet",
        errno.EFBIG: "raise the limit of file sizes (ulimit -f) and resume the run",
        errno.EROFS: "choose a directory that can be written: hydra.run.dir=DIR",
        errno.EACCES: "choose a directory that can be written: hydra.run.dir=DIR",
        errno.ENOTDIR: "a file is in its way; choose another directory: hydra.run.dir=DIR",
        errno.ENAMETOOLONG: "choose a shorter name: hydra.run.dir=DIR",
        errno.EEXIST: "a file is in its way; choose another directory: hydra.run.dir=DIR",
    }
    if isinstance(error, OSError) and error.errno in remedies:
        return f"{error.filename or 'the run directory'}: {error.strerror}; {remedies[error.errno]}"
    from llm_catalyst.mentors.llm import MentorError  # loaded long before it is raised, and not for `catalyst --help`

    if isinstance(error, MentorError):
        return str(error)
    return f"{locate_error(error)} (CATALYST_DEBUG=1 prints the traceback)"


def explain_config_error(error: Exception) -> str:
    """An error of the configuration as a message, with the nearest known key or choice where Hydra found none."""
    message = str(error).split("Config search path")[0].strip()
    if missing := re.search(r"Missing mandatory value.*full_key: (\S+)", message, re.DOTALL):
        return f"{missing[1]} must be given: add {missing[1]}=…"
    if re.search(r"Could not (?:override|find|load) 'doer\b", message):
        return "there is no group doer any more; for a run without training write optimizer=none"
    if several := re.search(r"Ambiguous value for argument '([^=]+)=(.*)'", message):
        key, values = several[1], several[2]
        return f"{key}={values} gives {key} several values; for a sweep add -m, for a list write {key}=[{values}]"
    if there := re.search(r"An item is already at '([^']+)'", message):
        return f"there is a key {there[1]} already; write {there[1]}=… without +"
    if absent := re.search(r"Could not delete from config. '([^']+)' does not exist", message):
        return f"there is no key {absent[1]} to leave out{did_you_mean(absent[1], list_known_keys())}"
    if key := re.search(r"Could not override '([^'@]+)", message):
        return explain_unknown_key(key[1])
    if re.search(r"Could not (?:find|load) 'hydra/launcher/(?:joblib|submitit_\w+)'", message):
        return f"{message}; that launcher comes with: pip install 'llm-catalyst[sweep]'"
    listed = re.search(r"Available options in .*?:\n(.*)", message, re.DOTALL)
    if choice := re.search(r"Could not (?:find|load) '(backbone|[\w/]+)/([^']*)'", message):
        return explain_unknown_choice(choice[1], choice[2], listed[1].split() if listed else ())
    return message


def explain_unknown_key(key: str) -> str:
    """The message about a key that no choice at hand has."""
    known, group = list_known_keys(), key.partition(".")[0]
    if key in known:
        return (
            f"there is no key {key} under this choice of {group}; another one has it "
            f"(in a sweep over {group}, write {key}=choice(…) for it to reach each choice)"
        )
    near = did_you_mean(key, known)
    return f"there is no key {key}{near or f'; all keys: catalyst run --cfg job (a new one: +{key}=…)'}"


def explain_unknown_choice(group: str, name: str, listed: Sequence[str]) -> str:
    """The message about a choice that its group does not have; `listed` are those that Hydra has found."""
    choices = listed or [file.stem for file in list_choices(conf_directory() / group)]
    fix = f"; for any other model, on the hub or in a folder, write backbone.name={name}" if group == "backbone" else ""
    return f"{group}={name} is not known{did_you_mean(name, choices)}; there are: {', '.join(choices)}{fix}"


def print_error(message: str, kind: str = "error") -> None:
    Console(stderr=True).print(Text(f"{kind}: ", style="bold red") + Text(message), soft_wrap=True)


def list_known_keys() -> list[str]:
    """Every key and group that an override can set, dotted."""
    keys: set[str] = set()
    for file in conf_directory().rglob("*.yaml"):
        group = file.relative_to(conf_directory()).parent.as_posix()
        text = file.read_text(encoding="utf-8")
        prefix = "" if group == "." or "@package _global_" in text else group.replace("/", ".")
        for path, _ in flatten_leaves(yaml.safe_load(text) or {}, prefix, whole_lists=True):
            keys |= {path[: found.start()] for found in re.finditer(r"\.|$", path)}
    return sorted(key for key in keys if not key.endswith("defaults"))  # what a file inherits
