"""`catalyst show --verify DIR`: whether a run's files are those that the run wrote; without torch."""

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llm_catalyst.runs import checkpoints
from llm_catalyst.runs.checkpoints import STATE, find_changed_records, read_state, saved_states
from llm_catalyst.runs.reader import EXCHANGES, FILES, PREDICTIONS, parse_line, read_json, read_manifest, read_raw_lines
from llm_catalyst.runs.records import Manifest, Outcome
from llm_catalyst.runs.resolved import Predictions, Resolved
from llm_catalyst.runs.run_config import RESOLVED, list_fixed
from llm_catalyst.utils import checksums
from llm_catalyst.utils.files import take_lock
from llm_catalyst.utils.format import format_count, quote_word
from llm_catalyst.utils.terminal import escape_controls
from llm_catalyst.utils.validation import ConfigurationError

OUTCOME, NEWLINE = "outcome.json", b"\n"


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
    with ExitStack() as stack:
        with suppress(OSError):  # on a read-only disk nobody writes
            if (path / ".lock").exists():
                refusal = f"{path} is being written by another process; verify it when that has ended"
                stack.callback(take_lock(path / ".lock", refusal).release)
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


def verify_run(path: Path) -> list[Finding]:
    """The findings on each file of a run.

    The files of a finished run are compared with the list that was written at its end; of an unfinished one the records
    with the newest intact state, as a resume does. Each saved state is also compared with its own list.

    Raises:
        ConfigurationError: `path` is no run directory.
    """
    fixed = list_fixed(path)
    if not any((path / name).exists() for name in (*fixed, *FILES.values(), "stages", OUTCOME)):
        read_manifest(path)
    states = [f"stages/{state.name}" for state in saved_states(path)]
    saved = None
    if has_ended(path):
        records = [name for name in FILES.values() if (path / name).exists() and (path / name).read_bytes()]
        of_states = [f"{state}/{file}" for state in states for file in (*STATE, checksums.SUMS)]
        names = dict.fromkeys([*fixed, *records, *of_states, OUTCOME, *checksums.read_list(path)])
        wrong = checksums.find_changed(path, names)
    else:
        whole = [state for state in states if not checksums.find_changed(path / state, STATE)]
        saved = json.loads((path / whole[-1] / "state.json").read_bytes())["records"] if whole else {}
        wrong = checksums.find_changed(path, fixed) | find_changed_records(path, saved)
        names = dict.fromkeys([*fixed, *(name for name in FILES.values() if name in wrong or (path / name).exists())])
    findings = [Finding(checksums.SUMS, wrong[checksums.SUMS])] if checksums.SUMS in wrong else []
    for name in names:
        if name in FILES.values():
            findings.append(check_records(path, name, wrong.get(name, ""), saved))
        elif not name.startswith(tuple(f"{state}/" for state in states)):
            findings.append(Finding(name, wrong.get(name) or find_unreadable(path / name)))
    for state in states:
        inside = {name.removeprefix(f"{state}/"): how for name, how in wrong.items() if name.startswith(f"{state}/")}
        inside |= checksums.find_changed(path / state, STATE)
        findings.append(Finding(state, ", ".join(f"{file} {how}" for file, how in inside.items())))
    return findings


def has_ended(path: Path) -> bool:
    """Whether the run has finished, even if its outcome was lost since."""
    return (path / OUTCOME).exists() or OUTCOME in checksums.read_list(path)


def check_records(path: Path, name: str, damage: str, saved: checkpoints.Saved | None) -> Finding:
    """A record file, of which each line is read; `saved` are the records that the newest state covers, None for all."""
    kind = next(kind for kind, file in FILES.items() if file == name)
    lines = read_raw_lines(path / name)
    broken = next((i for i, line in enumerate(lines, start=1) if not reads_whole(parse_line, kind, line, "")), None)
    damages = [damage] * bool(damage) + [f"line {broken} cannot be read"] * bool(broken)
    remarks = [format_count(len(lines), "line")]
    if saved is not None and damage != "missing":
        later = (path / name).read_bytes()[saved.get(name, (0, ""))[0] :]
        remarks += [f"{later.count(NEWLINE)} not saved yet"] * (NEWLINE in later)
        remarks += ["the last was not written to its end"] * (later[-1:] not in (b"", NEWLINE))
    return Finding(name, ", ".join(damages), ", ".join(remarks))


def reads_whole(read: Callable[..., object], *arguments: Any) -> bool:
    """Whether `read(*arguments)`, the reading of a record or a saved state, finds no damage."""
    try:
        read(*arguments)
    except (checkpoints.DamagedStateError, ConfigurationError):
        return False
    return True


def find_unreadable(path: Path) -> str:
    """The damage of a file that is no record file, apart from its checksum."""
    if not path.is_file():
        return "missing"
    kinds = {"manifest.json": Manifest, RESOLVED: Resolved, PREDICTIONS: Predictions, OUTCOME: Outcome}
    kind = kinds.get(path.name)
    return "" if kind is None or reads_whole(read_json, path, kind) else "cannot be read"


def describe_next_step(path: Path, damaged: Sequence[str]) -> str:
    """The verdict in a sentence, with the next command."""
    resume = f"catalyst resume {quote_word(str(path))}"
    whole = [f"stages/{state.name}" for state in saved_states(path) if reads_whole(read_state, path, state)]
    start = f"continues from {whole[-1] if whole else 'the beginning'}"
    if not damaged:
        return "whole: these are the bytes that the run wrote" + ("" if has_ended(path) else f"; {resume} {start}")
    lost = [name for name in damaged if name in (*list_fixed(path), EXCHANGES, checksums.SUMS)]
    if lost:
        return f"damaged; put {' and '.join(lost)} back as it was: nothing can make that again"
    if damaged == [OUTCOME] and not (path / OUTCOME).exists():
        return f"not whole; {OUTCOME} was removed, or never written: {resume} makes it"
    if has_ended(path):
        return (
            f"damaged; put it back from a copy, or remove {OUTCOME} (if it is there) and make it anew: {resume} {start}"
        )
    return f"damaged, and repaired when the run continues: {resume} {start}"
