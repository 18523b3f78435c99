"""Read the files of a run, without torch.

trajectory.jsonl pool.jsonl restarts.jsonl exchanges.jsonl metrics.jsonl events.jsonl   one record a line
manifest.json resolved.json predictions.json outcome.json
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llm_catalyst.runs import old_configs, records
from llm_catalyst.runs.records import Evaluation, Event, LLMCall, Manifest, Outcome, Restart, ScoredPrompt, Snapshot
from llm_catalyst.runs.resolved import Predictions, Resolved
from llm_catalyst.runs.run_config import RESOLVED, load_config
from llm_catalyst.utils import checksums
from llm_catalyst.utils.terminal import escape_controls
from llm_catalyst.utils.validation import ConfigurationError, first_problem

FILES: dict[type[Any], str] = {
    Snapshot: "trajectory.jsonl",
    ScoredPrompt: "pool.jsonl",
    Restart: "restarts.jsonl",
    LLMCall: "exchanges.jsonl",
    Evaluation: "metrics.jsonl",
    Event: "events.jsonl",
}
EXCHANGES = FILES[LLMCall]
PREDICTIONS = "predictions.json"


@dataclass(frozen=True)
class RunRecords:
    """All records of a run; `outcome` is None for an unfinished run."""

    path: Path
    manifest: Manifest
    trajectory: tuple[Snapshot, ...]
    pool: tuple[ScoredPrompt, ...]
    restarts: tuple[Restart, ...]
    exchanges: tuple[LLMCall, ...]
    metrics: tuple[Evaluation, ...]
    events: tuple[Event, ...]
    outcome: Outcome | None

    @cached_property
    def resolved(self) -> Resolved | None:
        """What its command left to defaults and data; None in runs of earlier revisions, or if it cannot be read."""
        with suppress(ConfigurationError):
            return read_resolved(self.path)
        return None

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The resolved configuration; empty if it cannot be read, as the views can do without."""
        with suppress(ConfigurationError):
            return load_config(self.path)
        return {}


def read_run(path: Path) -> RunRecords:
    """All records of a run directory.

    Raises:
        ConfigurationError: a file cannot be read; the message names file and line.
    """
    manifest = read_manifest(path)
    lists = {name.removesuffix(".jsonl"): read_lines(path / name, kind) for kind, name in FILES.items()}
    outcome = path / "outcome.json"
    return RunRecords(
        path=path, manifest=manifest, outcome=read_json(outcome, Outcome) if outcome.exists() else None, **lists
    )


def find_runs(*places: Path) -> list[Path]:
    """Every run directory at or below `places`, sorted, each once; links to folders are not followed.

    Raises:
        ConfigurationError: a place is no folder, or a folder cannot be read.
    """
    found = {path.resolve(): path for place in places for path in run_directories(place)}
    return sorted(found.values())


def run_directories(place: Path) -> Iterator[Path]:
    """The folders at or below one place that have a manifest."""

    def refuse(error: OSError) -> None:
        raise ConfigurationError(f"{error.filename}: {error.strerror}; give the folder of a run, or one around runs")

    for folder, below, files in os.walk(place, onerror=refuse):
        if "manifest.json" in files:
            yield Path(folder)
            below.clear()  # its own folders come and go while it runs


def read_manifest(path: Path) -> Manifest:
    """The manifest of a run directory, with its command and choices translated to today's names.

    Raises:
        ConfigurationError: `path` is no run directory, or a later version wrote it.
    """
    file = path / "manifest.json"
    if not file.is_file():
        raise ConfigurationError(f"{path} is not a run directory (no manifest.json); runs lie under outputs/")
    if (found := old_configs.read_format(file.read_bytes())) > old_configs.FORMAT:
        raise ConfigurationError(
            f"{file} has format {found}, and this version of llm-catalyst reads formats up to {old_configs.FORMAT}; "
            "install the version that wrote it (versions in that file) or a later one"
        )
    manifest: Manifest = read_json(file, Manifest)
    return replace(
        manifest,
        command=old_configs.translate_words(manifest.command),
        choices=old_configs.translate_choices(manifest.choices),
    )


def read_resolved(path: Path) -> Resolved | None:
    """What the command of the run in `path` left to defaults and to the data; None in runs of earlier revisions."""
    file = path / RESOLVED
    return read_json(file, Resolved) if file.exists() else None


def read_predictions(path: Path) -> Predictions | None:
    """The answers on each row at the end of the run in `path`; None if it has not ended, or an earlier revision ran it.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    file = path / PREDICTIONS
    return read_json(file, Predictions) if file.exists() else None


def read_json(path: Path, kind: type[Any]) -> Any:
    """The record in a file that holds only one."""
    return parse_line(kind, path.read_bytes(), str(path))


def read_lines(path: Path, kind: type[Any]) -> tuple[Any, ...]:
    """The records of a JSONL file; an incomplete last line does not count."""
    return tuple(parse_line(kind, line, f"{path}, line {i}") for i, line in enumerate(read_raw_lines(path), start=1))


def read_raw_lines(path: Path) -> list[bytes]:
    """The complete lines of a file, without their ends; none if it does not exist."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def parse_line(kind: Any, line: bytes, where: str) -> Any:
    """The record in a line.

    Raises:
        ConfigurationError: it is no such record; the message says where it is, what is wrong and what to do.
    """
    try:
        record = records.from_json(kind, line)
    except ValidationError as error:
        why = escape_controls(first_problem(error))
    else:
        if kind is not LLMCall or checksums.is_unbroken(line):
            return record
        why = "its sha256 says that it was another"
    names = ", ".join(f.name for f in fields(kind))
    article = "an" if kind.__name__.startswith(tuple("AEIOU")) else "a"
    advice = ", or end it before that line to ask the mentor again" if kind is LLMCall else ""
    raise ConfigurationError(
        f"{where} is not {article} {kind.__name__} record ({names}): {why}; put the file back as it was{advice} "
        "(catalyst show --verify DIR checks a run)"
    )
