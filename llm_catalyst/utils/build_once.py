"""Files and folders of the caches: built once, by one process under a lock, and read by every later run."""

import hashlib
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

DIGEST = 32  # bytes


def build_once(path: Path, build: Callable[[Path], None]) -> Path:
    """`path`, a file or a folder, which `build` makes where it is missing or damaged.

    Of several processes one builds and the others wait. What is built appears under its name as a whole, or not at all.
    A file gets the SHA-256 of its name and content behind its end, where numpy and Arrow do not read: so a damaged
    file, and a whole one under another's name, are built anew.

    Args:
        path: in a folder that exists.
        build: writes the file, or makes the folder, at the path that it is given.

    Raises:
        OSError: nothing can be written beside `path`. What `build` raises is raised, too, and leaves nothing behind.
    """
    if path.is_dir():
        return path
    part = path.with_name(f"{path.name}.part")
    new = part / path.name
    with FileLock(path.with_name(f"{path.name}.lock")):
        if path.is_dir() or is_whole(path):
            return path
        shutil.rmtree(part, ignore_errors=True)  # left by a process that was killed
        part.mkdir()
        try:
            build(new)
            if new.is_file():
                with new.open("ab") as file:
                    file.write(keyed_checksum(path.name, new.read_bytes()))
            new.replace(path)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return path


def is_whole(path: Path) -> bool:
    """Whether a file is there, undamaged, and the one that was written under this name."""
    with suppress(OSError):
        content = path.read_bytes()
        return content[-DIGEST:] == keyed_checksum(path.name, content[:-DIGEST])
    return False


def keyed_checksum(name: str, content: bytes) -> bytes:
    """The SHA-256 of a file's name and content."""
    return hashlib.sha256(name.encode() + content).digest()
