"""Runs are gathered into rows and columns: none is lost in silence, and none stands where it does not belong."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import recorded
from helpers.recorded_tables import config, ended, write_result, write_results
from hypothesis import given
from hypothesis import strategies as st

from llm_catalyst.config.table import FILE, read_table, write_table
from llm_catalyst.report.results import Results, collect_results
from llm_catalyst.report.runs import Run, column_names, row_names, sort_names
from llm_catalyst.utils.validation import ConfigurationError

TWO = {("Alone", "BoolQ"): (0.7, 0.8, 0.9), ("+ GPT-4", "BoolQ"): (0.75, 0.85, 0.95)}


def seeds_of(results: Results, row: str, column: str) -> list[int]:
    return [run.seed for run in results.cells[row, column].runs]


def one(*places: Path) -> Results:
    (results,) = collect_results(places)
    return results


# --- tables


def test_a_table_is_laid_out_as_it_says_and_filled_by_path(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "nlu", TWO, (1, 2, 3), "Alone", note="A note.", figures=("cost",))
    results = one(folder)
    assert (results.rows, results.columns) == (("Alone", "+ GPT-4"), ("BoolQ",))
    assert (results.title, results.note, results.figures) == ("A title", "A note.", ("cost",))
    assert (results.reference, results.metric, results.source) == ("Alone", "accuracy", folder)
    assert [run.outcome and run.outcome.test and run.outcome.test.metric for run in results.runs] == [
        *TWO["Alone", "BoolQ"],
        *TWO["+ GPT-4", "BoolQ"],
    ]
    assert results.command == f"catalyst report {folder}"
    assert results.problems == ()
    write_table(replace(read_table(folder / FILE), command="catalyst reproduce nlu"), folder)
    assert one(folder).command == "catalyst reproduce nlu"


def test_runs_that_are_unfinished_or_missing_count_as_such(tmp_path: Path) -> None:
    figures = {("a", "x"): (0.5, None), ("b", "x"): ()}
    results = one(write_results(tmp_path / "t", figures, (1, 2, 3)))
    entry = results.cells["a", "x"]
    assert [run.outcome is not None for run in entry.runs] == [True, False]
    assert entry.seeds == (1, 2, 3)
    assert results.cells["b", "x"].runs == ()


def test_tables_and_loose_runs_below_one_place_are_kept_apart(tmp_path: Path) -> None:
    write_results(tmp_path / "tables" / "nlu", TWO, (1, 2, 3))
    write_result(tmp_path / "sst2" / "run", 0.5, config())
    table, loose = collect_results([tmp_path])
    assert (table.source, len(table.runs)) == (tmp_path / "tables" / "nlu", 6)
    assert [run.path for run in loose.runs] == [tmp_path / "sst2" / "run"]


def test_a_part_of_a_table_is_reported_as_loose_runs(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "nlu", TWO, (1, 2, 3))
    assert one(folder / "alone").columns == ("boolq",)
    run = folder / "alone" / "boolq" / "seed1"
    assert [found.path for found in one(run).runs] == [run]


def test_a_table_without_any_run_is_a_table_of_blanks(tmp_path: Path) -> None:
    results = one(write_results(tmp_path / "t", {("a", "x"): ()}, (1, 2)))
    assert results.cells["a", "x"].seeds == (1, 2)
    assert results.runs == []


def test_a_run_that_is_no_cell_or_has_another_seed_is_named_and_does_not_count(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "t", {("a", "x"): (0.5, 0.6)}, (1, 2))
    write_result(folder / "old" / "x" / "seed1", 0.9, config())
    shutil.copytree(folder / "a" / "x" / "seed1", folder / "a" / "x" / "seed2", dirs_exist_ok=True)
    results = one(folder)
    assert seeds_of(results, "a", "x") == [1]
    assert results.problems == (
        f"{folder}/a/x/seed2 does not count: it holds a run of seed 1",
        f"{folder} holds 1 run outside its table's cells: {folder}/old/x/seed1",
    )


def test_figures_that_a_user_gave_lie_beside_the_table(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "t", {("a", "x"): (0.5,)}, (1,))
    assert one(folder).published == {}
    (folder / "published.yaml").write_text("a:\n  x: {mean: 0.5, source: someone}\n")
    assert one(folder).published["a", "x"].source == "someone"


# --- damage


def flip(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"metric": 0.5', b'"metric": 0.9', 1))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda run: flip(run / "outcome.json"), "outcome.json is changed"),
        (lambda run: (run / "outcome.json").write_text("{"), "outcome.json is changed"),
        (lambda run: (run / "manifest.json").write_text("[]"), "manifest.json is changed"),
        (lambda run: (run / "config.yaml").write_text("seed: 7"), "config.yaml is changed"),
        (lambda run: (run / "config.yaml").unlink(), "config.yaml"),
        (lambda run: ((run / "SHA256SUMS").unlink(), (run / "outcome.json").write_text("{}")), "not an Outcome record"),
        (lambda run: ((run / "SHA256SUMS").unlink(), (run / "config.yaml").write_text("- a")), "holds no keys"),
        (lambda run: ((run / "SHA256SUMS").unlink(), (run / "config.yaml").write_text("a: 1")), "holds no seed"),
        (lambda run: ((run / "SHA256SUMS").unlink(), (run / "config.yaml").write_text("a: [")), "does not count"),
        (lambda run: ((run / "SHA256SUMS").unlink(), (run / "config.yaml").write_bytes(b"\xff")), "does not count"),
    ],
)
def test_a_damaged_run_is_named_and_the_others_count(tmp_path: Path, damage: Callable[[Path], Any], words: str) -> None:
    folder = write_results(tmp_path / "t", {("a", "x"): (0.5, 0.6, 0.7)}, (1, 2, 3))
    damage(folder / "a" / "x" / "seed1")
    results = one(folder)
    assert seeds_of(results, "a", "x") == [2, 3]
    assert results.cells["a", "x"].seeds == (1, 2, 3)
    assert f"{folder}/a/x/seed1 does not count" in results.problems[-1]
    assert words in results.problems[-1]


def test_a_run_whose_sums_are_missing_counts_and_is_named(tmp_path: Path) -> None:
    write_result(tmp_path / "run", 0.5, config())
    (tmp_path / "run" / "SHA256SUMS").unlink()
    results = one(tmp_path)
    assert len(results.runs) == 1
    assert results.problems == (f"{tmp_path}/run/SHA256SUMS is missing: nothing vouches for the run's files",)


def test_a_place_without_a_readable_run_still_tells_why(tmp_path: Path) -> None:
    write_result(tmp_path / "run", 0.5, config())
    (tmp_path / "run" / "manifest.json").write_text("")
    results = one(tmp_path)
    assert (results.rows, results.runs) == ((), [])
    assert "manifest.json is changed" in results.problems[0]


def test_a_place_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no run directory lies below"):
        collect_results([tmp_path])
    with pytest.raises(ConfigurationError, match="nowhere"):
        collect_results([tmp_path / "nowhere"])


# --- runs side by side


def sweep(folder: Path, *nodes: dict[str, Any], **made: Any) -> Results:
    for number, node in enumerate(nodes):
        choices = {"backbone": "minilm" if "MiniLM" in node["backbone"]["name"] else "roberta"}
        write_result(folder / f"{number}", 0.5, node, choices, **made)
    return one(folder)


def test_a_sweep_over_mentors_and_tasks_has_a_row_for_each_mentor_and_a_column_for_each_task(tmp_path: Path) -> None:
    nodes = [config(task, mentor, seed) for task in ("sst2", "rte") for mentor in ("none", "gpt4") for seed in (1, 2)]
    results = sweep(tmp_path, *nodes)
    assert (results.rows, results.columns) == (("none", "gpt4"), ("rte", "sst2"))
    assert results.reference == "none"
    assert seeds_of(results, "gpt4", "sst2") == [1, 2]
    assert results.problems == ()


def of_data(source: str, sha256: str) -> dict[str, Any]:
    return {"source": source, "test": {"rows": 9, "labels": {"0": 4, "1": 5}, "sha256": sha256}}


def write_runs_on(folder: Path, *data: tuple[str, str, int]) -> Results:
    """Runs of one task, each on the data at a place with a hash of its test split, by a seed."""
    for number, (source, sha256, seed) in enumerate(data):
        write_result(folder / f"{number}", 0.5 + number / 10, config("local", seed=seed), data=of_data(source, sha256))
    return one(folder)


def test_runs_of_one_task_on_different_files_stand_in_different_columns(tmp_path: Path) -> None:
    results = write_runs_on(tmp_path, ("/d/one.csv", "a", 1), ("/d/two.csv", "b", 1), ("/d/one.csv", "a", 2))
    assert results.columns == ("local, path=one.csv", "local, path=two.csv")
    assert [len(results.cells[row, column].runs) for row in results.rows for column in results.columns] == [2, 1]
    assert results.problems == ()


def test_other_training_rows_beside_one_test_file_are_other_data(tmp_path: Path) -> None:
    """`content` is a hash of all rows, which a manifest has beside those of its splits."""
    for number, (source, content) in enumerate([("/d/clean", "aa11"), ("/d/noisy", "bb22"), ("/moved/clean", "aa11")]):
        data = {**of_data(source, "the same"), "content": content}
        write_result(tmp_path / f"{number}", 0.5, config("local", seed=1 + number), data=data)
    results = one(tmp_path)
    assert results.columns == ("local, path=clean", "local, path=noisy")
    assert [len(results.cells[row, column].runs) for row in results.rows for column in results.columns] == [2, 1]


def test_a_file_that_was_changed_in_its_place_makes_other_data(tmp_path: Path) -> None:
    for number, content in enumerate(["aa11aa11", "bb22bb22"]):
        data = {**of_data("/d/rows.csv", content), "content": content}
        write_result(tmp_path / f"{number}", 0.5, config("local", seed=1 + number), data=data)
    assert one(tmp_path).columns == ("local, path=rows.csv #aa11aa", "local, path=rows.csv #bb22bb")


def test_runs_of_other_weights_under_one_name_are_rows_of_their_own(tmp_path: Path) -> None:
    for number, digest in enumerate(["a" * 64, "b" * 64, "a" * 64]):
        files = {**recorded.manifest().backbone, "files": {"model.safetensors": digest}}
        write_result(tmp_path / f"{number}", 0.5, config("sst2", seed=1 + number), backbone=files)
    results = one(tmp_path)
    assert len(results.rows) == 2
    assert all(row.startswith("gpt4, weights=") or row.startswith("none, weights=") for row in results.rows)
    assert sorted(len(cell.runs) for cell in results.cells.values()) == [1, 2]


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    results = write_runs_on(tmp_path, ("/d/new/rows.csv", "a", 1), ("/d/old/rows.csv", "b", 1))
    assert results.columns == ("local, path=new/rows.csv", "local, path=old/rows.csv")


def test_data_that_were_only_moved_are_the_same(tmp_path: Path) -> None:
    results = write_runs_on(
        tmp_path, ("/here/rows.csv", "a", 1), ("/there/rows.csv", "a", 2), ("/there/rows.csv", "a", 3)
    )
    assert results.columns == ("local",)
    assert results.problems == ()


def test_what_differs_within_a_column_names_the_rows_in_a_command_lines_words(tmp_path: Path) -> None:
    other = "roberta-large"
    results = sweep(
        tmp_path,
        config(mentor="none"),
        config(mentor="gpt4", optimizer__lr=0.1),
        config(mentor="gpt4", optimizer__lr=0.02),
        config(mentor="random", backbone__name=other),
        config(mentor="random"),
    )
    assert results.rows == (
        "none",
        "gpt4, lr=0.02",
        "gpt4, lr=0.1",
        "random, backbone=minilm",
        "random, backbone=roberta",
    )


def test_rows_are_named_by_as_few_settings_as_tell_them_apart_and_the_others_are_noted(tmp_path: Path) -> None:
    results = sweep(
        tmp_path,
        config(mentor="gpt4", optimizer__lr=0.1, batch_size=8, record__steps=1),
        config(mentor="gpt4", optimizer__lr=0.2, batch_size=16, record__steps=2),
        config(mentor="gpt4", optimizer__lr=0.3, batch_size=16, record__steps=3),
    )
    assert results.rows == ("gpt4, lr=0.1", "gpt4, lr=0.2", "gpt4, lr=0.3")
    assert results.note == "Rows also differ in batch_size, record.steps."


def test_what_differs_between_columns_only_names_no_row_but_is_noted(tmp_path: Path) -> None:
    nodes = [config("rte", mentor, batch_size=16) for mentor in ("none", "gpt4")]
    results = sweep(tmp_path, config("sst2", "none"), config("sst2", "gpt4"), *nodes)
    assert results.rows == ("none", "gpt4")
    assert results.note == "Columns also differ in batch_size."


def test_tasks_of_one_name_with_other_settings_are_other_columns(tmp_path: Path) -> None:
    results = sweep(tmp_path, config(task__shots=16), config(task__shots=128), config("rte"))
    assert results.columns == ("rte", "sst2, shots=16", "sst2, shots=128")
    assert results.rows == ("none",)


def test_where_a_run_was_carried_out_makes_no_row(tmp_path: Path) -> None:
    results = sweep(tmp_path, config(seed=1, device="cuda", task__path="/a"), config(seed=2, task__path="/b"))
    assert seeds_of(results, "none", "sst2") == [1, 2]


def test_there_is_no_reference_where_several_rows_have_no_mentor(tmp_path: Path) -> None:
    results = sweep(tmp_path, config(prompt__length=4), config(prompt__length=16), config(mentor="gpt4"))
    assert results.rows == ("none, length=4", "none, length=16", "gpt4")
    assert results.reference is None


def test_a_seed_that_other_rows_of_the_column_have_is_missing(tmp_path: Path) -> None:
    results = sweep(tmp_path, config(seed=1), config(seed=2), config(mentor="gpt4", seed=2), config("rte", seed=7))
    assert results.cells["gpt4", "sst2"].seeds == (1, 2)
    assert results.cells["none", "rte"].seeds == (7,)
    assert results.cells["gpt4", "rte"].seeds == ()


def test_of_runs_that_repeat_each_other_the_finished_one_that_started_last_counts(tmp_path: Path) -> None:
    for name, started, outcome in (("a", "2026-01-01", 0.1), ("b", "2026-01-02", 0.2), ("c", "2026-01-03", None)):
        write_result(tmp_path / name, outcome, config(), started=started)
    results = one(tmp_path)
    assert [run.path.name for run in results.runs] == ["b"]
    assert len([words for words in results.problems if "repeats it" in words]) == 2


# --- what must not stand side by side in silence


def test_seeds_of_an_entry_that_differ_in_more_than_the_seed_are_named(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "t", {("a", "x"): (0.5, 0.6)}, (1, 2, 3))
    write_result(folder / "a" / "x" / "seed3", 0.5, config("x", "gpt4", 3, batch_size=64))
    assert one(folder).problems == ("a · x: seeds 1 and 3 differ in more than the seed (batch_size)",)


def test_rows_that_report_on_different_data_are_named(tmp_path: Path) -> None:
    data = recorded.manifest().data
    write_result(tmp_path / "1", 0.5, config(seed=1))
    write_result(tmp_path / "2", 0.5, config(seed=2), data={**data, "test": {"sha256": "of another seed"}})
    assert one(tmp_path).problems == ()
    write_result(tmp_path / "3", 0.5, config(mentor="gpt4", seed=1), data={**data, "test": {"sha256": "other"}})
    assert one(tmp_path).problems == (
        "sst2: rows with the same seed report on different texts (sha256 in manifest.json)",
    )


def test_runs_of_several_revisions_of_the_code_are_named(tmp_path: Path) -> None:
    write_result(tmp_path / "1", 0.5, config(seed=1))
    write_result(tmp_path / "2", 0.5, config(seed=2), git={"revision": "f" * 40, "dirty": False})
    assert one(tmp_path).problems == ("the code had 2 revisions: 0123456789 made 1 run, ffffffffff made 1 run",)


def test_metrics_that_differ_between_rows_or_columns_are_told(tmp_path: Path) -> None:
    results = sweep(tmp_path / "a", config(), config("cb", task__metric="macro_f1"))
    assert (results.metric, results.metrics("cb"), results.problems) == ("metric", ("macro_f1",), ())
    folder = write_results(tmp_path / "t", {("a", "x"): (0.5,), ("b", "x"): ()}, (1,))
    write_result(folder / "b" / "x" / "seed1", 0.5, config("x", task__metric="macro_f1"))
    assert one(folder).problems == ("x: rows are scored by different metrics (accuracy, macro_f1), and not compared",)


# --- names


@st.composite
def runs(draw: st.DrawFn) -> list[Run]:
    """Runs whose settings, mentors and choices were drawn from few values, so that many are alike."""
    texts = st.sampled_from([None, 0, 1, 0.1, "a", "b" * 50 + "c", "b" * 50 + "d", [1, 2], True])
    made = []
    for _ in range(draw(st.integers(1, 8))):
        node = config(
            draw(st.sampled_from(["sst2", "rte"])),
            draw(st.sampled_from(["none", "gpt4"])),
            draw(st.integers(1, 3)),
            task__shots=draw(texts),
            optimizer__lr=draw(texts),
            prompt__length=draw(texts),
            prompt__text=draw(texts),
            record__length=draw(texts),
        )
        choices = {"mentor": "same", "strategy": draw(st.sampled_from(["paper", "opro"]))}
        manifest = replace(recorded.manifest(), choices=choices)
        made.append(Run(Path("run"), manifest, node, ended(0.5), node["seed"]))
    return made


@given(runs())
def test_two_runs_share_an_entry_only_if_nothing_but_the_seed_sets_them_apart(runs: list[Run]) -> None:
    columns = column_names(runs)
    settings: dict[tuple[str, str], dict[str, str]] = {}
    for run, place in zip(runs, zip(row_names(runs, columns), columns, strict=True), strict=True):
        assert settings.setdefault(place, run.settings) == run.settings


@given(runs())
def test_runs_that_differ_in_the_seed_only_share_an_entry(runs: list[Run]) -> None:
    again = [replace(run, config={**run.config, "seed": 9}, seed=9) for run in runs]
    columns = column_names([*runs, *again])
    rows = row_names([*runs, *again], columns)
    assert rows[: len(runs)] == rows[len(runs) :]
    assert columns[: len(runs)] == columns[len(runs) :]


def test_names_are_sorted_by_their_numbers() -> None:
    names = ["lr=0.1", "lr=1e-3", "lr=0.02", "length=16", "length=8", "none"]
    assert sort_names(names, first=["none"]) == ["none", "length=8", "length=16", "lr=1e-3", "lr=0.02", "lr=0.1"]
