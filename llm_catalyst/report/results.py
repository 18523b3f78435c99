"""The runs of a report in rows and columns: those of a table as the table says, others by their differing settings."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, product
from operator import attrgetter
from pathlib import Path

from typing_extensions import Self

from llm_catalyst.config.table import FILE, Published, list_runs, read_published, read_table
from llm_catalyst.report.runs import Run, column_names, find_unnamed, read_or_note, row_names, sort_names
from llm_catalyst.runs.reader import find_runs
from llm_catalyst.runs.records import Outcome
from llm_catalyst.utils.format import format_count, join_command, join_first
from llm_catalyst.utils.validation import ConfigurationError, get_nested

PUBLISHED = "published.yaml"  # beside table.yaml: figures of others, where the user gave some

BY_SEED = attrgetter("seed")

Place = tuple[str, str]  # the names of a row and a column


@dataclass(frozen=True)
class Cell:
    """The runs of a row in a column, in the order of their seeds; `seeds` are the expected ones."""

    row: str
    column: str
    runs: tuple[Run, ...]
    seeds: tuple[int, ...]

    @property
    def outcomes(self) -> list[Outcome]:
        """The outcomes of its finished runs."""
        return [run.outcome for run in self.runs if run.outcome is not None]

    def label(self, run: Run) -> str:
        """The place of one of its runs: 'row · column · seed 1'."""
        return f"{self.row} · {self.column} · seed {run.seed}"


@dataclass(frozen=True, eq=False)
class Results:
    """Runs in rows and columns, with a cell for each pair of them. Two objects are never equal.

    Args:
        reference: the row that the others are compared with.
        source: the folder around the runs.
        command: the command that made the table's runs, or a report of them.
        note: a sentence for the caption.
        figures: the figures that come first, by name.
        published: figures of others, for some of the places.
        problems: what a reader must know: runs that cannot be read, seeds that differ in more than the seed.
    """

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: Mapping[Place, Cell]
    reference: str | None
    source: Path
    command: str
    note: str = ""
    figures: tuple[str, ...] = ()
    published: Mapping[Place, Published] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def select(self, rows: Iterable[str] | None = None, columns: Iterable[str] | None = None) -> Self:
        """The part with only these rows and columns; `cells` still has all."""
        rows = self.rows if rows is None else tuple(rows)
        return replace(self, rows=rows, columns=self.columns if columns is None else tuple(columns))

    @property
    def runs(self) -> list[Run]:
        """All runs, row by row."""
        return [run for row in self.rows for column in self.columns for run in self.cells[row, column].runs]

    @property
    def outcomes(self) -> list[Outcome]:
        """The outcomes of the finished runs."""
        return [run.outcome for run in self.runs if run.outcome is not None]

    def label_row(self, row: str) -> str:
        """The row's name with the models that answered in its runs: '+ GPT-4 (gpt-6.2-sol)'."""
        runs = [run for column in self.columns for run in self.cells[row, column].runs]
        models = [model for model in dict.fromkeys(chain(*(run.models for run in runs))) if model not in row]
        return f"{row} ({', '.join(models)})" if models else row

    @property
    def reported_on(self) -> str:
        """The split that the finished runs report on: test, unless the protocol says otherwise."""
        return " or ".join(sorted({outcome.reported_on for outcome in self.outcomes})) or "test"

    @property
    def metric(self) -> str:
        """The name of the metric of all runs in `cells`; "metric" if they have different ones."""
        names = self.metrics()
        return names[0] if len(names) == 1 else "metric"

    def count_examples(self, column: str) -> tuple[int, ...]:
        """The rows that the scores of a column are means over, in order: one number, unless tasks or splits differ."""
        cells = [self.cells[row, column] for row in self.rows]
        return tuple(sorted({o.test.examples for cell in cells for o in cell.outcomes if o.test}))

    def metrics(self, column: str | None = None) -> tuple[str, ...]:
        """The names of the metrics of a column's runs, or of all runs in `cells`: one, unless tasks differ."""
        cells = [cell for cell in self.cells.values() if column in (None, cell.column)]
        return tuple(dict.fromkeys(run.metric for cell in cells for run in cell.runs))


def collect_results(places: Sequence[Path]) -> list[Results]:
    """The runs below `places`: each folder with a table.yaml in that table's layout, all other runs in one more.

    A run that cannot be read is left out, and `Results.problems` names it.

    Raises:
        ConfigurationError: there is neither a run nor a table, or a table cannot be read.
    """
    loose: list[Path] = []
    tables: dict[Path, list[Path]] = {place: [] for place in places if (place / FILE).is_file()}
    for path in dict.fromkeys(find_runs(*places)):
        folder = find_table_folder(path, places)
        (loose if folder is None else tables.setdefault(folder, [])).append(path)
    results = [lay_out_table(folder, paths) for folder, paths in tables.items()]
    if loose:
        results.append(lay_out_runs(loose, places))
    if not results:
        raise ConfigurationError(f"no run directory lies below {', '.join(map(str, places))}; runs lie under outputs/")
    return [replace(one, problems=(*one.problems, *find_differences(one))) for one in results]


def find_table_folder(path: Path, places: Sequence[Path]) -> Path | None:
    """The nearest folder around a run that holds a table, but none above the places that are searched."""
    for folder in (path, *path.parents):
        if (folder / FILE).is_file():
            return folder
        if folder in places:
            return None
    return None


def lay_out_table(folder: Path, paths: Sequence[Path]) -> Results:
    """The table in `folder`, filled with those of the runs in `paths` that belong to it."""
    table = read_table(folder / FILE)
    problems: list[str] = []
    here, found = set(paths), defaultdict[Place, list[Run]](list)
    for planned in list_runs(table):
        path = folder / planned.folder
        run = read_or_note(path, problems) if path in here else None
        here.discard(path)
        if run is not None and run.seed != planned.seed:
            problems.append(f"{path} does not count: it holds a run of seed {run.seed}")
        elif run is not None:
            found[planned.row, planned.column].append(run)
    if here:
        which = join_first(sorted(map(str, here)))
        problems.append(f"{folder} holds {format_count(len(here), 'run')} outside its table's cells: {which}")
    rows, columns = (tuple(line.name for line in lines) for lines in (table.rows, table.columns))
    seeds, theirs = tuple(sorted(table.seeds)), folder / PUBLISHED
    return Results(
        title=table.title,
        rows=rows,
        columns=columns,
        cells={(r, c): Cell(r, c, tuple(sorted(found[r, c], key=BY_SEED)), seeds) for r in rows for c in columns},
        reference=table.reference,
        source=folder,
        command=table.command or join_command(["catalyst", "report", str(folder)]),
        note=table.note,
        figures=table.figures,
        published=read_published(table.name, theirs if theirs.is_file() else None),
        problems=tuple(problems),
    )


def lay_out_runs(paths: Sequence[Path], places: Sequence[Path]) -> Results:
    """Runs without a table: their tasks are the columns, their other differing settings name the rows.

    A cell is expected to have each seed that any run of its column has.
    """
    problems: list[str] = []
    runs = [run for path in paths if (run := read_or_note(path, problems)) is not None]
    columns = column_names(runs)
    rows = row_names(runs, columns)
    found, seeds = defaultdict[Place, list[Run]](list), defaultdict[str, set[int]](set)
    for row, column, run in zip(rows, columns, runs, strict=True):
        found[row, column].append(run)
        seeds[column].add(run.seed)
    unnamed = find_unnamed(runs, columns, rows)
    also = f"Rows also differ in {join_first(unnamed, 8)}." if unnamed else ""
    alone = {row for row, run in zip(rows, runs, strict=True) if run.mentor == "none"}
    shown_rows, shown_columns = tuple(sort_names(set(rows), first=alone)), tuple(sort_names(seeds))
    cells = {}
    for row, column in product(shown_rows, shown_columns):
        here = select_one_per_seed(found[row, column], problems)
        cells[row, column] = Cell(row, column, tuple(here), tuple(sorted(seeds[column])) if here else ())
    return Results(
        title=f"Runs below {' and '.join(map(str, places))}",
        rows=shown_rows,
        columns=shown_columns,
        cells=cells,
        reference=min(alone) if len(alone) == 1 else None,
        source=places[0] if len(places) == 1 else Path(os.path.commonpath([place.absolute() for place in places])),
        command=join_command(["catalyst", "report", *map(str, places)]),
        note=" ".join(filter(None, (describe_columns(cells.values()), also))),
        problems=tuple(problems),
    )


def select_one_per_seed(runs: Iterable[Run], problems: list[str]) -> list[Run]:
    """One run of each seed: of several, the finished one that started last; the others are added to `problems`."""
    latest: dict[int, Run] = {}
    for run in sorted(runs, key=lambda run: (run.outcome is not None, run.manifest.started)):
        if run.seed in latest:
            problems.append(f"{latest[run.seed].path} does not count: {run.path} repeats it")
        latest[run.seed] = run
    return sorted(latest.values(), key=BY_SEED)


def find_differences(results: Results) -> list[str]:
    """The differences between runs that a table compares: configurations, metrics, data, revisions of the code."""
    problems = [problem for cell in results.cells.values() for problem in compare_seeds(cell)]
    for column in results.columns:
        if len(names := results.metrics(column)) > 1:
            problems.append(f"{column}: rows are scored by different metrics ({', '.join(names)}), and not compared")
        runs = results.select(columns=[column]).runs
        data = {(run.seed, str(get_nested(run.manifest.data, "test", "sha256"))) for run in runs}
        if len(data) > len({seed for seed, _ in data}):
            problems.append(f"{column}: rows with the same seed report on different texts (sha256 in manifest.json)")
    revisions = Counter(str(run.manifest.git.get("revision", ""))[:10] or "unknown" for run in results.runs)
    if len(revisions) > 1:
        made = ", ".join(f"{name} made {format_count(n, 'run')}" for name, n in revisions.most_common())
        problems.append(f"the code had {len(revisions)} revisions: {made}")
    return problems


def compare_seeds(cell: Cell) -> list[str]:
    """The runs of a cell that differ from its first one in more than the seed."""
    problems = []
    for run in cell.runs:
        first, own = cell.runs[0].settings, run.settings
        if keys := [key for key in {*first, *own} if first.get(key) != own.get(key)]:
            which = f"seeds {cell.runs[0].seed} and {run.seed} differ in more than the seed"
            problems.append(f"{cell.row} · {cell.column}: {which} ({join_first(sorted(keys))})")
    return problems


def describe_columns(cells: Iterable[Cell]) -> str:
    """A note on the settings that are equal within each column, but not between columns."""
    values: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for cell in cells:
        for run in cell.runs:
            for key, text in run.settings.items():
                values[key][cell.column].add(text)
    differing = [
        key
        for key, columns in values.items()
        if not key.startswith(("task.", "mentor."))
        and all(len(texts) == 1 for texts in columns.values())
        and len(set().union(*columns.values())) > 1
    ]
    return f"Columns also differ in {', '.join(sorted(differing))}." if differing else ""
