"""Runs gathered for a report and laid out in rows and columns: those of a table as it says, others by what differs."""

import os
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llm_catalyst.config.table import FILE, Published, list_runs, read_published, read_table
from llm_catalyst.report.labels import column_names, row_names, sort_names
from llm_catalyst.report.runs import Run, read_or_note, read_settings
from llm_catalyst.runs.analysis import get_nested
from llm_catalyst.runs.reader import find_runs
from llm_catalyst.runs.records import Outcome
from llm_catalyst.utils.format import format_count, join_first
from llm_catalyst.utils.validation import ConfigurationError

PUBLISHED = "published.yaml"  # beside table.yaml: figures of others, where the user gave some

Place = tuple[str, str]  # the names of a row and a column


@dataclass(frozen=True)
class Cell:
    """The runs of a row in a column, in the order of their seeds; `seeds` are those that it should have."""

    row: str
    column: str
    runs: tuple[Run, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Results:
    """Runs in rows and columns, with an entry for each pair of them. It equals itself only.

    `reference` is the row that the others are compared with. `metric` is the name of the task's metric, "metric" where
    columns have different ones. `problems` say what a reader must know of the runs: which could not be read, which
    differ in more than the seed. `command` made them: the table's runs, where it tells, or this report of the same
    directories.
    """

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    entries: Mapping[Place, Cell]
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
        return [run for row in self.rows for column in self.columns for run in self.entries[row, column].runs]

    def outcomes(self, row: str, column: str) -> list[Outcome]:
        """How those of an entry's runs ended that have finished."""
        return [run.outcome for run in self.entries[row, column].runs if run.outcome is not None]

    def metrics(self, column: str) -> tuple[str, ...]:
        """The names of the metrics that score the runs of a column: one, if all is well."""
        return metrics_of(self.entries[row, column] for row in self.rows)


def collect_results(places: Sequence[Path]) -> list[Results]:
    """The runs below `places`: each folder with a table.yaml in its own layout, all other runs side by side.

    A run that cannot be read stops nothing: `Results.problems` names it. Raises ConfigurationError where there is
    neither a run nor a table, or where a table cannot be read.
    """
    loose: list[Path] = []
    tables: dict[Path, list[Path]] = {place: [] for place in places if (place / FILE).is_file()}
    for path in dict.fromkeys(find_runs(*places)):
        folder = table_above(path, places)
        (loose if folder is None else tables.setdefault(folder, [])).append(path)
    results = [laid_out(folder, paths) for folder, paths in tables.items()]
    if loose:
        results.append(side_by_side(loose, places))
    if not results:
        raise ConfigurationError(f"no run directory lies below {', '.join(map(str, places))}; runs lie under outputs/")
    return results


def table_above(path: Path, places: Sequence[Path]) -> Path | None:
    """The nearest folder around a run that holds a table, no higher than the place below which the run was found."""
    for folder in (path, *path.parents):
        if (folder / FILE).is_file():
            return folder
        if folder in places:
            return None
    return None


def laid_out(folder: Path, paths: Sequence[Path]) -> Results:
    """The table in `folder`, filled with those of the runs in `paths` that are its cells."""
    table = read_table(folder / FILE)
    problems: list[str] = []
    here, found = set(paths), defaultdict[Place, list[Run]](list)
    for cell in list_runs(table):
        path = folder / cell.folder
        run = read_or_note(path, problems) if path in here else None
        here.discard(path)
        if run is not None and run.seed != cell.seed:
            problems.append(f"{path} does not count: it holds a run of seed {run.seed}")
        elif run is not None:
            found[cell.row, cell.column].append(run)
    if here:
        which = join_first(sorted(map(str, here)))
        problems.append(f"{folder} holds {format_count(len(here), 'run')} outside its table's cells: {which}")
    rows, columns = (tuple(line.name for line in lines) for lines in (table.rows, table.columns))
    seeds = tuple(sorted(table.seeds))
    entries = {(r, c): Cell(r, c, tuple(by_seed(found[r, c])), seeds) for r in rows for c in columns}
    theirs = folder / PUBLISHED
    return Results(
        title=table.title,
        rows=rows,
        columns=columns,
        entries=entries,
        reference=table.reference,
        metric=common_metric(entries.values()),
        note=table.note,
        figures=table.figures,
        published=read_published(table.name, theirs if theirs.is_file() else None),
        source=folder,
        command=table.command or shlex.join(["catalyst", "report", str(folder)]),
        problems=(*problems, *find_mixtures(entries)),
    )


def side_by_side(paths: Sequence[Path], places: Sequence[Path]) -> Results:
    """Runs of no table: their tasks are the columns, and what else differs between them makes the rows.

    An entry should have each seed that any run of its column has.
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
    entries = {
        (row, column): Cell(
            row,
            column,
            runs=tuple(one_run_per_seed(found[row, column], problems)),
            seeds=tuple(sorted(seeds[column])) if found[row, column] else (),
        )
        for row in sort_names(set(rows), first=alone)
        for column in sort_names(seeds)
    }
    return Results(
        title=f"Runs below {' and '.join(map(str, places))}",
        rows=tuple(dict.fromkeys(row for row, _ in entries)),
        columns=tuple(dict.fromkeys(column for _, column in entries)),
        entries=entries,
        reference=min(alone) if len(alone) == 1 else None,
        metric=common_metric(entries.values()),
        note=between_columns(entries.values()),
        figures=(),
        published={},
        source=places[0] if len(places) == 1 else Path(os.path.commonpath([place.absolute() for place in places])),
        command=shlex.join(["catalyst", "report", *map(str, places)]),
        problems=(*problems, *find_mixtures(entries)),
    )


def by_seed(runs: Iterable[Run]) -> list[Run]:
    return sorted(runs, key=lambda run: run.seed)


def one_run_per_seed(runs: Iterable[Run], problems: list[str]) -> list[Run]:
    """One run of each seed: of several, the finished one that was started last; `problems` tells of the others."""
    latest: dict[int, Run] = {}
    for run in sorted(runs, key=lambda run: (run.outcome is not None, run.manifest.started)):
        if run.seed in latest:
            problems.append(f"{latest[run.seed].path} does not count: {run.path} repeats it")
        latest[run.seed] = run
    return by_seed(latest.values())


def metrics_of(entries: Iterable[Cell]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(run.metric for entry in entries for run in entry.runs))


def common_metric(entries: Iterable[Cell]) -> str:
    names = metrics_of(entries)
    return names[0] if len(names) == 1 else "metric"


def find_mixtures(entries: Mapping[Place, Cell]) -> list[str]:
    """What sets runs apart that a table puts side by side: configurations, metrics, data, revisions of the code."""
    problems = [words for entry in entries.values() for words in unlike_seeds(entry)]
    for column in dict.fromkeys(column for _, column in entries):
        here = [entry for entry in entries.values() if entry.column == column]
        if len(names := metrics_of(here)) > 1:
            problems.append(f"{column}: rows are scored by different metrics ({', '.join(names)}), and not compared")
        data = {
            (run.seed, str(get_nested(run.manifest.data, "test", "sha256"))) for entry in here for run in entry.runs
        }
        if len(data) > len({seed for seed, _ in data}):
            problems.append(f"{column}: rows with the same seed report on different texts (sha256 in manifest.json)")
    revisions = Counter(str(r.manifest.git.get("revision", "")) for entry in entries.values() for r in entry.runs)
    if len(revisions) > 1:
        made = ", ".join(
            f"{name[:10] or 'unknown'} made {format_count(n, 'run')}" for name, n in revisions.most_common()
        )
        problems.append(f"the code had {len(revisions)} revisions: {made}")
    return problems


def unlike_seeds(entry: Cell) -> list[str]:
    """Which of an entry's runs differ from its first one in more than the seed."""
    problems = []
    everything = [read_settings(run.config) for run in entry.runs]
    for run, own in zip(entry.runs, everything, strict=True):
        if keys := [key for key in {*everything[0], *own} if everything[0].get(key) != own.get(key)]:
            which = f"seeds {entry.runs[0].seed} and {run.seed} differ in more than the seed"
            problems.append(f"{entry.row} · {entry.column}: {which} ({join_first(sorted(keys))})")
    return problems


def between_columns(entries: Iterable[Cell]) -> str:
    """A note on the settings that are the same all over a column, but not in all columns."""
    values: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for entry in entries:
        for run in entry.runs:
            for key, text in read_settings(run.config).items():
                values[key][entry.column].add(text)
    differing = [
        key
        for key, columns in values.items()
        if not key.startswith(("task.", "mentor."))
        and all(len(texts) == 1 for texts in columns.values())
        and len(set().union(*columns.values())) > 1
    ]
    return f"Columns also differ in {', '.join(sorted(differing))}." if differing else ""
