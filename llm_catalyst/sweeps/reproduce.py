"""`catalyst reproduce TABLE`: carry out the runs of a table that are not finished yet, and print it."""

import shlex
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from rich.console import Console, RenderableType
from rich.progress import track
from rich.table import Table as Grid
from rich.text import Text

from llm_catalyst.config.errors import FAILED, run_with_exit_code
from llm_catalyst.config.overrides import name_sweep
from llm_catalyst.config.table import (
    PlannedRun,
    Table,
    apply_smoke,
    find_table,
    known_tables,
    list_runs,
    merge_overrides,
    read_published,
    select_runs,
    write_table,
)
from llm_catalyst.report.results import PUBLISHED, collect_results
from llm_catalyst.runs.reader import read_manifest
from llm_catalyst.sweeps.status import read_statuses, render_reasons
from llm_catalyst.sweeps.table_progress import TableProgress, name_run, summarize_progress
from llm_catalyst.utils.format import format_dollars, format_duration
from llm_catalyst.utils.paths import conf_directory

if TYPE_CHECKING:
    from llm_catalyst.sweeps.sweep import Sweep

HOME = Path("outputs/tables")
QUIET = "view=none"  # one view over all runs is enough
ONLY = ("row", "column", "seed")


@dataclass(frozen=True)
class ReproduceOptions:
    """The command's options: `words` are overrides for every run and Hydra's, `config_dir` holds a user's YAMLs."""

    table: str
    words: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    smoke: bool = False
    published: Path | None = None
    config_dir: Path | None = None

    @property
    def overrides(self) -> list[str]:
        """The overrides of every run; also those that follow --only on the command line."""
        return [
            word for word in (*self.words, *self.only) if not word.startswith("hydra") and option_key(word) not in ONLY
        ]

    @property
    def hydra(self) -> list[str]:
        """The overrides of Hydra itself: the launcher, and where it finds YAMLs."""
        folder = [f"hydra.searchpath=[file://{self.config_dir.absolute()}]"] if self.config_dir else []
        return [word for word in (*self.words, *self.only) if word.startswith("hydra")] + folder

    @property
    def command(self) -> str:
        """The command that fills the whole table."""
        options = ["--smoke"] * self.smoke + (["--config-dir", str(self.config_dir)] if self.config_dir else [])
        words = [word for word in (*self.words, *self.only) if option_key(word) not in ONLY]
        return shlex.join(["catalyst", "reproduce", self.table, *options, *words])

    @property
    def lines(self) -> dict[str, list[str]]:
        """The selected rows, columns and seeds; a key that is missing selects all."""
        return {option_key(word): word.partition("=")[2].split(",") for word in self.only if option_key(word) in ONLY}


def option_key(word: str) -> str:
    return word.partition("=")[0]


def reproduce_command(request: ReproduceOptions, dry_run: bool) -> int:
    """Carry out a table's runs, or only estimate them; the exit code."""
    code, all_finished = run_with_exit_code(
        lambda: (print_estimate if dry_run else reproduce_table)(request, Console())
    )
    return code or (0 if all_finished else FAILED)


def list_tables(console: Console) -> int:
    """Print the names and titles of all tables."""
    grid = Grid.grid(padding=(0, 2, 0, 0))
    for table in known_tables():
        grid.add_row(Text(table.name, "cyan"), Text(table.title))
    console.print(grid)
    return 0


def plan_table(request: ReproduceOptions) -> tuple[Table, Path]:
    """The table as it is to be carried out, and its folder, which follows from its name and the overrides."""
    table = find_table(request.table, [request.config_dir] if request.config_dir else [])
    table = apply_smoke(table) if request.smoke else table
    rows = tuple(replace(row, overrides=merge_overrides(row.overrides, request.overrides)) for row in table.rows)
    folder = HOME / "_".join(filter(None, [table.name, name_sweep(request.overrides)]))
    return replace(table, rows=rows, command=request.command), folder


def reproduce_table(request: ReproduceOptions, console: Console) -> bool:
    """Carry out the runs that are not finished, seed after seed, and print the table; whether all have finished."""
    from llm_catalyst.report.tables.build import render_scores
    from llm_catalyst.report.tables.costs import build_cost_table
    from llm_catalyst.sweeps.launchers import launch_jobs

    table, folder = plan_table(request)
    chosen = select_runs(table, request.lines)
    if request.published:
        read_published(table.name, request.published)  # raises where it cannot be read
    jobs = dict(enumerate(c for c in list_runs(chosen) if not is_finished(folder, c)))

    def failures() -> dict[PlannedRun, str]:
        return {jobs[number]: status.message for number, status in read_statuses(folder).items() if status.code}

    with make_sweep(folder, request.hydra, jobs.values()) as sweep:
        # From here on the statuses of an earlier launch are removed.
        progress = TableProgress(chosen, list_runs(chosen), folder, failures, console)
        write_table(table, folder)
        if request.published:
            shutil.copyfile(request.published, folder / PUBLISHED)
        try:
            with progress:
                launch_jobs(sweep, {i: compose_overrides(cell) for i, cell in jobs.items()})
        finally:
            (results,) = collect_results([folder])
            console.print(render_scores(results), Text(), build_cost_table(results))
            console.print(describe_ending(request, progress, folder))
    return progress.complete


def describe_ending(request: ReproduceOptions, progress: TableProgress, folder: Path) -> RenderableType:
    """How many runs have finished, why the others failed, and the next command."""
    lines = [Text(summarize_progress(progress.snapshots), "bold green" if progress.complete else "bold red")]
    failed = [(name_run(cell), found.words) for cell, found in progress.snapshots.items() if found.state == "failed"]
    lines += render_reasons(sorted(failed))
    lines += [] if progress.complete else [Text(f"the same command continues with the others: {request.command}")]
    lines.append(Text(f"a page with figures, and files for a paper: catalyst report {shlex.quote(str(folder))}"))
    return Text("\n").join(lines)


def is_finished(folder: Path, cell: PlannedRun) -> bool:
    """Whether the cell's run has its outcome and was made by the same overrides.

    Where others made it, the run itself refuses, as it does everywhere.
    """
    path = folder / cell.folder
    return (path / "outcome.json").exists() and set(read_manifest(path).command) == set(cell.overrides)


def compose_overrides(cell: PlannedRun, *more: str) -> tuple[str, ...]:
    """What Hydra composes the cell's run from."""
    return (*merge_overrides(cell.overrides, (QUIET, *more)), f"hydra.sweep.subdir={cell.folder}")


@contextmanager
def make_sweep(folder: Path, hydra_words: Sequence[str], waiting: Iterable[PlannedRun]) -> Iterator["Sweep"]:
    """A sweep of cells into `folder`, by the launcher that Hydra's own words name.

    Raises what Hydra raises where no waiting cell's configuration can be composed: a word is wrong for all of them.
    """
    from hydra import initialize_config_dir
    from hydra._internal.callbacks import Callbacks
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.plugins import Plugins
    from hydra.types import HydraContext, RunMode

    from llm_catalyst.sweeps.sweep import Sweep, begin_sweep

    with initialize_config_dir(str(conf_directory()), version_base="1.3", job_name="catalyst"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        words = ["hydra/hydra_logging=none", *hydra_words, f"hydra.sweep.dir={folder}"]
        config = hydra.compose_config("config", words, RunMode.MULTIRUN)
        context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config))
        launcher = Plugins.instance().instantiate_launcher(config=config, hydra_context=context, task_function=run_cell)
        sweep = Sweep(launcher, config, hydra.config_loader, prints=False)
        refuse_what_no_cell_takes(sweep, waiting)
        begin_sweep(sweep)
        yield sweep


def refuse_what_no_cell_takes(sweep: "Sweep", waiting: Iterable[PlannedRun]) -> None:
    """Raise what Hydra raises unless one waiting cell's configuration can be composed, or none waits."""
    problem: Exception | None = None
    for cell in {(cell.row, cell.column): cell for cell in waiting}.values():
        try:
            sweep.loader.load_sweep_config(sweep.config, list(compose_overrides(cell)))
            return
        except Exception as error:
            problem = error
    if problem:
        raise problem


def run_cell(config: Any) -> None:
    """Carry out one cell, in whatever process the launcher has chosen, and write its status."""
    from hydra.core.hydra_config import HydraConfig

    from llm_catalyst.sweeps.job import carry_out_job

    carry_out_job(config, [word for word in HydraConfig.get().overrides.task if word != QUIET])


def print_estimate(request: ReproduceOptions, console: Console) -> bool:
    """Print what the runs that are not finished will take; nothing is trained, paid or kept. Whether all could tell."""
    from llm_catalyst.sweeps.launchers import launch_jobs
    from llm_catalyst.training.estimate import Estimate, render_estimate, sum_estimates

    table, folder = plan_table(request)
    chosen = select_runs(table, request.lines)
    waiting = [cell for cell in list_runs(chosen) if not is_finished(folder, cell)]
    first = {(cell.row, cell.column): cell for cell in reversed(waiting)}  # the same for all seeds
    found: dict[tuple[str, str], Estimate] = {}
    unknown: dict[PlannedRun, str] = {}
    with tempfile.TemporaryDirectory() as scratch, make_sweep(Path(scratch), request.hydra, waiting) as sweep:
        # One at a time, as they are timed.
        for place, cell in track(first.items(), "measuring", console=console, transient=True):
            status = launch_jobs(sweep, {0: compose_overrides(cell, "dry_run=true")})[0]
            if status.estimate:
                runs = sum((c.row, c.column) == place for c in waiting)
                found[place] = sum_estimates([TypeAdapter(Estimate).validate_python(status.estimate)] * runs)
            else:
                unknown[cell] = status.message
    console.print(Text(chosen.title, "bold"), render_estimates(chosen, found, first), sep="\n\n", soft_wrap=True)
    if found:
        console.print(render_estimate(sum_estimates([*found.values()])))
    for cell, why in unknown.items():
        console.print(Text(f"not known: {name_run(cell)}: {why}", "red"), soft_wrap=True)
    return not unknown


def render_estimates(
    table: Table, found: Mapping[tuple[str, str], Any], waiting: Mapping[tuple[str, str], PlannedRun]
) -> Grid:
    """Rows and columns: how many runs, their time and their price."""
    grid = Grid(box=None, padding=(0, 2, 0, 0), header_style="dim")
    grid.add_column("runs to do: time, cost")
    for column in table.columns:
        grid.add_column(Text(column.name), justify="right")

    def field(place: tuple[str, str]) -> str:
        if place not in waiting:
            return "finished"
        if place not in found:
            return "–"
        estimated = found[place]
        cost = "cost unknown" if estimated.bill.unpriced else format_dollars(estimated.bill.cost_usd)
        return f"{estimated.runs}: {format_duration(estimated.train_seconds + estimated.score_seconds)}, {cost}"

    for row in table.rows:
        grid.add_row(Text(row.name), *(Text(field((row.name, column.name))) for column in table.columns))
    return grid
