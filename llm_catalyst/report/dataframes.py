"""Runs as pandas tables, for a notebook: `llm_catalyst.load_runs("outputs")` (docs/analysis.md).

An unknown value is pandas' NA, never 0. Tables are made from the records alone, without torch.
"""

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from llm_catalyst.report.runs import Run, read_or_note, to_json_text
from llm_catalyst.runs.analysis import outcome_columns, score_columns, sum_usage, usage_columns
from llm_catalyst.runs.reader import FILES, find_runs, read_lines, read_predictions, read_resolved
from llm_catalyst.runs.records import Evaluation, LLMCall, Snapshot
from llm_catalyst.utils.validation import flatten_leaves

Row = dict[str, Any]
Places = str | Path | Iterable[str | Path]  # a folder, or several

TEXT, WHOLE, REAL, DATE = "string", "Int64", "Float64", "datetime64[us, UTC]"
# The columns that every table of runs has. Between settings and outcome stand the settings in which runs differ, and
# at the end the other metrics of the reporting split, each as test_<name>.
MADE_BY = dict.fromkeys(("path", "status"), TEXT)
GROUPS = ("task", "backbone", "head", "doer", "optimizer", "mentor", "strategy", "protocol", "experiment")
CHOICES = dict.fromkeys(GROUPS, TEXT)
SETTINGS = {"seed": WHOLE, "optimizer.lr": REAL, "batch_size": WHOLE, "prompt.length": WHOLE}
SCORES = ("dev_metric", "dev_loss", "test_metric", "test_loss")  # in [0, 1], losses in nats; docs/guide.md has all
OUTCOME = {
    "data": TEXT,
    "metric": TEXT,
    **dict.fromkeys(SCORES, REAL),
    **dict.fromkeys(("dev_examples", "test_examples"), WHOLE),
    **{f"start_{name}": REAL for name in SCORES},
    "reported_on": TEXT,
    "majority": REAL,
    **dict.fromkeys(("best_stage", "best_step"), WHOLE),
    "soft_prompt": TEXT,
    "similarity": REAL,
    **dict.fromkeys(("best_prompt", "best_prompt_origin"), TEXT),
    **{f"best_prompt_{name}": REAL for name in SCORES},
    **dict.fromkeys(("gradient_steps", "train_examples", "scored_examples", "train_tokens", "padding_tokens"), WHOLE),
    **dict.fromkeys(("mentor_calls", "input_tokens", "output_tokens"), WHOLE),
    "cost_usd": REAL,
    "fallbacks": WHOLE,
    **dict.fromkeys(("seconds", "compile_seconds"), REAL),
    "peak_memory_bytes": WHOLE,
    "device": TEXT,
    **dict.fromkeys(("started", "finished"), DATE),
}
PLACE = {"path": TEXT} | dict.fromkeys(("seed", "stage", "step", "member"), WHOLE)
TRAJECTORY = PLACE | {"train_loss": REAL, "text": TEXT, "similarity": REAL}
ANSWERS = ("soft_prompt", "best_prompt", "start")
PREDICTIONS = {"path": TEXT, "seed": WHOLE, "split": TEXT, "row": WHOLE, **dict.fromkeys(("label", *ANSWERS), TEXT)}
METRICS = {
    **PLACE,
    "split": TEXT,
    **dict.fromkeys(("loss", "metric"), REAL),
    "examples": WHOLE,
    "constant": TEXT,
    **dict.fromkeys(("projected_loss", "projected_metric"), REAL),
}


def load_runs(*places: Places) -> pd.DataFrame:
    """One row for each run directory at or below `places`: settings, outcome and costs.

    Each setting in which runs differ has a column of its dotted key (`stage.steps`; a list is JSON text). A key below
    a choice counts as differing between runs of the same choice: what follows from mentor=gpt4 needs no column. Tokens
    and cost are NA if those of any call are unknown. An unfinished run has the status "unfinished". A run that cannot
    be read is left out with a warning.

    Raises:
        ConfigurationError: a place is no folder.
    """
    found = read_runs_and_records(places, LLMCall)
    keys = [key for key in find_differing_keys([run for run, _ in found]) if key not in SETTINGS]
    rows = [
        {"path": str(run.path), "status": run.outcome.status if run.outcome else "unfinished"}
        | {group: run.manifest.choices.get(group) for group in CHOICES}
        | ({"doer": "none"} if run.manifest.choices.get("optimizer") == "none" else {})  # as it was chosen once
        | select_settings(run.config, [*SETTINGS, *keys])
        | {"data": run.source or None, "metric": run.metric, "started": run.manifest.started}
        | usage_columns(sum_usage(exchanges))
        | (outcome_columns(run.outcome) if run.outcome else {})
        for run, exchanges in found
    ]
    return make_frame(rows, {**MADE_BY, **CHOICES, **SETTINGS, **dict.fromkeys(keys), **OUTCOME})


def load_trajectories(*places: Places) -> pd.DataFrame:
    """One row for each projected prompt that the runs at or below `places` passed through (see `load_runs`)."""
    return frame_of_records(read_runs_and_records(places, Snapshot), TRAJECTORY, lambda s: {"text": s.prompt.text})


def load_metrics(*places: Places) -> pd.DataFrame:
    """One row for each evaluation of the runs at or below `places`, with all its metrics (see `load_runs`)."""

    def describe(e: Evaluation) -> Row:
        return {**vars(e.score), **score_columns("projected", e.projected), **e.metrics}

    return frame_of_records(read_runs_and_records(places, Evaluation), METRICS, describe)


def load_predictions(*places: Places) -> pd.DataFrame:
    """One row for each row of the reporting split of the finished runs at or below `places` (see `load_runs`).

    `row` is its number in its file; `label` the true label or first reference, and `soft_prompt`, `best_prompt`,
    `start` what the prompts of those names answered; `soft_prompt_score` and so on the task's metric of generated
    answers. Runs of earlier revisions have none.
    """
    rows, problems = [], list[str]()
    for path in find_runs(*list_paths(places)):
        run = read_or_note(path, problems)
        try:
            rows += [] if run is None else list_predictions(run)
        except (OSError, ValueError) as error:
            problems.append(f"{path} does not count: {error}")
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    return make_frame(rows, PREDICTIONS)


def list_predictions(run: Run) -> list[Row]:
    """A row for each prediction of a run, with the names of the labels."""
    found, resolved = read_predictions(run.path), read_resolved(run.path)
    if found is None or resolved is None:
        return []
    answers = {"label": found.labels, **{name: getattr(found, name) for name in ANSWERS}}
    named: dict[str, list[Any]] = {
        name: [resolved.labels[i] if isinstance(i, int) else i for i in own]
        for name, own in answers.items()
        if own is not None
    }
    named |= {f"{name}_score": list(marks) for name, marks in found.marks.items()}
    place: Row = {"path": str(run.path), "seed": run.seed, "split": found.split}
    return [place | {"row": row} | {n: own[i] for n, own in named.items()} for i, row in enumerate(found.rows)]


def list_paths(places: Iterable[Places]) -> list[Path]:
    """The folders of `load_runs`, each given alone or in a list."""
    return [Path(one) for place in places for one in ([place] if isinstance(place, str | Path) else place)]


def read_runs_and_records(places: Sequence[Places], kind: type[Any]) -> list[tuple[Run, tuple[Any, ...]]]:
    """Each run with its records of a kind; one that cannot be read is left out with a warning."""
    found, problems = [], list[str]()
    for path in find_runs(*list_paths(places)):
        run = read_or_note(path, problems)
        try:
            found += [] if run is None else [(run, read_lines(path / FILES[kind], kind))]
        except (OSError, ValueError) as error:
            problems.append(f"{path} does not count: {error}")
    for problem in problems:
        warnings.warn(problem, stacklevel=3)  # where a loader was called
    return found


def frame_of_records(
    found: Sequence[tuple[Run, Sequence[Any]]], columns: Mapping[str, str], more: Callable[[Any], Row]
) -> pd.DataFrame:
    """A row for each record: those of its fields that are columns, and the values of `more`."""
    rows = [
        {name: value for name, value in vars(record).items() if name in columns}
        | {"path": str(run.path), "seed": run.seed}
        | more(record)
        for run, records in found
        for record in records
    ]
    return make_frame(rows, columns)


def find_differing_keys(runs: Sequence[Run]) -> list[str]:
    """The settings in which runs differ though they made the same choice for the group of the key."""
    values: dict[str, dict[str | None, set[str | None]]] = defaultdict(lambda: defaultdict(set))
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    for run in runs:
        for key in keys:
            values[key][run.manifest.choices.get(key.partition(".")[0])].add(run.settings.get(key))
    return [key for key in keys if any(len(found) > 1 for found in values[key].values())]


def select_settings(config: Mapping[str, Any], keys: Sequence[str]) -> Row:
    """The settings of these dotted keys; a list as JSON text."""
    settings = dict(flatten_leaves(config, whole_lists=True))
    found = {key: settings.get(key) for key in keys}
    return {key: to_json_text(value) if isinstance(value, list) else value for key, value in found.items()}


def make_frame(rows: Sequence[Row], columns: Mapping[str, str | None]) -> pd.DataFrame:
    """The rows with these columns, and after them all others that occur; a missing value is NA."""
    names = dict.fromkeys([*columns, *(name for row in rows for name in row)])
    return pd.DataFrame({name: make_array([row.get(name) for row in rows], columns.get(name)) for name in names})


def make_array(values: Sequence[Any], kind: Any) -> Any:
    """The values as a pandas array that can hold NA; without a kind, of a type that fits all of them."""
    if kind is None:
        words = [isinstance(value, str) for value in values if value is not None]
        kind = TEXT if all(words) else object if any(words) else None
    return pd.array([pd.NA if value is None else value for value in values], dtype=kind)
