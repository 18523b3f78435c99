"""Files of rows: JSON Lines, a JSON list, CSV or Parquet.

What a file holds is untrusted. A text file is read line by line, once; what cannot be used is refused with the number
of the line.
"""

import codecs
import csv
import json
import math
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_catalyst.utils.format import join_first, shorten_text
from llm_catalyst.utils.terminal import escape_controls
from llm_catalyst.utils.validation import ConfigurationError, did_you_mean

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
MEBIBYTE = 2**20
LONGEST_LINE = 16 * MEBIBYTE
LARGEST_LIST = 64 * MEBIBYTE
DEEPEST, MOST_COLUMNS = 32, 100
# Readers do not agree on where such lines end.
MIXED_ENDS = r"line ends are mixed (\n, \r\n or \r); end every line with \n"
BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
ABRIDGED = reprlib.Repr()
ABRIDGED.maxstring = ABRIDGED.maxother = ABRIDGED.maxlong = 60


@dataclass(frozen=True)
class RowTable:
    """The rows of a split in the columns that were asked for, the line or row of each, and the names of all columns.

    `source` is how an error names the split, and `unit` what `numbers` count.
    """

    source: str
    unit: str
    rows: list[dict[str, Any]]
    numbers: Sequence[int]
    columns: list[str]

    def place(self, row: int) -> str:
        """The place of a row (from 0), for an error."""
        return f"{self.source}, {self.unit} {self.numbers[row]}"


class RowError(ValueError):
    """The line or row of a file, None where it is not known, and what is wrong there."""


def read_rows(file: Path, needed: Sequence[str]) -> RowTable:
    """A row for each object or record, a missing value as None. A cell of a CSV is text, as it stands there.

    Raises ConfigurationError with the file, and the line where there is one, for what cannot be read.
    """
    source = escape_controls(str(file))
    try:
        unit = "row" if file.suffix == ".parquet" or is_list(file) else "line"
        read = read_parquet if file.suffix == ".parquet" else read_text_rows
        return RowTable(source, unit, *read(file, needed))
    except OSError as error:
        raise ConfigurationError(f"{source} cannot be read: {error.strerror}; let it be read") from error
    except RowError as error:
        number, problem = error.args
        place = f"{source}, {unit} {number}" if number else source
        raise ConfigurationError(f"{place}: {problem}") from error.__cause__


def read_text_rows(file: Path, needed: Sequence[str]) -> tuple[list[dict[str, Any]], list[int], list[str]]:
    """The rows of a text file, the (first) line of each or its number in a JSON list, and all columns."""
    readers = {".csv": csv_rows, ".json": listed_rows if is_list(file) else json_rows}
    rows, numbers, columns = [], [], dict[str, None]()
    for number, row in readers.get(file.suffix, json_rows)(file):
        columns |= dict.fromkeys(row)
        if len(columns) > MOST_COLUMNS:
            raise RowError(number, f"there are more than {MOST_COLUMNS} columns by now; leave out unused ones")
        rows.append({name: row.get(name) for name in needed})
        numbers.append(number)
    if not columns:
        raise RowError(None, "there are no rows; the file is empty, or ends before the first one")
    return rows, numbers, list(columns)


def read_parquet(file: Path, needed: Sequence[str]) -> tuple[list[dict[str, Any]], range, list[str]]:
    """The rows of a Parquet file, their numbers from 1 on, and all columns."""
    import pyarrow.parquet

    try:
        opened = pyarrow.parquet.ParquetFile(file)
        columns = list(opened.schema_arrow.names)
        rows = opened.read(columns=[name for name in needed if name in columns]).to_pylist()
    except Exception as error:
        why = escape_controls(str(error)[:300])
        fix = "is the file whole, and of the form that its suffix says?"
        raise RowError(None, f"could not be read ({why}); {fix}") from error
    return rows, range(1, len(rows) + 1), columns


def require_columns(where: str, needed: Sequence[str], columns: Sequence[str], fix: str) -> None:
    """Raise ConfigurationError where a column that is needed is not there."""
    for name in (name for name in needed if name not in columns):
        near = did_you_mean(name, [other for other in columns[:1000] if len(other) < 100])
        raise ConfigurationError(f"{where}: there is no column {name!r}; there are: {list_names(columns)}{near}; {fix}")


def shorten_value(value: Any) -> str:
    """A value from a file as an error shows it: printable, on one line, and shortened."""
    return ABRIDGED.repr(value)


def list_names(names: Iterable[str]) -> str:
    """The first ten names, printable and each shortened, and the number of the others."""
    return join_first([escape_controls(shorten_text(name, 60)) for name in names], 10)


def is_list(file: Path) -> bool:
    """Whether a JSON file holds one list of objects, and not an object a line."""
    if file.suffix != ".json":
        return False
    with file.open("rb") as stream:
        return stream.read(1) == b"["


def iterate_lines(file: Path) -> Iterator[str]:
    """The lines of a file with their ends. Holds one line at a time, and never more than `LONGEST_LINE` of it."""
    with file.open("rb") as stream:
        for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE + 1), b""), start=1):
            if number == 1 and line.startswith(BYTE_ORDER_MARKS):
                raise RowError(1, "the file begins with a byte-order mark; save it as UTF-8 without one")
            if b"\0" in line:
                raise RowError(number, "there is a NUL byte; save the file as plain UTF-8 text")
            if len(line) > LONGEST_LINE:
                raise RowError(number, f"the line is longer than {LONGEST_LINE // MEBIBYTE} MiB; put one row on a line")
            try:
                yield line.decode()
            except UnicodeDecodeError as error:
                byte = f"byte {error.start + 1}, 0x{line[error.start]:02x}"
                raise RowError(number, f"{byte}, is not UTF-8; save the file as UTF-8") from None


def line_end(line: str) -> str:
    """The characters that end the line: '\\n', '\\r\\n', '\\r', or none at the end of the file."""
    return line[len(line.rstrip("\r\n")) :]


def json_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of JSON Lines, each with its line; blank lines are passed over."""
    end = ""
    for number, line in enumerate(iterate_lines(file), start=1):
        end = end or line_end(line)
        text = line.strip(" \t\r\n")
        if ("\r" in line or end != "\n") and (line_end(line) not in ("", end) or "\r" in text):
            raise RowError(number, MIXED_ENDS)
        if text:
            yield number, json_object(number, text)


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


def json_object(number: int, text: str) -> dict[str, Any]:
    """The one JSON object that `text`, the line of that number, is. Raises RowError where it is something else."""
    try:
        value, end = DECODER.raw_decode(text)
    except (ValueError, RecursionError) as error:
        problem = f"{shorten_value(text)} is no JSON ({json_reason(error)})"
        raise RowError(number, f"{problem}; put one object on a line") from None
    if end < len(text):
        raise RowError(number, f"{shorten_value(text[end:])} follows the first JSON value; put one object on a line")
    fix = "put one object on a line (a list of objects needs the suffix .json, and its [ at the very start)"
    check_object(number, value, fix, deep=text.count("[") + text.count("{") > DEEPEST)
    return value


def json_reason(error: Exception) -> str:
    """The JSON parser's error, in short."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, line {error.lineno}, column {error.colno}" if error.lineno > 1 else error.msg
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return "too long a number" if "integer string conversion" in str(error) else str(error)


def check_object(number: int, value: Any, fix: str, deep: bool = True) -> None:
    """Raise RowError where a value is no JSON object or, where it may be `deep`, has more than `DEEPEST` levels."""
    if not isinstance(value, dict):
        raise RowError(number, f"{shorten_value(value)} is no JSON object; {fix}")
    level: list[Any] = [value] if deep else []
    for _ in range(DEEPEST):
        inner = (item for outer in level for item in (outer.values() if isinstance(outer, dict) else outer))
        level = [item for item in inner if isinstance(item, dict | list)]
    if level:
        raise RowError(number, f"values are nested deeper than {DEEPEST} levels; leave that column out")


def listed_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON list, which is read as a whole, each with its number."""
    if file.stat().st_size > LARGEST_LIST:
        limit = f"{LARGEST_LIST // MEBIBYTE} MiB"
        raise RowError(None, f"the JSON list is larger than {limit}; write it as JSON Lines, an object a line")
    content = file.read_bytes()
    try:
        values = DECODER.decode(content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RowError(None, f"line {line} holds bytes that are not UTF-8; save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise RowError(None, f"the file is no JSON list ({json_reason(error)}); correct it, or write it anew") from None
    for number, value in enumerate(values, start=1):
        check_object(number, value, "make each row an object")
        yield number, value


def csv_rows(file: Path) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Each record but the first, which names the columns, with its first line; an empty cell is None."""
    records = csv_records(file)
    first, header = next(records, (1, []))
    if twice := sorted({name for name in header[:MOST_COLUMNS] if name and header.count(name) > 1}):
        raise RowError(first, f"columns are named twice: {list_names(twice)}; give each its own name")
    for number, cells in records:
        if len(cells) != len(header):
            fix = "put a field that holds a comma or a line end between quotation marks"
            raise RowError(number, f"there are {len(cells)} fields, but {len(header)} column names; {fix}")
        yield number, {name: cell or None for name, cell in zip(header, cells, strict=True)}


def csv_records(file: Path) -> Iterator[tuple[int, list[str]]]:
    """The first line and the fields of each record of a CSV; blank lines are passed over."""
    csv.field_size_limit(LONGEST_LINE)
    start, size, line, end = 1, 0, "", ""

    def feed() -> Iterator[str]:
        nonlocal size, line
        for line in iterate_lines(file):
            size += len(line)
            if size > LONGEST_LINE:
                limit = f"{LONGEST_LINE // MEBIBYTE} MiB"
                raise RowError(start, f"the record is longer than {limit}; close its quotation mark")
            yield line

    reader = csv.reader(feed(), strict=True)
    try:
        for cells in reader:
            end = end or line_end(line)
            if line_end(line) not in ("", end):
                raise RowError(reader.line_num, MIXED_ENDS)
            if line.strip(" \t\r\n"):
                yield start, cells
            start, size = reader.line_num + 1, 0
    except csv.Error as error:
        if "new-line character" in str(error):
            raise RowError(reader.line_num, MIXED_ENDS) from None
        fix = "double every quotation mark inside of a quoted field, and close it"
        raise RowError(start, f"this is no CSV ({error}); {fix}") from None
