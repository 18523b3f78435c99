"""The runs of a report in rows and columns: those of a table as the table says, others by their differing settings."""

import os
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from llm_catalyst.config.table import FILE, Published, list_runs, read_published, read_table
from llm_catalyst.report.labels import column_names, row_names, sort_names
from llm_catalyst.report.runs import Run, read_or_note, read_settings
from llm_catalyst.runs.reader import find_runs
from llm_catalyst.runs.records import Outcome
from llm_catalyst.utils.format import format_count, join_first
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

    def label(self, run: Run) -> str:
        """The place of one of its runs: 'row · column · seed 1'."""
        return f"{self.row} · {self.column} · seed {run.seed}"


@dataclass(frozen=True, eq=False)
class Results:
    """Runs in rows and columns, with a cell for each pair of them. Two objects are never equal.

    Args:
        reference: the row that the others are compared with.
        metric: name of the task's metric; "metric" if the columns have different ones.
        note: a sentence for the caption.
        figures: the figures that come first, by name.
        published: figures of others, for some of the places.
        source: the folder around the runs.
        command: the command that made the table's runs, or a report of them.
        problems: what a reader must know: runs that cannot be read, seeds that differ in more than the seed.
    """

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: Mapping[Place, Cell]
    reference: str | None
    metric: str
    note: str
    figures: tuple[str, ...]
    published: Mapping[Place, Published]
    source: Path
    command: str
    problems: tuple[str, ...] = ()

    @property
    def runs(self) -> list[Run]:
        """All runs, row by row."""
        return [run for row in self.rows for column in self.columns for run in self.cells[row, column].runs]

    def outcomes(self, row: str, column: str) -> list[Outcome]:
        """The outcomes of the finished runs of a cell."""
        return [run.outcome for run in self.cells[row, column].runs if run.outcome is not None]

    def metrics(self, column: str) -> tuple[str, ...]:
        """The names of the metrics of a column's runs: one, unless its tasks differ."""
        return metric_names(self.column_runs(column))

    def column_runs(self, column: str) -> list[Run]:
        """All runs of a column, row by row."""
        return [run for row in self.rows for run in self.cells[row, column].runs]


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
    return results


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
    seeds = tuple(sorted(table.seeds))
    cells = {(r, c): Cell(r, c, tuple(sorted(found[r, c], key=BY_SEED)), seeds) for r in rows for c in columns}
    theirs = folder / PUBLISHED
    return Results(
        title=table.title,
        rows=rows,
        columns=columns,
        cells=cells,
        reference=table.reference,
        metric=common_metric(cells.values()),
        note=table.note,
        figures=table.figures,
        published=read_published(table.name, theirs if theirs.is_file() else None),
        source=folder,
        command=table.command or shlex.join(["catalyst", "report", str(folder)]),
        problems=(*problems, *find_differences(cells)),
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
    alone = {row for row, run in zip(rows, runs, strict=True) if run.mentor == "none"}
    cells = {
        (row, column): Cell(
            row,
            column,
            runs=tuple(select_one_per_seed(found[row, column], problems)),
            seeds=tuple(sorted(seeds[column])) if found[row, column] else (),
        )
        for row in sort_names(set(rows), first=alone)
        for column in sort_names(seeds)
    }
    return Results(
        title=f"Runs below {' and '.join(map(str, places))}",
        rows=tuple(dict.fromkeys(row for row, _ in cells)),
        columns=tuple(dict.fromkeys(column for _, column in cells)),
        cells=cells,
        reference=min(alone) if len(alone) == 1 else None,
        metric=common_metric(cells.values()),
        note=describe_columns(cells.values()),
        figures=(),
        published={},
        source=places[0] if len(places) == 1 else Path(os.path.commonpath([place.absolute() for place in places])),
        command=shlex.join(["catalyst", "report", *map(str, places)]),
        problems=(*problems, *find_differences(cells)),
    )


def select_one_per_seed(runs: Iterable[Run], problems: list[str]) -> list[Run]:
    """One run of each seed: of several, the finished one that started last; the others are added to `problems`."""
    latest: dict[int, Run] = {}
    for run in sorted(runs, key=lambda run: (run.outcome is not None, run.manifest.started)):
        if run.seed in latest:
            problems.append(f"{latest[run.seed].path} does not count: {run.path} repeats it")
        latest[run.seed] = run
    return sorted(latest.values(), key=BY_SEED)


def metric_names(runs: Iterable[Run]) -> tuple[str, ...]:
    """The different metrics of these runs."""
    return tuple(dict.fromkeys(run.metric for run in runs))


def common_metric(cells: Iterable[Cell]) -> str:
    """The metric of all runs; "metric" if they have different ones."""
    names = metric_names(run for cell in cells for run in cell.runs)
    return names[0] if len(names) == 1 else "metric"


def find_differences(cells: Mapping[Place, Cell]) -> list[str]:
    """The differences between runs that a table compares: configurations, metrics, data, revisions of the code."""
    problems = [problem for cell in cells.values() for problem in compare_seeds(cell)]
    for column in dict.fromkeys(column for _, column in cells):
        runs = [run for cell in cells.values() if cell.column == column for run in cell.runs]
        if len(names := metric_names(runs)) > 1:
            problems.append(f"{column}: rows are scored by different metrics ({', '.join(names)}), and not compared")
        data = {(run.seed, str(get_nested(run.manifest.data, "test", "sha256"))) for run in runs}
        if len(data) > len({seed for seed, _ in data}):
            problems.append(f"{column}: rows with the same seed report on different texts (sha256 in manifest.json)")
    revisions = Counter(str(r.manifest.git.get("revision", "")) for cell in cells.values() for r in cell.runs)
    if len(revisions) > 1:
        made = ", ".join(
            f"{name[:10] or 'unknown'} made {format_count(n, 'run')}" for name, n in revisions.most_common()
        )
        problems.append(f"the code had {len(revisions)} revisions: {made}")
    return problems


def compare_seeds(cell: Cell) -> list[str]:
    """The runs of a cell that differ from its first one in more than the seed."""
    problems = []
    everything = [read_settings(run.config) for run in cell.runs]
    for run, own in zip(cell.runs, everything, strict=True):
        if keys := [key for key in {*everything[0], *own} if everything[0].get(key) != own.get(key)]:
            which = f"seeds {cell.runs[0].seed} and {run.seed} differ in more than the seed"
            problems.append(f"{cell.row} · {cell.column}: {which} ({join_first(sorted(keys))})")
    return problems


def describe_columns(cells: Iterable[Cell]) -> str:
    """A note on the settings that are equal within each column, but not between columns."""
    values: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for cell in cells:
        for run in cell.runs:
            for key, text in read_settings(run.config).items():
                values[key][cell.column].add(text)
    differing = [
        key
        for key, columns in values.items()
        if not key.startswith(("task.", "mentor."))
        and all(len(texts) == 1 for texts in columns.values())
        and len(set().union(*columns.values())) > 1
    ]
    return f"Columns also differ in {', '.join(sorted(differing))}." if differing else ""
