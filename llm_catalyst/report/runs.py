"""The runs of a report: manifest, configuration, outcome, names by their settings, and records when they are needed."""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from llm_catalyst.runs.analysis import MentorAnswers, read_answers
from llm_catalyst.runs.reader import FILES, RunRecords, read_json, read_lines, read_manifest, read_resolved
from llm_catalyst.runs.records import LLMCall, Manifest, Outcome, Snapshot
from llm_catalyst.runs.run_config import PLACE, RESOLVED, load_config
from llm_catalyst.utils import checksums
from llm_catalyst.utils.format import shorten_text
from llm_catalyst.utils.validation import ConfigurationError, flatten_leaves, get_nested

LONGEST = 40  # characters of a setting in a name
EMPTY = {"null", "[]", "{}", ""}  # values that say little in a name
NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e[-+]?\d+)?)")
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

    @cached_property
    def settings(self) -> dict[str, str]:
        """Its settings as text by dotted key, without the seed and the keys that do not change its results."""
        leaves = flatten_leaves(self.config, whole_lists=True)
        return {key: to_json_text(value) for key, value in leaves if not APART.fullmatch(key)}

    @cached_property
    def answers(self) -> MentorAnswers:
        """How often its mentor gave a usable answer; nothing where the records cannot be read."""
        with suppress(OSError, ConfigurationError):
            return read_answers(self.path)
        return MentorAnswers()

    @cached_property
    def models(self) -> tuple[str, ...]:
        """The models that answered its mentor, in the order of their first answers; none where none did."""
        with suppress(OSError, ConfigurationError):
            calls: tuple[LLMCall, ...] = read_lines(self.path / FILES[LLMCall], LLMCall)
            return tuple(dict.fromkeys(call.answered for call in calls if call.answered))
        return ()

    @cached_property
    def metric(self) -> str:
        """The name of the task's metric: accuracy, macro_f1."""
        written = get_nested(self.config, "task", "metric")
        resolved = None if written else read_resolved(self.path)
        return str(written or (get_nested(resolved.config, "task", "metric") if resolved else None) or "metric")

    @property
    def task(self) -> str:
        """The name of its task."""
        return str(get_nested(self.config, "task", "name") or "task")

    @property
    def source(self) -> str:
        """Where its data came from: a file, a folder, or a name on the hub; '' in runs that did not note it."""
        return str(self.manifest.data.get("source", ""))

    @property
    def weights(self) -> str:
        """A hash of the files of its backbone, or the commit on the hub; '' where neither is known."""
        files = self.manifest.backbone.get("files") or {}
        return (
            checksums.sha256(json.dumps(files, sort_keys=True).encode())
            if files
            else str(self.manifest.backbone.get("commit") or "")
        )

    @property
    def mentor(self) -> str:
        """The name of its mentor's choice, or of the mentor's class."""
        target = str(get_nested(self.config, "mentor", "_target_") or "?")
        return self.manifest.choices.get("mentor", target.rpartition(".")[2])


def dev_rank(run: Run) -> tuple[float, float]:
    """The run's best score on dev as a number that is larger for the better run: its metric, then its loss."""
    best = run.outcome.best if run.outcome else None
    return best.score.rank if best else (-math.inf, -math.inf)


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
    names = [name for name in ("manifest.json", "config.yaml", RESOLVED, "outcome.json") if (path / name).exists()]
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


def to_json_text(value: Any) -> str:
    """A setting as text: JSON, but a string as it is."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def column_names(runs: Sequence[Run]) -> list[str]:
    """The task of each run; if tasks of one name differ in data or settings, with these: 'sst2, shots=16'."""
    settings = [{key: text for key, text in run.settings.items() if key[:5] == "task."} for run in runs]
    for own, place in zip(settings, distinguish_data(runs), strict=True):
        own["task.path"] = place
    return add_differences([run.task for run in runs], [""] * len(runs), settings)


def distinguish_data(runs: Sequence[Run]) -> list[str]:
    """For each run the end of the path of its data where runs of its task have other data, or else ''.

    Other data at the same place are marked by the beginning of their hash.
    """
    keys = identify_data(runs)
    places: dict[str, dict[str, str]] = defaultdict(dict)  # by task and key: the place where the data were met first
    for run, key in zip(runs, keys, strict=True):
        places[run.task].setdefault(key, run.source)
    names = []
    for run, key in zip(runs, keys, strict=True):
        own, others = places[run.task][key], [*places[run.task].values()]
        mark = f" #{key[:6]}" if others.count(own) > 1 else ""
        names.append(shorten_paths(set(others))[own] + mark if len(others) > 1 else "")
    return names


def identify_data(runs: Sequence[Run]) -> list[str]:
    """A key for each run's data: a hash of all rows; of runs of earlier revisions, which have none, the place.

    Of these, data at two places are the same where two runs have an equal test split.
    """
    places: dict[tuple[str, str], str] = {}
    keys = []
    for run in runs:
        if not (key := str(run.manifest.data.get("content") or "")):
            tested = str(get_nested(run.manifest.data, "test", "sha256"))
            known = places.setdefault((run.task, tested), run.source)
            key = places.setdefault((run.task, run.source), known)
        keys.append(key)
    return keys


def shorten_paths(paths: Collection[str]) -> dict[str, str]:
    """For each path the shortest of its ends by which it differs from the others."""

    def end(path: str, parts: int) -> str:
        return "/".join(path.rstrip("/").split("/")[-parts:])

    longest = max(path.count("/") + 1 for path in paths)
    parts = next((n for n in range(1, longest) if len({end(path, n) for path in paths}) == len(paths)), longest)
    return {path: end(path, parts) for path in paths}


def row_names(runs: Sequence[Run], columns: Sequence[str]) -> list[str]:
    """The mentor of each run with the settings that differ in its column: 'gpt4, backbone=minilm, lr=0.01'.

    Two runs in one column have the same name only if they differ in nothing but the seed and the keys that do not
    change results.
    """
    choices = [{group: name for group, name in run.manifest.choices.items() if group != "task"} for run in runs]
    names = add_differences([run.mentor for run in runs], columns, choices)
    weights = [{"backbone.weights": run.weights[:6]} if run.weights else {} for run in runs]
    return add_differences(names, columns, [run.settings | own for run, own in zip(runs, weights, strict=True)])


def add_differences(names: Sequence[str], columns: Sequence[str], settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Each name, extended by as few settings as tell the runs of that name within a column apart."""
    keys = sorted({key for own in settings for key in own})
    alike: dict[str, dict[str, list[Mapping[str, str]]]] = defaultdict(lambda: defaultdict(list))
    for name, column, own in zip(names, columns, settings, strict=True):
        alike[name][column].append(own)
    telling = {name: choose_keys([*groups.values()], keys) for name, groups in alike.items()}
    short = shorten_keys(keys)
    extended = []
    for name, own in zip(names, settings, strict=True):
        parts = [f"{short[key]}={shorten_setting(own.get(key, 'null'))}" for key in keys if key in telling[name]]
        extended.append(", ".join([name, *parts]))
    return extended


def choose_keys(groups: Sequence[Sequence[Mapping[str, str]]], keys: Sequence[str]) -> set[str]:
    """Keys whose values differ between any two runs of a group that differ at all, those of most values first."""

    def count_told(chosen: Sequence[str]) -> int:
        return sum(len({tuple(own.get(key, "null") for key in chosen) for own in group}) for group in groups)

    def rank(key: str) -> tuple[int, bool, bool, int]:
        values = {own.get(key, "null") for group in groups for own in group}
        return -count_told([key]), bool(values & EMPTY), not key.endswith((".name", ".path")), keys.index(key)

    chosen: list[str] = []
    for key in sorted(keys, key=rank):
        if count_told([*chosen, key]) > count_told(chosen):
            chosen.append(key)
    return {*chosen}


def find_unnamed(runs: Sequence[Run], columns: Sequence[str], rows: Sequence[str]) -> list[str]:
    """The settings that differ between rows of one mentor within a column, and stand in no name of a row."""
    values: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for run, column in zip(runs, columns, strict=True):
        for key, text in run.settings.items():
            values[key, run.mentor, column].add(text)
    differing = {key for (key, _, _), found in values.items() if len(found) > 1}
    short = shorten_keys(sorted({key for run in runs for key in run.settings}))
    return sorted(key for key in differing if not any(f", {short[key]}=" in row for row in rows))


def shorten_keys(keys: Sequence[str]) -> dict[str, str]:
    """For each dotted key its shortest unique ending: lr, stage.steps, record.steps."""

    def endings(key: str) -> list[str]:
        parts = key.split(".")
        return [".".join(parts[i:]) for i in reversed(range(len(parts)))]

    shared = Counter(ending for key in keys for ending in endings(key))
    return {key: next((ending for ending in endings(key) if shared[ending] == 1), key) for key in keys}


def shorten_setting(text: str) -> str:
    """The text; of a long one its beginning, and digits that distinguish it from others with the same beginning."""
    return text if len(text) <= LONGEST else f"{shorten_text(text, LONGEST)} #{checksums.sha256(text.encode())[:6]}"


def sort_names(names: Iterable[str], first: Collection[str] = ()) -> list[str]:
    """Names sorted with their numbers by value, those of `first` before the others."""

    def order(name: str) -> tuple[bool, list[tuple[float, str]]]:
        parts = NUMBER.split(name)
        return name not in first, [(float(part), "") if i % 2 else (-1.0, part) for i, part in enumerate(parts)]

    return sorted(names, key=order)


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
