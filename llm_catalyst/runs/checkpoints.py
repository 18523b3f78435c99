"""The saved states of a run, checked together with the records that they rest on.

stages/00/ stages/01.step000340/     the end of a stage, or a checkpoint within one
    state.safetensors state.json SHA256SUMS
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_catalyst.runs.reader import EXCHANGES
from llm_catalyst.utils import checksums
from llm_catalyst.utils.validation import ConfigurationError

STATE = ("state.safetensors", "state.json")

Saved = Mapping[str, tuple[int, str]]  # the length and the digest of each record file when a state was saved


class DamagedStateError(ValueError):
    """A saved state, or a record that it rests on, has changed since it was written."""


def saved_states(path: Path) -> list[Path]:
    """The folders of a run's saved states, oldest first: `00` is the end of stage 0, `01.step000340` within stage 1."""

    def place(folder: Path) -> tuple[int, int]:
        stage, _, step = folder.name.partition(".step")
        return (int(stage), int(step)) if step else (int(stage) + 1, 0)

    folders = (f for f in path.glob("stages/*") if re.fullmatch(r"[0-9]+(\.step[0-9]+)?", f.name) and f.is_dir())
    return sorted(folders, key=place)


def read_state(path: Path, folder: Path) -> dict[str, Any]:
    """The JSON part of the saved state in `folder`, of the run in `path`.

    Raises:
        DamagedStateError: the folder, or a record file up to its length at the time, has changed.
        ConfigurationError: the mentor calls have changed.
    """
    name = f"stages/{folder.name}"
    if wrong := checksums.find_changed(folder, STATE):
        raise DamagedStateError(f"{name} is damaged ({', '.join(f'{file} is {how}' for file, how in wrong.items())})")
    content: dict[str, Any] = json.loads((folder / "state.json").read_bytes())
    wrong = find_changed_records(path, content["records"])
    if wrong.get(EXCHANGES, "missing") != "missing":
        raise ConfigurationError(
            f"{path / EXCHANGES} is {wrong[EXCHANGES]} since {name} was written; put it back as it was, "
            "or remove it to ask the mentor again"
        )
    if wrong:
        raise DamagedStateError(
            f"{', '.join(f'{file} is {how}' for file, how in wrong.items())} since {name} was written"
        )
    return content


def find_changed_records(path: Path, saved: Saved) -> dict[str, str]:
    """The record files that are missing, shorter or changed, compared with their saved lengths and digests."""
    found = {}
    for file, (length, digest) in saved.items():
        there = (path / file).read_bytes()[:length] if (path / file).is_file() else None
        if length and (there is None or checksums.sha256(there) != digest):
            found[file] = "missing" if there is None else "shorter" if len(there) < length else "changed"
    return found


def read_tensors(folder: Path) -> dict[str, Any]:
    """A saved state's tensors; never a pickle.

    Raises:
        DamagedStateError: the file is no safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load((folder / "state.safetensors").read_bytes())
    except SafetensorError as error:
        raise DamagedStateError(
            f"stages/{folder.name} is damaged (state.safetensors holds no tensors: {error})"
        ) from None
