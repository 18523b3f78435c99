"""A run's files: append a record, commit a stage, restore, finish; and read them back without torch.

config.yaml manifest.json
trajectory.jsonl pool.jsonl restarts.jsonl exchanges.jsonl metrics.jsonl events.jsonl
stages/00/ state.safetensors state.json      committed by rename, with a sha256 of the tensors
outcome.json                                 written last
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import ValidationError

from llm_catalyst.checks import ConfigurationError
from llm_catalyst.records import (
    Evaluation,
    Event,
    Exchange,
    Manifest,
    Outcome,
    Record,
    Restart,
    Scored,
    Snapshot,
    from_json,
    to_json,
)

FILES: dict[type[Any], str] = {
    Snapshot: "trajectory.jsonl",
    Scored: "pool.jsonl",
    Restart: "restarts.jsonl",
    Exchange: "exchanges.jsonl",
    Evaluation: "metrics.jsonl",
    Event: "events.jsonl",
}


@dataclass(frozen=True)
class RunRecords:
    """Everything that a run wrote, read back; `outcome` is None while it runs, or where it was cut off."""

    path: Path
    manifest: Manifest
    trajectory: tuple[Snapshot, ...]
    pool: tuple[Scored, ...]
    restarts: tuple[Restart, ...]
    exchanges: tuple[Exchange, ...]
    metrics: tuple[Evaluation, ...]
    events: tuple[Event, ...]
    outcome: Outcome | None


class RunDirectory:
    """The one writer of a run's directory, which stays locked until `close`."""

    def __init__(self, path: Path) -> None:
        """Take the directory, new or with an unfinished run in it. Raises ConfigurationError otherwise."""
        self.path = path
        if (path / "outcome.json").exists():
            raise ConfigurationError(f"{path} holds a finished run; see it with: catalyst show {path}")
        path.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(path / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ConfigurationError(f"{path} is being written by another process; wait for it or stop it") from None

    def write_config(self, text: str, manifest: Manifest) -> None:
        """The resolved configuration and the manifest, first of all; a run that is resumed keeps its own.

        Raises ConfigurationError where the directory holds an unfinished run with another configuration or
        other data.
        """
        if (self.path / "manifest.json").exists():
            if (self.path / "config.yaml").read_text() != text:
                raise ConfigurationError(
                    f"{self.path} holds an unfinished run with another configuration; choose another directory"
                )
            if read_manifest(self.path).data != manifest.data:
                raise ConfigurationError(
                    f"the data have changed since the run in {self.path} began (manifest.json has their fingerprints)"
                )
            return
        write_atomically(self.path / "config.yaml", text.encode())
        write_atomically(self.path / "manifest.json", to_json(manifest).encode() + b"\n")

    def append(self, record: Record) -> None:
        """One line at the end of the record's file. An exchange, which was paid for, is flushed to the disk."""
        path = self.path / FILES[type(record)]
        with open(path, "ab") as file:
            file.write(to_json(record).encode() + b"\n")
        if isinstance(record, Exchange):
            sync(path)

    def commit(self, stage: int, tensors: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Make a stage's end whole: tensors, the rest of its state, and how long each file then was."""
        from safetensors.torch import save_file

        final = self.path / "stages" / f"{stage:02d}"
        part = final.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, part / "state.safetensors"
        )
        lengths = {name: size(self.path / name) for name in FILES.values()}
        for name, length in lengths.items():
            if length:
                sync(self.path / name)
        digest = hashlib.sha256((part / "state.safetensors").read_bytes()).hexdigest()
        content = {"sha256": digest, "lengths": lengths, "state": state}
        write_atomically(part / "state.json", json.dumps(content, allow_nan=False).encode())
        sync(part / "state.safetensors")
        part.rename(final)
        sync(final.parent)

    def stages(self) -> list[Path]:
        """The folders of the stages that were committed, in order."""
        return sorted((p for p in self.path.glob("stages/[0-9]*") if p.suffix != ".part"), key=lambda p: int(p.name))

    def restore(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Tensors and state of the last whole stage, or None; whatever was written after it is cut off.

        Raises ConfigurationError where the stage's tensors are not the ones that were written.
        """
        from safetensors.torch import load

        stages = self.stages()
        if not stages:
            self._cut(dict.fromkeys(FILES.values(), 0))
            return None
        raw = (stages[-1] / "state.safetensors").read_bytes()
        try:
            content = json.loads((stages[-1] / "state.json").read_bytes())
        except ValueError:
            content = {}
        if hashlib.sha256(raw).hexdigest() != content.get("sha256"):
            raise ConfigurationError(f"{stages[-1]} is damaged; remove that folder to go on from the stage before it")
        self._cut(content["lengths"])
        return load(raw), content["state"]

    def _cut(self, lengths: Mapping[str, int]) -> None:
        """Shorten the files to these lengths, but keep every whole exchange: it was paid for, and is used again."""
        path = self.path / FILES[Exchange]
        whole = path.read_bytes().rfind(b"\n") + 1 if path.exists() else 0
        for name, length in {**lengths, path.name: whole}.items():
            if size(self.path / name) > length:
                os.truncate(self.path / name, length)

    def answered(self, stage: int) -> tuple[Exchange, ...]:
        """The exchanges of a stage that brought an answer, and so were paid for."""
        exchanges = read_lines(self.path / FILES[Exchange], Exchange)
        return tuple(e for e in exchanges if e.stage == stage and e.answered is not None)

    def finish(self, outcome: Outcome) -> None:
        """The outcome, last of all."""
        write_atomically(self.path / "outcome.json", to_json(outcome).encode() + b"\n")

    def close(self) -> None:
        self._lock.release()


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def sync(path: Path) -> None:
    """Flush a file or a folder's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: bytes) -> None:
    """The file with this content, or the file as it was: never half of it, whenever the machine stops."""
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync(path.parent)


def read_run(path: Path) -> RunRecords:
    """All records of a run directory. Raises ConfigurationError naming the file and line that cannot be read."""
    manifest = read_manifest(path)
    lists = {name.removesuffix(".jsonl"): read_lines(path / name, kind) for kind, name in FILES.items()}
    outcome = path / "outcome.json"
    return RunRecords(
        path=path,
        manifest=manifest,
        outcome=read_json(outcome, Outcome) if outcome.exists() else None,
        **lists,
    )


def read_manifest(path: Path) -> Manifest:
    """The manifest of a run directory. Raises ConfigurationError where `path` is none."""
    if not (path / "manifest.json").is_file():
        raise ConfigurationError(f"{path} is not a run directory (no manifest.json); runs lie under outputs/")
    return read_json(path / "manifest.json", Manifest)


def read_json(path: Path, kind: type[Any]) -> Any:
    return parse(kind, path.read_bytes(), str(path))


def read_lines(path: Path, kind: type[Any]) -> tuple[Any, ...]:
    """The records of a JSONL file; a last line without its line end was cut off and does not count."""
    if not path.exists():
        return ()
    lines = path.read_bytes().split(b"\n")[:-1]
    return tuple(parse(kind, line, f"{path}, line {i}") for i, line in enumerate(lines, start=1))


def parse(kind: type[Any], line: bytes, where: str) -> Any:
    try:
        return from_json(kind, line)
    except ValidationError as error:
        names = ", ".join(f.name for f in fields(kind))
        raise ConfigurationError(f"{where} is not a {kind.__name__} record ({names}): {error}") from error
