"""SHA-256 of files, in lists as `sha256sum` writes and checks them, and of single lines."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

SUMS = "SHA256SUMS"
SEAL = b', "sha256": "'


def sha256(content: bytes) -> str:
    """The SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def format_list(digests: Mapping[str, str]) -> bytes:
    """The content of a SHA256SUMS file: a line for each file name and its digest."""
    return "".join(f"{digest}  {name}\n" for name, digest in digests.items()).encode()


def read_list(folder: Path) -> dict[str, str]:
    """The digests by file name in a folder's SHA256SUMS; empty if the file is missing or malformed."""
    try:
        *lines, _ = (folder / SUMS).read_bytes().decode("ascii").split("\n")
    except (OSError, UnicodeDecodeError):
        return {}
    pairs = [line.partition("  ") for line in lines]
    return {} if any(len(digest) != 64 for digest, _, _ in pairs) else {name: digest for digest, _, name in pairs}


def find_changed(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The files that differ from the folder's SHA256SUMS, each with 'missing', 'changed' or 'not listed'.

    Without a list, the list itself is the only finding.
    """
    digests = read_list(folder)
    if not digests:
        return {SUMS: "missing" if not (folder / SUMS).exists() else "no list of sums"}
    found = {}
    for name in names:
        path = folder / name
        if not path.is_file():
            found[name] = "missing"
        elif name not in digests:
            found[name] = "not listed"
        elif sha256(path.read_bytes()) != digests[name]:
            found[name] = "changed"
    return found


def seal_line(line: bytes) -> bytes:
    """The line of a JSON object with its own SHA-256 as an additional last value, "sha256"."""
    return line[:-1] + SEAL + sha256(line).encode() + b'"}'


def is_unbroken(line: bytes) -> bool:
    """Whether a sealed line is unchanged; a line without a seal passes."""
    head, seal, digest = line.rpartition(SEAL)
    return not seal or digest == sha256(head + b"}").encode() + b'"}'
