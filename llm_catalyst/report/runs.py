"""A run as a report needs it: manifest, configuration and outcome. Its JSONL files are not read here."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_catalyst.runs.reader import read_json, read_manifest
from llm_catalyst.runs.records import Manifest, Outcome
from llm_catalyst.runs.run_config import PLACE, load_config
from llm_catalyst.utils import checksums
from llm_catalyst.utils.validation import ConfigurationError, flatten_leaves, get_nested

APART = re.compile(rf"seed|{PLACE}")  # keys in which runs may differ and still repeat each other


@dataclass(frozen=True)
class Run:
    """One run directory; `outcome` is None for an unfinished run."""

    path: Path
    manifest: Manifest
    config: Mapping[str, Any]
    outcome: Outcome | None
    seed: int

    @property
    def metric(self) -> str:
        """The name of the task's metric: accuracy, macro_f1."""
        return str(get_nested(self.config, "task", "metric") or "metric")

    @property
    def mentor(self) -> str:
        """The name of its mentor's choice, or of the mentor's class."""
        target = str(get_nested(self.config, "mentor", "_target_") or "?")
        return self.manifest.choices.get("mentor", target.rpartition(".")[2])


def read_or_note(path: Path, problems: list[str]) -> Run | None:
    """The run in `path`; None if it cannot be read: the reason is then added to `problems`."""
    try:
        return read_report_run(path, problems)
    except (OSError, ValueError) as error:
        problems.append(f"{path} does not count: {' '.join(str(error).split())}")
        return None


def read_report_run(path: Path, problems: list[str]) -> Run:
    """The run in `path`.

    Raises:
        ConfigurationError: a file that a report needs is not what the run wrote.
    """
    names = [name for name in ("manifest.json", "config.yaml", "outcome.json") if (path / name).exists()]
    damage = checksums.find_changed(path, names)
    if checksums.SUMS in damage:
        problems.append(f"{path / checksums.SUMS} is {damage.pop(checksums.SUMS)}: nothing vouches for the run's files")
    for name, how in damage.items():
        raise ConfigurationError(f"{name} is {how} (catalyst show --verify {path})")
    config = load_config(path)
    seed = get_nested(config, "seed")
    if not isinstance(seed, int):
        raise ConfigurationError("config.yaml holds no seed")
    outcome: Outcome | None = read_json(path / "outcome.json", Outcome) if "outcome.json" in names else None
    return Run(path, read_manifest(path), config, outcome, seed)


def read_settings(config: Mapping[str, Any]) -> dict[str, str]:
    """The settings of a run as text by dotted key, without the seed and the keys that do not change its results."""
    leaves = flatten_leaves(config, whole_lists=True)
    return {key: to_json_text(value) for key, value in leaves if not APART.fullmatch(key)}


def to_json_text(value: Any) -> str:
    """A setting as text: JSON, but a string as it is."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
