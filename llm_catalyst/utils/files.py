"""Writes that survive a crash: whole or not at all, and on the disk when they return; locks against other writers."""

import os
from pathlib import Path

from filelock import FileLock, Timeout

from llm_catalyst.utils.validation import ConfigurationError


def append_whole(path: Path, line: bytes) -> None:
    """Append a line to a file, or leave the file as it was."""
    with open(path, "ab", buffering=0) as file:
        end, written = file.tell(), 0
        try:
            while written < len(line):
                written += file.write(line[written:])
        except BaseException:
            file.truncate(end)
            raise


def cut_torn_line(path: Path) -> None:
    """Remove an incomplete last line, which a killed process left, so that nothing is appended to it."""
    content = path.read_bytes() if path.exists() else b""
    if content and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


def sync_path(path: Path) -> None:
    """Flush a file's content or a folder's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_flushed(path: Path, content: bytes) -> None:
    """Write the file; its content is on the disk when this returns."""
    path.write_bytes(content)
    sync_path(path)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file by one with this content; if the machine stops, the file is the old or the new one."""
    part = path.with_name(path.name + ".part")
    write_flushed(part, content)
    part.replace(path)
    sync_path(path.parent)


def take_lock(path: Path, refusal: str) -> FileLock:
    """The lock of this file, held until its release or the end of the process.

    Raises:
        ConfigurationError: another process holds it; `refusal` is the message.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigurationError(refusal) from None
    return lock
