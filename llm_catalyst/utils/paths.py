"""Folders: the packaged configuration files, and the caches for later runs."""

import os
import tempfile
from pathlib import Path

from llm_catalyst.utils.validation import ConfigurationError


def conf_directory() -> Path:
    """The folder of configuration files: in the package if it is installed, beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    shipped = package / "conf"
    return shipped if shipped.is_dir() else package.parent / "conf"


def list_choices(group: Path) -> list[Path]:
    """The YAML files in a group's folder that can be chosen, sorted by name.

    A file whose name begins with an underscore is none: it holds what the others inherit.
    """
    return [path for path in sorted(group.glob("*.yaml")) if not path.name.startswith("_")]


def check_current_folder() -> None:
    """Raise ConfigurationError where the current folder was removed, so that no relative path leads anywhere."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise ConfigurationError("the current folder no longer exists; change to another one (cd)") from None


def expand_path(text: str | Path) -> Path:
    """A path with the home directory in the place of `~`; as it is where there is no such home."""
    return Path(os.path.expanduser(text))


def cache_directory(name: str) -> Path:
    """The folder `name` below $CATALYST_CACHE, or else below ~/.cache/llm-catalyst."""
    root = os.environ.get("CATALYST_CACHE") or "~/.cache/llm-catalyst"
    return expand_path(root).absolute() / name


def writable_cache(name: str, what: str) -> Path:
    """The cache folder `name`, created if missing and checked to be writable.

    Args:
        name: the folder's name below the cache root.
        what: how the error message begins: what is kept there.

    Raises:
        ConfigurationError: the folder cannot be written.
    """
    folder = cache_directory(name)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"{what} in {folder}, which cannot be written ({error.strerror}); set CATALYST_CACHE to a folder of yours"
        ) from None
    return folder
