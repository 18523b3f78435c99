"""Runs as pandas tables, and docs/guide.md, whose examples are run and whose columns are looked for."""

import itertools
import re
import warnings
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from helpers.command import REPOSITORY
from helpers.recorded import CONFIG, evaluation, manifest, outcome, run_records, write_run
from helpers.recorded_tables import SEEDS, config, ended, write_result

import llm_catalyst
from llm_catalyst.report import dataframes
from llm_catalyst.report.dataframes import load_metrics, load_predictions, load_runs, load_trajectories
from llm_catalyst.report.statistics import Comparison, Summary, compare_paired
from llm_catalyst.runs.records import Score
from llm_catalyst.runs.resolved import Predictions, Resolved
from llm_catalyst.runs.writer import RunDirectory
from llm_catalyst.utils.validation import ConfigurationError

FIXED = [*dataframes.MADE_BY, *dataframes.CHOICES, *dataframes.SETTINGS, *dataframes.OUTCOME]


# --- one row a run


def test_a_finished_run_is_one_row_of_what_made_it_what_came_of_it_and_what_it_cost(tmp_path: Path) -> None:
    path = write_run(tmp_path / "sst2" / "run")
    runs = load_runs(tmp_path)
    assert list(runs.columns) == [*FIXED, "test_accuracy", "test_macro_f1"]
    (row,) = runs.to_dict("records")
    expected = {
        "path": str(path),
        "status": "done",
        "task": "sst2",
        "mentor": "claude_haiku",
        "seed": 3,
        "metric": "accuracy",
        "dev_metric": 0.8655,
        "test_metric": 0.8712,
        "dev_examples": 400,
        "test_examples": 1000,
        "test_macro_f1": 0.8698,
        "majority": 0.509,
        "best_stage": 2,
        "best_step": 800,
        "soft_prompt": "sombre800 film ##ness told verdict",
        "best_prompt": "Feel the tone of the review",
        "best_prompt_origin": "mentor",
        "best_prompt_test_metric": 0.7216,
        "gradient_steps": 800,
        "mentor_calls": 2,
        "input_tokens": 1624,
        "cost_usd": 0.00246,
        "peak_memory_bytes": 812 * 2**20,
        "started": pd.Timestamp("2026-01-02T03:00:00Z"),
        "finished": pd.Timestamp("2026-01-02T03:01:14Z"),
    }
    assert {name: row[name] for name in expected} == expected
    assert pd.isna(row["optimizer.lr"])  # this run's configuration names none


def test_what_is_not_known_is_na_and_never_zero(tmp_path: Path) -> None:
    write_run(tmp_path / "a", fails=True)  # one call told neither tokens nor price
    write_run(tmp_path / "b", stages=1, finished=False)
    diverged = replace(outcome(), status="diverged", best=None, test=None, test_metrics={}, best_prompt=None)
    write_result(tmp_path / "c", replace(diverged, test_best_prompt=None), config())
    runs = load_runs(tmp_path)
    assert list(runs.status) == ["done", "unfinished", "diverged"]
    assert runs.input_tokens.isna().tolist() == runs.cost_usd.isna().tolist() == [True, False, False]
    assert runs.test_metric.isna().tolist() == runs.best_prompt_dev_loss.isna().tolist() == [False, True, True]
    assert runs.mentor_calls.tolist() == [2, 1, 0]
    assert runs.train_tokens.isna().all()  # none of these runs counted them
    assert runs.padding_tokens.isna().all()
    assert runs.seconds.isna().tolist() == [False, True, False]
    assert {name: str(kind) for name, kind in runs.dtypes.items() if name in FIXED} == {
        name: "string" if kind == dataframes.TEXT else kind
        for group in (dataframes.MADE_BY, dataframes.CHOICES, dataframes.SETTINGS, dataframes.OUTCOME)
        for name, kind in group.items()
    }


def test_settings_in_which_runs_differ_have_a_column_and_what_follows_from_a_choice_has_none(tmp_path: Path) -> None:
    write_result(tmp_path / "a", 0.7, config(seed=1, task__shots=16, stage__steps=[40, 100]))
    write_result(tmp_path / "b", 0.8, config(seed=2, stage__steps=200, device="cuda"))
    write_result(tmp_path / "c", 0.9, config(mentor="random", mentor__proposals=3, mentor__seed=5, stage__steps=200))
    runs = load_runs(tmp_path)
    assert set(runs.columns) - {*FIXED, "test_accuracy"} == {"task.shots", "stage.steps"}
    assert runs["task.shots"].isna().tolist() == [False, True, True]
    assert runs["stage.steps"].tolist() == ["[40, 100]", 200, 200]


def test_a_folder_without_runs_gives_an_empty_table_with_its_columns(tmp_path: Path) -> None:
    assert list(load_runs(tmp_path).columns) == FIXED
    for table in (load_runs(tmp_path), load_trajectories(tmp_path), load_metrics(tmp_path)):
        assert len(table) == 0
        assert {"path", "seed"} <= set(table.columns)


def test_a_place_that_is_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="give the folder of a run, or one around runs"):
        load_runs(tmp_path / "gone")


def test_a_run_that_cannot_be_read_does_not_count_and_a_warning_says_why(tmp_path: Path) -> None:
    write_run(tmp_path / "whole")
    (write_run(tmp_path / "changed") / "outcome.json").write_text("{}")
    (write_run(tmp_path / "broken", finished=False) / "trajectory.jsonl").write_text("{}\n")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert len(load_runs(tmp_path)) == 2
        assert set(load_trajectories(tmp_path).path) == {str(tmp_path / "whole")}
    of_runs, *of_trajectories = (str(warning.message) for warning in told)
    assert "changed does not count: outcome.json is changed" in of_runs
    assert of_runs in of_trajectories
    assert any("trajectory.jsonl, line 1 is not a Snapshot record" in words for words in of_trajectories)
    assert {warning.filename for warning in told} == {__file__}


# --- one row a record


def test_trajectories_have_a_row_for_each_projected_prompt(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", stages=1, finished=False)
    table = load_trajectories(tmp_path)
    assert {name: str(kind) for name, kind in table.dtypes.items()} == {
        name: "string" if kind == dataframes.TEXT else kind for name, kind in dataframes.TRAJECTORY.items()
    }
    assert table.groupby("path").step.agg(list).tolist() == [[*range(10, 801, 10)], [*range(10, 201, 10)]]
    assert table.iloc[0].to_dict() == {
        "path": str(tmp_path / "a"),
        "seed": 3,
        "stage": 0,
        "step": 10,
        "member": 0,
        "train_loss": pytest.approx(0.695),
        "text": "sombre10 film ##ness told verdict",
        "similarity": 0.61,
    }


def test_metrics_have_a_row_for_each_evaluation_and_a_column_for_each_metric(tmp_path: Path) -> None:
    directory = RunDirectory(write_run(tmp_path / "run", stages=0, finished=False))
    directory.append(replace(evaluation(0, 50, 0.66, 0.57), projected=Score(0.69, 0.52, 400)))
    directory.close()
    table = load_metrics(tmp_path)
    assert list(table.columns) == [*dataframes.METRICS, "accuracy", "macro_f1"]
    assert table.step.tolist() == [0, 50]
    assert table.constant.tolist() == ["negative", pd.NA]
    assert table.loss.tolist() == [0.7012, 0.66]
    assert table.accuracy.tolist() == [0.491, 0.57]
    assert table.projected_loss.tolist() == [pd.NA, 0.69]
    assert table.projected_metric.tolist() == [pd.NA, 0.52]


def test_every_snapshot_and_evaluation_has_its_row(tmp_path: Path) -> None:
    records = list(run_records())
    write_run(tmp_path / "run")
    kinds = [type(record).__name__ for record in records]
    assert len(load_trajectories(tmp_path)) == kinds.count("Snapshot")
    assert len(load_metrics(tmp_path)) == kinds.count("Evaluation")


def test_predictions_have_a_row_for_each_row_of_test_with_the_names_of_its_labels(tmp_path: Path) -> None:
    write_run(tmp_path / "earlier")
    directory = RunDirectory(tmp_path / "run")
    directory.write_config(CONFIG, manifest(), Resolved({}, ("bad", "good"), (), (), {}))
    directory.finish(outcome(), Predictions("test", (7, 9), (0, 1), (1, 1), None, (0, 0)))
    directory.close()
    table = load_predictions(tmp_path)
    assert list(table.columns) == list(dataframes.PREDICTIONS)
    assert table.best_prompt.isna().all()
    assert table.drop(columns=["path", "best_prompt"]).to_dict("list") == {
        "seed": [3, 3],
        "split": ["test", "test"],
        "row": [7, 9],
        "label": ["bad", "good"],
        "soft_prompt": ["good", "good"],
        "start": ["bad", "bad"],
    }


# --- the package


def test_runs_are_loaded_without_torch_and_the_package_without_pandas(
    python: Callable[[str], str], tmp_path: Path
) -> None:
    write_run(tmp_path / "run")
    code = f"""
import sys, llm_catalyst
print("pandas" in sys.modules)
print(*map(len, (load({str(tmp_path)!r}) for load in (
    llm_catalyst.load_runs, llm_catalyst.load_trajectories, llm_catalyst.load_metrics))))
print(sorted({{"torch", "transformers", "datasets", "hydra"}} & set(sys.modules)))
"""
    assert python(code).split("\n") == ["False", "1 80 17", "[]", ""]


def test_the_package_names_what_a_notebook_needs_and_nothing_else() -> None:
    assert {"load_runs", "load_trajectories", "load_metrics", "__version__"} <= set(dir(llm_catalyst))
    assert llm_catalyst.load_runs is load_runs
    with pytest.raises(AttributeError, match="has no attribute 'load_all'"):
        llm_catalyst.load_all  # noqa: B018


# --- docs/guide.md

GUIDE = (REPOSITORY / "docs" / "guide.md").read_text(encoding="utf-8")
PAGE = GUIDE.partition("\n## Analysis\n")[2].partition("\n## Many runs\n")[0]


def columns_of_table(number: int) -> list[str]:
    """The names in the first cells of one of the page's tables."""
    tables = re.findall(r"(?:^\|.*\n)+", PAGE, flags=re.M)
    cells = [row.split("|")[1] for row in tables[number].splitlines()]
    return [name for cell in cells for name in re.findall(r"`([\w.]+)`", cell)]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `outputs` in it: two tasks, two mentors, five seeds; one run diverged."""
    home = tmp_path_factory.mktemp("notebook")
    for task, mentor, seed in itertools.product(("copa", "sst2"), ("none", "evolution"), SEEDS):
        gain = seed**2 / 500 if mentor == "evolution" else 0
        test = None if (task, mentor, seed) == ("copa", "none", 5) else 0.7 + gain
        directory = RunDirectory(home / "outputs" / task / mentor / f"seed{seed}")
        choices = {"task": task, "mentor": mentor}
        directory.write_config(yaml.safe_dump(config(task, mentor, seed)), replace(manifest(), choices=choices))
        for record in run_records():
            directory.append(record)
        directory.finish(ended(test))
        directory.close()
    return home


def test_the_examples_of_the_page_give_what_it_says(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(outputs)
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE, flags=re.S):
        exec(compile(code, "docs/guide.md", "exec"), names)
    assert names["table"]["count"].tolist() == [5, 4, 5, 5]
    assert names["table"].loc[("sst2", "evolution"), "mean"] == pytest.approx(0.722)
    assert names["curve"].shape == (17, 2)
    assert set(names["against"]) == {"copa", "sst2"}
    assert [found.pairs for found in names["against"].values()] == [4, 5]
    assert names["against"]["sst2"].difference == pytest.approx(0.022)
    assert len(names["ends"]) == 20 * 3
    shown = capsys.readouterr().out
    warning = "5 pairs that differ: the Wilcoxon test cannot give less than p = 0.0625"
    assert warning in shown
    assert warning in PAGE
    assert "best of 3" in shown


def test_the_page_names_every_column_and_none_that_is_not_there() -> None:
    assert columns_of_table(0) == FIXED
    own = ["path", "seed", "stage", "step", "member"]
    assert sorted(columns_of_table(1)) == sorted(dataframes.METRICS)
    assert sorted(columns_of_table(2)) == sorted(dataframes.TRAJECTORY)
    assert columns_of_table(1)[:5] == columns_of_table(2)[:5] == own
    assert columns_of_table(3) == [field.name for field in fields(Comparison)]
    for field in fields(Summary):
        assert f"`{field.name}`" in PAGE


def test_the_page_gives_the_smallest_p_values_that_the_test_can_have() -> None:
    rows = re.findall(r"^  \|(.*)\|$", PAGE, flags=re.M)
    pairs, least = ([cell.strip() for cell in row.split("|")[1:]] for row in (rows[0], rows[2]))
    best = [compare_paired(range(1, int(n) + 1), [0] * int(n)).wilcoxon_p for n in pairs]
    assert [float(p) for p in least] == pytest.approx(best, rel=0.01)


def test_folders_may_be_given_one_by_one_or_in_a_list(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name)
    a, b = tmp_path / "a", str(tmp_path / "b")
    for load in (dataframes.load_runs, dataframes.load_trajectories, dataframes.load_metrics):
        assert load(a, b).equals(load([a, b]))
        assert load(a, b)["path"].nunique() == 2
