"""Guesses about files of which nothing is given: the columns of texts and labels, and the splits of a folder."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llm_catalyst.tasks.image_layouts import SUFFIXES
from llm_catalyst.tasks.labels import clean_label, is_missing
from llm_catalyst.tasks.row_files import join_tables, read_rows
from llm_catalyst.tasks.split_files import (
    DEV_NAMES,
    find_only_file,
    find_split,
    holds_split,
    list_files,
    list_folders,
    list_visible,
    part_of,
)
from llm_catalyst.utils.terminal import escape_controls, list_names
from llm_catalyst.utils.validation import ConfigurationError

TEXT_NAMES = (
    "text",
    "sentence",
    "review",
    "content",
    "comment",
    "message",
    "tweet",
    "question",
    "input",
    "document",
    "title",
)
LABEL_NAMES = ("label", "labels", "class", "category", "sentiment", "target", "stars", "rating", "verdict", "polarity")
BRACES = {"{", "}"}  # around a column's name in a template
SAMPLE = 2000  # rows that are looked at
MOST_CLASSES = 50  # of a column that is taken for the labels without having a usual name
LEAST_ROWS = 3  # of a class, on average, in such a column


@dataclass(frozen=True)
class ColumnGuess:
    """The columns of texts and labels, and the other columns of texts, which are left out."""

    text: str
    label: str
    unused: tuple[str, ...] = ()


def guess_columns(file: Path, label: str | None = None, given: Collection[str] = ()) -> ColumnGuess:
    """The column of texts and that of labels, by their usual names, or else by what they hold.

    Args:
        label: that of labels, if it is given.
        given: those of texts, if they are given.

    Raises:
        ConfigurationError: more than one column may be meant, or none; the message names the keys to set. Or the first
            line of a CSV is a row.
    """
    table = join_tables([read_rows(file, [])])
    columns, where = table.columns, escape_controls(str(file))
    names = [name for name in columns if name and columns.count(name) == 1]
    rows = read_rows(file, names).rows[:SAMPLE]
    values = {name: [row[name] for row in rows] for name in names}
    free = {name: values[name] for name in names if name != label and name not in given}
    if table.form.startswith("CSV") and (taken := find_value_name(free)):
        problem = f"its first line stands for the names of the columns, but {escape_controls(taken)!r} is a value there"
        fix = "write a line of names above it, or name the columns in task.text and task.label if they are meant"
        raise ConfigurationError(f"{where}: {problem}; {fix}")
    texts = [name for name, cells in values.items() if name != label and is_text(cells) and not BRACES & {*name}]
    text = next(iter(given), None) or find_named(texts, TEXT_NAMES)
    text = text or find_only(name for name in texts if not is_class(values[name])) or find_only(texts)
    others = {name: cells for name, cells in values.items() if name != text and name not in given}
    label = label or find_named(others, LABEL_NAMES) or find_only(n for n, cells in others.items() if is_class(cells))
    if not text or not label:
        lacking = " and ".join(["task.text={COLUMN}"] * (not text) + ["task.label=COLUMN"] * (not label))
        if braced := [name for name in names if not text and BRACES & {*name}]:
            lacking += f"; a template cannot name {list_names(braced)}: rename what holds braces"
        problem = f"{where}: its columns are {list_names(columns)}, and it is not clear"
        raise ConfigurationError(f"{problem} which hold the texts and the labels; add {lacking}")
    unused = [name for name in texts if name not in (text, label, *given) and not is_class(values[name])]
    return ColumnGuess(text, label, tuple(unused))


def find_value_name(values: Mapping[str, Sequence[object]]) -> str:
    """The name of a column of classes that is one of them, '' for none: the first line of its file may be a row.

    Names that are all numbers from 0 are those of pandas for columns without one.
    """
    if list(values) == list(map(str, range(len(values)))):
        return ""
    return next((name for name, cells in values.items() if is_class(cells) and name in map(clean_label, cells)), "")


def find_named(names: Iterable[str], usual: Sequence[str]) -> str | None:
    """The column with the first of the usual names that one has."""
    lower = {name.lower(): name for name in names}
    return next((lower[name] for name in usual if name in lower), None)


def find_only(names: Iterable[str]) -> str | None:
    """The only one of the columns; None where there are none or several."""
    found = list(names)
    return found[0] if len(found) == 1 else None


def is_class(cells: Sequence[object]) -> bool:
    """Whether a column may hold classes: few different values, each several times."""
    different = {clean_label(cell) for cell in cells if not is_missing(cell)}
    return 2 <= len(different) <= min(MOST_CLASSES, len(cells) / LEAST_ROWS)


def is_text(cells: Sequence[object]) -> bool:
    """Whether a column may hold texts: most cells have several words, or are not ASCII, as some scripts lack blanks."""
    several = (isinstance(cell, str) and (len(cell.split()) > 1 or not cell.isascii()) for cell in cells)
    return sum(several) > len(cells) / 2


def guess_splits(folder: Path) -> tuple[Path | None, dict[str, str]]:
    """The first file with rows of a folder's training split, None where there is none, and the keys of its splits."""
    train = find_split(folder, "train") or find_only_file(folder)
    if not train:
        return None, {}
    first = next((file for file in train[:-1] if read_rows(file, []).rows), train[-1])
    dev = next((name for name in DEV_NAMES if holds_split(folder, name)), "")
    if holds_split(folder, "test"):
        return first, {"task.dev": dev} if dev else {}
    return first, {"task.test": dev} if dev else {}


def holds_pictures(folder: Path) -> bool:
    """Whether a folder holds pictures in folders of classes, or in those of its splits, and no rows for training."""
    inner = list_folders(folder)
    places = [*inner, *(path for each in inner for path in list_folders(each))]
    rows = any(part_of(path, "train") is not None and path.is_file() for path in list_files(folder))
    return not rows and any(path.suffix.lower() in SUFFIXES for place in places for path in list_visible(place))
