"""Rows of delimited text: CSV, tab-separated values, and their relatives with semicolons or bars."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from llm_catalyst.tasks.file_content import ParsedRows, RowError
from llm_catalyst.utils.format import format_count
from llm_catalyst.utils.terminal import list_names

DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}
BLANK = " "  # of R's write.table; only where the first line says so
DELIMITER_NAMES = {**DELIMITERS, BLANK: "blank"}
SAMPLE = 2**13  # characters of whole lines from which the delimiter is chosen
SNIFFED = 2**11  # of them for the Sniffer, whose time grows with the square of the quotation marks and more
LINE_END = r"(?:\r\n|\r|\n)"
EXCELS_LINE = re.compile(rf'"?sep=([,;|\t])"? *{LINE_END}')
QUOTED_NAMES = re.compile(rf'"[^"\r\n]*"(?: "[^"\r\n]*")+{LINE_END}')
Record = tuple[int, int, list[str]]  # its first line, its last one, its fields

QUOTED: dict[str, Any] = {}  # quotation marks around a field, doubled within it
UNQUOTED: dict[str, Any] = {"quoting": csv.QUOTE_NONE}
ESCAPED: dict[str, Any] = {"escapechar": "\\"}  # or with a backslash before them


def read_delimited(text: str, needed: Sequence[str], delimiter: str = "") -> ParsedRows:
    """The rows, the first line of each, and the columns.

    An empty cell is None; records without any value are passed over. Without a `delimiter` the best one is chosen.

    Raises:
        RowError: with the line of what cannot be read.
    """
    csv.field_size_limit(max(len(text), csv.field_size_limit()))
    text, skipped = text.rstrip("\x1a"), 0  # by which DOS ends a text
    if line := EXCELS_LINE.match(text):
        text, delimiter, skipped = text[line.end() :], line[1], 1
    if QUOTED_NAMES.match(text):
        delimiter = BLANK
    delimiter = delimiter or choose_delimiter(text, needed)
    tables, problems = list[ParsedRows](), list[RowError]()
    for form, dialect in list_dialects(text, delimiter):
        try:
            tables.append(parse_records(form, delimiter, needed, dialect, skipped))
        except RowError as error:
            problems.append(error)
    if not tables:
        raise problems[0]
    return max(tables, key=lambda table: len(table.rows))


def list_dialects(text: str, delimiter: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The ways to read quotation marks, the usual one first, each with the text as it is read that way."""
    yield text, QUOTED
    if '\\"' in text:
        yield keep_backslashes(text), ESCAPED
    if delimiter != BLANK and re.search(rf'" +(?:[{re.escape(delimiter)}\r\n]|$)', text):
        field = rf'((?:^|[{re.escape(delimiter)}\r\n]) *"[^"]*(?:""[^"]*)*") *'
        yield re.sub(field, r"\1", text), QUOTED  # without blanks behind a field's last quotation mark
    if delimiter == "\t" and '"' in text:
        yield text, UNQUOTED  # as in GLUE's files, where a quotation mark that is left open takes in other lines


def keep_backslashes(text: str) -> str:
    """The text with each backslash doubled that is no escape.

    Where one stands before something else than a quotation mark or a backslash, they are not escaped themselves.
    """
    if all(pair[1] for pair in re.finditer(r'\\(["\\])?', text)):
        return text
    return re.sub(r'\\(?!")', r"\\\\", text)


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


def has_columns(text: str, needed: Sequence[str]) -> bool:
    """Whether a text plainly is delimited: its first line names two or more columns, among them those needed."""
    sample = text[:SAMPLE]
    try:
        records = list(csv.reader(io.StringIO(sample, ""), delimiter=choose_delimiter(text, needed)))
    except csv.Error:
        return False
    names = {clean_name(name) for name in records[0]} if records else set()
    whole = records[1 : -1 if len(text) > SAMPLE else None]
    return len(names) > 1 and (names >= {*needed} if needed else all(len(cells) == len(names) for cells in whole))


def clean_name(name: str) -> str:
    """A column's name without blanks and invisible marks around it."""
    return name.strip().strip("\ufeff").strip()


def parse_records(
    text: str, delimiter: str, needed: Sequence[str], dialect: dict[str, Any], skipped: int
) -> ParsedRows:
    """The rows of delimited text whose first record names the columns. `skipped` lines stood before it."""
    records = iterate_records(text, delimiter, dialect, skipped)
    first, _, header = next(records, (1, 1, []))
    columns = [clean_name(name) for name in header]
    if twice := sorted(name for name in set(needed) if columns.count(name) > 1):
        raise RowError(first, f"columns are named twice: {list_names(twice, 3)}; give each its own name")
    places = {name: columns.index(name) for name in needed if name in columns}
    rows, numbers, spread = [], [], list[Record]()
    for record in drop_extra(records, len(columns)):
        number, last, cells = record
        if len(cells) != len(columns):
            count = "is 1 field" if len(cells) == 1 else f"are {len(cells)} fields"
            what = f"there {count}, but {len(columns)} column names"
            fix = f"put a field that holds a {DELIMITER_NAMES[delimiter]} or a line end between quotation marks"
            fix = "write the fields that are missing, or remove the line" if len(cells) < len(columns) else fix
            raise RowError(number, f"{what}; {fix}")
        if len(cells) > 1 and clean_name(cells[0]) == columns[0] and list(map(clean_name, cells)) == columns:
            raise RowError(number, "the line of column names is there once more, as where files were joined; remove it")
        rows.append({name: cells[place] or None for name, place in places.items()})
        numbers.append(number)
        if last > number:
            spread.append(record)
    notes = note_swallowed(spread, delimiter, places, rows) if spread else ()
    return ParsedRows(rows, numbers, columns, f"CSV, delimiter {DELIMITER_NAMES[delimiter]}", notes=notes)


def iterate_records(text: str, delimiter: str, dialect: dict[str, Any], skipped: int) -> Iterator[Record]:
    """The lines and the fields of each record that has a value."""
    reader = csv.reader(io.StringIO(text, ""), delimiter=delimiter, skipinitialspace=True, strict=True, **dialect)
    start = 1
    try:
        for cells in reader:
            if any(map(str.strip, cells)):
                yield start + skipped, reader.line_num + skipped, cells
            start = reader.line_num + 1
    except csv.Error as error:
        fix = "double every quotation mark inside of a quoted field, and close it"
        raise RowError(start + skipped, f"this is no CSV ({error}); {fix}") from None


def drop_extra(records: Iterator[Record], width: int) -> Iterator[Record]:
    """The records without a field beyond the `width` names of columns that belongs to no column.

    That is an empty last field, or R's number of the row, a different one in each. Whether there is one is seen from
    the first record; where a later one differs, it keeps its fields.
    """
    first = next(records, None)
    if first is None:
        return
    extra = first[2] if len(first[2]) == width + 1 else []
    ended, numbered, known = extra and not extra[-1].strip(), extra and extra[0].isdecimal(), set[str]()
    for number, last, cells in chain([first], records):
        if ended and len(cells) == width + 1 and not cells[-1].strip():
            yield number, last, cells[:-1]
        elif numbered and len(cells) == width + 1 and cells[0].isdecimal() and cells[0] not in known:
            known.add(cells[0])
            yield number, last, cells[1:]
        else:
            yield number, last, cells


def note_swallowed(
    spread: Sequence[Record], delimiter: str, places: dict[str, int], rows: Sequence[dict[str, Any]]
) -> tuple[str, ...]:
    """A note where a field of several lines holds what look like rows, as behind a quotation mark that is left open.

    A line looks like one if it has as many fields as there are columns, and one of them is a value that its column has
    in several rows; or if all its lines but the first or the last have as many fields, and a word in one place.

    Args:
        spread: the records of several lines.
        places: of the columns that were asked for.
        rows: all of them.
    """
    counts = {place: Counter(row[name] for row in rows) for name, place in places.items()}

    def is_row(parts: Sequence[str]) -> bool:
        return any(counts[place][parts[place].strip().strip('"')] > 1 for place in counts)

    def are_alike(lines: Sequence[Sequence[str]]) -> bool:
        return any(all(len(parts[place].split()) == 1 for parts in lines) for place in counts)

    found = []
    for number, _, cells in spread:
        for cell in cells:
            lines = [line.split(delimiter) for line in re.split(LINE_END, cell)]
            whole = [len(parts) == len(cells) > 1 for parts in lines]
            inner = [lines[1:]] * all(whole[1:]) + [lines[:-1]] * all(whole[:-1]) if len(lines) > 2 else []
            if any(map(are_alike, inner)) or any(fits and is_row(p) for fits, p in zip(whole, lines, strict=True)):
                found.append(f"line {number}: a field takes in {format_count(len(lines) - 1, 'more line')}")
    if not found:
        return ()
    others = f" (and {len(found) - 1:,} more such fields)" if len(found) > 1 else ""
    fix = "if they are, double or remove its first quotation mark"
    return (f"{found[0]}, and some look like rows{others}; {fix}",)
