"""A search for the values with the best metric on dev, by Optuna: `catalyst run -m hydra/sweeper=optuna …`.

<sweep folder>/study.journal   Optuna's own record of the study, by which the same command goes on with it
<sweep folder>/search.json     the trials, and which is the best
"""

import json
import random
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from llm_catalyst.config.errors import FAILED, WRONG_USE
from llm_catalyst.config.overrides import name_sweep
from llm_catalyst.sweeps.launchers import launch_jobs
from llm_catalyst.sweeps.status import JobStatus, conclude_sweep
from llm_catalyst.sweeps.sweep import Sweep, begin_sweep
from llm_catalyst.utils.files import write_atomically
from llm_catalyst.utils.format import format_count
from llm_catalyst.utils.terminal import escape_controls
from llm_catalyst.utils.validation import ConfigurationError, check_at_least, check_choice

JOURNAL, RESULTS = "study.journal", "search.json"
SAMPLERS = ("TPESampler", "RandomSampler", "GPSampler")
SHOWN = 10  # trials of the printed table


@dataclass(frozen=True)
class Plan:
    """How many trials in all and side by side, and who chooses their values."""

    trials: int
    at_once: int
    sampler: str
    seed: int

    def __post_init__(self) -> None:
        check_at_least("hydra.sweeper.trials", self.trials, 1)
        check_at_least("hydra.sweeper.at_once", self.at_once, 1)
        check_choice("hydra.sweeper.sampler", self.sampler, SAMPLERS)


def run_search(sweep: Sweep, overrides: Sequence[Override], plan: Plan) -> None:
    """Carry out trials until there are `plan.trials`, tell the best, and end the process where not all have finished.

    A trial whose run fails is a failed trial; one whose run was cut off is gone on with by the same command. Where
    Optuna is not installed, ConfigurationError says so.
    """
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(f"a search needs Optuna ({error}): pip install 'llm-catalyst[sweep]'") from None
    fixed, space = split_overrides(overrides)
    begin_sweep(sweep)
    study = open_study(sweep.folder, [*fixed, *(f"{key}={values}" for key, values in space.items())])
    rows = read_rows(sweep.folder)
    try:
        with conclude_sweep(sweep.folder):
            while trials := next_trials(study, space, plan):
                jobs = {t.number: [*fixed, *(f"{key}={value}" for key, value in t.params.items())] for t in trials}
                notes = launch_jobs(sweep, jobs)
                rows |= {trial.number: make_row(trial.params, notes[trial.number]) for trial in trials}
                write_rows(sweep.folder, rows)
                told = [tell_study(study, trial.number, notes[trial.number]) for trial in trials]
                if not all(told):
                    break
    finally:
        Console(soft_wrap=True).print(render_results(rows, sweep.folder))


def split_overrides(overrides: Sequence[Override]) -> tuple[list[str], dict[str, Any]]:
    """The overrides that all trials share, and the distributions of the others by key."""
    fixed, space = [], {}
    for override in overrides:
        if override.is_sweep_override():
            space[override.get_key_element()] = parse_distribution(override)
        else:
            fixed.append(f"{override.get_key_element()}={override.get_value_element_as_str()}")
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
    """Optuna's distribution for the values that an override gives: a choice, a range, or an interval."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    values: Any = override.value()
    if override.is_interval_sweep():
        whole = isinstance(values.start, int) and isinstance(values.end, int)
        kind = IntDistribution if whole else FloatDistribution
        return kind(values.start, values.end, log="log" in values.tags)
    if override.is_range_sweep() and values.step > 0:
        steps = list(values.range())
        kind = IntDistribution if isinstance(steps[0], int) else FloatDistribution
        return kind(steps[0], steps[-1], step=values.step)
    return CategoricalDistribution([*override.sweep_string_iterator()])


def open_study(folder: Path, words: Sequence[str]) -> Any:
    """The study in the sweep's folder, new or gone on with; `words` say what it searches.

    Raises ConfigurationError where the folder holds another search: scores of two are not to be compared.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = folder / JOURNAL
    if journal.exists() and not (content := journal.read_bytes()).endswith(b"\n"):
        write_atomically(journal, content[: content.rfind(b"\n") + 1])  # Optuna would refuse what a crash has cut off
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(journal)))
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
    import optuna
    from optuna.trial import TrialState

    cut_off = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for trial in cut_off:
        if trial.params.keys() != space.keys():  # the end came while its values were chosen
            study.tell(trial.number, state=TrialState.FAIL)
    if cut_off := [trial for trial in cut_off if trial.params.keys() == space.keys()]:
        return cut_off[: plan.at_once]
    asked = len(study.get_trials(deepcopy=False))
    new = range(asked, min(asked + plan.at_once, plan.trials))
    for number in new:
        seed = random.Random(f"{plan.seed} {number}").getrandbits(32)
        study.sampler = getattr(optuna.samplers, plan.sampler)(seed=seed)
        study.ask(space)
    return [study.get_trials(deepcopy=False)[number] for number in new]


def tell_study(study: Any, number: int, note: JobStatus) -> bool:
    """Tell the study what a trial's run reached on dev, or that it failed; False where it can be gone on with."""
    from optuna.trial import TrialState

    if note.code == 0 and note.dev is not None:
        study.tell(number, note.dev)
    elif note.code in (0, FAILED, WRONG_USE):
        study.tell(number, state=TrialState.FAIL)
    else:
        return False
    return True


# --- what is left behind


def make_row(values: dict[str, Any], note: JobStatus) -> dict[str, Any]:
    """A trial as search.json has it. Without a score on dev, `dev` is null; `command` carries it out alone."""
    told = {"number": note.number, "state": note.status or note.state, "dev": note.dev, "values": values}
    command = shlex.join(["catalyst", "run", *note.overrides])
    return told | {"directory": note.directory, "message": note.message, "command": command}


def read_rows(folder: Path) -> dict[int, dict[str, Any]]:
    """The trials of a search that was carried out before, by number."""
    path = folder / RESULTS
    return {one["number"]: one for one in json.loads(path.read_bytes())["trials"]} if path.exists() else {}


def write_rows(folder: Path, rows: dict[int, dict[str, Any]]) -> None:
    best = rank_rows(rows)[:1]
    content = {"best": best[0] if best else None, "trials": [rows[number] for number in sorted(rows)]}
    write_atomically(folder / RESULTS, json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")


def rank_rows(rows: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """The trials with a score on dev, the best first; of equal ones the earlier."""
    return sorted(
        (one for one in rows.values() if one["dev"] is not None), key=lambda one: (-one["dev"], one["number"])
    )


def render_results(rows: dict[int, dict[str, Any]], folder: Path) -> RenderableType:
    """The best trials at a glance."""
    best = rank_rows(rows)
    if not best:
        return Text("no trial has a score on dev yet")
    table = Table("trial", "dev", *best[0]["values"], box=None, pad_edge=False)
    for one in best[:SHOWN]:
        values = [escape_controls(format_short(value)) for value in one["values"].values()]
        table.add_row(str(one["number"]), f"{one['dev']:.3f}", *map(Text, values))
    return Group(
        Text(
            f"{len(best)} of {format_count(len(rows), 'trial')} have a score on dev, which chose; {folder / RESULTS}",
            "bold",
        ),
        table,
        Text(f"best on dev: {escape_controls(best[0]['directory'])}\n  {escape_controls(best[0]['command'])}"),
        Text("A search overfits dev: run the best values with seeds of their own before you report them.", "dim"),
    )


def format_short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
