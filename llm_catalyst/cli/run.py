"""`catalyst run` and `catalyst resume`: from the words of the command line to a finished run directory."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.utils import get_args_parser

from llm_catalyst.config import overrides
from llm_catalyst.config.build import refuse_secrets
from llm_catalyst.config.choices import merge_keys
from llm_catalyst.runs.reader import read_manifest
from llm_catalyst.runs.run_config import read_config
from llm_catalyst.sweeps.fallbacks import resolve_fallbacks
from llm_catalyst.sweeps.job import Job, decide_exit_code, execute_run
from llm_catalyst.sweeps.quoting import quote_words, read_overrides
from llm_catalyst.utils.paths import conf_directory
from llm_catalyst.utils.validation import ConfigurationError, did_you_mean


def run_command(words: Sequence[str]) -> None:
    """Have Hydra carry out `words`: one run, a sweep, help, completion. A run that fails ends the process."""
    # Hydra then raises its errors instead of printing them, so that all messages have one form.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    # Before a message could repeat a word, and a sweep write it to disk.
    for name, _, value in (word.partition("=") for word in words):
        refuse_secrets({name: value})
    overrides.refuse_other_words(read_positional(words))
    words, folders = overrides.expand_config_folders(words)
    overrides.refuse_missing_choices(words, folders)
    overrides.warn_of_hidden_files(folders)
    given = overrides.expand_seeds_together(words)
    # Hydra accepts this flag before overrides only, and overrides before its other options only.
    typed = sorted(given, key=lambda word: (word not in overrides.SWEEP, not overrides.is_override(word)))
    sweeps = bool({*overrides.SWEEP} & {*words})
    quoted = quote_words(typed, sweeps, folders, overrides.list_plugins(words))
    swept = sum(word in overrides.SWEEP for word in quoted)
    composed = overrides.expand_short_names(quoted)  # a sweep's folder is named after what was typed
    sys.argv = ["catalyst", *composed[:swept], *overrides.choose_sweep_folder(quoted), *composed[swept:]]
    hide_bases()
    hydra.main(version_base="1.3", config_path=str(conf_directory()), config_name="config")(Job(tuple(typed)))()


def read_positional(words: Sequence[str]) -> list[str]:
    """The words that belong to no option of Hydra. Raises ConfigurationError where there is no such option."""
    parser = get_args_parser()
    options = [name for name in parser._option_string_actions if name.startswith("--")]

    def refuse(message: str) -> NoReturn:
        unknown = re.search(r"unrecognized arguments: (\S+)", message)
        near = did_you_mean(unknown[1].partition("=")[0], options) if unknown else ""
        raise ConfigurationError(f"{message}{near}; catalyst run --help")

    parser.error = refuse  # type: ignore[method-assign]
    positional: list[str] = parser.parse_intermixed_args(list(words)).overrides
    return positional


def hide_bases() -> None:
    """Keep the files that choices inherit from (`_base.yaml`) out of help, completion, glob(*) and error messages."""
    list_options = ConfigRepository.get_group_options

    def list_shown(self: ConfigRepository, *args: Any, **kwargs: Any) -> list[str]:
        return [name for name in list_options(self, *args, **kwargs) if not name.startswith("_")]

    ConfigRepository.get_group_options = list_shown  # type: ignore[method-assign]


def resume_command(directory: Path, words: Sequence[str] = ()) -> int:
    """Continue the run in `directory` from its newest saved state; the exit code.

    `words` are overrides of keys that may change between start and end, such as a budget or the device.
    """
    manifest = read_manifest(directory)
    config = merge_keys(read_config(directory), read_overrides(overrides.expand_short_names(words)))
    ending = execute_run(resolve_fallbacks(config, [conf_directory()]), manifest.choices, directory, manifest.command)
    return decide_exit_code(ending)
