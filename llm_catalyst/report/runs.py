"""A run as a report needs it: manifest, configuration and outcome; its other records are read when they are needed."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from llm_catalyst.runs.reader import FILES, RunRecords, read_json, read_lines, read_manifest
from llm_catalyst.runs.records import Manifest, Outcome, Snapshot
from llm_catalyst.runs.run_config import PLACE, load_config
from llm_catalyst.utils import checksums
from llm_catalyst.utils.validation import ConfigurationError, flatten_leaves, get_nested

APART = re.compile(rf"seed|{PLACE}")  # keys in which runs may differ and still repeat each other

R = TypeVar("R")


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


def dev_rank(run: Run) -> tuple[float, float]:
    """The run's best score on dev as a number that is larger for the better run: its metric, then its loss."""
    best = run.outcome.best if run.outcome else None
    return (best.score.metric, -best.score.loss) if best else (-math.inf, -math.inf)


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


class RecordReader:
    """Reads the records of runs. A file that cannot be read counts as empty; the reason is added to `problems`."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._read: dict[tuple[Path, type[Any]], tuple[Any, ...]] = {}

    def __call__(self, run: Run, kind: type[R]) -> tuple[R, ...]:
        """All records of class `kind` that the run has written so far."""
        key = run.path, kind
        if key not in self._read:
            try:
                self._read[key] = read_lines(run.path / FILES[kind], kind)
            except (ConfigurationError, OSError) as error:
                self.problems.append(f"not shown: {error}")
                self._read[key] = ()
        return self._read[key]

    def records(self, run: Run) -> RunRecords:
        """The run's records without its trajectory, the longest file, which these uses do not need."""
        lists = {name.removesuffix(".jsonl"): self(run, kind) for kind, name in FILES.items() if kind is not Snapshot}
        return RunRecords(run.path, run.manifest, outcome=run.outcome, trajectory=(), **lists)
