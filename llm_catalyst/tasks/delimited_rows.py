"""Rows of delimited text: CSV, tab-separated values, and their relatives with semicolons or bars."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any

from llm_catalyst.tasks.file_content import RowError
from llm_catalyst.utils.terminal import list_names

DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}
SAMPLE = 2**13  # characters of whole lines from which the delimiter is chosen
SNIFFED = 2**11  # of them for the Sniffer, whose time grows with the square of the quotation marks and more
Record = tuple[int, list[str]]  # its first line, its fields
Table = tuple[list[dict[str, Any]], list[int], list[str]]

QUOTED: dict[str, Any] = {}  # quotation marks around a field, doubled within it
UNQUOTED: dict[str, Any] = {"quoting": csv.QUOTE_NONE}
ESCAPED: dict[str, Any] = {"doublequote": False, "escapechar": "\\"}


def read_delimited(text: str, needed: Sequence[str], delimiter: str = "") -> tuple[Table, str]:
    """The rows, the first line of each, and the columns; and the delimiter's name.

    An empty cell is None; records without any value are passed over. Without a `delimiter` the best one is chosen.

    Raises:
        RowError: with the line of what cannot be read.
    """
    csv.field_size_limit(max(len(text), csv.field_size_limit()))
    first = text.partition("\n")[0].strip().strip('"')
    skipped = 0
    if (named := re.fullmatch(r"sep=(.)", first)) and named[1] in DELIMITERS:  # Excel's own first line
        text, delimiter, skipped = text.partition("\n")[2], named[1], 1
    delimiter = delimiter or choose_delimiter(text, needed)
    dialects = [QUOTED]
    if delimiter == "\t" and '"' in text:
        dialects.append(UNQUOTED)  # as in GLUE's files, where a quotation mark that is left open takes in other lines
    if '\\"' in text:
        dialects.append(ESCAPED)
    tables, problems = list[Table](), list[RowError]()
    for dialect in dialects:
        try:
            tables.append(parse_records(text, delimiter, needed, dialect, skipped))
        except RowError as error:
            problems.append(error)
    if not tables:
        raise problems[0]
    return max(tables, key=lambda table: len(table[0])), DELIMITERS[delimiter]


def choose_delimiter(text: str, needed: Sequence[str]) -> str:
    """The delimiter under which the first line has the columns needed, and the lines after it as many fields."""
    sample = text[:SAMPLE]
    if len(text) > SAMPLE and "\n" in sample:
        sample = sample[: sample.rindex("\n") + 1]
    try:
        sniffed = [csv.Sniffer().sniff(sample[:SNIFFED], "".join(DELIMITERS)).delimiter]
    except csv.Error:
        sniffed = []

    def fitness(delimiter: str) -> tuple[int, bool, bool]:
        try:
            records = [cells for cells in csv.reader(io.StringIO(sample, ""), delimiter=delimiter) if cells]
        except csv.Error:
            return 0, False, False
        widths = {len(cells) for cells in records[: -1 if len(text) > SAMPLE else None]} or {0}
        names = {clean_name(name) for name in records[0]} if records else set()
        return len(names.intersection(needed)), len(widths) == 1 and widths != {1}, widths != {1}

    # The Sniffer is wrong about single columns, few rows and texts with many commas: its choice wins a tie only.
    return max(dict.fromkeys([*(d for d in sniffed if d in DELIMITERS), *DELIMITERS]), key=fitness)


def clean_name(name: str) -> str:
    """A column's name without blanks and invisible marks around it."""
    return name.strip().strip("\ufeff").strip()


def parse_records(text: str, delimiter: str, needed: Sequence[str], dialect: dict[str, Any], skipped: int) -> Table:
    """The rows of delimited text whose first record names the columns. `skipped` lines stood before it."""
    records = iterate_records(text, delimiter, dialect, skipped)
    first, header = next(records, (1, []))
    columns = [clean_name(name) for name in header]
    if twice := sorted(name for name in set(needed) if columns.count(name) > 1):
        raise RowError(first, f"columns are named twice: {list_names(twice, 3)}; give each its own name")
    places = {name: columns.index(name) for name in needed if name in columns}
    rows, numbers = [], []
    for number, cells in records:
        if len(cells) != len(columns):
            what = f"there are {len(cells)} fields, but {len(columns)} column names"
            fix = f"put a field that holds a {DELIMITERS[delimiter]} or a line end between quotation marks"
            raise RowError(number, f"{what}; {fix}")
        rows.append({name: cells[place] or None for name, place in places.items()})
        numbers.append(number)
    return rows, numbers, columns


def iterate_records(text: str, delimiter: str, dialect: dict[str, Any], skipped: int) -> Iterator[Record]:
    """The first line and the fields of each record that has a value."""
    reader = csv.reader(io.StringIO(text, ""), delimiter=delimiter, skipinitialspace=True, strict=True, **dialect)
    start = 1
    try:
        for cells in reader:
            if any(map(str.strip, cells)):
                yield start + skipped, cells
            start = reader.line_num + 1
    except csv.Error as error:
        fix = "double every quotation mark inside of a quoted field, and close it"
        raise RowError(start + skipped, f"this is no CSV ({error}); {fix}") from None
