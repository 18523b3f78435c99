"""A run's files: append a record, save where it stands, restore, finish.

config.yaml manifest.json            what made the run
*.jsonl                              its records (run_records.py)
stages/                              where it stood (saved_states.py): each appears by one rename
SHA256SUMS                           of the first two, and of everything when the run has finished
outcome.json                         written last
"""

import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from llm_catalyst.runs.checkpoints import STATE, DamagedStateError, read_state, read_tensors, saved_states
from llm_catalyst.runs.old_configs import translate_config
from llm_catalyst.runs.reader import EXCHANGES, FILES, read_lines, read_manifest, read_raw_lines
from llm_catalyst.runs.records import Emit, Event, LLMCall, Manifest, Outcome, Record, ScoredPrompt, Snapshot, to_json
from llm_catalyst.utils import checksums
from llm_catalyst.utils.files import append_whole, cut_torn_line, sync_path, write_atomically, write_flushed
from llm_catalyst.utils.validation import ConfigurationError, flatten_leaves

FIXED = ("config.yaml", "manifest.json")
# Keys that say where a run is carried out, when it stops and how patient it is, not what it computes.
PLACE = (
    r"device|threads|micro_batch|token_budget|view|(track|plugins)(\[\d+\])?|dry_run|task\.path|checkpoint\..*|budget\..*"
    r"|mentor\.cache|mentor\.client\.(timeout_s|retry_s|at_once|per_minute|check_model)"
)
# Keys that may mend a run which stopped; its events tell.
MENDS = r"mentor\.(on_failure|attempts|runs|fallbacks.*)|mentor\.client\.(base_url|run)"


class RunDirectory:
    """The one writer of a run's directory, which stays locked until `close`. Several of its threads may append."""

    def __init__(self, path: Path) -> None:
        """Take the directory, new or with an unfinished run in it. Raises ConfigurationError otherwise."""
        self.path = path
        refuse_finished(path)
        path.mkdir(parents=True, exist_ok=True)
        self._writing = threading.Lock()
        self._closed = False
        self._lock = FileLock(path / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ConfigurationError(f"{path} is being written by another process; wait for it or stop it") from None
        try:
            refuse_finished(path)  # by the process that held the lock until now
        except ConfigurationError:
            self.close()
            raise
        self._fixed: dict[str, str] = {}
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
            for name in (*FILES.values(), "stages"):
                if (self.path / name).exists():
                    raise ConfigurationError(
                        f"{self.path} holds {name}, but no manifest.json; put it back, or choose another directory: "
                        "hydra.run.dir=DIR"
                    )
            config, made_by = text.encode(), to_json(manifest).encode() + b"\n"
            self._fixed = dict(zip(FIXED, map(checksums.sha256, (config, made_by)), strict=True))
            write_atomically(self.path / "config.yaml", config)
            write_atomically(self.path / checksums.SUMS, checksums.format_list(self._fixed))
            write_atomically(self.path / "manifest.json", made_by)
            return
        changed = changed_keys(self.path, yaml.safe_load(text), f"{PLACE}|{MENDS}")
        self._fixed = {name: checksums.read_list(self.path)[name] for name in FIXED}
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
                ("backbone.dtype", before.backbone.get("dtype"), manifest.backbone.get("dtype")),
                ("code", before.git.get("revision"), manifest.git.get("revision")),
            )
            if old != new
        ]
        self._notes += [f"elsewhere, figures may differ in their last digits: {'; '.join(moved)}"] * bool(moved)
        # An event can be added before anything is restored: that the run was refused.
        cut_torn_line(self.path / FILES[Event])

    def append(self, record: Record) -> None:
        """One line at the end of the record's file, whole or not at all.

        An exchange, which was paid for, is sealed with its checksum and flushed to the disk.
        """
        name, line = FILES[type(record)], to_json(record).encode()
        line = (checksums.seal_line(line) if isinstance(record, LLMCall) else line) + b"\n"
        with self._writing:
            self.refuse_closed()
            append_whole(self.path / name, line)
            self._digests[name].update(line)
            self._lengths[name] += len(line)
            # An exchange may be about a stage before.
            self.reached = max(self.reached, (record.stage, getattr(record, "step", self.reached[1])))
        if isinstance(record, LLMCall):
            sync_path(self.path / name)
            sync_path(self.path)

    def refuse_closed(self) -> None:
        """Raise RuntimeError after `close`: who still waits for a mentor then belongs to a run that has ended."""
        if self._closed:
            raise RuntimeError(f"{self.path} is closed: its run has ended, or goes on in another process")

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
        with self._writing:
            lengths = dict(self._lengths)
            records = {file: [length, self._digests[file].hexdigest()] for file, length in lengths.items()}
        files = {
            "state.safetensors": save({n: t.detach().cpu().contiguous() for n, t in tensors.items()}),
            "state.json": json.dumps({"records": records, "state": state}, allow_nan=False).encode(),
        }
        digests = {file: checksums.sha256(content) for file, content in files.items()}
        try:
            for file, content in {**files, checksums.SUMS: checksums.format_list(digests)}.items():
                write_flushed(part / file, content)
        except OSError:
            shutil.rmtree(part, ignore_errors=True)  # on a full disk, a sign of the end may find room then
            raise
        for file, length in lengths.items():
            if length:
                sync_path(self.path / file)
        sync_path(part)
        if final.exists():  # damaged, or the run would not have come here again
            discard_state(final)
        part.rename(final)
        for folder in (final.parent, self.path):
            sync_path(folder)
        states = self.saved()
        for later in states[states.index(final) + 1 :]:
            discard_state(later)  # it was damaged when the run was restored
        self._discard_checkpoints_before(final)

    def _discard_checkpoints_before(self, state: Path) -> None:
        """Remove the checkpoints whose place a whole save has taken."""
        states = self.saved()
        for earlier in states[: states.index(state)]:
            if ".step" in earlier.name:
                discard_state(earlier)

    def saved(self) -> list[Path]:
        """The folders of the stages and of the checkpoint that were saved, in order."""
        return saved_states(self.path)

    def restore(self, emit: Emit) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Tensors and state of the newest whole save, or None; what was written after it is cut off.

        Where a save, or a record that led to it, is not what was written, the one before it is taken, and an event
        says so; the damaged one stays until the run has got as far again. Raises ConfigurationError where the
        exchanges, which cannot be made again, are not what was written.
        """
        found: tuple[dict[str, Any], dict[str, Any]] | None = None
        lengths = dict.fromkeys(FILES.values(), 0)
        damage = []
        for folder in reversed(self.saved()):
            try:
                content, tensors = read_state(self.path, folder), read_tensors(folder)
            except DamagedStateError as why:
                damage.append(str(why))
                continue
            found = tensors, content["state"]
            lengths = {name: length for name, (length, _) in content["records"].items()}
            self._discard_checkpoints_before(folder)  # the run may have ended between a save and this
            break
        self._cut(lengths)
        for part in self.path.glob("stages/*.part"):
            shutil.rmtree(part, ignore_errors=True)
        self.reached = (found[1]["stage"], found[1]["step"]) if found else (0, 0)
        where = f"stage {self.reached[0] + 1}, step {self.reached[1]}" if found else "the beginning"
        for reason in damage:
            emit(Event(*self.reached, "recovered", f"{reason}: the run goes on from {where}"))
        for note in self._notes:
            emit(Event(*self.reached, "resumed", note))
        return found

    def _cut(self, lengths: Mapping[str, int]) -> None:
        """Shorten the files to these lengths, but keep the exchanges up to the last that brought an answer."""
        exchanges = self.path / EXCHANGES
        kept = lengths[EXCHANGES]
        end = 0
        for exchange, line in zip(read_lines(exchanges, LLMCall), read_raw_lines(exchanges), strict=True):
            end += len(line) + 1
            kept = max(kept, end) if exchange.answered is not None else kept
        for name, length in {**lengths, EXCHANGES: kept}.items():
            path = self.path / name
            if path.exists():
                os.truncate(path, length)
            self._digests[name] = hashlib.sha256(path.read_bytes() if length else b"")
            self._lengths[name] = length

    def answered(self, stage: int) -> tuple[LLMCall, ...]:
        """The exchanges of a stage so far; after a restore at least those up to the last answer, which was paid for."""
        return tuple(e for e in read_lines(self.path / EXCHANGES, LLMCall) if e.stage == stage)

    def snapshots(self, stage: int) -> list[Snapshot]:
        """The trajectory of a stage so far."""
        return [s for s in read_lines(self.path / FILES[Snapshot], Snapshot) if s.stage == stage]

    def scored(self) -> list[ScoredPrompt]:
        """All scored prompts so far, as they came."""
        return list(read_lines(self.path / FILES[ScoredPrompt], ScoredPrompt))

    def finish(self, outcome: Outcome) -> None:
        """The checksums of all files, and the outcome, last of all."""
        content = to_json(outcome).encode() + b"\n"
        digests = self._fixed | {name: self._digests[name].hexdigest() for name, n in self._lengths.items() if n}
        for folder in self.saved():
            for file in (folder / name for name in (*STATE, checksums.SUMS) if (folder / name).is_file()):
                digests[file.relative_to(self.path).as_posix()] = checksums.sha256(file.read_bytes())
        digests["outcome.json"] = checksums.sha256(content)
        write_atomically(self.path / checksums.SUMS, checksums.format_list(digests))
        write_atomically(self.path / "outcome.json", content)

    def close(self) -> None:
        with self._writing:
            self._closed = True
        self._lock.release()


def refuse_finished(path: Path) -> None:
    """Raise ConfigurationError where the directory holds a finished run."""
    if (path / "outcome.json").exists():
        raise ConfigurationError(f"{path} holds a finished run; see it with: catalyst show {path}")


def discard_state(state: Path) -> None:
    """Remove a saved state's folder: by one rename, so that half of it never stands there, and then for good."""
    trash = state.with_name(state.name + ".old.part")
    shutil.rmtree(trash, ignore_errors=True)
    state.rename(trash)
    shutil.rmtree(trash, ignore_errors=True)


def read_config(path: Path) -> dict[str, Any]:
    """The resolved configuration of a run, as today's revision writes it.

    Raises ConfigurationError where it or the manifest is not as written.
    """
    for name, how in checksums.find_changed(path, FIXED).items():
        raise ConfigurationError(
            f"{path / name} is {how}; put it back as it was when the run began (where you trust "
            f"{' and '.join(FIXED)} as they are, list their sums anew: sha256sum {' '.join(FIXED)} > {checksums.SUMS})"
        )
    try:
        return translate_config(yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path / 'config.yaml'} cannot be read ({error}); put it back as it was") from None


def changed_keys(path: Path, config: Any, allowed: str) -> list[str]:
    """The `key=value` of `config` in which it differs from that of the run in `path`.

    Raises ConfigurationError where a key differs that the pattern `allowed` does not match.
    """
    before, now = dict(flatten_leaves(read_config(path))), dict(flatten_leaves(translate_config(config)))
    keys = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    if other := [key for key in keys if not re.fullmatch(allowed, key)]:
        shown = ", ".join(f"{key}={before.get(key)!r} there and {now.get(key)!r} here" for key in other[:3])
        raise ConfigurationError(f"{path} holds a run with another configuration ({shown}); choose another directory")
    return [f"{key}={now.get(key)}" for key in keys]


def without_source(data: Mapping[str, Any]) -> dict[str, Any]:
    """Data fingerprints without the place where the data lay, which may move."""
    return {name: value for name, value in data.items() if name != "source"}
