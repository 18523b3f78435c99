"""The configuration of a run as it was written, and the keys that a resumed run may change."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from llm_catalyst.runs.old_configs import translate_config
from llm_catalyst.utils import checksums
from llm_catalyst.utils.validation import ConfigurationError, flatten_leaves

FIXED = ("config.yaml", "manifest.json")
RESOLVED = "resolved.json"  # fixed as well, in runs that have it
# Keys on which the results of a run do not depend: place, speed, budgets, retries.
PLACE = (
    r"device|threads|micro_batch|token_budget|view|(track|plugins)(\[\d+\])?|dry_run|baseline|task\.path|checkpoint\..*|(sweep\.)?budget\..*"
    r"|sweep\.folder|models\..*"
    r"|mentor\.cache|mentor\.client\.(timeout_s|retry_s|at_once|per_minute|check_model)"
)
# Keys that may be changed to let a stopped run continue; its events name the change.
REPAIRS = r"mentor\.(on_failure|on_unusable|attempts|runs|fallbacks.*)|mentor\.client\.(?!_target_).*"


def read_config(path: Path) -> dict[str, Any]:
    """The resolved configuration of a run, as today's revision writes it.

    Raises:
        ConfigurationError: it or the manifest has changed since the run began.
    """
    fixed = list_fixed(path)
    for name, how in checksums.find_changed(path, fixed).items():
        raise ConfigurationError(
            f"{path / name} is {how}; put it back as it was when the run began (where you trust "
            f"{' and '.join(fixed)} as they are, list their sums anew: sha256sum {' '.join(fixed)} > {checksums.SUMS})"
        )
    return load_config(path)


def list_fixed(path: Path) -> tuple[str, ...]:
    """The files of a run that do not change from its beginning on."""
    return (*FIXED, RESOLVED) if (path / RESOLVED).exists() or RESOLVED in checksums.read_list(path) else FIXED


def load_config(path: Path) -> dict[str, Any]:
    """The resolved configuration of a run, whether it has changed or not.

    Raises:
        ConfigurationError: it cannot be read.
    """
    return translate_config(load_written_config(path))


def load_written_config(path: Path) -> dict[str, Any]:
    """The resolved configuration of a run as its revision wrote it.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        config = parse_yaml((path / "config.yaml").read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise TypeError("it holds no keys")
        return config
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path / 'config.yaml'} cannot be read ({error}); put it back as it was") from None


def parse_yaml(text: str) -> Any:
    """The content of a YAML text, in a tenth of the time wherever the parser in C can read it.

    It does not accept "\\udce9", which Python's writes for a byte of a path that is no UTF-8.
    """
    try:
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        return yaml.safe_load(text)


def is_same(one: Any, other: Any) -> bool:
    """Whether two values of a setting mean the same: earlier revisions wrote a number or boolean as it was typed."""
    if one == other or isinstance(one, str) == isinstance(other, str):
        return bool(one == other)
    with suppress(ValueError, TypeError):
        return float(one) == float(other)
    return str(one).lower() == str(other).lower()


def changed_keys(path: Path, config: Any, allowed: str) -> list[str]:
    """The `key=value` of `config` that differ from the configuration of the run in `path`.

    Args:
        allowed: a pattern of the keys that may differ.

    Raises:
        ConfigurationError: another key differs.
    """
    before, now = dict(flatten_leaves(read_config(path))), dict(flatten_leaves(translate_config(config)))
    keys = sorted(key for key in {*before, *now} if not is_same(before.get(key), now.get(key)))
    if other := [key for key in keys if not re.fullmatch(allowed, key)]:
        fix = "leave these keys as they are, or start a new run in another directory"
        shown = ", ".join(f"{key}={before.get(key)!r} there and {now.get(key)!r} here" for key in other[:3])
        raise ConfigurationError(f"{path} holds a run with another configuration ({shown}); {fix}")
    return [f"{key}={now.get(key)}" for key in keys]
