"""Rows of JSON: objects one after another (JSON Lines), a list of objects, or an object around one."""

import json
import math
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from llm_catalyst.tasks.delimited_rows import Table, clean_name
from llm_catalyst.tasks.file_content import RowError
from llm_catalyst.utils.terminal import list_names

LIST_NAMES = ("data", "examples", "rows", "instances")  # of the list of rows, where there are others
ABRIDGED = reprlib.Repr()
ABRIDGED.maxstring = ABRIDGED.maxother = ABRIDGED.maxlong = 60


def shorten_value(value: Any) -> str:
    """A value from a file as an error shows it: printable, on one line, and shortened."""
    return ABRIDGED.repr(value)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ValueError where a key is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{shorten_value(next(key for key in keys if keys.count(key) > 1))} is specified twice")
    return found


def finite_number(text: str) -> float:
    """A number with a fraction or an exponent. Raises ValueError where it is too large for a float."""
    number = float(text)
    if math.isinf(number):
        raise ValueError("too big a number")
    return number


DECODER = json.JSONDecoder(object_pairs_hook=unique_keys, parse_float=finite_number)
WHITE_SPACE = json.decoder.WHITESPACE  # type: ignore[attr-defined]


def read_json(text: str, needed: Sequence[str]) -> tuple[Table, str]:
    """The rows, their lines or numbers, and the columns; and what the numbers count: 'line' or 'row'.

    Raises:
        RowError: with the place of what cannot be read.
    """
    values = iterate_values(text)
    first = next(values, None)
    if first is None:
        return ([], [], []), "line"
    second = next(values, None)
    if second is None and (isinstance(first[1], list) or not is_row(first[1])):
        return build_table(enumerate(find_list(first[1]), start=1), needed, "row"), "row"
    return build_table(chain([first], [second] if second else [], values), needed, "line"), "line"


def iterate_values(text: str) -> Iterator[tuple[int, Any]]:
    """The JSON values of a text, which white space separates, each with its line."""
    at, line = WHITE_SPACE.match(text, 0).end(), 1 + text.count("\n", 0, WHITE_SPACE.match(text, 0).end())
    while at < len(text):
        try:
            value, end = DECODER.raw_decode(text, at)
        except json.JSONDecodeError as error:
            begin = text.rfind("\n", 0, error.pos) + 1
            wrong = shorten_value(text[begin : begin + 200].partition("\n")[0].strip())
            problem = f"{wrong} is no JSON ({error.msg}, column {error.colno})"
            raise RowError(error.lineno, f"{problem}; correct it, or write the file anew") from None
        except (ValueError, RecursionError) as error:
            raise RowError(line, f"this is no JSON that can be read ({describe_limit(error)}); correct it") from None
        yield line, value
        after = WHITE_SPACE.match(text, end).end()
        line += text.count("\n", at, after)
        at = after


def describe_limit(error: Exception) -> str:
    """The reason why JSON in a good form is not read."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return "too long a number" if "integer string conversion" in str(error) else str(error)


def is_row(value: Any) -> bool:
    """Whether a JSON value is a row, and no object around rows."""
    return not isinstance(value, dict) or not any(isinstance(inner, list | dict) for inner in value.values())


def find_list(value: Any) -> list[Any]:
    """The rows in the only value of a file: a list, the list in an object, or columns of equal length.

    Raises:
        RowError: there are several lists of objects.
    """
    if isinstance(value, list):
        return [item["row"] if is_wrapped(item) else item for item in value]
    lists = {key: inner for key, inner in value.items() if isinstance(inner, list) and inner and is_object(inner[0])}
    known = [key for key in LIST_NAMES if key in lists]
    if len(lists) == 1 or len(known) == 1:
        return find_list(lists[known[0]] if known else next(iter(lists.values())))
    if lists:
        held = list_names(lists, 3)
        raise RowError(None, f"there are several lists of objects ({held}); write each into a file of its own")
    if is_object(value.get("data")):
        return find_list(value["data"])
    if isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):  # pandas, orient="split"
        return [dict(zip(map(str, value["columns"]), row, strict=False)) for row in value["data"]]
    if all(map(is_object, value.values())) and all(map(str.isdecimal, value)):  # pandas, orient="index"
        return list(value.values())
    columns = [list(c.values()) if isinstance(c, dict) else c for c in value.values() if isinstance(c, list | dict)]
    if len(columns) == len(value) and len(set(map(len, columns))) == 1:
        return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
    return [value]


def is_object(value: Any) -> bool:
    """Whether a JSON value is an object."""
    return isinstance(value, dict)


def is_wrapped(item: Any) -> bool:
    """Whether an object holds a row as the hub's data set server gives it: {"row_idx": 0, "row": {…}}."""
    return is_object(item) and is_object(item.get("row")) and "row_idx" in item


def build_table(values: Iterable[tuple[int, Any]], needed: Sequence[str], unit: str) -> Table:
    """The rows, numbers and columns of objects with their numbers, which count `unit`s; RowError for another value."""
    fix = "make each row an object" if unit == "row" else "put one object on a line, or all of them into one list"
    rows, numbers, columns = [], [], dict[str, None]()
    for number, value in values:
        if not isinstance(value, dict):
            raise RowError(number, f"{shorten_value(value)} is no JSON object; {fix}", unit)
        row = {clean_name(key): cell for key, cell in value.items()}
        columns |= dict.fromkeys(row)
        rows.append({name: row.get(name) for name in needed})
        numbers.append(number)
    return (rows, numbers, list(columns)) if columns else ([], [], [])
