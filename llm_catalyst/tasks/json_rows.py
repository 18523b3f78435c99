"""Rows of JSON: objects one after another (JSON Lines), a list of objects, or an object around one."""

import json
import math
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from llm_catalyst.tasks.delimited_rows import clean_name
from llm_catalyst.tasks.file_content import ParsedRows, RowError
from llm_catalyst.utils.terminal import list_names
from llm_catalyst.utils.validation import get_nested

LIST_NAMES = ("data", "examples", "rows", "instances")  # of the list of rows, where there are others
SEVERAL_FIX = "write each into a file of its own"
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


def read_json(text: str, needed: Sequence[str]) -> ParsedRows:
    """The rows, their lines or numbers, and the columns.

    Raises:
        RowError: with the place of what cannot be read.
    """
    values = iterate_values(text)
    first = next(values, None)
    if first is None:
        return ParsedRows([], [], [], "JSON Lines")
    second = next(values, None)
    if second is None and (isinstance(first[1], list) or not is_row(first[1])):
        table = build_table(enumerate(find_list(first[1], needed), start=1), needed, "row")
        return replace(table, form="JSON", classes=list_classes(first[1]), notes=note_part(first[1], len(table.rows)))
    return build_table(chain([first], [second] if second else [], values), needed, "line")


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


def begins_row(text: str) -> bool:
    """Whether a text begins with an object of JSON, or with a list of them."""
    try:
        value, _ = DECODER.raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        return False
    return (is_object(value) and bool(value)) or is_list(value)


def describe_limit(error: Exception) -> str:
    """The reason why JSON in a good form is not read."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return "too long a number" if "integer string conversion" in str(error) else str(error)


def is_row(value: Any) -> bool:
    """Whether a JSON value is a row, and no object around rows."""
    return not isinstance(value, dict) or not any(isinstance(inner, list | dict) for inner in value.values())


def note_part(value: Any, rows: int) -> tuple[str, ...]:
    """A note where the hub's data set server, which gives a hundred rows at once, gave a part of them."""
    total = value.get("num_rows_total") if is_object(value) else None
    if not isinstance(total, int) or total <= rows:
        return ()
    return (f"the server gave {rows:,} of {total:,} rows; fetch the others, or the data set's Parquet files",)


def find_list(value: Any, needed: Sequence[str]) -> list[Any]:
    """The rows in the only value of a file: a list, the list in an object, or columns of equal length.

    Raises:
        RowError: there are several lists of objects, or columns whose rows are not the same.
    """
    if isinstance(value, list):
        return value
    lists = {key: inner for key, inner in value.items() if is_list(inner)}
    known = [key for key in LIST_NAMES if key in lists]
    if len(lists) == 1 or len(known) == 1:
        chosen = known[0] if known else next(iter(lists))
        refuse_others(value, chosen, lists[chosen])
        return lists[chosen]
    if lists:
        raise RowError(None, f"there are several lists of objects ({list_names(lists, 3)}); {SEVERAL_FIX}")
    if is_object(value.get("data")):
        rows = find_list(value["data"], needed)
        refuse_others(value, "data", rows)
        return rows
    if isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):  # pandas, orient="split"
        return [name_cells(number, value["columns"], row, needed) for number, row in enumerate(value["data"], start=1)]
    if value and all(map(is_object, value.values())) and holds_rows(value, needed):  # pandas, orient="index"
        return list(value.values())
    return pair_columns(value, needed)


def is_list(value: Any) -> bool:
    """Whether a JSON value is a list of objects."""
    return isinstance(value, list) and bool(value) and is_object(value[0])


def refuse_others(value: dict[str, Any], chosen: str, rows: Sequence[Any]) -> None:
    """Raise RowError where an object holds another list of such rows than that of the key `chosen`."""
    if not rows or not is_object(rows[0]):
        return
    for key in value.keys() - {chosen}:
        inner = value[key]
        others = [inner, *inner.values()] if is_object(inner) else [inner]
        found = [other[0].keys() for other in others if is_list(other)]
        if is_object(inner) and not is_row(inner):
            found.append(inner.keys())  # it may hold columns
        if any(keys and (keys <= rows[0].keys() or keys >= rows[0].keys()) for keys in found):
            raise RowError(None, f"there are several lists of objects ({list_names([chosen, key])}); {SEVERAL_FIX}")


def name_cells(number: int, columns: Sequence[Any], row: Any, needed: Sequence[str]) -> dict[str, Any]:
    """A row out of its cells and the names of all columns. Raises RowError where they do not fit each other."""
    names = list(map(str, columns))
    if twice := find_twice(names, needed):
        raise RowError(None, f"columns are named twice: {twice}; give each its own name")
    if not isinstance(row, list) or len(row) != len(names):
        problem = f"{shorten_value(row)} is no list of a value for each of {len(names)} columns"
        raise RowError(number, f"{problem}; correct it", "row")
    return dict(zip(names, row, strict=True))


def unwrap_row(number: int, item: Any, needed: Sequence[str], unit: str) -> Any:
    """A row, out of the object around it that the hub's data set server gives: {"row_idx": 0, "row": {…}}.

    Raises RowError where the server cut one of the columns needed.
    """
    if not (is_object(item) and is_object(item.get("row")) and "row_idx" in item):
        return item
    if cut := [name for name in item.get("truncated_cells") or [] if name in needed]:
        fix = "fetch the data set's Parquet files, which are whole"
        raise RowError(number, f"the server cut {list_names(cut)} (truncated_cells); {fix}", unit)
    return item["row"]


def list_classes(value: Any) -> dict[str, tuple[str, ...]]:
    """The names of the classes of each ClassLabel column, which the hub's data set server gives beside the rows."""
    features = value.get("features") if is_object(value) else None
    listed = [feature for feature in features if is_object(feature)] if isinstance(features, list) else []
    found = {str(feature.get("name")): get_nested(feature, "type", "names") for feature in listed}
    return {clean_name(name): tuple(map(str, names)) for name, names in found.items() if isinstance(names, list)}


def holds_rows(value: dict[str, Any], needed: Sequence[str]) -> bool:
    """Whether the objects in an object are rows, and no columns: by the names needed, or else by the usual ids."""
    outer, inner = value.keys(), next(iter(value.values())).keys()
    for names, is_rows in ((inner, True), (outer, False)):
        if any(clean_name(name) in needed for name in names):
            return is_rows
    numbered = [all(map(str.isdecimal, names)) for names in (outer, inner)]
    return len(outer) > len(inner) if numbered[0] == numbered[1] else numbered[0]


def pair_columns(value: dict[str, Any], needed: Sequence[str]) -> list[Any]:
    """The rows of an object of columns, which are lists, or objects by the rows' ids; the object itself if it is a row.

    Raises RowError where the columns needed have not the same rows.
    """
    columns = {key: inner for key, inner in value.items() if isinstance(inner, list)}
    columns = columns or {key: inner for key, inner in value.items() if is_object(inner)}
    wanted = [key for key in columns if clean_name(key) in needed]
    if not columns or len(wanted) < sum(clean_name(key) in needed for key in value):
        return [value]  # a row
    first, *others = wanted or columns
    ids = list_ids(columns[first])
    if wanted and (differing := [key for key in others if list_ids(columns[key]).keys() != ids.keys()]):
        counts = " and ".join(f"{len(columns[key]):,} of {key}" for key in (first, differing[0]))
        raise RowError(None, f"the columns have not the same rows ({counts}); write the file anew, row by row")
    same = {key: cells for key in columns if (cells := list_ids(columns[key])).keys() == ids.keys()}
    return [{key: cells[row] for key, cells in same.items()} for row in ids]


def list_ids(column: Any) -> dict[str, Any]:
    """The cells of a column by the ids of their rows; those of a list are its places."""
    return column if is_object(column) else {str(place): cell for place, cell in enumerate(column)}


def is_object(value: Any) -> bool:
    """Whether a JSON value is an object."""
    return isinstance(value, dict)


def build_table(values: Iterable[tuple[int, Any]], needed: Sequence[str], unit: str) -> ParsedRows:
    """The rows, numbers and columns of objects with their numbers, which count `unit`s; RowError for another value."""
    fix = "make each row an object" if unit == "row" else "put one object on a line, or all of them into one list"
    rows, numbers, columns = [], [], dict[str, None]()
    for number, item in values:
        value = unwrap_row(number, item, needed, unit)
        if not isinstance(value, dict):
            raise RowError(number, f"{shorten_value(value)} is no JSON object; {fix}", unit)
        row = {clean_name(key): cell for key, cell in value.items()}
        if len(row) < len(value) and (twice := find_twice(value, needed)):
            raise RowError(number, f"{twice} is there twice, but for blanks; give each its own name", unit)
        columns |= dict.fromkeys(row)
        rows.append({name: row.get(name) for name in needed})
        numbers.append(number)
    return ParsedRows(rows if columns else [], numbers if columns else [], list(columns), "JSON Lines", unit)


def find_twice(keys: Iterable[str], needed: Sequence[str]) -> str:
    """The first name needed that is among these twice but for blanks around it, '' for none."""
    names = list(map(clean_name, keys))
    return next((shorten_value(name) for name in needed if names.count(name) > 1), "")
