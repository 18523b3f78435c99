"""The files of a split: one file, or numbered ones (shards), as people and the Hugging Face hub lay them out."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from llm_catalyst.tasks.row_files import FORMATS, SPREADSHEETS, split_suffixes
from llm_catalyst.utils.terminal import escape_controls, list_names
from llm_catalyst.utils.validation import ConfigurationError

# train-00000-of-00002, train-00000-of-00002-3f2a…, train_1, train.part3
SHARD = re.compile(r"[-_.](?:part[-_]?)?\d+(?:-of-\d+)?(?:-[0-9a-f]{8,})?", re.IGNORECASE)
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
HIDDEN = (".", "_", "~")
# What the `datasets` library writes beside the rows.
METADATA = ("dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json")


def list_files(folder: Path) -> list[Path]:
    """The data files in a folder, sorted by name; a .txt, which may be a README, only where there are no others."""
    named = (path for path in sorted(folder.iterdir()) if not path.name.startswith(HIDDEN))
    files = [path for path in named if is_data(path) and not path.is_dir()]
    return [file for file in files if file.suffix != ".txt"] or files


def is_data(path: Path) -> bool:
    """Whether a file's suffixes are those of data: of a format that is read, a spreadsheet, or a zip archive."""
    stem, suffix, compression = split_suffixes(path.name)
    return bool(stem) and (bool(suffix) or compression == ".zip") and path.name not in METADATA


def find_split(folder: Path, split: str) -> list[Path]:
    """The files of a split in their order; none where there are none.

    They lie in the folder, in a folder in it, or in a folder of the split's name.

    Raises:
        ConfigurationError: there are two formats of the split, a file of it is missing, or one is no file.
    """
    for places in places_of(folder, split):
        found = {place: files for place, whole in places.items() if (files := select_files(place, split, whole))}
        if len(found) > 1:
            names = list_names(str(place) for place in found)
            raise ConfigurationError(f"the split {split} is in several folders ({names}); set task.path to one of them")
        if found:
            return check_parts(split, next(iter(found.values())))
    return []


def places_of(folder: Path, split: str) -> Iterator[dict[Path, bool]]:
    """The folders where a split may lie, those looked into first in front, and whether all files there belong to it."""
    inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(HIDDEN)]
    yield {folder: False}
    yield {folder / split: True} if (folder / split).is_dir() else {}
    yield {path: False for path in inner if path.name != split}
    yield {path / split: True for path in inner if (path / split).is_dir()}


def select_files(place: Path, split: str, whole: bool) -> list[Path]:
    """The data files of a split in a folder: all of them, or those with its name."""
    entries = [path for path in sorted(place.iterdir()) if not path.name.startswith(HIDDEN) and is_data(path)]
    if whole:
        return [path for path in entries if not path.is_dir()]
    return [path for path in entries if part_of(path, split) is not None]


def part_of(path: Path, split: str) -> str | None:
    """'' for the one file of a split, the end of its name for one of several, None for a file of something else."""
    stem = split_suffixes(path.name)[0]
    rest = stem[len(split) :]
    return rest if stem.casefold() == (split + rest).casefold() and (not rest or SHARD.fullmatch(rest)) else None


def check_parts(split: str, files: Sequence[Path]) -> list[Path]:
    """The files of a split in the order of their numbers. Raises ConfigurationError where they are not one split."""
    for file in files:
        if not file.is_file():
            problem = f"{escape_controls(str(file))} is a folder, a pipe, a device or a broken link; put a file there"
            raise ConfigurationError(problem)
    parts = [part_of(file, split) for file in files]
    formats = {split_suffixes(file.name)[1:] for file in files}
    if len(formats) > 1 or (len(files) > 1 and "" in parts):
        names = list_names(file.name for file in files)
        raise ConfigurationError(f"the split {split} is there more than once ({names}); leave one of them there")
    totals = {int(match[1]) for file in files if (match := re.search(r"-of-(\d+)", file.name))}
    if totals and totals != {len(files)}:
        problem = f"the split {split} has {len(files)} files ({list_names(file.name for file in files)})"
        raise ConfigurationError(f"{problem}, but their names say {max(totals)}; fetch the missing ones")
    return sorted(files, key=natural_order)


def natural_order(file: Path) -> list[tuple[int, str]]:
    """A key that sorts file names with the numbers in them as numbers."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", file.name)]


def locate_split(place: Path, split: str, others: Sequence[str]) -> list[Path]:
    """The files of the split `split` at `place`, which is a file, or a folder of them.

    A file is a split as a whole, and so is the only data file of a folder, unless it has the name of one of `others`.

    Raises:
        ConfigurationError: there is none; the message names the files that are there.
    """
    if place.is_file():
        return [place]
    if found := find_split(place, split):
        return found
    there = list_files(place)
    return there if len(there) == 1 and not any(part_of(there[0], other) == "" for other in others) else []


def missing_split(folder: Path, split: str) -> ConfigurationError:
    """The error for a split that has no file in a folder, with the files that are there."""
    there = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir() if not path.name.startswith("."))
    shown = list_names(there) or "nothing"
    fix = "name the splits by task.train, task.dev and task.test (null: held out of train)"
    if sheet := next((name for name in there if name.lower().endswith(SPREADSHEETS)), ""):
        fix = f"save {escape_controls(sheet)} as CSV"
    if archive := next((name for name in there if name.lower().endswith(ARCHIVES)), ""):
        fix = f"unpack {escape_controls(archive)}"
    others = ", ".join(suffix for suffix in FORMATS if suffix != ".jsonl")
    problem = f"{escape_controls(str(folder))} holds no {split}.jsonl (nor {others})"
    return ConfigurationError(f"{problem}; there: {shown}; {fix}")
