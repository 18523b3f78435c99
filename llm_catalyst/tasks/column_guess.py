"""A guess which columns of an unknown file hold the texts and the labels."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from llm_catalyst.tasks.labels import clean_label, is_missing
from llm_catalyst.tasks.row_files import list_names, read_rows
from llm_catalyst.utils.terminal import escape_controls
from llm_catalyst.utils.validation import ConfigurationError

TEXT_NAMES = ("text", "sentence", "review", "content", "comment", "message", "tweet", "question", "input", "title")
LABEL_NAMES = ("label", "labels", "class", "category", "sentiment", "target", "stars", "rating", "verdict", "polarity")
SAMPLE = 2000  # rows that are looked at
MOST_CLASSES = 50  # of a column that is taken for the labels without having a usual name
LEAST_ROWS = 3  # of a class, on average, in such a column


@dataclass(frozen=True)
class ColumnGuess:
    """The columns of texts and labels, and those that are not used."""

    text: str
    label: str
    others: tuple[str, ...]


def guess_columns(file: Path, given: Collection[str] = ()) -> ColumnGuess:
    """The column of texts and that of labels: by their usual names, or else by what they hold.

    Args:
        given: the columns that are already in use for the one or the other.

    Raises:
        ConfigurationError: more than one column may be meant, or none; the message names the keys to set.
    """
    columns = read_rows(file, []).columns
    names = [name for name in columns if name and columns.count(name) == 1]
    rows = read_rows(file, names).rows[:SAMPLE]
    values = {name: [row[name] for row in rows] for name in names if name not in given}
    label = find_named(values, LABEL_NAMES) or find_only(name for name, cells in values.items() if is_class(cells))
    texts = [name for name, cells in values.items() if name != label and is_text(cells)]
    text = find_named(texts, TEXT_NAMES) or find_only(texts)
    if not text or not label:
        lacking = " and ".join(["task.text={COLUMN}"] * (not text) + ["task.label=COLUMN"] * (not label))
        problem = f"{escape_controls(str(file))}: its columns are {list_names(columns)}, and it is not clear"
        raise ConfigurationError(f"{problem} which hold the texts and the labels; add {lacking}")
    return ColumnGuess(text, label, tuple(name for name in columns if name not in (text, label)))


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
    """Whether a column may hold texts: several words in most cells."""
    return sum(isinstance(cell, str) and len(cell.split()) > 1 for cell in cells) > len(cells) / 2
