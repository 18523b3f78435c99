"""A run's files: append a record, save where it stands, restore, finish; and read them back without torch.

config.yaml manifest.json
trajectory.jsonl pool.jsonl restarts.jsonl exchanges.jsonl metrics.jsonl events.jsonl
stages/00/ stages/01.step000340/     the end of a stage, or a checkpoint within one: appears by one rename
    state.safetensors state.json SHA256SUMS
SHA256SUMS                           of all of these, when the run has finished
outcome.json                         written last
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from pydantic import ValidationError

from llm_catalyst import checksums
from llm_catalyst.checks import ConfigurationError, leaves
from llm_catalyst.records import (
    Emit,
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
FIXED = ("config.yaml", "manifest.json")
EXCHANGES = FILES[Exchange]
# Keys that may change when a run goes on: where it runs, when it stops, and how patient it is; not what it computes.
FREE = re.compile(
    r"(device|threads|micro_batch|token_budget|view|dry_run|task\.path|checkpoint\..*|budget\..*"
    r"|mentor\.(on_failure|attempts|cache|fallbacks.*|client\.(base_url|timeout_s|retry_s|check_model|run))|replay\.run)"
)


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


class Damaged(ValueError):  # noqa: N818 - reads as a sentence where it is caught
    """A saved state that is not what was written, or whose records are not."""


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
        self._digests = {name: hashlib.sha256() for name in FILES.values()}
        self._lengths = dict.fromkeys(FILES.values(), 0)
        self._notes: list[str] = []
        self.reached = 0, 0  # stage and step of the last record

    def write_config(self, text: str, manifest: Manifest) -> None:
        """The resolved configuration and the manifest, first of all; a run that is resumed keeps its own.

        Raises ConfigurationError where the directory holds an unfinished run with another configuration or
        other data. What else has changed since it began is noted in its events.
        """
        if not (self.path / "manifest.json").exists():
            write_atomically(self.path / "config.yaml", text.encode())
            write_atomically(self.path / "manifest.json", to_json(manifest).encode() + b"\n")
            return
        changed = changed_keys(self.path, yaml.safe_load(text))
        self._notes += [f"with {', '.join(changed)}"] * bool(changed)
        before = read_manifest(self.path)
        if without_source(before.data) != without_source(manifest.data):
            raise ConfigurationError(
                f"the data have changed since the run in {self.path} began (manifest.json has their fingerprints)"
            )
        moved = [
            f"{name} {old} then, {new} now"
            for name, old, new in (
                *((name, version, manifest.versions.get(name)) for name, version in before.versions.items()),
                ("python", before.python, manifest.python),
                ("device", before.device, manifest.device),
                ("threads", before.threads, manifest.threads),
                ("code", before.git.get("revision"), manifest.git.get("revision")),
            )
            if old != new
        ]
        self._notes += [f"elsewhere, figures may differ in their last digits: {'; '.join(moved)}"] * bool(moved)

    def append(self, record: Record) -> None:
        """One line at the end of the record's file. An exchange, which was paid for, is flushed to the disk."""
        name, line = FILES[type(record)], to_json(record).encode() + b"\n"
        with open(self.path / name, "ab") as file:
            file.write(line)
        self._digests[name].update(line)
        self._lengths[name] += len(line)
        self.reached = record.stage, getattr(record, "step", self.reached[1])
        if isinstance(record, Exchange):
            sync(self.path / name)

    def commit(self, stage: int, tensors: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Make a stage's end whole: tensors, the rest of its state, and the records that led to it."""
        self._save(f"{stage:02d}", tensors, state)

    def checkpoint(self, stage: int, step: int, tensors: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """The same within a stage; it takes the place of the checkpoint before."""
        self._save(f"{stage:02d}.step{step:06d}", tensors, state)

    def _save(self, name: str, tensors: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        from safetensors.torch import save

        final = self.path / "stages" / name
        part = final.with_name(name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        records = {name: [length, self._digests[name].hexdigest()] for name, length in self._lengths.items()}
        for file in FIXED:
            content = (self.path / file).read_bytes()
            records[file] = [len(content), checksums.sha256(content)]
        files = {
            "state.safetensors": save({n: t.detach().cpu().contiguous() for n, t in tensors.items()}),
            "state.json": json.dumps({"records": records, "state": state}, allow_nan=False).encode(),
        }
        for file, content in {**files, checksums.SUMS: checksums.sums_of(files)}.items():
            with open(part / file, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        for file, length in self._lengths.items():
            if length:
                sync(self.path / file)
        part.rename(final)
        sync(final.parent)
        for other in self.path.glob("stages/*.step*"):
            if other != final:
                shutil.rmtree(other, ignore_errors=True)

    def saved(self) -> list[Path]:
        """The folders of the stages and of the checkpoint that were saved, in order."""
        return saved_states(self.path)

    def restore(self, emit: Emit) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Tensors and state of the newest whole save, or None; what was written after it is cut off.

        A save that is not what was written, or whose records are not, is removed, and the one before it is taken;
        an event says so. Raises ConfigurationError where the configuration or the exchanges, which cannot be made
        again, are not what was written.
        """
        from safetensors.torch import load

        found: tuple[dict[str, Any], dict[str, Any]] | None = None
        lengths = dict.fromkeys(FILES.values(), 0)
        damage = []
        for folder in reversed(self.saved()):
            try:
                content = read_state(self.path, folder)
            except Damaged as why:
                damage.append((folder, str(why)))
                continue
            found = load((folder / "state.safetensors").read_bytes()), content["state"]
            lengths = {name: content["records"][name][0] for name in FILES.values()}
            break
        self._cut(lengths)
        for folder, _ in damage:
            shutil.rmtree(folder)
        stage, step = (found[1]["stage"], found[1]["step"]) if found else (0, 0)
        where = f"stage {stage + 1}, step {step}" if found else "the beginning"
        for _, reason in damage:
            emit(Event(stage, step, "recovered", f"{reason}: the run goes on from {where}"))
        for note in self._notes:
            emit(Event(stage, step, "resumed", note))
        return found

    def _cut(self, lengths: Mapping[str, int]) -> None:
        """Shorten the files to these lengths, but keep the exchanges up to the last that brought an answer."""
        exchanges = self.path / EXCHANGES
        kept = lengths[EXCHANGES]
        end = 0
        for exchange, line in zip(read_lines(exchanges, Exchange), raw_lines(exchanges), strict=True):
            end += len(line) + 1
            kept = max(kept, end) if exchange.answered is not None else kept
        for name, length in {**lengths, EXCHANGES: kept}.items():
            path = self.path / name
            if path.exists():
                os.truncate(path, length)
            self._digests[name] = hashlib.sha256(path.read_bytes() if length else b"")
            self._lengths[name] = length

    def answered(self, stage: int) -> tuple[Exchange, ...]:
        """The exchanges of a stage so far: after a restore, those up to the last answer, which was paid for."""
        return tuple(e for e in read_lines(self.path / EXCHANGES, Exchange) if e.stage == stage)

    def snapshots(self, stage: int) -> list[Snapshot]:
        """The trajectory of a stage so far."""
        return [s for s in read_lines(self.path / FILES[Snapshot], Snapshot) if s.stage == stage]

    def finish(self, outcome: Outcome) -> None:
        """The checksums of all files, and the outcome, last of all."""
        content = to_json(outcome).encode() + b"\n"
        names = [*FIXED, *(name for name in FILES.values() if self._lengths[name])]
        names += [f"stages/{folder.name}/{file.name}" for folder in self.saved() for file in sorted(folder.iterdir())]
        files = {name: (self.path / name).read_bytes() for name in names}
        write_atomically(self.path / checksums.SUMS, checksums.sums_of({**files, "outcome.json": content}))
        write_atomically(self.path / "outcome.json", content)

    def close(self) -> None:
        self._lock.release()


def saved_states(path: Path) -> list[Path]:
    """The folders of a run's saved states, oldest first: `00` is the end of stage 0, `01.step000340` within stage 1."""

    def place(folder: Path) -> tuple[int, int]:
        stage, _, step = folder.name.partition(".step")
        return (int(stage), int(step)) if step else (int(stage) + 1, 0)

    return sorted((f for f in path.glob("stages/*") if re.fullmatch(r"\d+(\.step\d+)?", f.name)), key=place)


def read_state(path: Path, folder: Path) -> dict[str, Any]:
    """A saved state's JSON, checked with all that it rests on.

    Raises Damaged where the folder, or a record file up to the length that it then had, is not what was written,
    and ConfigurationError where the configuration or the exchanges are not.
    """
    name = f"stages/{folder.name}"
    try:
        wrong = {file: verdict for file, verdict in checksums.check(folder).items() if verdict}
        content = json.loads((folder / "state.json").read_bytes()) if not wrong else {}
    except ValueError as error:
        raise Damaged(f"{name} is damaged ({error})") from None
    if wrong:
        raise Damaged(f"{name} is damaged ({', '.join(f'{file} is {verdict}' for file, verdict in wrong.items())})")
    for file, (length, digest) in content["records"].items():
        there = (path / file).read_bytes()[:length] if (path / file).is_file() else None
        if length and (there is None or checksums.sha256(there) != digest):
            state = "missing" if there is None else "shorter" if len(there) < length else "changed"
            if file in FIXED or (file == EXCHANGES and state != "missing"):
                raise ConfigurationError(
                    f"{path / file} is {state} since {name} was written; put it back as it was"
                    + (", or remove it to ask the mentor again" if file == EXCHANGES else "")
                )
            raise Damaged(f"{file} is {state} since {name} was written")
    return content


def read_config(path: Path) -> dict[str, Any]:
    """The resolved configuration of a run. Raises ConfigurationError where it cannot be read."""
    try:
        return dict(yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path / 'config.yaml'} cannot be read ({error}); put it back as it was") from None


def changed_keys(path: Path, config: Any) -> list[str]:
    """The `key=value` of `config` in which it differs from that of the run in `path`, where that is allowed.

    Raises ConfigurationError where it is another configuration.
    """
    before, now = dict(leaves(read_config(path))), dict(leaves(config))
    keys = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    if other := [key for key in keys if not FREE.fullmatch(key)]:
        shown = ", ".join(f"{key}={before.get(key)!r} there and {now.get(key)!r} here" for key in other[:3])
        raise ConfigurationError(f"{path} holds a run with another configuration ({shown}); choose another directory")
    return [f"{key}={now.get(key)}" for key in keys]


def without_source(data: Mapping[str, Any]) -> dict[str, Any]:
    """Data fingerprints without the place where the data lay, which may move."""
    return {name: value for name, value in data.items() if name != "source"}


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
    return tuple(parse(kind, line, f"{path}, line {i}") for i, line in enumerate(raw_lines(path), start=1))


def raw_lines(path: Path) -> list[bytes]:
    """The whole lines of a file, without their ends; none where it does not exist."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def parse(kind: type[Any], line: bytes, where: str) -> Any:
    try:
        return from_json(kind, line)
    except ValidationError as error:
        names = ", ".join(f.name for f in fields(kind))
        raise ConfigurationError(f"{where} is not a {kind.__name__} record ({names}): {error}") from error
