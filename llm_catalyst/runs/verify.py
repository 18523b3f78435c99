"""`catalyst show --verify DIR`: whether a run's files are those that the run wrote; without torch."""

import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llm_catalyst.runs.checkpoints import STATE, find_changed_records, saved_states
from llm_catalyst.runs.reader import EXCHANGES, FILES, parse_line, read_manifest, read_raw_lines
from llm_catalyst.runs.records import Manifest, Outcome
from llm_catalyst.runs.run_config import FIXED
from llm_catalyst.utils import checksums
from llm_catalyst.utils.format import format_count
from llm_catalyst.utils.terminal import escape_controls, forgive_encoding
from llm_catalyst.utils.validation import ConfigurationError

OUTCOME = "outcome.json"


@dataclass(frozen=True)
class Finding:
    """A file, or the folder of a saved state: its damage, '' if there is none, and a remark."""

    file: str
    damage: str = ""
    remark: str = ""


def print_verification(path: Path, console: Console) -> bool:
    """Print the verdict on each file, and the next step in a sentence.

    Returns:
        Whether all files are as the run wrote them.

    Raises:
        ConfigurationError: `path` is no run directory, or a process is writing it.
    """
    forgive_encoding(console)
    with lock_run(path):
        findings = verify_run(path)
        advice = describe_next_step(path, [finding.file for finding in findings if finding.damage])
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for finding in findings:
        verdict = Text(escape_controls(finding.damage), "bold red") if finding.damage else Text("ok", "green")
        table.add_row(Text(escape_controls(finding.file), overflow="fold"), verdict, Text(finding.remark, "dim"))
    console.print(table)
    whole = not any(finding.damage for finding in findings)
    console.print(Text(escape_controls(advice), "bold green" if whole else "bold red"), soft_wrap=True)
    return whole


@contextmanager
def lock_run(path: Path) -> Iterator[None]:
    """Keep other processes from writing the run.

    Raises:
        ConfigurationError: another process is writing it.
    """
    lock = FileLock(path / ".lock")
    try:
        if (path / ".lock").exists():
            lock.acquire(timeout=0)
    except Timeout:
        raise ConfigurationError(f"{path} is being written by another process; verify it when that has ended") from None
    except OSError:
        pass  # on a read-only disk nobody writes
    try:
        yield
    finally:
        lock.release()


def verify_run(path: Path) -> list[Finding]:
    """The findings on each file of a run.

    Raises:
        ConfigurationError: `path` is no run directory.
    """
    if not any((path / name).exists() for name in (*FIXED, *FILES.values(), "stages", OUTCOME)):
        read_manifest(path)
    return verify_finished(path) if has_ended(path) else verify_unfinished(path)


def has_ended(path: Path) -> bool:
    """Whether the run has finished, even if its outcome was lost since."""
    return (path / OUTCOME).exists() or OUTCOME in checksums.read_list(path)


def verify_finished(path: Path) -> list[Finding]:
    """Each file against the list that was written at the end, and each saved state also against its own list."""
    states = [f"stages/{state.name}" for state in saved_states(path)]
    records = [name for name in FILES.values() if (path / name).exists() and (path / name).read_bytes()]
    needed = [*FIXED, *records, *(f"{state}/{file}" for state in states for file in (*STATE, checksums.SUMS)), OUTCOME]
    names = dict.fromkeys([*needed, *checksums.read_list(path)])
    wrong = checksums.find_changed(path, names)
    findings = [Finding(checksums.SUMS, wrong[checksums.SUMS])] if checksums.SUMS in wrong else []
    for name in names:
        if name in FILES.values():
            findings.append(check_records(path, name, wrong.get(name, "")))
        elif name in (*FIXED, OUTCOME):
            findings.append(Finding(name, wrong.get(name) or find_unreadable(path / name)))
        elif not name.startswith(tuple(f"{state}/" for state in states)):
            findings.append(Finding(name, wrong.get(name, "")))
    for state in states:
        inside = {name.removeprefix(f"{state}/"): how for name, how in wrong.items() if name.startswith(f"{state}/")}
        findings.append(check_state(path, state, inside))
    return findings


def verify_unfinished(path: Path) -> list[Finding]:
    """The saved states against their lists, the records against the newest intact state, as a resume does."""
    wrong = checksums.find_changed(path, FIXED)
    findings = [Finding(checksums.SUMS, wrong[checksums.SUMS])] if checksums.SUMS in wrong else []
    findings += [Finding(name, wrong.get(name) or find_unreadable(path / name)) for name in FIXED]
    states = [f"stages/{state.name}" for state in saved_states(path)]
    whole = [state for state in states if not checksums.find_changed(path / state, STATE)]
    saved = read_saved_records(path, whole[-1]) if whole else {}
    wrong = find_changed_records(path, saved)
    for name in FILES.values():
        if name in wrong or (path / name).exists():
            findings.append(check_records(path, name, wrong.get(name, ""), saved.get(name, (0, ""))[0]))
    return findings + [check_state(path, state, {}) for state in states]


def check_records(path: Path, name: str, damage: str, saved: int | None = None) -> Finding:
    """A record file, of which each line is read; `saved` is the number of bytes that the newest state covers."""
    kinds = {file: kind for kind, file in FILES.items()}
    lines = read_raw_lines(path / name)
    broken = next((i for i, line in enumerate(lines, start=1) if not is_record(kinds[name], line)), None)
    damage = ", ".join(filter(None, [damage, f"line {broken} cannot be read" if broken else ""]))
    if saved is None or damage == "missing":
        return Finding(name, damage, format_count(len(lines), "line"))
    content = (path / name).read_bytes()
    later = content[saved:].count(b"\n")
    remarks = [format_count(len(lines), "line"), f"{later} not saved yet" if later else ""]
    remarks.append(
        "" if content[saved:].endswith(b"\n") or len(content) <= saved else "the last was not written to its end"
    )
    return Finding(name, damage, ", ".join(filter(None, remarks)))


def check_state(path: Path, state: str, wrong: dict[str, str]) -> Finding:
    """A saved state's folder, against its own list and the problems already known."""
    wrong = wrong | checksums.find_changed(path / state, STATE)
    return Finding(state, ", ".join(f"{file} {how}" for file, how in wrong.items()))


def read_saved_records(path: Path, state: str) -> dict[str, tuple[int, str]]:
    """The lengths and digests of the record files at the time of a saved state."""
    records: dict[str, tuple[int, str]] = json.loads((path / state / "state.json").read_bytes())["records"]
    return records


def is_record(kind: type[Any], line: bytes) -> bool:
    """Whether a line is a record of that kind."""
    try:
        parse_line(kind, line, "")
    except ConfigurationError:
        return False
    return True


def find_unreadable(path: Path) -> str:
    """The damage of a file that is no record file, apart from its checksum."""
    if not path.is_file():
        return "missing"
    kind = {"manifest.json": Manifest, OUTCOME: Outcome}.get(path.name)
    return "" if kind is None or is_record(kind, path.read_bytes()) else "cannot be read"


def describe_next_step(path: Path, damaged: Sequence[str]) -> str:
    """The verdict in a sentence, with the next command."""
    resume = f"catalyst resume {shlex.quote(str(path))}"
    states = [f"stages/{state.name}" for state in saved_states(path)]
    whole = [
        s
        for s in states
        if not checksums.find_changed(path / s, STATE) and not find_changed_records(path, read_saved_records(path, s))
    ]
    start = f"continues from {whole[-1] if whole else 'the beginning'}"
    if not damaged:
        return "whole: these are the bytes that the run wrote" + ("" if has_ended(path) else f"; {resume} {start}")
    lost = [name for name in damaged if name in (*FIXED, EXCHANGES, checksums.SUMS)]
    if lost:
        return f"damaged; put {' and '.join(lost)} back as it was: nothing can make that again"
    if damaged == [OUTCOME] and not (path / OUTCOME).exists():
        return f"not whole; {OUTCOME} was removed, or never written: {resume} makes it"
    if has_ended(path):
        return (
            f"damaged; put it back from a copy, or remove {OUTCOME} (if it is there) and make it anew: {resume} {start}"
        )
    return f"damaged, and repaired when the run continues: {resume} {start}"
