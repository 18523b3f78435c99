"""SHA-256 of files, and lists of them as `sha256sum` writes and checks them."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

SUMS = "SHA256SUMS"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sums_of(contents: Mapping[str, bytes]) -> bytes:
    """The lines of a SHA256SUMS file for these files."""
    return "".join(f"{sha256(content)}  {name}\n" for name, content in contents.items()).encode()


def read_sums(folder: Path) -> dict[str, str]:
    """The sums by file name in a folder's SHA256SUMS. Raises ValueError where that is missing or no such list."""
    try:
        lines = (folder / SUMS).read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{SUMS} cannot be read") from error
    pairs = [line.split("  ", 1) for line in lines]
    if not all(len(pair) == 2 and len(pair[0]) == 64 for pair in pairs):
        raise ValueError(f"{SUMS} is no list of sums")
    return {name: digest for digest, name in pairs}


def check(folder: Path) -> dict[str, str]:
    """What is wrong with each file that the folder's SHA256SUMS names: '', 'missing' or 'changed'.

    Raises ValueError where there is no such list.
    """
    verdicts = {}
    for name, digest in read_sums(folder).items():
        path = folder / name
        there = path.is_file() and os.access(path, os.R_OK)
        verdicts[name] = "missing" if not there else "" if sha256(path.read_bytes()) == digest else "changed"
    return verdicts
