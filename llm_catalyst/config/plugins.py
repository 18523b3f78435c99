"""Packages of users whose classes a `_target_` may name: `plugins=[my_package]`, and those that are installed.

An installed package needs no `plugins`: it declares an entry point of the group `llm_catalyst.plugins` whose value is
the name of its package.
"""

import hashlib
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_catalyst.utils.validation import ConfigurationError, flatten_leaves, locate_error

ENTRY_POINTS = "llm_catalyst.plugins"
PREFIXES = ("llm_catalyst.", "torch.optim.")


def check_targets(config: Mapping[str, Any]) -> None:
    """Import the packages that `plugins` names, and raise ConfigurationError where a `_target_` is in none of them."""
    names = config.get("plugins") or []
    if isinstance(names, str):
        raise ConfigurationError(f"plugins={names} does not fit: it must be a list, plugins=[{names}]")
    accepted = accepted_prefixes(names)
    for path, target in flatten_leaves(config):
        if path.endswith("._target_") and not str(target).startswith(accepted):
            package = str(target).partition(".")[0]
            raise ConfigurationError(
                f"{path}={target} is not accepted; it must begin with {' or '.join(PREFIXES)}, or with the name of a "
                f"package of your own: add plugins=[{package}]"
            )


def accepted_prefixes(names: Sequence[str]) -> tuple[str, ...]:
    """How a `_target_` may begin; imports the packages `names`. Raises ConfigurationError where one cannot be."""
    installed = [point.value.partition(":")[0] for point in importlib.metadata.entry_points(group=ENTRY_POINTS)]
    return (*PREFIXES, *(f"{name}." for name in (*map(import_plugin, names), *installed)))


def import_plugin(name: str) -> str:
    """The name of a package, imported from where packages are installed or from the current folder.

    Raises ConfigurationError where it cannot be imported.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        importlib.import_module(name)
    except Exception as error:
        fix = "correct it there (CATALYST_DEBUG=1 prints the traceback)"
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            fix = "start in its folder, add that folder to PYTHONPATH, or install it (pip install -e FOLDER)"
            raise ConfigurationError(f"plugins: {name} cannot be imported ({error}); {fix}") from error
        raise ConfigurationError(f"plugins: {name} cannot be imported: {locate_error(error)}; {fix}") from error
    return name


def find_plugin_versions(names: Sequence[str]) -> dict[str, str]:
    """The version of each of these packages and of those that entry points declare, as the manifest records it.

    A package that belongs to no installed distribution has the SHA-256 of its Python files instead.
    """
    points = importlib.metadata.entry_points(group=ENTRY_POINTS)
    versions = {point.value.partition(":")[0]: point.dist.version for point in points if point.dist}
    distributions = importlib.metadata.packages_distributions() if names else {}
    for name in names:
        owners = distributions.get(name.partition(".")[0])
        versions[name] = importlib.metadata.version(owners[0]) if owners else hash_package(name)
    return versions


def hash_package(name: str) -> str:
    """'sha256:' and the first digits of the checksum of a package's Python files, or 'unknown' where it has none."""
    module = importlib.import_module(name)
    folders = [Path(folder) for folder in getattr(module, "__path__", ())]
    single = [Path(module.__file__)] if module.__file__ and not folders else []
    files = sorted(single + [file for folder in folders for file in folder.rglob("*.py")])
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    return f"sha256:{digest[:16]}" if files else "unknown"
