"""The files of a split: one file, or numbered ones (shards), as people and the Hugging Face hub lay them out."""

import json
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from llm_catalyst.tasks.row_files import FORMATS, SPREADSHEETS, split_suffixes, unreadable
from llm_catalyst.utils.terminal import escape_controls, list_names
from llm_catalyst.utils.validation import ConfigurationError

# train-00000-of-00002, train-00000-of-00002-3f2a…, train_1, train.part3
SHARD = re.compile(r"[-_.](?:part[-_]?)?\d+(?:-of-\d+)?(?:-[0-9a-f]{8,})?", re.IGNORECASE)
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
HIDDEN = (".", "_", "~")
DEV_NAMES = ("validation", "dev", "valid", "val")
OTHER_SPLITS = ("test", *DEV_NAMES)  # than train
# What the `datasets` library writes beside the rows.
METADATA = ("dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json")


def path_exists(path: Path) -> bool:
    """Whether something is at a path. Raises ConfigurationError where the system does not let that be seen."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:
        raise unreadable(path, error) from error
    return True


def list_entries(folder: Path) -> list[Path]:
    """What is in a folder, sorted by name. Raises ConfigurationError where it cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise unreadable(folder, error) from error


def list_visible(folder: Path) -> list[Path]:
    """What is in a folder but for hidden files, sorted by name."""
    return [path for path in list_entries(folder) if not path.name.startswith(HIDDEN)]


def list_folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name."""
    return [path for path in list_visible(folder) if os.path.isdir(path)]


def list_files(folder: Path) -> list[Path]:
    """The data files in a folder, sorted by name; a .txt, which may be a README, only where there are no others."""
    files = [path for path in list_visible(folder) if is_data(path) and not os.path.isdir(path)]
    return [file for file in files if file.suffix != ".txt"] or files


def find_only_file(folder: Path) -> list[Path]:
    """The only data file of a folder, which is train; none where there are several, or where it is named otherwise."""
    files = list_files(folder)
    if os.path.isdir(folder / "train") and next(find_texts(folder, "train"), None):
        return []
    return files if len(files) == 1 and not has_name(files[0], OTHER_SPLITS) else []


def find_named(folder: Path, splits: Sequence[str]) -> list[Path]:
    """What has the name of one of the splits, of whatever kind it is, in a folder or in a folder in it."""
    places = [folder, *list_folders(folder)]
    return [path for place in places for path in list_entries(place) if has_name(path, splits)]


def has_name(path: Path, splits: Sequence[str]) -> bool:
    """Whether the name of one of the splits stands in a file's name, as in _test.csv and reviews-test.dat."""
    words = "|".join(re.escape(split.casefold()) for split in splits)
    letter = r"[^\W\d_]"
    found = re.search(rf"(?<!{letter})(?:{words})(?!{letter})", path.name.casefold())
    return bool(found) and not path.name.startswith(".")


def is_data(path: Path) -> bool:
    """Whether a file's suffixes are those of data: of a format that is read, a spreadsheet, or a zip archive."""
    stem, suffix, compression = split_suffixes(path.name)
    return bool(stem) and (bool(suffix) or compression == ".zip") and path.name not in METADATA


def find_split(folder: Path, split: str) -> list[Path]:
    """The files of a split in their order; none where there are none.

    They lie in the folder, in a folder in it, or in a folder of the split's name. Lists beside texts that are files
    in folders of their classes are no rows.

    Raises:
        ConfigurationError: there are two formats of the split, a file of it is missing, one is no file, or a folder
            cannot be read.
    """
    found = list_parts(folder, split)
    if len(found) > 1:
        names = list_names(str(place) for place in found)
        raise ConfigurationError(f"the split {split} is in several folders ({names}); set task.path to one of them")
    files = check_parts(split, next(iter(found.values()))) if found else []
    beside = all(file.suffix.lower() == ".txt" and file.parent == folder / split for file in files)
    return [] if files and beside and next(find_texts(folder, split), None) else files


def holds_split(folder: Path, split: str) -> bool:
    """Whether a folder has files of a split that can be found, where nothing depends on it."""
    try:
        return bool(list_parts(folder, split))
    except ConfigurationError:
        return False


def list_parts(folder: Path, split: str) -> dict[Path, list[Path]]:
    """The data files of a split by the folder in which they lie; those of the first kind of place that has any."""
    for places in places_of(folder, split):
        if found := {place: files for place, whole in places.items() if (files := select_files(place, split, whole))}:
            return found
    return {}


def places_of(folder: Path, split: str) -> Iterator[dict[Path, bool]]:
    """The folders where a split may lie, those looked into first in front, and whether all files there belong to it."""
    yield {folder: False}
    inner = list_folders(folder)
    yield {path: True for path in inner if path.name.casefold() == split.casefold()}
    yield {path: False for path in inner if path.name.casefold() != split.casefold()}
    yield {path / split: True for path in inner if os.path.isdir(path / split)}


def select_files(place: Path, split: str, whole: bool) -> list[Path]:
    """The data files of a split in a folder: all of them, or those with its name."""
    if whole:
        return list_files(place)
    return [path for path in list_visible(place) if is_data(path) and part_of(path, split) is not None]


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


def missing_split(folder: Path, split: str) -> ConfigurationError:
    """The error for a split that has no file in a folder, with the files that are there."""
    there = [path.name + "/" * os.path.isdir(path) for path in list_entries(folder) if not path.name.startswith(".")]
    named = [str(path.relative_to(folder)) for path in find_named(folder, [split])]
    fix = "name the splits by task.train, task.dev and task.test (null: held out of train)"
    if named:
        fix = (
            f"if {escape_controls(named[0])} is meant, write its rows into {split}.csv or {split}.jsonl; if not, {fix}"
        )
    if sheet := next((name for name in named + there if name.lower().endswith(SPREADSHEETS)), ""):
        fix = f"save {escape_controls(sheet)} as CSV"
    if archive := next((name for name in named + there if name.lower().endswith(ARCHIVES)), ""):
        fix = f"unpack {escape_controls(archive)}"
    if text := next(find_texts(folder, split), None):
        where = escape_controls(str(text.relative_to(folder)))
        fix = f"each text is a file of its own ({where}); write them into one: {join_texts(text.parents[1])}"
    others = ", ".join(suffix for suffix in FORMATS if suffix != ".jsonl")
    problem = f"{escape_controls(str(folder))} holds no {split}.jsonl (nor {others})"
    return ConfigurationError(f"{problem}; there: {list_names(there) or 'nothing'}; {fix}")


def find_texts(folder: Path, split: str) -> Iterator[Path]:
    """The texts of a split that are files in folders of their classes, as of the IMDB reviews."""
    named = folder / split
    classes = list_folders(named if os.path.isdir(named) else folder)
    if len(classes) > 1:
        yield from (path for place in classes for path in list_visible(place) if path.suffix == ".txt")


def join_texts(split: Path) -> str:
    """The command that writes the texts in a split's folders of classes into one CSV beside them."""
    rows = '((f.read_text("utf-8"),f.parent.name) for f in sorted(p.glob("*/*.txt")))'
    out = 'csv.writer(p.with_suffix(".csv").open("w",newline="",encoding="utf-8"))'
    code = f'import csv,pathlib;p=pathlib.Path({json.dumps(str(split))});{out}.writerows([("text","label"),*{rows}])'
    return f"python -c {shlex.quote(code)}"
