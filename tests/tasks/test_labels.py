"""What a column of labels may hold, and what is said of it."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from helpers.row_files import TEXTS, as_csv, list_rows, load_rows, write_files

from llm_catalyst.tasks.labels import code_given, find_twins
from llm_catalyst.tasks.text_task import TextTask
from llm_catalyst.utils.validation import ConfigurationError

WANTED = {(text, ("bad", "good")[i % 2]) for i, text in enumerate(TEXTS)}
KINDS: dict[str, tuple[Any, Any]] = {
    "names": ("bad", "good"),
    "names with blanks": ("bad ", " good"),
    "numbers from 0": (0, 1),
    "numbers from 1": (1, 2),
    "truth values": (False, True),
    "fractions": (0.0, 1.0),
    "fractions from 1": (1.0, 2.0),
    "numbers as text": ("0", "1"),
    "truth values of R": ("FALSE", "TRUE"),
}


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_label_becomes_the_class_that_is_meant(tmp_path: Path, form: str, kind: str) -> None:
    rows = [(text, KINDS[kind][i % 2]) for i, text in enumerate(TEXTS)]
    lines = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
    data = load_rows(
        write_files(tmp_path, {f"rows.{form}": as_csv(rows) if form == "csv" else lines}), labels=["bad", "good"]
    )
    assert data.labels == ("bad", "good")
    assert list_rows(data) == WANTED


@pytest.mark.parametrize(
    ("values", "wanted"), [((1.0, 2.0), ("1", "2")), ((0, 1), ("0", "1")), (("1.0", "1.5"), ("1.0", "1.5"))]
)
def test_whole_numbers_without_names_lose_their_fraction(tmp_path: Path, values: Any, wanted: Any) -> None:
    rows = [(text, values[i % 2]) for i, text in enumerate(TEXTS)]
    assert load_rows(write_files(tmp_path, {"rows.csv": as_csv(rows)})).labels == wanted


def test_truth_values_are_named_by_their_meaning_and_not_by_their_order(tmp_path: Path) -> None:
    rows = [(text, i % 2 == 1) for i, text in enumerate(TEXTS)]
    lines = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
    data = load_rows(write_files(tmp_path, {"rows.jsonl": lines}), labels=["yes", "no"])
    assert list_rows(data) == {(text, "yes" if label else "no") for text, label in rows}


@pytest.mark.parametrize(("written", "wanted"), [("[no, yes]", ("no", "yes")), ("[0, 1]", ("0", "1"))])
def test_labels_that_yaml_takes_for_truth_values_or_numbers_are_names(
    tmp_path: Path, written: str, wanted: tuple[str, str]
) -> None:
    rows = [(text, wanted[i % 2]) for i, text in enumerate(TEXTS)]
    folder = write_files(tmp_path, {"rows.csv": as_csv(rows)})
    data = load_rows(folder, labels=yaml.safe_load(written), words=yaml.safe_load(written))
    assert data.labels == data.words == wanted
    assert list_rows(data) == set(rows)


@pytest.mark.parametrize("values", [(-1, 1), (0, 4)], ids=str)
def test_other_numbers_stand_for_the_classes_in_their_order_and_that_is_said(tmp_path: Path, values: Any) -> None:
    rows = [(text, values[i % 2]) for i, text in enumerate(TEXTS)]
    data = load_rows(write_files(tmp_path, {"rows.csv": as_csv(rows)}), labels=["bad", "good"])
    assert list_rows(data) == WANTED
    assert f"the labels are numbers in their order: {values[0]} = bad, {values[1]} = good" in data.notes


def test_labels_that_may_count_from_0_or_from_1_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="the labels are 1, 2, of 3 classes: they may count from 0 or from 1"):
        code_given(["a", "b", "c"], {"1", "2"}, choices=False)


@pytest.mark.parametrize("values", [(1, 2), ("A", "B")], ids=str)
def test_the_right_choice_may_be_numbered_from_1_or_lettered(tmp_path: Path, values: tuple[Any, Any]) -> None:
    rows = [{"text": text, "a": "one", "b": "two", "label": values[i % 2]} for i, text in enumerate(TEXTS)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    data = load_rows(write_files(tmp_path, {"rows.jsonl": lines}), choices=["{a}", "{b}"])
    assert {(e.sequences[0][0], e.label) for e in (*data.train, *data.dev, *data.test)} == {
        (text, i % 2) for i, text in enumerate(TEXTS)
    }


def test_blanks_around_a_label_make_no_class_and_almost_equal_ones_are_named(tmp_path: Path) -> None:  # E6
    labels = ["bad", "good"] * 9 + ["good ", "Good", "Good", "good\u200b", "\ufeffbad"]
    rows = [(f"text {i}", label) for i, label in enumerate(labels)]
    data = load_rows(write_files(tmp_path, {"rows.csv": as_csv(rows)}))
    assert data.labels == ("bad", "Good", "good")
    assert any("'good' (11 rows) and 'Good' (2 rows) are almost equal" in note for note in data.notes)


def test_two_unicode_forms_of_a_label_are_one_class_and_that_is_said(tmp_path: Path) -> None:  # E6
    names = ["café", "cafe\u0301", "bar"]
    rows = [(f"text {i}", names[i % 3]) for i in range(21)]
    data = load_rows(write_files(tmp_path, {"rows.csv": as_csv(rows)}))
    assert data.labels == ("bar", "café")
    assert any("'café' is written in 2 Unicode forms" in note for note in data.notes)


def test_different_labels_are_not_called_almost_equal() -> None:
    assert find_twins(dict.fromkeys(["C", "C++", "C#", "-1", "1", "not good", "good", "1.5", "15"], 3)) == ()


@pytest.mark.parametrize("named", [[], ["negative", "positive"], ["positive", "negative"], ["bad", "good"]], ids=str)
def test_the_class_names_of_a_parquet_file_count(tmp_path: Path, named: list[str]) -> None:  # E7
    names = ["negative", "positive"]
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    rows = {"text": TEXTS, "label": [i % 2 for i in range(20)]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "rows.parquet"))
    data = load_rows(tmp_path, labels=named)
    assert data.labels == tuple(named or names)
    shown = ["bad", "good"] if named == ["bad", "good"] else names
    assert list_rows(data) == {(text, shown[i % 2]) for i, text in enumerate(TEXTS)}


def test_the_class_names_of_the_hub_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # E7
    monkeypatch.delenv("CATALYST_DATA", raising=False)
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = datasets.Dataset.from_dict({"text": TEXTS, "label": [i % 2 for i in range(20)]}, features=features)
    (tmp_path / "hub" / "data").mkdir(parents=True)
    rows.to_parquet(str(tmp_path / "hub" / "data" / "train-00000-of-00001.parquet"))
    data = TextTask(name="of_the_hub", text="{text}", hub=str(tmp_path / "hub"), test=None).load(seed=1)
    assert data.labels == ("no", "yes")
    assert list_rows(data) == {(text, ("no", "yes")[i % 2]) for i, text in enumerate(TEXTS)}


def test_a_file_that_declares_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"text": TEXTS, "label": [i % 2 for i in range(20)]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "rows.parquet"))
    with pytest.raises(ConfigurationError, match=r"declares 2 classes \(a, b\), and task.labels 3"):
        load_rows(tmp_path, labels=["x", "y", "z"])


def test_the_hubs_mark_of_a_row_without_a_label_is_refused(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b"])})
    for split, labels in (("train", [0, 1] * 10), ("test", [-1] * 20)):
        split_rows = datasets.Dataset.from_dict({"text": TEXTS, "label": labels}, features=features)
        split_rows.to_parquet(str(tmp_path / f"{split}.parquet"))
    with pytest.raises(ConfigurationError, match=r"there is no label \(-1\); name a split that has labels .*20 of 20"):
        load_rows(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": ["positive", "negative", "positive"]}, "task.labels names positive more than once"),
        ({"labels": ["positive", "positive "]}, "task.labels names positive more than once"),
        ({"text": "hello"}, "task.text='hello' names no column; write the column of the texts in braces"),
    ],
)
def test_labels_given_twice_and_a_template_without_a_column_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        TextTask(**{"name": "local", "text": "{text}", **changes})


def test_empty_texts_are_counted_and_told(tmp_path: Path) -> None:
    rows = [("" if i in (3, 4) else text, i % 2) for i, text in enumerate(TEXTS)]
    lines = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
    data = load_rows(write_files(tmp_path, {"rows.jsonl": lines}))
    assert "2 of 20 rows of train have an empty text" in data.notes
