"""A search for the values with the best metric on dev, by Optuna: `catalyst run -m hydra/sweeper=optuna …`.

<sweep folder>/study.journal   Optuna's own record of the study, from which the same command continues it
<sweep folder>/search.json     the trials, and the best of them
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import optuna
from hydra.core.override_parser.types import Override
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage, journal
from optuna.trial import TrialState
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from llm_catalyst.config.errors import DIVERGED, FAILED, WRONG_USE
from llm_catalyst.config.overrides import name_sweep
from llm_catalyst.sweeps.launchers import Sweep, begin_sweep, launch_jobs
from llm_catalyst.sweeps.status import JobStatus, conclude_sweep
from llm_catalyst.utils.files import cut_torn_line, write_atomically
from llm_catalyst.utils.format import format_count, join_command
from llm_catalyst.utils.terminal import escape_controls
from llm_catalyst.utils.validation import ConfigurationError, PositiveInt, config_dataclass

JOURNAL, RESULTS = "study.journal", "search.json"
SHOWN = 10  # trials of the printed table


@config_dataclass("hydra.sweeper")
class Plan:
    """The number of trials, in all and at once, and the sampler that chooses their values, with its seed."""

    trials: PositiveInt
    at_once: PositiveInt
    sampler: Literal["TPESampler", "RandomSampler", "GPSampler"]
    seed: int


def run_search(sweep: Sweep, overrides: Sequence[Override], plan: Plan) -> None:
    """Carry out trials until there are `plan.trials`, print the best, and end the process unless all have finished.

    A trial whose run fails is a failed trial; one whose run was cut off is continued by the same command.
    """
    fixed, space = split_overrides(overrides)
    begin_sweep(sweep)
    study = open_study(sweep.folder, [*fixed, *(f"{key}={values}" for key, values in space.items())])
    rows = read_rows(sweep.folder)
    try:
        with conclude_sweep(sweep.folder):
            while trials := next_trials(study, space, plan):
                values = {trial.number: trial.params for trial in trials}
                jobs = {n: [*fixed, *(f"{key}={value}" for key, value in values[n].items())] for n in values}
                statuses = launch_jobs(sweep, jobs)
                rows |= {number: make_row(values[number], status) for number, status in statuses.items()}
                write_rows(sweep.folder, rows)
                ended = [record_result(study, number, status) for number, status in statuses.items()]
                if not all(ended):
                    break
    finally:
        Console(soft_wrap=True).print(render_results(rows, sweep.folder))


def split_overrides(overrides: Sequence[Override]) -> tuple[list[str], dict[str, Any]]:
    """The overrides that all trials share, and the distributions of the others by key."""
    swept = [override for override in overrides if override.is_sweep_override()]
    space = {override.get_key_element(): parse_distribution(override) for override in swept}
    others = [override for override in overrides if not override.is_sweep_override()]
    fixed = [f"{override.get_key_element()}={override.get_value_element_as_str()}" for override in others]
    if not space:
        raise ConfigurationError(
            "there is nothing to search for: give a key several values, as in "
            "'optimizer.lr=tag(log,interval(1e-4,1e-1))'"
        )
    if any(word.lower() == "dry_run=true" for word in fixed):
        raise ConfigurationError(
            "a search cannot be estimated before its values are chosen; estimate one run (dry_run=true without -m), "
            "times hydra.sweeper.trials"
        )
    return fixed, space


def parse_distribution(override: Override) -> Any:
    """Optuna's distribution for the values of an override: a choice, a range, or an interval."""
    values: Any = override.value()
    more: dict[str, Any]
    if override.is_interval_sweep():
        ends, more = [values.start, values.end], {"log": "log" in values.tags}
    elif override.is_range_sweep() and values.step > 0:
        ends, more = [*values.range()], {"step": values.step}
    else:
        return CategoricalDistribution([*override.sweep_string_iterator()])
    kind = IntDistribution if all(isinstance(end, int) for end in ends) else FloatDistribution
    return kind(ends[0], ends[-1], **more)


def open_study(folder: Path, words: Sequence[str]) -> Any:
    """The study in the sweep's folder, new or continued; `words` identify the search.

    Raises ConfigurationError where the folder holds another search: scores of two are not to be compared.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    cut_torn_line(folder / JOURNAL)  # Optuna would refuse a line that a crash has cut off
    storage = JournalStorage(journal.JournalFileBackend(str(folder / JOURNAL)))
    study = optuna.create_study(storage=storage, study_name="search", direction="maximize", load_if_exists=True)
    searched = name_sweep(words)
    if study.user_attrs.get("searched", searched) != searched:
        raise ConfigurationError(f"{folder} holds another search: choose another folder, hydra.sweep.dir=DIR")
    study.set_user_attr("searched", searched)
    return study


def next_trials(study: Any, space: dict[str, Any], plan: Plan) -> list[Any]:
    """The trials that were cut off when the search was carried out before, or else new ones; none at the end.

    A trial's values follow from the seed, its number and the trials before, whether the search was stopped or not.
    """
    cut_off = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.params.keys() == space.keys():
            cut_off.append(trial)
        else:  # the process ended while its values were chosen
            study.tell(trial.number, state=TrialState.FAIL)
    if cut_off:
        return cut_off[: plan.at_once]
    asked = len(study.get_trials(deepcopy=False))
    for number in range(asked, min(asked + plan.at_once, plan.trials)):
        seed = random.Random(f"{plan.seed} {number}").getrandbits(32)
        study.sampler = getattr(optuna.samplers, plan.sampler)(seed=seed)
        study.ask(space)
    return study.get_trials(deepcopy=False)[asked:]


def record_result(study: Any, number: int, job: JobStatus) -> bool:
    """Record in the study a trial's metric on dev, or its failure; False for a run that can be continued."""
    if job.code not in (0, FAILED, WRONG_USE, DIVERGED):
        return False
    if job.code == 0 and job.dev is not None:
        study.tell(number, job.dev)
    else:
        study.tell(number, state=TrialState.FAIL)
    return True


# --- the results on disk and in the terminal


def make_row(values: dict[str, Any], job: JobStatus) -> dict[str, Any]:
    """A trial's entry in search.json. Without a score on dev, `dev` is null; `command` carries it out alone."""
    row = {"number": job.number, "state": job.status or job.state, "dev": job.dev, "values": values}
    command = join_command(["catalyst", "run", *job.overrides])
    return row | {"directory": job.directory, "message": job.message, "command": command}


def read_rows(folder: Path) -> dict[int, dict[str, Any]]:
    """The trials of a search that was carried out before, by number."""
    path = folder / RESULTS
    return {row["number"]: row for row in json.loads(path.read_bytes())["trials"]} if path.exists() else {}


def write_rows(folder: Path, rows: dict[int, dict[str, Any]]) -> None:
    content = {"best": next(iter(rank_rows(rows)), None), "trials": [rows[number] for number in sorted(rows)]}
    write_atomically(folder / RESULTS, json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")


def rank_rows(rows: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """The trials with a score on dev, the best first; of equal ones the earlier."""
    return sorted(
        (row for row in rows.values() if row["dev"] is not None), key=lambda row: (-row["dev"], row["number"])
    )


def render_results(rows: dict[int, dict[str, Any]], folder: Path) -> RenderableType:
    """The best trials, for the terminal."""
    best = rank_rows(rows)
    if not best:
        return Text("no trial has a score on dev yet")
    table = Table("trial", "dev", *best[0]["values"], box=None, pad_edge=False)
    for row in best[:SHOWN]:
        values = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in row["values"].values())
        table.add_row(str(row["number"]), f"{row['dev']:.3f}", *(Text(escape_controls(value)) for value in values))
    scored = f"{len(best)} of {format_count(len(rows), 'trial')} have a score on dev, by which they are ranked"
    return Group(
        Text(f"{scored}; {folder / RESULTS}", "bold"),
        table,
        Text(f"best on dev: {escape_controls(best[0]['directory'])}\n  {escape_controls(best[0]['command'])}"),
        Text("A search overfits dev: run the best values with seeds of their own before you report them.", "dim"),
    )
