"""Run directories as a report reads them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml
from helpers import recorded
from helpers.recorded_tables import config, ended

from llm_catalyst.config.table import Line, Table, list_runs, write_table
from llm_catalyst.report.results import Results, collect_results
from llm_catalyst.runs.records import Record
from llm_catalyst.runs.writer import RunDirectory


def write_told(
    folder: Path, rows: Sequence[str], seeds: Sequence[int] = (1, 2), records: Iterable[Record] = (), **table: object
) -> Path:
    """A table of one column whose runs have these records, and test metrics that rise with row and seed."""
    layout = Table(folder.name, "A title", tuple(map(Line, rows)), (Line("sst2"),), seeds=tuple(seeds), **table)  # type: ignore[arg-type]
    folder.mkdir(parents=True)
    write_table(layout, folder)
    told = list(records)
    for cell in list_runs(layout):
        directory = RunDirectory(folder / cell.folder)
        directory.write_config(yaml.safe_dump(config(seed=cell.seed)), recorded.manifest())
        for record in told:
            directory.append(record)
        directory.finish(ended(0.7 + 0.01 * rows.index(cell.row) + 0.002 * cell.seed))
        directory.close()
    return folder


def results_of(folder: Path) -> Results:
    (results,) = collect_results([folder])
    return results
