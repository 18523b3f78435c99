"""`catalyst reproduce TABLE`: carry out the runs of a table that are not finished yet, and print it."""

import re
import shutil
import tempfile
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from rich.console import Console, RenderableType
from rich.progress import track
from rich.text import Text

from llm_catalyst.config import table as tables
from llm_catalyst.config.build import build_components
from llm_catalyst.config.errors import BUDGET_SPENT, DIVERGED, FAILED
from llm_catalyst.config.overrides import expand_short_names, name_sweep
from llm_catalyst.config.table import PlannedRun, Table
from llm_catalyst.report.results import PUBLISHED, collect_results
from llm_catalyst.runs.reader import read_manifest
from llm_catalyst.runs.run_config import PLACE
from llm_catalyst.sweeps.job import carry_out_job
from llm_catalyst.sweeps.job_checks import resolve_job
from llm_catalyst.sweeps.launchers import Sweep, begin_sweep, launch_jobs
from llm_catalyst.sweeps.quoting import quote_text, quote_words
from llm_catalyst.sweeps.status import JobStatus, render_reasons
from llm_catalyst.sweeps.table_progress import TableProgress, make_grid, name_run, summarize_progress
from llm_catalyst.utils.format import format_dollars, format_duration, join_command, quote_word
from llm_catalyst.utils.paths import conf_directory, list_choices
from llm_catalyst.utils.terminal import open_console
from llm_catalyst.utils.validation import ConfigurationError, check_choice

HOME = Path("outputs/tables")
QUIET = "view=none"  # the progress of the table is shown instead
ONLY = ("row", "column", "seed")
MENTORS = "mentors="  # an override of the table, not of its runs


def reproduce_command(options: Namespace) -> int:
    """Carry out a table's runs, or only estimate them; the exit code.

    `options` are those of the command line: `words` are overrides for every run and Hydra's, `config_dir` holds a
    user's YAMLs.
    """
    return (print_estimate if options.dry_run else reproduce_table)(plan_table(options), open_console())


@dataclass(frozen=True)
class TablePlan:
    """A whole table and its selected part, with the unfinished runs of that part.

    `hydra` are overrides of Hydra itself; `published` is a file of figures to print beside those of the runs.
    """

    table: Table
    chosen: Table
    folder: Path
    waiting: tuple[PlannedRun, ...]
    hydra: tuple[str, ...]
    published: Path | None


def plan_table(options: Namespace) -> TablePlan:
    """The table under the options; its folder follows from its name and the overrides."""
    # Overrides may also follow --only on the command line.
    given = [word for word in (*options.words, *options.only) if word.partition("=")[0] not in ONLY]
    if options.budget_usd is not None:
        given.append(f"sweep.budget.usd={options.budget_usd:g}")
    overrides = [word for word in given if not word.startswith(("hydra", MENTORS))]
    mentors = read_mentors([word for word in given if word.startswith(MENTORS)], options.config_dir)
    hydra = [word for word in given if word.startswith("hydra")]
    only = {word.partition("=")[0]: word.partition("=")[2].split(",") for word in options.only}
    places, flags = [], ["--smoke"] * options.smoke
    if options.config_dir:
        places, flags = [options.config_dir], [*flags, "--config-dir", str(options.config_dir)]
        hydra.append(f"hydra.searchpath=[{quote_text(f'file://{options.config_dir.absolute()}')}]")
    table = tables.find_table(options.table, places, mentors)
    table = tables.apply_smoke(table) if options.smoke else table
    command = join_command(["catalyst", "reproduce", options.table, *flags, *given])
    named = [*overrides, *([f"{MENTORS}[{','.join(mentors)}]"] if mentors else [])]
    folder = HOME / "_".join(filter(None, [table.name, name_sweep(named)]))
    table = replace(table.override(overrides), command=command)
    chosen = tables.select_runs(table, {key: names for key, names in only.items() if key in ONLY})
    waiting = tuple(cell for cell in tables.list_runs(chosen) if not is_finished(folder, cell))
    return TablePlan(table, chosen, folder, waiting, tuple(hydra), options.published)


def read_mentors(words: Sequence[str], config_dir: Path | None) -> list[str]:
    """The choices of mentor in the last of these words, `mentors=[openai_small,claude_haiku]`; none without a word.

    Raises ConfigurationError where one is no choice, or is named twice.
    """
    if not words:
        return []
    names = [name for name in re.split(r"[\[\],\s]+", words[-1].removeprefix(MENTORS)) if name]
    folders = [conf_directory(), *([config_dir] if config_dir else [])]
    known = sorted({path.stem for folder in folders for path in list_choices(folder / "mentor")})
    for name in names:
        check_choice("mentors", name, known)
    if not names or len({*names}) < len(names):
        raise ConfigurationError(f"{words[-1]} must name each mentor once: mentors=[openai_small,claude_haiku]")
    return names


def reproduce_table(plan: TablePlan, console: Console) -> int:
    """Carry out the runs that are not finished, seed after seed, and print the table; the exit code."""
    from llm_catalyst.report.tables.build import render_scores
    from llm_catalyst.report.tables.costs import build_cost_table

    if plan.published:
        tables.read_published(plan.table.name, plan.published)  # raises where it cannot be read
    jobs = dict(enumerate(plan.waiting))
    with make_sweep(plan, plan.folder) as sweep:
        # From here on the statuses of an earlier launch are removed.
        progress = TableProgress(plan.chosen, plan.folder, jobs, console)
        tables.write_table(plan.table, plan.folder)
        if plan.published:
            shutil.copyfile(plan.published, plan.folder / PUBLISHED)
        try:
            with progress.watch():
                launch_jobs(sweep, {number: compose_overrides(cell) for number, cell in jobs.items()})
        finally:
            (results,) = collect_results([plan.folder])
            console.print(render_scores(results), Text(), build_cost_table(results))
            console.print(describe_ending(plan, progress))
    if progress.complete:
        return DIVERGED if progress.diverged else 0
    return FAILED if progress.count("failed") else max(progress.codes, default=FAILED)


def describe_ending(plan: TablePlan, progress: TableProgress) -> RenderableType:
    """The number of finished runs, the failures of others, and the next command."""
    lines = [Text(summarize_progress(progress.snapshots), "bold green" if progress.complete else "bold red")]
    for state in ("failed", "stopped"):
        ended = [(name_run(cell), found.words) for cell, found in progress.snapshots.items() if found.state == state]
        lines += render_reasons(sorted(ended))
    lines += render_reasons([(name_run(cell), "diverged") for cell in progress.diverged])
    larger = "with a larger budget " if BUDGET_SPENT in progress.codes else ""
    way = f"{larger}the same command continues with the others: {plan.table.command}"
    lines += [] if progress.complete else [Text(way)]
    lines.append(Text(f"a page with figures, and files for a paper: catalyst report {quote_word(str(plan.folder))}"))
    return Text("\n").join(lines)


def is_finished(folder: Path, cell: PlannedRun) -> bool:
    """Whether the cell's run has its outcome and was made by the same overrides.

    A run with an outcome that others made raises an error itself, as everywhere.
    """
    path = folder / cell.folder
    if not (path / "outcome.json").exists():
        return False
    made, asked = map(expand_short_names, (read_manifest(path).command, quote_words(cell.overrides)))
    return drop_place(made) == drop_place(asked)


def drop_place(words: Sequence[str]) -> set[str]:
    """The words without those of keys on which results do not depend."""
    return {word for word in words if not re.fullmatch(PLACE, word.partition("=")[0].lstrip("+"))}


def compose_overrides(cell: PlannedRun, *more: str) -> tuple[str, ...]:
    """The overrides from which Hydra composes the cell's run."""
    words = quote_words(tables.merge_overrides(cell.overrides, (QUIET, *more)))
    return (*expand_short_names(words), f"hydra.sweep.subdir={cell.folder}")


@contextmanager
def make_sweep(plan: TablePlan, folder: Path) -> Iterator[Sweep]:
    """A sweep of cells into `folder`, by the launcher that Hydra's own overrides name.

    Raises what is wrong where no waiting cell can be carried out: a word is wrong for all of them.
    """
    with initialize_config_dir(str(conf_directory()), version_base="1.3", job_name="catalyst"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        config = hydra.compose_config(
            "config", [*quote_words(plan.hydra), f"hydra.sweep.dir={quote_text(str(folder))}"], RunMode.MULTIRUN
        )
        context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config))
        launcher = Plugins.instance().instantiate_launcher(config=config, hydra_context=context, task_function=run_cell)
        sweep = Sweep(launcher, config, hydra.config_loader, prints=False)
        refuse_what_no_cell_takes(sweep, plan.waiting)
        begin_sweep(sweep)
        yield sweep


def refuse_what_no_cell_takes(sweep: Sweep, waiting: Sequence[PlannedRun]) -> None:
    """Raise what is wrong with the configuration of every waiting cell; nothing where one is right, or none waits."""
    problem: Exception | None = None
    for cell in {(cell.row, cell.column): cell for cell in waiting}.values():
        try:
            build_components(resolve_job(sweep.loader.load_sweep_config(sweep.config, list(compose_overrides(cell)))))
            return
        except Exception as error:
            problem = error
    if problem:
        raise problem


def run_cell(config: Any) -> None:
    """Carry out one cell, in the process that the launcher has chosen, and write its status."""
    carry_out_job(config, [word for word in HydraConfig.get().overrides.task if word != QUIET])


def print_estimate(plan: TablePlan, console: Console) -> int:
    """Print the cost of the unfinished runs; nothing is trained, paid or kept. Returns the exit code."""
    from llm_catalyst.training.estimate import render_estimate, sum_estimates

    runs = Counter((cell.row, cell.column) for cell in plan.waiting)
    first = {(cell.row, cell.column): cell for cell in reversed(plan.waiting)}  # the same for all seeds
    jobs: dict[tuple[str, str], JobStatus] = {}
    with tempfile.TemporaryDirectory() as scratch, make_sweep(plan, Path(scratch)) as sweep:
        # One at a time, as they are timed.
        for place, cell in track(first.items(), "measuring", console=console, transient=True):
            jobs[place] = launch_jobs(sweep, {0: compose_overrides(cell, "dry_run=true")})[0]
    found = {place: sum_estimates([job.read_estimate()] * runs[place]) for place, job in jobs.items() if job.estimate}

    def render_cell(*place: str) -> Text:
        if place not in jobs:
            return Text("finished")
        if place not in found:
            return Text("–")
        estimated = found[place]
        cost = "cost unknown" if estimated.bill.unpriced else format_dollars(estimated.bill.cost_usd)
        time = format_duration(estimated.train_seconds + estimated.score_seconds)
        return Text(f"{estimated.runs}: {time}, {cost}")

    grid = make_grid(plan.chosen, render_cell, "runs to do: time, cost")
    console.print(Text(plan.chosen.title, "bold"), grid, sep="\n\n", soft_wrap=True)
    if found:
        console.print(render_estimate(sum_estimates([*found.values()])))
    for place in [place for place in jobs if place not in found]:
        console.print(Text(f"not known: {name_run(first[place])}: {jobs[place].message}", "red"), soft_wrap=True)
    return 0 if found.keys() == jobs.keys() else FAILED
