"""Files of rows: JSON Lines, a JSON list, CSV or Parquet, read by Hugging Face `datasets`.

What a file holds is untrusted. Before `datasets` reads a text file, one pass over its lines refuses, with the number
of the line, what `datasets` would take for something else, name without a line, or crash on.
"""

import codecs
import csv
import json
import logging
import reprlib
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from llm_catalyst.utils.format import shorten_text
from llm_catalyst.utils.terminal import escape_controls
from llm_catalyst.utils.validation import ConfigurationError

READERS = {".jsonl": "from_json", ".json": "from_json", ".csv": "from_csv", ".parquet": "from_parquet"}
MEBIBYTE = 2**20
LONGEST_LINE = 16 * MEBIBYTE
LARGEST_LIST = 64 * MEBIBYTE
# pyarrow crashes on deeper values, and fills the rows that lack a column: a new one in each row would be quadratic.
DEEPEST, MOST_COLUMNS = 32, 100
BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
DECODER = json.JSONDecoder()
ABRIDGED = reprlib.Repr()
ABRIDGED.maxstring = ABRIDGED.maxother = ABRIDGED.maxlong = 60


def read_file(file: Path) -> Any:
    """The file as a `datasets.Dataset`, a row for each object or record. A cell of a CSV is text, as it stands there.

    Raises ConfigurationError with the file, and the line where there is one, for what cannot be read.
    """
    import datasets

    datasets.disable_progress_bars()
    # A failure is told once, below.
    logging.getLogger("datasets").setLevel(logging.CRITICAL)
    try:
        count = None if file.suffix == ".parquet" else check_file(file)
    except OSError as error:
        raise ConfigurationError(
            f"{escape_controls(str(file))} cannot be read: {error.strerror}; let it be read"
        ) from error
    # Or the types of a CSV would be guessed, 10,000 rows at a time, and words such as None taken for empty cells.
    as_text: dict[str, Any] = {"converters": dict.fromkeys(range(MOST_COLUMNS), str), "keep_default_na": False}
    try:
        # Not load_dataset, which tells the hub of every load, of local files too, and waits where it is away.
        data = getattr(datasets.Dataset, READERS[file.suffix])(str(file), **(as_text if file.suffix == ".csv" else {}))
    except Exception as error:
        if "corresponds to no data" in str(error):
            raise row_error(file, None, "there are no rows") from error
        number, why = find_bad_line(file)
        why = why or escape_controls(str(error.__cause__ or error)[:300])
        problem = f"could not be read ({why}); is the file whole, and of the form that its suffix says?"
        raise row_error(file, number, problem) from error
    if count not in (None, len(data)):
        raise row_error(file, None, f"{count} rows were found, but {len(data)} read; write it anew, with a row a line")
    return data


def locate_row(file: Path, row: int) -> str:
    """Where a row (from 0) stands: the file, and its line, or its number where rows are not lines."""
    return locate_line(file, row + 1 if file.suffix == ".parquet" else next(islice(iterate_rows(file), row, None))[0])


def locate_line(file: Path, number: int | None = None) -> str:
    """The file and, where there is a number, the line or row in it, for an error."""
    unit = "row" if file.suffix == ".parquet" or is_list(file) else "line"
    return escape_controls(f"{file}, {unit} {number}" if number else f"{file}")


def row_error(file: Path, number: int | None, problem: str) -> ConfigurationError:
    """The error that names the file, the line or row where it is known, and what is wrong there."""
    return ConfigurationError(f"{locate_line(file, number)}: {problem}")


def shorten_value(value: Any) -> str:
    """A value from a file as an error shows it: printable, on one line, and shortened."""
    return ABRIDGED.repr(value)


def list_names(names: Iterable[str]) -> str:
    """The first ten names, printable and each shortened, with commas between them."""
    first = [escape_controls(shorten_text(name, 60)) for name in islice(names, 11)]
    return ", ".join([*first[:10], "…"] if len(first) > 10 else first)


def check_file(file: Path) -> int:
    """How many rows a text file has. Raises ConfigurationError where it is not as it should be."""
    count, columns = 0, set[str]()
    for number, row in iterate_rows(file):
        count += 1
        columns.update(row)
        if len(columns) > MOST_COLUMNS:
            raise row_error(file, number, f"there are more than {MOST_COLUMNS} columns by now; leave out unused ones")
    if not count:
        raise row_error(file, None, "there are no rows; the file is empty, or ends before the first one")
    return count


def iterate_rows(file: Path) -> Iterator[tuple[int, Collection[str]]]:
    """The columns of each row of a text file, with the number of its (first) line, or of the row in a JSON list."""
    if file.suffix == ".csv":
        return csv_rows(file)
    return listed_rows(file) if is_list(file) else json_rows(file)


def is_list(file: Path) -> bool:
    """Whether a JSON file holds one list of objects, and not an object a line."""
    if file.suffix != ".json":
        return False
    with file.open("rb") as stream:
        return stream.read(1) == b"["


def iterate_lines(file: Path) -> Iterator[str]:
    """The lines of a file with their ends. Holds one line at a time, and never more than `LONGEST_LINE` of it."""
    with file.open("rb") as stream:
        number = 0
        while line := stream.readline(LONGEST_LINE + 1):
            number += 1
            if number == 1 and line.startswith(BYTE_ORDER_MARKS):
                raise row_error(file, 1, "the file begins with a byte-order mark; save it as UTF-8 without one")
            if b"\0" in line:
                raise row_error(file, number, "there is a NUL byte; save the file as plain UTF-8 text")
            if len(line) > LONGEST_LINE:
                limit = LONGEST_LINE // MEBIBYTE
                raise row_error(file, number, f"the line is longer than {limit} MiB; put one row on a line")
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                byte = f"byte {error.start + 1}, 0x{line[error.start]:02x}"
                raise row_error(file, number, f"{byte}, is not UTF-8; save the file as UTF-8") from None
            yield text


def line_end(line: str) -> str:
    """The characters that end the line: '\\n', '\\r\\n', '\\r', or none at the end of the file."""
    return line[len(line.rstrip("\r\n")) :]


def mixed_ends(file: Path, number: int) -> ConfigurationError:
    """The error for a line end that differs from those before: readers do not agree on where such lines end."""
    return row_error(file, number, r"line ends are mixed (\n, \r\n or \r); end every line with \n")


def json_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of JSON Lines, each with its line; blank lines are passed over."""
    end = ""
    for number, line in enumerate(iterate_lines(file), start=1):
        end = end or line_end(line)
        text = line.strip(" \t\r\n")
        if ("\r" in line or end != "\n") and (line_end(line) not in ("", end) or "\r" in text):
            raise mixed_ends(file, number)
        if text:
            yield number, json_object(file, number, text)


def json_object(file: Path, number: int, text: str) -> dict[str, Any]:
    """The one JSON object that `text` is. Raises ConfigurationError where it is something else."""
    try:
        value, end = DECODER.raw_decode(text)
    except (ValueError, RecursionError) as error:
        raise row_error(
            file, number, f"{shorten_value(text)} is no JSON ({json_reason(error)}); put one object on a line"
        ) from None
    if end < len(text):
        raise row_error(
            file, number, f"{shorten_value(text[end:])} follows the first JSON value; put one object on a line"
        )
    if not isinstance(value, dict):
        mend = "put one object on a line (a list of objects needs the suffix .json, and its [ at the very start)"
        raise row_error(file, number, f"{shorten_value(value)} is no JSON object; {mend}")
    if text.count("[") + text.count("{") > DEEPEST:
        check_depth(file, number, value)
    return value


def json_reason(error: Exception) -> str:
    """What the parser of JSON found wrong, in short."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, line {error.lineno}, column {error.colno}" if error.lineno > 1 else error.msg
    return "nested too deeply" if isinstance(error, RecursionError) else "too long a number"


def check_depth(file: Path, number: int, value: Any) -> None:
    """Raise ConfigurationError where a JSON value is nested deeper than `DEEPEST` levels."""
    level = [value]
    for _ in range(DEEPEST):
        inner = (item for outer in level for item in (outer.values() if isinstance(outer, dict) else outer))
        level = [item for item in inner if isinstance(item, dict | list)]
        if not level:
            return
    raise row_error(file, number, f"values are nested deeper than {DEEPEST} levels; leave that column out")


def listed_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON list, which is read as a whole, each with its number."""
    if file.stat().st_size > LARGEST_LIST:
        limit = LARGEST_LIST // MEBIBYTE
        raise row_error(
            file, None, f"the JSON list is larger than {limit} MiB; write it as JSON Lines, an object a line"
        )
    content = file.read_bytes()
    try:
        values = json.loads(content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise row_error(file, None, f"line {line} holds bytes that are not UTF-8; save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise row_error(
            file, None, f"the file is no JSON list ({json_reason(error)}); mend it, or write it anew"
        ) from None
    for number, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise row_error(file, number, f"{shorten_value(value)} is no JSON object; make each row an object")
        check_depth(file, number, value)
        yield number, value


def csv_rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """For each record but the first, which names the columns: its first line, and the columns."""
    header: list[str] = []
    for number, cells in csv_records(file):
        if not header:
            header = cells
            if twice := sorted({name for name in cells[:MOST_COLUMNS] if name and cells.count(name) > 1}):
                raise row_error(file, number, f"columns are named twice: {list_names(twice)}; give each its own name")
        elif len(cells) != len(header):
            mend = "put a field that holds a comma or a line end between quotation marks"
            raise row_error(file, number, f"there are {len(cells)} fields, but {len(header)} column names; {mend}")
        else:
            yield number, header


def csv_records(file: Path) -> Iterator[tuple[int, list[str]]]:
    """The first line and the fields of each record of a CSV; blank lines are passed over."""
    csv.field_size_limit(LONGEST_LINE)
    start, size, line, end = 1, 0, "", ""

    def feed() -> Iterator[str]:
        nonlocal size, line
        for line in iterate_lines(file):
            size += len(line)
            if size > LONGEST_LINE:
                limit = LONGEST_LINE // MEBIBYTE
                raise row_error(file, start, f"the record is longer than {limit} MiB; close its quotation mark")
            yield line

    reader = csv.reader(feed(), strict=True)
    try:
        for cells in reader:
            end = end or line_end(line)
            if line_end(line) not in ("", end):
                raise mixed_ends(file, reader.line_num)
            if line.strip(" \t\r\n"):
                yield start, cells
            start, size = reader.line_num + 1, 0
    except csv.Error as error:
        if "new-line character" in str(error):
            raise mixed_ends(file, reader.line_num) from None
        mend = "double every quotation mark inside of a quoted field, and close it"
        raise row_error(file, start, f"this is no CSV ({error}); {mend}") from None


def find_bad_line(file: Path) -> tuple[int | None, str]:
    """The line of a JSON Lines file that the reader stumbles over, and why; None and '' where none is found."""
    if file.suffix not in (".json", ".jsonl") or is_list(file):
        return None, ""
    numbered = enumerate(iterate_lines(file), start=1)
    for part in iter(lambda: list(islice(numbered, 256)), []):
        if json_complaint("".join(line for _, line in part)):
            for number, line in part:
                if why := json_complaint(line):
                    return number, why
    return changed_type(file)


def json_complaint(text: str) -> str:
    """What the reader of JSON finds wrong with these lines; '' where it can read them."""
    import pyarrow
    import pyarrow.json

    content = text.encode()
    options = pyarrow.json.ReadOptions(block_size=max(len(content), MEBIBYTE))
    try:
        pyarrow.json.read_json(pyarrow.BufferReader(content), read_options=options)
    except pyarrow.ArrowException as error:
        return "" if text.isspace() else escape_controls(str(error)[:200])
    return ""


def changed_type(file: Path) -> tuple[int | None, str]:
    """The first line on which a column has another type than before, and the two types."""
    first: dict[str, tuple[int, type]] = {}
    for number, row in json_rows(file):
        for name, value in row.items():
            if value is not None:
                before, kind = first.setdefault(name, (number, type(value)))
                if type(value) is not kind:
                    return (
                        number,
                        f"{shorten_value(name)} is {type(value).__name__}, but {kind.__name__} on line {before}",
                    )
    return None, ""
