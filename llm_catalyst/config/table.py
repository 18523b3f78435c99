"""A table of runs: its rows and columns, and the run that fills each cell. Read without torch.

conf/table/<name>.yaml       its rows, columns, seeds and overrides, over those of the files that its `defaults` name
conf/published/<name>.yaml   figures that others have published for it, which a user fills in
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import yaml
from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass as pydantic_dataclass

from llm_catalyst.config.choices import convert_content, read_choice, read_yaml
from llm_catalyst.utils.files import write_atomically
from llm_catalyst.utils.paths import conf_directory, list_choices
from llm_catalyst.utils.validation import ConfigurationError, check_choice, check_key

MENTOR = "{mentor}"  # in a line, the place of a mentor's name
FILE = "table.yaml"  # the table itself, beside the runs that fill it
SMOKE_SEEDS = 2  # the fewest that have a spread
STRICT = ConfigDict(extra="forbid")


@pydantic_dataclass(frozen=True, config=STRICT)
class Line:
    """A row or a column: the overrides that all its runs have. `smoke`, where given, replaces them in a smoke run."""

    name: str
    overrides: tuple[str, ...] = ()
    smoke: tuple[str, ...] | None = None


@pydantic_dataclass(frozen=True, config=STRICT)
class Table:
    """Rows x columns x seeds. `overrides` are those of every run; `smoke` replaces them in a smoke run.

    `cells` has overrides of single cells by row and column, over those of both; a smoke run goes without them.

    `mentors` are the choices of mentor for which a line with `{mentor}` in an override stands (see `expand_mentors`).
    `reference` names the row with which the others are compared, paired by seed; `figures` are drawn in its report.
    `command` is the one that fills it, where its runs lie beside it.
    """

    name: str
    title: str
    rows: tuple[Line, ...]
    columns: tuple[Line, ...]
    seeds: tuple[int, ...] = (1, 2, 3)
    overrides: tuple[str, ...] = ()
    smoke: tuple[str, ...] | None = None
    cells: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    mentors: tuple[str, ...] = ()
    reference: str | None = None
    note: str = ""
    figures: tuple[str, ...] = ()
    command: str = ""

    def __post_init__(self) -> None:
        for kind in ("rows", "columns"):
            lines: tuple[Line, ...] = getattr(self, kind)
            folders = [folder_of(line.name) for line in lines]
            if not lines or len(set(folders)) < len(lines):
                raise ConfigurationError(f"table {self.name}: its {kind} need names that make different folders")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigurationError(f"table {self.name}: its seeds must be different numbers, and one at least")
        if self.reference is not None:
            check_choice(f"table {self.name}: reference", self.reference, [row.name for row in self.rows])
        for row, columns in self.cells.items():
            check_choice(f"table {self.name}: cells", row, [line.name for line in self.rows])
            for column in columns:
                check_choice(f"table {self.name}: cells of {row}", column, [line.name for line in self.columns])

    def overrides_of(self, row: Line, column: Line) -> tuple[str, ...]:
        """The overrides of the runs of one cell; of those with the same key the row's stands over the column's."""
        cell = self.cells.get(row.name, {}).get(column.name, ())
        return merge_overrides(self.overrides, column.overrides, row.overrides, cell)

    def override(self, words: Sequence[str]) -> "Table":
        """The table whose runs have these overrides over all of its own."""
        rows = tuple(replace(row, overrides=merge_overrides(row.overrides, words)) for row in self.rows)
        cells = {
            row: {column: merge_overrides(own, words) for column, own in columns.items()}
            for row, columns in self.cells.items()
        }
        return replace(self, rows=rows, cells=cells)


@dataclass(frozen=True)
class PlannedRun:
    """One run of a table; `folder` is its run directory, relative to the table's folder."""

    row: str
    column: str
    seed: int
    overrides: tuple[str, ...]
    folder: str


@pydantic_dataclass(frozen=True, config=STRICT)
class Published:
    """A figure that others have published, in the metric's own unit (0.873, not 87.3), and where it stands."""

    mean: float
    std: float | None = None
    source: str = ""


def find_table(name: str, folders: Sequence[Path] = (), mentors: Sequence[str] = ()) -> Table:
    """The table of that name, from `folder/table/` of one of `folders` or from the packaged ones.

    Its rows of language models are those of `mentors`, where any are given.
    """
    places = [folder / "table" for folder in (*folders, conf_directory())]
    files = [file for place in places if (file := place / f"{name}.yaml").is_file()]
    if not files:
        check_key(name, sorted({path.stem for place in places for path in list_choices(place)}), "table")
    return read_table(files[0], mentors)


def list_titles() -> dict[str, str]:
    """The titles of the packaged tables by their names."""
    return {table.name: table.title for table in map(read_table, list_choices(conf_directory() / "table"))}


def read_table(path: Path, mentors: Sequence[str] = ()) -> Table:
    """The table that a file describes, for these mentors or its own; without the key `name` it has the file's.

    Raises:
        ConfigurationError: a key does not fit; the message names it.
    """
    files = {file.stem: file for file in path.parent.glob("*.yaml")}
    keys = read_choice(path.stem, {**files, path.stem: path}, read_yaml)
    table: Table = convert_content(path, {"name": path.stem, **keys}, Table)
    return expand_mentors(table, mentors)


def expand_mentors(table: Table, mentors: Sequence[str] = ()) -> Table:
    """The table with each line that names a `{mentor}` in an override repeated for each mentor.

    Such an override of the table itself is one of every row that has no mentor of its own. The mentor's name takes the
    place of `{mentor}` in the line's name; where that has none, it follows it if there are several mentors.

    Args:
        table: As it is written.
        mentors: The choices of mentor; none: those of the table.

    Raises:
        ConfigurationError: mentors are given, and no line names them; or a line does, and there are none.
    """
    named = tuple(word for word in table.overrides if MENTOR in word)
    rows = [line if names_mentor(line) or not named else add_overrides(line, named) for line in table.rows]
    if not any(MENTOR in word for line in (*rows, *table.columns) for word in line.overrides):
        if mentors:
            raise ConfigurationError(f"mentors={list(mentors)}: no row of the table {table.name} asks a language model")
        return table
    chosen = tuple(mentors) or table.mentors
    if not chosen:
        raise ConfigurationError(f"table {table.name}: a line names {MENTOR}, and its key `mentors` has none")
    expanded = {line.name: expand_line(line, chosen) for line in rows}
    columns = {line.name: expand_line(line, chosen) for line in table.columns}
    cells = {
        row.name: {column.name: words for name, words in own.items() for column in columns[name]}
        for name, own in table.cells.items()
        for row in expanded[name]
    }
    reference = table.reference
    return replace(
        table,
        rows=tuple(chain(*expanded.values())),
        columns=tuple(chain(*columns.values())),
        cells=cells,
        overrides=tuple(word for word in table.overrides if word not in named),
        mentors=chosen,
        reference=expanded[reference][0].name if reference in expanded else reference,
    )


def add_overrides(line: Line, words: tuple[str, ...]) -> Line:
    """The line with more overrides before its own; in a smoke run it has its own only, as before."""
    smoke = line.overrides if line.smoke is None else line.smoke
    return Line(line.name, (*words, *line.overrides), smoke)


def names_mentor(line: Line) -> bool:
    """Whether one of a line's own overrides chooses a mentor."""
    return any(word.startswith("mentor=") for word in line.overrides)


def expand_line(line: Line, mentors: Sequence[str]) -> list[Line]:
    """The line for each mentor, where it names one; else the line alone."""
    if not any(MENTOR in word for word in line.overrides):
        return [line]
    name = line.name if MENTOR in line.name or len(mentors) == 1 else f"{line.name}, {MENTOR}"
    return [
        Line(name.replace(MENTOR, mentor), tuple(word.replace(MENTOR, mentor) for word in line.overrides), line.smoke)
        for mentor in mentors
    ]


def write_table(table: Table, folder: Path) -> None:
    """Write the table into `folder`, in which its runs lie."""
    text = yaml.safe_dump(TypeAdapter(Table).dump_python(table, mode="json"), sort_keys=False, allow_unicode=True)
    write_atomically(folder / FILE, text.encode())  # a report may be watching


def apply_smoke(table: Table) -> Table:
    """The table of a smoke run: every `smoke` in the place of its overrides, and few seeds."""

    def shorten(line: Line) -> Line:
        return line if line.smoke is None else Line(line.name, line.smoke)

    return replace(
        table,
        name=f"{table.name}_smoke",
        title=f"{table.title} (smoke run: it shows that the machinery works, its figures mean nothing)",
        rows=tuple(map(shorten, table.rows)),
        columns=tuple(map(shorten, table.columns)),
        seeds=table.seeds[:SMOKE_SEEDS],
        overrides=table.overrides if table.smoke is None else table.smoke,
        smoke=None,
        cells={},
    )


def select_runs(table: Table, only: Mapping[str, Sequence[str]]) -> Table:
    """The table with only these rows, columns and seeds; a name may be given as its folder, or in any case."""
    known = {
        "row": [row.name for row in table.rows],
        "column": [column.name for column in table.columns],
        "seed": [str(seed) for seed in table.seeds],
    }
    for key in only:
        check_choice("--only", key, [*known])
    chosen = {key: match_names(f"--only {key}", only.get(key, ()), names) for key, names in known.items()}
    return replace(
        table,
        rows=tuple(row for row in table.rows if row.name in chosen["row"]),
        columns=tuple(column for column in table.columns if column.name in chosen["column"]),
        cells={
            row: {column: words for column, words in columns.items() if column in chosen["column"]}
            for row, columns in table.cells.items()
            if row in chosen["row"]
        },
        seeds=tuple(seed for seed in table.seeds if str(seed) in chosen["seed"]),
        reference=table.reference if table.reference in chosen["row"] else None,
    )


def match_names(key: str, given: Sequence[str], known: Sequence[str]) -> set[str]:
    """Those of the known names that have the folder of a given one; all if none is given."""
    folders = {folder_of(name): name for name in known}
    for name in given:
        if folder_of(name) not in folders:
            check_choice(key, name, known)
    return {folders[folder_of(name)] for name in given} or {*known}


def list_runs(table: Table) -> tuple[PlannedRun, ...]:
    """The runs of a table, all of one seed before the next seed's: a table with every cell comes early."""
    return tuple(
        PlannedRun(
            row.name,
            column.name,
            seed,
            merge_overrides(table.overrides_of(row, column), (f"seed={seed}",)),
            f"{folder_of(row.name)}/{folder_of(column.name)}/seed{seed}",
        )
        for seed in table.seeds
        for column in table.columns
        for row in table.rows
    )


def merge_overrides(*overrides: Sequence[str]) -> tuple[str, ...]:
    """All overrides; of those with the same key the last."""
    last = {word.partition("=")[0]: word for words in overrides for word in words}
    return tuple(last.values())


def folder_of(name: str) -> str:
    """The folder of a row or column: 'Prompt tuning + GPT-4' becomes prompt_tuning_gpt_4."""
    return re.sub(r"[^a-z0-9.]+", "_", name.lower()).strip("._") or "_"


def read_published(name: str, file: Path | None = None) -> dict[tuple[str, str], Published]:
    """Published figures by (row, column); none unless a user has filled in the file."""
    path = file or conf_directory() / "published" / f"{name}.yaml"
    if file is None and not path.is_file():
        return {}
    rows: dict[str, dict[str, Published]] = convert_content(
        path, read_yaml(path) or {}, dict[str, dict[str, Published]]
    )
    return {(row, column): entry for row, columns in rows.items() for column, entry in columns.items()}
