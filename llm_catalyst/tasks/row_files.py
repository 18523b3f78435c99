"""Files of rows: JSON, delimited text, Parquet and Arrow, compressed or not.

What a file holds is untrusted: what cannot be used is refused with the file and the line.
"""

import json
import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llm_catalyst.tasks.delimited_rows import has_columns, read_delimited
from llm_catalyst.tasks.file_content import RowError, find_compression, read_content, read_head, read_text
from llm_catalyst.tasks.json_rows import begins_row, read_json
from llm_catalyst.utils.format import format_count, shorten_text
from llm_catalyst.utils.terminal import escape_controls, list_names
from llm_catalyst.utils.validation import ConfigurationError, did_you_mean, get_nested

JSON, DELIMITED, PARQUET, ARROW = "JSON", "CSV", "Parquet", "Arrow"
FORMATS = {
    ".jsonl": JSON,
    ".json": JSON,
    ".ndjson": JSON,
    ".csv": DELIMITED,
    ".tsv": DELIMITED,
    ".tab": DELIMITED,
    ".txt": DELIMITED,
    ".parquet": PARQUET,
    ".arrow": ARROW,
    ".feather": ARROW,
}
TABS = (".tsv", ".tab")
COMPRESSED = (".gz", ".bz2", ".xz", ".lzma", ".zip", ".zst", ".lz4")  # the last two to be refused by name
SPREADSHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers")
LONGEST_PATH = 300  # characters of a path that an error shows
LARGEST_DIFFERENCE = 1000  # columns of which a misspelt one is looked for


@dataclass(frozen=True)
class RowTable:
    """The rows of a split in the columns that were asked for, and the names of all columns.

    Args:
        source: how an error names the split.
        unit: what `numbers` count: lines or rows.
        rows: a missing value is None; a cell of delimited text is text.
        numbers: the line or row of each in its file.
        columns: the names of all columns.
        form: how the file was read, in words.
        classes: the names of the ids of a column that declares them (a ClassLabel of the `datasets` library).
        notes: what a reader of the results should know of the file.
        parts: the source of each file of the split, and the number of rows before it.
    """

    source: str
    unit: str
    rows: list[dict[str, Any]]
    numbers: Sequence[int]
    columns: list[str]
    form: str = ""
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    parts: tuple[tuple[str, int], ...] = ()

    def place(self, row: int) -> str:
        """The place of a row (from 0), for an error."""
        parts = self.parts or ((self.source, 0),)
        source, _ = parts[bisect_right([begin for _, begin in parts], row) - 1]
        return f"{source}, {self.unit} {self.numbers[row]}"


def unreadable(path: Path, error: OSError) -> ConfigurationError:
    """The error for a file or folder that the system does not let be read."""
    fix = "give the right to read it" if isinstance(error, PermissionError) else "name another path, or write it anew"
    where = shorten_text(escape_controls(str(path)), LONGEST_PATH)
    return ConfigurationError(f"{where} cannot be read: {error.strerror}; {fix}")


def refuse_stream(path: Path) -> None:
    """Raise ConfigurationError where a path is neither a file nor a folder; what is read once only is not opened."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        problem = f"{escape_controls(str(path))} is a pipe or a device, which cannot be read twice"
        raise ConfigurationError(f"{problem}; write its content into a file")


def split_suffixes(name: str) -> tuple[str, str, str]:
    """A file's name as its stem, the suffix of its format, and that of its compression, both in lower case.

    A suffix is '' where there is none that is known.
    """
    compression = next((suffix for suffix in COMPRESSED if name.lower().endswith(suffix)), "")
    inner = name[: len(name) - len(compression)]
    suffix = next((s for s in (*FORMATS, *SPREADSHEETS) if inner.lower().endswith(s)), "")
    return inner[: len(inner) - len(suffix)], suffix, compression


def read_rows(file: Path, needed: Sequence[str]) -> RowTable:
    """A row for each object or record of a file, in the columns `needed`.

    Raises ConfigurationError with the file, and the line where there is one, for what cannot be read.
    """
    refuse_stream(file)
    source = escape_controls(str(file))
    _, suffix, _ = split_suffixes(file.name)
    try:
        if suffix in SPREADSHEETS:
            raise RowError(None, "spreadsheets are not read; save the sheet as CSV (UTF-8)")
        if (kind := find_kind(file, suffix)) in (PARQUET, ARROW):
            table = read_arrow(file, source, needed, kind)
        else:
            table = read_text_rows(file, source, needed, suffix)
    except OSError as error:
        raise unreadable(file, error) from error
    except RowError as error:
        between = ", " if error.number else ": "
        raise ConfigurationError(f"{source}{between}{error}") from error.__cause__
    return table


def find_kind(file: Path, suffix: str) -> str:
    """The format of a file: Parquet and Arrow by its first bytes, others by its suffix; '' if that is not known."""
    head, kind = read_head(file), FORMATS.get(suffix, "")
    if kind in (PARQUET, ARROW) and head.isascii() and b"\0" not in head:
        kind = ""  # a text under a wrong name
    return PARQUET if head[:4] == b"PAR1" else ARROW if head[:6] == b"ARROW1" else kind


def read_text_rows(file: Path, source: str, needed: Sequence[str], suffix: str) -> RowTable:
    """The rows of a file of JSON or delimited text, whichever it is by its content, or else by its suffix."""
    content, name = read_text(file), escape_controls(file.name)
    notes = list[str]()
    if content.guessed:
        fix = "look at its rows, and save it as UTF-8"
        notes.append(f"{name} is not UTF-8, and was read as {content.guessed}, a guess; {fix}")
    if find_text_kind(content.text, suffix, needed) == JSON:
        parsed = read_json(content.text, needed)
    else:
        delimiter = "\t" if suffix in TABS and "\t" in content.text.partition("\n")[0] else ""
        parsed = read_delimited(content.text, needed, delimiter)
    notes += [f"{name}, {note}" for note in parsed.notes]
    form = f"{parsed.form}, {content.form}"
    return RowTable(
        source, parsed.unit, parsed.rows, parsed.numbers, parsed.columns, form, parsed.classes, notes=tuple(notes)
    )


def find_text_kind(text: str, suffix: str, needed: Sequence[str]) -> str:
    """Whether a text is JSON or delimited: what it plainly is; where that is in doubt, what its suffix says."""
    kind, may_be_json = FORMATS.get(suffix), text.lstrip()[:1] in ("{", "[")
    if kind == JSON and not may_be_json and has_columns(text, needed):
        return DELIMITED
    if kind == DELIMITED and may_be_json and begins_row(text):
        return JSON
    return kind if kind in (JSON, DELIMITED) else JSON if may_be_json else DELIMITED


def read_arrow(file: Path, source: str, needed: Sequence[str], kind: str) -> RowTable:
    """The rows of a Parquet or Arrow file."""
    import pyarrow

    try:
        compression, _ = find_compression(file)
        content = pyarrow.BufferReader(read_content(file)[0]) if compression else file
        schema, read = open_parquet(content) if kind == PARQUET else open_arrow(content)
        columns = list(map(str.strip, schema.names))
        if twice := [name for name in needed if columns.count(name) > 1]:
            raise RowError(None, f"columns are named twice: {list_names(twice)}; give each its own name")
        wanted = {schema.names[columns.index(name)]: name for name in needed if name in columns}
        table = read(list(wanted))
        named = table.rename_columns([wanted[name] for name in table.column_names])
        rows = named.to_pylist() if wanted else [{} for _ in range(table.num_rows)]
    except (RowError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        why = escape_controls(str(error)[:300])
        fix = "is the file whole, and of the form that its suffix says?"
        raise RowError(None, f"could not be read ({why}); {fix}") from error
    form = ", ".join(filter(None, (kind, compression)))
    return RowTable(source, "row", rows, range(1, len(rows) + 1), columns, form, class_names(schema.metadata or {}))


def open_parquet(content: Any) -> tuple[Any, Callable[[list[str]], Any]]:
    """The schema of a Parquet file, and a function from columns to a table."""
    import pyarrow.parquet

    opened = pyarrow.parquet.ParquetFile(content)
    return opened.schema_arrow, lambda names: opened.read(columns=names)


def open_arrow(content: Any) -> tuple[Any, Callable[[list[str]], Any]]:
    """The schema of an Arrow file or stream, and a function from columns to a table."""
    import pyarrow

    source = pyarrow.memory_map(str(content)) if isinstance(content, Path) else content
    try:
        table = pyarrow.ipc.open_file(source).read_all()
    except pyarrow.ArrowInvalid:
        source.seek(0)
        table = pyarrow.ipc.open_stream(source).read_all()
    return table.schema, table.select


def class_names(metadata: dict[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """The names of the classes of each ClassLabel column, which the `datasets` library writes into a schema."""
    try:
        features = get_nested(json.loads(metadata.get(b"huggingface", b"{}")), "info", "features") or {}
    except ValueError:
        return {}
    found = {column: get_nested(feature, "names") for column, feature in features.items()}
    return {column.strip(): tuple(map(str, names)) for column, names in found.items() if isinstance(names, list)}


def name_classes(table: RowTable, column: str) -> RowTable:
    """The table with names in the place of a column's ids where its file declares them; another value, as -1, stays.

    Files may declare the same names in different orders, so an id means nothing outside of its own file.
    """
    if not (names := table.classes.get(column)):
        return table
    ids = range(len(names))
    cells = (row[column] for row in table.rows)
    named = (names[int(cell)] if isinstance(cell, int | float) and cell in ids else cell for cell in cells)
    return replace(table, rows=[{**row, column: name} for row, name in zip(table.rows, named, strict=True)])


def join_tables(tables: Sequence[RowTable]) -> RowTable:
    """The rows of the files of one split as one table; a file without rows is passed over with a note.

    Raises ConfigurationError where no file has a row.
    """
    filled = [table for table in tables if table.rows]
    if not filled:
        where, fix = tables[0].source, "the file is empty, or ends before the first one"
        raise ConfigurationError(f"{where}: there are no rows; {fix}")
    first, *others = filled
    parts, rows, numbers = [], list[dict[str, Any]](), list[int]()
    classes = dict[str, tuple[str, ...]]()
    for table in filled:
        for column, names in table.classes.items():
            classes[column] = tuple(dict.fromkeys([*classes.get(column, ()), *names]))
        parts.append((table.source, len(rows)))
        rows += table.rows
        numbers += table.numbers
    columns = list(dict.fromkeys(name for table in filled for name in table.columns))
    source = f"{first.source} and {format_count(len(others), 'more file')}" if others else first.source
    empty = [f"{table.source} has no rows, and was passed over" for table in tables if not table.rows]
    notes = tuple(dict.fromkeys([*(note for table in filled for note in table.notes), *empty]))
    return replace(
        first,
        source=source,
        rows=rows,
        numbers=numbers,
        columns=columns,
        classes=classes,
        notes=notes,
        parts=tuple(parts),
    )


def require_columns(where: str, needed: Sequence[str], columns: Sequence[str], fix: str) -> None:
    """Raise ConfigurationError where a column that is needed is not there."""
    for name in (name for name in needed if name not in columns):
        known = [other for other in columns[:LARGEST_DIFFERENCE] if len(other) < 100]
        near = escape_controls(did_you_mean(name, known))
        shown = escape_controls(repr(name))
        raise ConfigurationError(f"{where}: there is no column {shown}; there are: {list_names(columns)}{near}; {fix}")
