"""Write a run's files: append records, save the state, restore it, finish.

config.yaml manifest.json            the run's configuration and provenance
resolved.json                        what both leave to defaults and to the data
*.jsonl                              its records (records.py)
stages/                              its saved states (checkpoints.py): each appears by one rename
SHA256SUMS                           of the first three, and of all files of a finished run
predictions.json                     the answers on each row of the reporting split
outcome.json                         written last
"""

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from llm_catalyst.runs.checkpoints import STATE, DamagedStateError, read_state, read_tensors, saved_states
from llm_catalyst.runs.reader import EXCHANGES, FILES, PREDICTIONS, read_lines, read_manifest, read_raw_lines
from llm_catalyst.runs.records import Emit, Evaluation, Event, LLMCall, Manifest, Outcome, Record, Snapshot, to_json
from llm_catalyst.runs.resolved import Predictions, Resolved
from llm_catalyst.runs.run_config import FIXED, PLACE, REPAIRS, RESOLVED, changed_keys, list_fixed
from llm_catalyst.utils import checksums
from llm_catalyst.utils.files import append_whole, cut_torn_line, sync_path, take_lock, write_atomically, write_flushed
from llm_catalyst.utils.terminal import list_names
from llm_catalyst.utils.validation import ConfigurationError


class RunDirectory:
    """The only writer of a run's directory, which stays locked until `close`. Several threads may append."""

    def __init__(self, path: Path) -> None:
        """Take the directory, which is new or has an unfinished run.

        Raises:
            ConfigurationError: it has a finished run, or another process writes it.
        """
        self.path = path
        refuse_finished(path)
        path.mkdir(parents=True, exist_ok=True)
        self._writing = threading.Lock()
        self._closed = False
        self._lock = take_lock(path / ".lock", f"{path} is being written by another process; wait for it or stop it")
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

    def write_config(self, text: str, manifest: Manifest, resolved: Resolved | None = None) -> None:
        """Write the configuration, the manifest and what they leave open, before all else; a resumed run keeps its own.

        Raises:
            ConfigurationError: the directory has an unfinished run with another configuration or other data. All other
                differences become events.
        """
        if not (self.path / "manifest.json").exists():
            for name in (*FILES.values(), "stages"):
                if (self.path / name).exists():
                    raise ConfigurationError(
                        f"{self.path} holds {name}, but no manifest.json; put it back, or choose another directory: "
                        "hydra.run.dir=DIR"
                    )
            made_by = to_json(manifest).encode() + b"\n"
            files = dict(zip(FIXED, (text.encode(), made_by), strict=True))
            files |= {RESOLVED: to_json(resolved).encode() + b"\n"} if resolved else {}
            self._fixed = {name: checksums.sha256(content) for name, content in files.items()}
            for name, content in {**files, checksums.SUMS: checksums.format_list(self._fixed)}.items():
                if name != "manifest.json":
                    write_atomically(self.path / name, content)
            write_atomically(self.path / "manifest.json", made_by)  # last: with it, the directory is a run's
            return
        changed = changed_keys(self.path, yaml.safe_load(text), f"{PLACE}|{REPAIRS}")
        self._fixed = {name: checksums.read_list(self.path)[name] for name in list_fixed(self.path)}
        self._notes += [f"with {', '.join(changed)}"] * bool(changed)
        before = read_manifest(self.path)
        apart = dict.fromkeys(("source", "content"))  # the data may have moved; earlier revisions took no hash of all
        if {**before.data, **apart} != {**manifest.data, **apart}:
            raise ConfigurationError(
                f"the data have changed since the run in {self.path} began (manifest.json has their fingerprints)"
            )
        if replaced := find_replaced_files(before.backbone, manifest.backbone):
            raise ConfigurationError(
                f"the model or its tokenizer has changed since the run in {self.path} began: other content in "
                f"{list_names(replaced)} of {manifest.backbone.get('location')} (manifest.json has the checksums); put "
                "the former files there, or begin a run of its own in another directory: hydra.run.dir=DIR"
            )
        then, now = machine_facts(before), machine_facts(manifest)
        moved = [f"{name} {old} then, {now.get(name)} now" for name, old in then.items() if old != now.get(name)]
        self._notes += [f"elsewhere, figures may differ in their last digits: {'; '.join(moved)}"] * bool(moved)
        # An event may be appended before the restore: that the run was refused.
        cut_torn_line(self.path / FILES[Event])

    def append(self, record: Record) -> None:
        """Append a record to its file, as a whole line or not at all.

        A mentor call, which was paid for, gets its own checksum and is flushed to the disk.
        """
        name, line = FILES[type(record)], to_json(record).encode()
        line = (checksums.seal_line(line) if isinstance(record, LLMCall) else line) + b"\n"
        with self._writing:
            self.refuse_closed()
            append_whole(self.path / name, line)
            self._digests[name].update(line)
            self._lengths[name] += len(line)
            # A mentor call may belong to an earlier stage.
            step = record.step if isinstance(record, Snapshot | Evaluation | Event) else self.reached[1]
            self.reached = max(self.reached, (record.stage, step))
        if isinstance(record, LLMCall):
            sync_path(self.path / name)
            sync_path(self.path)

    def refuse_closed(self) -> None:
        """Raise RuntimeError after `close`: a thread that still waits for a mentor belongs to a run that has ended."""
        if self._closed:
            raise RuntimeError(f"{self.path} is closed: its run has ended, or continues in another process")

    def commit(self, stage: int, tensors: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Save the end of a stage: tensors, the other state, and the lengths and digests of all records so far."""
        self._save(f"{stage:02d}", tensors, state)

    def checkpoint(self, stage: int, step: int, tensors: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Save the state within a stage, in place of the previous checkpoint."""
        self._save(f"{stage:02d}.step{step:06d}", tensors, state)

    def _save(self, name: str, tensors: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Write a saved state beside its final folder, and rename it when it is complete."""
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
            shutil.rmtree(part, ignore_errors=True)  # on a full disk, this frees space for the last event
            raise
        for file, length in lengths.items():
            if length:
                sync_path(self.path / file)
        sync_path(part)
        if final.exists():  # a damaged one: the run was restored from an earlier state
            discard_state(final)
        part.rename(final)
        for folder in (final.parent, self.path):
            sync_path(folder)
        self._discard_others(final, later=True)

    def _discard_others(self, state: Path, later: bool = False) -> None:
        """Remove the checkpoints before a saved state; with `later` also those after it, which are damaged."""
        states = self.saved()
        place = states.index(state)
        for other in states[place + 1 :] * later + [folder for folder in states[:place] if ".step" in folder.name]:
            discard_state(other)

    def saved(self) -> list[Path]:
        """The folders of the saved states, in order."""
        return saved_states(self.path)

    def restore(self, emit: Emit) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The newest intact saved state; records after it are cut off.

        If a saved state, or a record that led to it, has changed, the one before it is taken, and an event says so; the
        changed one stays until the run has reached its place again.

        Args:
            emit: receives the events.

        Returns:
            Tensors and the other state; None if no state is saved.

        Raises:
            ConfigurationError: the mentor calls, which cannot be repeated, have changed.
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
            self._discard_others(folder)  # in case the process ended between a save and this removal
            break
        self._cut(lengths)
        for part in self.path.glob("stages/*.part"):
            shutil.rmtree(part, ignore_errors=True)
        self.reached = (found[1]["stage"], found[1]["step"]) if found else (0, 0)
        where = f"stage {self.reached[0] + 1}, step {self.reached[1]}" if found else "the beginning"
        for reason in damage:
            emit(Event(*self.reached, "recovered", f"{reason}: the run continues from {where}"))
        for note in self._notes:
            emit(Event(*self.reached, "resumed", note))
        return found

    def _cut(self, lengths: Mapping[str, int]) -> None:
        """Shorten the files to these lengths, but keep the mentor calls up to the last one with a response."""
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

    def read(self, kind: type[Any]) -> tuple[Any, ...]:
        """All records of that type so far; after a restore, every answer that was paid for is among the exchanges."""
        return read_lines(self.path / FILES[kind], kind)

    def finish(self, outcome: Outcome, predictions: Predictions | None = None) -> None:
        """Write the predictions, the checksums of all files, and last of all the outcome."""
        content = to_json(outcome).encode() + b"\n"
        digests = self._fixed | {name: self._digests[name].hexdigest() for name, n in self._lengths.items() if n}
        for folder in self.saved():
            for file in (folder / name for name in (*STATE, checksums.SUMS) if (folder / name).is_file()):
                digests[file.relative_to(self.path).as_posix()] = checksums.sha256(file.read_bytes())
        if predictions:
            answers = to_json(predictions).encode() + b"\n"
            digests[PREDICTIONS] = checksums.sha256(answers)
            write_atomically(self.path / PREDICTIONS, answers)
        digests["outcome.json"] = checksums.sha256(content)
        write_atomically(self.path / checksums.SUMS, checksums.format_list(digests))
        write_atomically(self.path / "outcome.json", content)

    def close(self) -> None:
        """Release the lock; nothing can be appended any more."""
        with self._writing:
            self._closed = True
        self._lock.release()


def refuse_finished(path: Path) -> None:
    """Raise ConfigurationError if the directory has a finished run."""
    if (path / "outcome.json").exists():
        raise ConfigurationError(f"{path} holds a finished run; see it with: catalyst show {path}")


def find_replaced_files(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The files of a backbone whose content was another before, from its facts; [] where no checksums are known.

    Of a hub's model a file may be in the cache that was not there, and is not read; of a folder any that is new is.
    """
    then, there = (facts.get("files") or {} for facts in (before, now))
    if not then or not there:
        return []
    on_hub = now.get("commit") is not None
    names = then.keys() & there.keys() if on_hub else then.keys() | there.keys()
    return sorted(name for name in names if then.get(name) != there.get(name))


def machine_facts(manifest: Manifest) -> dict[str, Any]:
    """The facts of a manifest on which the last digits of a run's figures may depend."""
    return {
        **manifest.versions,
        **{name: getattr(manifest, name) for name in ("python", "device", "threads")},
        "backbone.dtype": manifest.backbone.get("dtype"),
        "code": manifest.git.get("revision"),
    }


def discard_state(state: Path) -> None:
    """Remove a saved state's folder: hidden by one rename, so that no half of it is ever found, then deleted."""
    trash = state.with_name(state.name + ".old.part")
    shutil.rmtree(trash, ignore_errors=True)
    state.rename(trash)
    shutil.rmtree(trash, ignore_errors=True)
