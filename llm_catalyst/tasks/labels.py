"""Labels: the values of a column as the ids of classes, and what people should know of them.

A column may hold the names of the classes, their numbers from 0 or from 1, truth values or, for a multiple choice,
letters. Which of these it is follows from all its values, in every split.
"""

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Annotated, Any

from pydantic import BeforeValidator

from llm_catalyst.utils.format import format_count
from llm_catalyst.utils.terminal import escape_controls, list_names
from llm_catalyst.utils.validation import ConfigurationError

# Of label names that are read off the rows: they become the words of the heads and of the mentor.
MOST_LABELS, LONGEST_LABEL = 1000, 200
TRUE, FALSE = ("true", "yes", "on", "t", "y"), ("false", "no", "off", "f", "n")
INVISIBLE = " \t\r\n\u00a0\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
SEPARATORS = re.compile(r"(?<=\w)[\s_-]+(?=\w)")
WHOLE = re.compile(r"([+-]?\d+)(\.0*)?")
# By which tables write a missing value; those that are no word in any language come first.
NOT_A_NUMBER = ("nan", "<na>")
MISSING = (*NOT_A_NUMBER, "null", "na", "n/a")
LEAST_ROWS = 3  # of a class, on average; a column with fewer may hold no classes


def name_label(value: Any) -> Any:
    """A label's name from YAML, which reads an unquoted `no` as false, and `0` as a number."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return clean_label(value) if isinstance(value, str | int | float) else value


LabelName = Annotated[str, BeforeValidator(name_label)]


def clean_label(value: Any) -> str:
    """A label as text: without blanks and invisible characters around it, in Unicode's composed form, 1.0 as 1."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = unicodedata.normalize("NFC", str(value)).strip()
    return text if text.isprintable() else text.strip(INVISIBLE)


def clean_labels(values: Sequence[Any]) -> list[str]:
    """The labels of a column as text; where all are whole numbers, in one form: 1 for '1.0', '+1' and '01'."""
    cleaned = list(map(clean_label, values))
    numbers = {value: str(int(match[1])) for value in set(cleaned) if (match := WHOLE.fullmatch(value))}
    return [numbers[value] for value in cleaned] if len(numbers) == len(set(cleaned)) else cleaned


def find_forms(values: Sequence[Any]) -> tuple[str, ...]:
    """A warning for each label that is written in several Unicode forms, which count as one."""
    forms: dict[str, set[str]] = {}
    for value in {value for value in values if isinstance(value, str) and not value.isascii()}:
        forms.setdefault(clean_label(value), set()).add(value.strip())
    return tuple(
        f"the label {escape_controls(name)!r} is written in {len(written)} Unicode forms, which count as one class"
        for name, written in forms.items()
        if len(written) > 1
    )


def is_missing(value: Any) -> bool:
    """Whether a label's cell is empty: None, NaN or blank."""
    return value is None or value != value or not str(value).strip()


@dataclass(frozen=True)
class LabelCoding:
    """The classes of a task, and the id of each value of its label column.

    Args:
        names: of the classes, in the order of their ids.
        ids: the id of each value, as `clean_labels` gives it.
        form: what the column holds, in words.
        notes: what a reader of the results should know of it.
    """

    names: tuple[str, ...]
    ids: Mapping[str, int]
    form: str
    notes: tuple[str, ...] = ()


def code_given(names: Sequence[str], values: Collection[str], trained: Collection[str], choices: bool) -> LabelCoding:
    """The coding of a column with the distinct `values` of all splits, whose classes are given by name.

    Args:
        names: of the classes, or of the choices of a multiple choice task, in the order of their ids.
        values: cleaned.
        trained: those of the training split: another split may have -1 for a label that is not told.
        choices: whether letters may stand for them.

    Raises:
        ConfigurationError: it cannot be said whether the numbers in the column count from 0 or from 1.
    """
    zero, one = ({str(first + i): i for i in range(len(names))} for first in (0, 1))
    kinds = {"names": {name: i for i, name in enumerate(names)}, "truth values": code_truth(names, values)}
    kinds |= {"numbers from 0": zero, "numbers from 1": one, "numbers in their order": code_order(names, trained)}
    if choices:
        kinds["letters"] = {letter: i for i, letter in enumerate(ascii_uppercase[: len(names)])}
    known = {kind: len(ids.keys() & values) for kind, ids in kinds.items()}
    kind = max(kinds, key=lambda kind: known[kind])
    if kind == "numbers from 0" and known[kind] == known["numbers from 1"] == len(values):
        problem = f"the labels are {list_names(sorted(values))}, of {len(names)} classes"
        fix = "write the names of the classes into the column"
        raise ConfigurationError(f"{problem}: they may count from 0 or from 1; {fix}")
    form = describe_coding(kind, kinds[kind], values, names)
    certain = kind != "truth values" or any(name.lower() in (*TRUE, *FALSE) for name in names)
    guessed = kind in ("numbers from 1", "numbers in their order") or not certain
    notes = (f"the labels are {form}{', a guess' * (not certain)}",) if guessed else ()
    return LabelCoding(tuple(names), kinds[kind], form, notes)


def describe_coding(kind: str, ids: Mapping[str, int], values: Collection[str], names: Sequence[str]) -> str:
    """The kind of a column's values, and the class that each stands for where its own name does not say so."""
    if kind == "names":
        return kind
    pairs = sorted((i, escape_controls(value)) for value, i in ids.items() if value in values)
    return f"{kind}: " + ", ".join(f"{value} = {escape_controls(names[i])}" for i, value in pairs)


def code_order(names: Sequence[str], values: Collection[str]) -> dict[str, int]:
    """The ids of numbers such as -1 and 1, by their order, where there are as many as classes."""
    numbers = sorted({int(value) for value in values if WHOLE.fullmatch(value)})
    return {str(number): i for i, number in enumerate(numbers)} if len(numbers) == len(values) == len(names) else {}


def code_truth(names: Sequence[str], values: Collection[str]) -> dict[str, int]:
    """The ids of the values for true and false where there are two classes: by their meaning, or else false is 0."""
    lower = {value.lower() for value in values}
    if len(names) != 2 or max(len(lower.intersection(one)) for one in (TRUE, FALSE)) > 1:
        return {}
    turned = (names[0].lower() in TRUE and names[1].lower() in FALSE) or is_negation(names[1], of=names[0])
    truth = {**dict.fromkeys(TRUE, int(not turned)), **dict.fromkeys(FALSE, int(turned))}
    return {value: truth[value.lower()] for value in values if value.lower() in truth}


def is_negation(name: str, of: str) -> bool:
    """Whether a class's name is that of another one with a negation before it: not_entailment, incorrect, non-toxic."""
    return re.fullmatch(rf"(?:not|no|non|in|un|im|ir|dis)[\s_-]?{re.escape(of)}", name, re.IGNORECASE) is not None


def code_declared(names: Sequence[str], declared: Sequence[str]) -> LabelCoding:
    """The coding of a column of `declared` names, those of a file's numbers, where the task calls them `names`.

    Raises:
        ConfigurationError: there are not as many of the one as of the other.
    """
    classes = clean_labels(declared)
    if not names or set(names) == set(classes):
        names = names or classes
        ids = {name: names.index(name) for name in classes}
        return LabelCoding(tuple(names), ids, "numbers whose names the file declares")
    if len(names) != len(classes):
        problem = f"the file declares {len(classes)} classes ({list_names(classes)}), and task.labels {len(names)}"
        raise ConfigurationError(f"{problem}; name each of them in task.labels, in their order")
    form = f"numbers from 0, which the file calls {list_names(classes)}"
    return LabelCoding(tuple(names), {name: i for i, name in enumerate(classes)}, form)


def name_numbers(labels: Sequence[str], declared: Sequence[str]) -> list[str]:
    """The names that another split's file declares in the place of a column's numbers; none where it holds others."""
    classes = clean_labels(declared)
    names, values = {str(i): name for i, name in enumerate(classes)}, set(labels)
    return [] if values <= {*classes} or not values <= names.keys() else [names[label] for label in labels]


def code_found(values: Sequence[str], column: str) -> LabelCoding:
    """The coding of a column whose classes are read off the training rows, `values` (cleaned, one for each row).

    Raises:
        ConfigurationError: it can hardly be the column of the labels.
    """
    counts = Counter(values)
    found = sorted(counts, key=lambda name: (len(name), name))
    if len(found) > MOST_LABELS or len(found[-1]) > LONGEST_LABEL:
        longest = found[-1]
        much = f"{len(found)} different labels" if len(found) > MOST_LABELS else f"a label of {len(longest)} characters"
        problem = f"column {column!r} holds {much}, such as {escape_controls(longest[:60])!r}"
        raise ConfigurationError(f"{problem}; name the right column in task.label, or the labels in task.labels")
    form = f"{'numbers' if all(map(WHOLE.fullmatch, found)) else 'names'}, read off train"
    notes = [*find_twins(counts), *warn_missing(counts), *warn_many(counts, column)]
    return LabelCoding(tuple(found), {name: i for i, name in enumerate(found)}, form, tuple(notes))


def warn_missing(counts: Mapping[str, int]) -> list[str]:
    """A warning for each label by which many tables write a missing value."""
    return [
        f"the label {name!r} ({format_count(n, 'row')}) counts as a class; if it says that there is none, remove them"
        for name, n in counts.items()
        if name.lower() in MISSING
    ]


def warn_many(counts: Mapping[str, int], column: str) -> list[str]:
    """A warning where a column has so many different values that it may hold no classes."""
    rows = sum(counts.values())
    if len(counts) <= max(2, rows / LEAST_ROWS):
        return []
    held = f"column {escape_controls(column)!r} holds {len(counts):,} different labels in {format_count(rows, 'row')}"
    return [f"{held}, and each counts as a class; if they are numbers to be predicted, sort them into a few classes"]


def fold_label(name: str) -> str:
    """A label without its form: case, separators, quotation marks, a last mark, HTML, Unicode, the way of a number."""
    visible = "".join(c for c in unicodedata.normalize("NFKC", html.unescape(name)) if unicodedata.category(c) != "Cf")
    folded = SEPARATORS.sub(" ", visible.casefold()).strip("\"'`").rstrip(".,:;! ")
    try:
        return str(float(folded) + 0.0)  # -0.0 + 0.0 is 0.0
    except ValueError:
        return folded


def find_twins(counts: Mapping[str, int]) -> tuple[str, ...]:
    """A warning for each group of labels that differ only in form: see `fold_label`."""
    groups: dict[str, list[str]] = {}
    for name in counts:
        groups.setdefault(fold_label(name), []).append(name)
    found = []
    for names in (names for names in groups.values() if len(names) > 1):
        listed = " and ".join(f"{escape_controls(name)!r} ({format_count(counts[name], 'row')})" for name in names)
        problem = f"the labels {listed} are almost equal, and count as different classes"
        found.append(f"{problem}; if they are one, write them alike")
    return tuple(found)
