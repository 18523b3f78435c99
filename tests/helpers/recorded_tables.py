"""Tables of finished and unfinished runs, written without training: for the tests of what reports on them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from helpers import recorded

from llm_catalyst.config.table import Line, Table, list_runs, write_table
from llm_catalyst.runs.records import Outcome, Score
from llm_catalyst.runs.writer import RunDirectory

SEEDS = (1, 2, 3, 4, 5)


def config(task: str = "sst2", mentor: str = "none", seed: int = 1, **settings: Any) -> dict[str, Any]:
    """A configuration; `settings` have their dots as double underscores: optimizer__lr=0.01."""
    node: dict[str, Any] = {
        "seed": seed,
        "batch_size": 32,
        "device": "cpu",
        "prompt": {"length": 8},
        "optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.01},
        "task": {"name": task, "metric": "accuracy", "shots": None, "path": None},
        "backbone": {"name": "sentence-transformers/all-MiniLM-L6-v2"},
        "mentor": {"_target_": f"llm_catalyst.mentors.controls.{mentor.title()}", "proposals": 3},
    }
    for key, value in settings.items():
        *above, last = key.split("__")
        inner = node
        for name in above:
            inner = inner.setdefault(name, {})
        inner[last] = value
    return node


def ended(test: float | None, **changes: Any) -> Outcome:
    """How a run ended whose reported metric is `test`; None: it diverged."""
    outcome = replace(
        recorded.outcome(),
        status="done" if test is not None else "diverged",
        test=None if test is None else Score(1 - test, test, 1000),
        test_metrics={} if test is None else {"accuracy": test},
    )
    return replace(outcome, **changes)


def write_result(
    path: Path,
    outcome: Outcome | float | None,
    node: Mapping[str, Any],
    choices: Mapping[str, str] | None = None,
    **made: Any,
) -> Path:
    """A run directory with an outcome (a number: one with this metric; None: it is not finished)."""
    mentor = node["mentor"]["_target_"].rpartition(".")[2].lower()
    named = {"task": node["task"]["name"], "mentor": mentor, "backbone": "minilm"} | dict(choices or {})
    command = (*(f"{group}={name}" for group, name in named.items()), f"seed={node['seed']}")
    manifest = replace(recorded.manifest(), command=command, choices=named)
    directory = RunDirectory(path)
    directory.write_config(yaml.safe_dump(dict(node)), replace(manifest, **made))
    if outcome is not None:
        directory.finish(outcome if isinstance(outcome, Outcome) else ended(outcome))
    directory.close()
    return path


def write_results(
    folder: Path,
    scores: Mapping[tuple[str, str], Sequence[Outcome | float | None]],
    seeds: Sequence[int] = SEEDS,
    reference: str | None = None,
    **table: Any,
) -> Path:
    """A table in `folder`: by row and column an outcome for each seed, or its metric; of the others there is no run."""
    rows, columns = (tuple(dict.fromkeys(place[i] for place in scores)) for i in (0, 1))
    folder.mkdir(parents=True, exist_ok=True)
    layout = Table(
        name=folder.name,
        title="A title",
        rows=tuple(map(Line, rows)),
        columns=tuple(map(Line, columns)),
        seeds=tuple(seeds),
        reference=reference,
    )
    layout = replace(layout, **table)
    write_table(layout, folder)
    for cell in list_runs(layout):
        outcomes = dict(zip(seeds, scores.get((cell.row, cell.column), ()), strict=False))
        if cell.seed in outcomes:
            node = config(cell.column.lower(), "none" if cell.row == reference else "gpt4", cell.seed)
            write_result(folder / cell.folder, outcomes[cell.seed], node)
    return folder
