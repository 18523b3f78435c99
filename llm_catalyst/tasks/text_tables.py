"""The rows of a text task as they are in its files, in the columns that its templates and its label need."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_catalyst.tasks.hub import name_source, read_hub_rows
from llm_catalyst.tasks.json_rows import shorten_value
from llm_catalyst.tasks.labels import NOT_A_NUMBER, is_missing
from llm_catalyst.tasks.row_files import (
    LONGEST_PATH,
    RowTable,
    join_tables,
    name_classes,
    read_rows,
    refuse_stream,
    require_columns,
)
from llm_catalyst.tasks.split_files import (
    DEV_NAMES,
    OTHER_SPLITS,
    find_named,
    find_only_file,
    find_split,
    has_name,
    holds_split,
    is_data,
    list_files,
    list_folders,
    missing_split,
    path_exists,
)
from llm_catalyst.utils.format import format_count, join_first, shorten_text
from llm_catalyst.utils.paths import expand_path
from llm_catalyst.utils.terminal import escape_controls, list_names
from llm_catalyst.utils.validation import ConfigurationError, did_you_mean

BUILT_IN = Path(__file__).parent
LONGEST_TEXT = 1_000_000  # characters; a tokenizer takes seconds and gigabytes for more
NOT_PLAIN = list | dict | bytes  # a template would take such a value as Python writes it


@dataclass(frozen=True)
class TaskTables:
    """The rows of a task as they are in its files.

    Args:
        splits: by role: train, and dev and test where they are given.
        source: the file, the folder, or the name on the hub.
        notes: what a reader of the results should know of the files.
    """

    splits: Mapping[str, RowTable]
    source: str
    notes: tuple[str, ...]


def read_tables(task: Any, report_on_dev: bool = False) -> TaskTables:
    """The rows of the task's splits, in the columns that it needs. With `report_on_dev` there is no dev split.

    Where there is only one file, it is train.

    Raises:
        ConfigurationError: a file is missing, or cannot be used.
    """
    place = local_place(task)
    named = {"train": task.train, "test": task.test, "dev": None if report_on_dev else task.dev}
    notes: list[str] = []
    with name_task(task.name):
        whole = find_whole(task, place) if place else []
    if whole:
        notes.append(f"{name_whole(whole)}: dev and test are held out of it")
        notes += note_beside(place, task.train)
        place, named = whole[0] if len(whole) == 1 else place, {"train": task.train}
    tables = {role: read_split(task, place, split) for role, split in named.items() if split}
    notes += find_unused(place, [split for split in named.values() if split]) if place else []
    notes += [note for table in tables.values() for note in table.notes]
    return TaskTables(tables, str(place) if place else name_source(task), tuple(dict.fromkeys(notes)))


def find_unused(place: Path, used: Sequence[str]) -> list[str]:
    """A note where a folder holds a dev split that is not used."""
    if not place.is_dir():
        return []
    there = [name for name in DEV_NAMES if name not in used and holds_split(place, name)]
    return [f"{there[0]} is in the folder, and not used; task.dev={there[0]} chooses by it"] if there else []


def local_place(task: Any) -> Path | None:
    """The task's file or folder of files: `task.path`, `$CATALYST_DATA/<task>`, or the package; None means the hub."""
    if task.path:
        path = expand_path(task.path)
        if not path_exists(path):
            shown = shorten_text(escape_controls(task.path), LONGEST_PATH)
            fix = f"name a file of rows, or a folder with {task.train}.jsonl (or .csv, .parquet) and the other splits"
            raise ConfigurationError(f"task.path={shown} does not exist; {fix}")
        refuse_stream(path)
        return path
    for root in (os.environ.get("CATALYST_DATA"), BUILT_IN):
        if root and (Path(root) / task.name).is_dir():
            return find_subset(task, Path(root) / task.name)
    if not task.hub:
        fix = f"set task.path=FOLDER or task.path=FILE, or put files into $CATALYST_DATA/{task.name}/"
        raise ConfigurationError(f"task={task.name} has no data yet: {fix}")
    return None


def find_subset(task: Any, folder: Path) -> Path:
    """The folder, or what in it has the name `task.subset`: a folder, or a file of rows.

    Raises ConfigurationError where there is none of that name.
    """
    if task.subset is None:
        return folder
    if (folder / task.subset).is_dir():
        return folder / task.subset
    if files := [file for file in list_files(folder) if file.name.partition(".")[0] == task.subset]:
        return files[0]
    known = sorted({path.name.partition(".")[0] for path in [*list_files(folder), *list_folders(folder)]})
    fix = f"there are {list_names(known)}" if known else "the folder is empty"
    raise ConfigurationError(f"task.subset={task.subset} is not in {folder}{did_you_mean(task.subset, known)}; {fix}")


@contextmanager
def name_task(name: str) -> Iterator[None]:
    """While entered, an error about the files names the task."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"task={name}: {error}") from error.__cause__


def find_whole(task: Any, place: Path) -> list[Path]:
    """The files of which dev and test are held out: `task.path` itself, or those of train where nothing else is there.

    What has the name of another split is something else, though it be no file of rows: its absence is an error.
    """
    if place.is_file():
        return [place]
    others = [split for split in (task.test, task.dev) if split]
    if not task.path or not others or any(find_split(place, split) for split in others):
        return []
    files = find_split(place, task.train) or find_only_file(place)
    if not files or {*list_files(place), *list_files(files[0].parent)} - {*files}:
        return []
    return [] if {*find_named(place, [*others, *OTHER_SPLITS])} - {*files} else files


def name_whole(files: Sequence[Path]) -> str:
    """The words that the files hold all rows."""
    first = escape_controls(files[0].name)
    if len(files) == 1:
        return f"{first} is the only file"
    return f"{first} and {format_count(len(files) - 1, 'more file')} are the only ones"


def note_beside(place: Path | None, train: str) -> list[str]:
    """A note where `task.path` is the file of a training split, and other splits lie beside it."""
    if place is None or place.is_dir() or not has_name(place, [train]):
        return []
    beside = [path.name for path in sorted(place.parent.glob("*")) if is_data(path) and has_name(path, OTHER_SPLITS)]
    folder = escape_controls(str(place.parent))
    return [f"{list_names(beside)} beside it is not used; task.path={folder} uses the splits there"] if beside else []


def read_split(task: Any, place: Path | None, split: str) -> RowTable:
    """The rows of one split, from its files or the hub, in the columns that the templates and the label need."""
    needed = sorted(task.columns)
    if place is None:
        tables = [read_hub_rows(task, split, needed)]
    with name_task(task.name):
        if place is not None:
            tables = [read_rows(file, needed) for file in find_files(task, place, split)]
        for table in tables:
            check_columns(task, table, needed)
        found = join_tables([name_classes(table, task.label.strip()) for table in tables])
        check_cells(task, found)
    return found


def check_columns(task: Any, table: RowTable, needed: Sequence[str]) -> None:
    """Raise ConfigurationError where a file with rows lacks a column that is needed."""
    fix = f"name the columns in {task.column_keys}"
    if table.form.startswith("CSV") and not {*map(str.lower, needed)} & {*map(str.lower, table.columns)}:
        fix = f"the first line of a CSV names its columns; {fix}"
    if table.rows:
        require_columns(table.source, needed, table.columns, fix)


def find_files(task: Any, place: Path, split: str) -> list[Path]:
    """The files of a split. Raises ConfigurationError where there are none."""
    if place.is_file():
        return [place]
    files = find_split(place, split) or (find_only_file(place) if split == task.train else [])
    if not files:
        raise missing_split(place, split)
    return files


def check_cells(task: Any, table: RowTable) -> None:
    """Raise ConfigurationError for the first cell that cannot be used, with the number of those alike."""
    for number, row in enumerate(table.rows):
        for name, value in row.items():
            if not (problem := find_problem(name, value, task, table)):
                continue
            alike = [i for i, row in enumerate(table.rows) if find_problem(name, row[name], task, table) == problem]
            if len(alike) > 1:
                listed = join_first([str(table.numbers[i]) for i in alike], 5)
                problem += f" ({len(alike):,} of {format_count(len(table.rows), 'row')}: {table.unit} {listed})"
            raise ConfigurationError(f"{table.place(number)}: {problem}")


def list_texts(value: Any) -> list[str]:
    """The texts of a cell that holds several: a list of plain values, or SQuAD's object with such a list as `text`.

    [] for another value.
    """
    if isinstance(value, dict):
        value = value.get("text")
    plain = isinstance(value, list) and not any(item is None or isinstance(item, NOT_PLAIN) for item in value)
    return [str(item) for item in value] if plain else []


def find_problem(name: str, value: Any, task: Any, table: RowTable) -> str:
    """The reason why a cell cannot be used, and the fix; '' if it can be a text or a label."""
    label = name == task.label.strip()
    shown = escape_controls(name)
    if isinstance(value, NOT_PLAIN) and not (task.takes_lists and list_texts(value)):
        return f"{shown} is a {type(value).__name__}, {shorten_value(value)}; it must be a text or a number"
    if label and value == -1 and name in table.classes:
        return f"there is no {shown} (-1); name a split that has labels in task.test or task.dev, or remove the row"
    if value is None or value != value or (label and is_missing(value)):
        return f"there is no {shown}; fill it in or remove the row"
    if label and str(value).strip().lower() in NOT_A_NUMBER and str(value).strip() not in task.labels:
        fix = "fill it in or remove the row, or name it in task.labels if it is a class"
        return f"there is no {shown}, but {shorten_value(value)}; {fix}"
    if isinstance(value, str) and not value.isascii() and value != value.encode("utf-8", "replace").decode():
        return f"{shown}, {shorten_value(value)}, holds half a surrogate pair, which is no text; write it anew"
    if isinstance(value, str) and len(value) > LONGEST_TEXT and not label:
        return f"{shown} has {len(value):,} characters, more than {LONGEST_TEXT:,}; cut it, or remove the row"
    return ""
