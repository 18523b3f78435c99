"""Names for the rows and columns of runs without a table: from their tasks and their differing settings."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from llm_catalyst.report.runs import Run, read_settings
from llm_catalyst.utils.checksums import sha256
from llm_catalyst.utils.format import shorten_text
from llm_catalyst.utils.validation import get_nested

LONGEST = 40  # characters of a setting in a name
NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e[-+]?\d+)?)")


def column_names(runs: Sequence[Run]) -> list[str]:
    """The task of each run; if tasks of one name differ in settings, with these: 'sst2, shots=16'."""
    tasks = [str(get_nested(run.config, "task", "name") or "task") for run in runs]
    settings = [{key: text for key, text in read_settings(run.config).items() if key[:5] == "task."} for run in runs]
    return add_differences(tasks, [""] * len(runs), settings)


def row_names(runs: Sequence[Run], columns: Sequence[str]) -> list[str]:
    """The mentor of each run with the settings that differ in its column: 'gpt4, backbone=minilm, lr=0.01'.

    Two runs in one column have the same name only if they differ in nothing but the seed and the keys that do not
    change results.
    """
    choices = [{group: name for group, name in run.manifest.choices.items() if group != "task"} for run in runs]
    names = add_differences([run.mentor for run in runs], columns, choices)
    return add_differences(names, columns, [read_settings(run.config) for run in runs])


def add_differences(names: Sequence[str], columns: Sequence[str], settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Each name, extended by the settings that differ between runs of that name within a column."""
    keys = sorted({key for own in settings for key in own})
    values: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for name, column, own in zip(names, columns, settings, strict=True):
        for key in keys:
            values[name, key, column].add(own.get(key, "null"))
    differing = {(name, key) for (name, key, _), found in values.items() if len(found) > 1}
    short = shorten_keys(keys)
    extended = []
    for name, own in zip(names, settings, strict=True):
        parts = [f"{short[key]}={shorten_setting(own.get(key, 'null'))}" for key in keys if (name, key) in differing]
        extended.append(", ".join([name, *parts]))
    return extended


def shorten_keys(keys: Sequence[str]) -> dict[str, str]:
    """For each dotted key its shortest unique ending: lr, stage.steps, record.steps."""

    def endings(key: str) -> list[str]:
        parts = key.split(".")
        return [".".join(parts[i:]) for i in reversed(range(len(parts)))]

    shared = Counter(ending for key in keys for ending in endings(key))
    return {key: next((ending for ending in endings(key) if shared[ending] == 1), key) for key in keys}


def shorten_setting(text: str) -> str:
    """The text; of a long one its beginning, and digits that distinguish it from others with the same beginning."""
    return text if len(text) <= LONGEST else f"{shorten_text(text, LONGEST)} #{sha256(text.encode())[:6]}"


def sort_names(names: Iterable[str], first: Collection[str] = ()) -> list[str]:
    """Names sorted with their numbers by value, those of `first` before the others."""

    def order(name: str) -> tuple[bool, list[tuple[float, str]]]:
        parts = NUMBER.split(name)
        return name not in first, [(float(part), "") if i % 2 else (-1.0, part) for i, part in enumerate(parts)]

    return sorted(names, key=order)
