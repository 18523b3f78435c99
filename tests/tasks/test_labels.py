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
    "letters of truth values": ("n", "y"),
    "numbers with zeros": ("01", "02"),
    "numbers with signs": ("-1", "+1"),
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
        code_given(["a", "b", "c"], {"1", "2"}, {"1", "2"}, choices=False)


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


@pytest.mark.parametrize(
    "twins",
    [("1", "01"), ("1", "+1"), ("0", "-0"), ("1", "1.0"), (".5", "0.5"), ("good", '"good"'), ("a&b", "a&amp;b")],
    ids=str,
)
def test_labels_that_differ_in_form_alone_are_named(twins: tuple[str, str]) -> None:  # E6
    (note,) = find_twins(dict.fromkeys([*twins, "other"], 3))
    assert f"the labels {twins[0]!r} (3 rows) and {twins[1]!r} (3 rows) are almost equal" in note


@pytest.mark.parametrize("written", ["NA", "n/a", "null"])
def test_a_label_that_may_stand_for_a_missing_value_is_told(tmp_path: Path, written: str) -> None:
    rows = [(f"text {i}", ("good", "bad", written)[i % 3]) for i in range(30)]
    notes = load_rows(write_files(tmp_path, {"rows.csv": as_csv(rows)})).notes
    assert any(f"the label {written!r} (10 rows) counts as a class; if it says that there is none" in n for n in notes)


@pytest.mark.parametrize("written", ["NaN", "nan", "<NA>"])
def test_a_label_that_is_not_a_number_is_refused_unless_it_is_named(tmp_path: Path, written: str) -> None:
    rows = [(f"text {i}", ("good", "bad", written)[i % 3]) for i in range(30)]
    folder = write_files(tmp_path, {"rows.csv": as_csv(rows)})
    with pytest.raises(ConfigurationError, match=r"rows.csv, line 4: there is no label, but .*\(10 of 30 rows: line 4"):
        load_rows(folder)
    assert load_rows(folder, labels=["good", "bad", written]).labels == ("good", "bad", written)


def test_none_is_the_name_of_a_class(tmp_path: Path) -> None:
    rows = [(f"text {i}", ("FAVOR", "AGAINST", "NONE")[i % 3]) for i in range(30)]
    assert load_rows(write_files(tmp_path, {"rows.csv": as_csv(rows)})).labels == ("NONE", "FAVOR", "AGAINST")


def test_labels_of_minus_one_in_a_test_split_are_told_to_be_none(tmp_path: Path) -> None:
    train = as_csv([(f"text {i}", i % 2) for i in range(20)])
    files = {"train.csv": train, "test.csv": as_csv([(f"other {i}", -1) for i in range(4)])}
    for labels in ([], ["bad", "good"], ["bad", "good", "best"]):
        with pytest.raises(
            ConfigurationError,
            match=r"test.csv, line 2: label .?-1.? is neither .*; where -1 says that a label is not told",
        ):
            load_rows(write_files(tmp_path, files), labels=labels, test="test")


def test_a_column_of_measurements_is_warned_about(tmp_path: Path) -> None:
    rows = [(f"text {i}", i % 60 / 7) for i in range(120)]
    files = {"train.csv": as_csv(rows), "dev.csv": as_csv(rows[:60]), "test.csv": as_csv(rows[60:])}
    data = load_rows(write_files(tmp_path, files), dev="dev", test="test")
    assert any("column 'label' holds 60 different labels in 120 rows" in note for note in data.notes)


def test_a_test_split_of_one_class_is_no_reason_to_refuse(tmp_path: Path) -> None:
    train = as_csv([(f"text {i}", ("bad", "good")[i % 2]) for i in range(20)])
    files = {"train.csv": train, "test.csv": as_csv([(f"other {i}", "good") for i in range(4)])}
    assert [row.label for row in load_rows(write_files(tmp_path, files), test="test").test] == [1] * 4
    files = {"train.csv": as_csv([(f"other {i}", "good") for i in range(4)]), "test.csv": train}
    with pytest.raises(ConfigurationError, match=r"train\.csv: every row has the same label, 'good'"):
        load_rows(write_files(tmp_path, files), test="test")


def test_texts_that_say_that_they_are_missing_are_counted(tmp_path: Path) -> None:
    texts = ["nan", "NaN", "null", "\u200b", *(f"text {i}" for i in range(20))]
    rows = [(text, ("bad", "good")[i % 2]) for i, text in enumerate(texts)]
    notes = load_rows(write_files(tmp_path, {"rows.csv": as_csv(rows)})).notes
    assert "1 of 24 rows of train have an empty text" in notes
    assert "3 of 24 rows of train have the text 'nan', 'null'; is it missing there?" in notes


@pytest.mark.parametrize("key", ["words", "descriptions"])
def test_words_for_labels_that_were_read_off_the_rows_are_counted_and_their_order_is_told(
    tmp_path: Path, key: str
) -> None:
    folder = write_files(tmp_path, {"rows.csv": as_csv()})
    for given in (["a"], ["a", "b", "c"]):
        with pytest.raises(
            ConfigurationError, match=rf"task\.{key} has \d entries, but there are 2 labels \(bad, good\)"
        ):
            load_rows(folder, **{key: given})
    with pytest.raises(ConfigurationError, match=rf"task\.{key} has the labels in another order than they have"):
        load_rows(folder, **{key: ["good", "bad"]})
    notes = load_rows(folder, **{key: ["terrible", "great"]}).notes
    assert any(f"task.{key} takes their order: 'bad' by 'terrible', 'good' by 'great'" in note for note in notes)


@pytest.mark.parametrize(
    ("labels", "true"),
    [(["entailment", "not_entailment"], 0), (["correct", "incorrect"], 0), (["non-toxic", "toxic"], 1)],
    ids=str,
)
def test_truth_values_follow_a_negation_in_a_name_and_a_guess_is_told(
    tmp_path: Path, labels: list[str], true: int
) -> None:
    rows = [(text, "yes" if i % 2 else "no") for i, text in enumerate(TEXTS)]
    data = load_rows(write_files(tmp_path, {"rows.csv": as_csv(rows)}), labels=labels)
    assert list_rows(data) == {(text, labels[true if value == "yes" else 1 - true]) for text, value in rows}
    assert any(note.startswith("the labels are truth values: ") and note.endswith("a guess") for note in data.notes)


def test_two_values_for_false_are_not_one_class(tmp_path: Path) -> None:
    rows = [(text, "nf"[i % 2]) for i, text in enumerate(TEXTS)]
    with pytest.raises(ConfigurationError, match="is neither one of the labels"):
        load_rows(write_files(tmp_path, {"rows.csv": as_csv(rows)}), labels=["new", "full"])


def test_the_data_before_any_split_have_one_hash_for_all_seeds(tmp_path: Path) -> None:
    folder = write_files(tmp_path, {"rows.csv": as_csv()})
    task = TextTask(name="local", text="{text}", path=str(folder), test="test", shots=4)
    hashes = [task.load(seed).fingerprints() for seed in (1, 2)]
    assert hashes[0]["content"] == hashes[1]["content"]
    assert hashes[0]["train"]["sha256"] != hashes[1]["train"]["sha256"]
    write_files(tmp_path, {"rows.csv": as_csv().replace("Text 3", "Text three")})
    assert task.load(1).fingerprints()["content"] != hashes[0]["content"]


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


def write_classes(file: Path, names: list[str] | None, values: list[Any], mark: str = "text") -> None:
    """A Parquet file of twenty rows, texts of which begin with `mark`; its labels are ids of `names` where given."""
    kind = datasets.ClassLabel(names=names) if names else None
    features = datasets.Features({"text": datasets.Value("string"), "label": kind}) if kind else None
    rows = {"text": [f"{mark} {i}" for i in range(20)], "label": values}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(file))


# By split: the names that its file declares (None: none), and its labels in the order of `WANTED`: bad, good, bad, …
DECLARED: dict[str, dict[str, tuple[list[str] | None, list[Any]]]] = {
    "another order in test": {"train": (["bad", "good"], [0, 1] * 10), "test": (["good", "bad"], [1, 0] * 10)},
    "more names in train": {"train": (["odd", "bad", "good"], [1, 2] * 10), "test": (["bad", "good"], [0, 1] * 10)},
    "names in test": {"train": (["good", "bad"], [1, 0] * 10), "test": (None, ["bad", "good"] * 10)},
    "names in train": {"train": (None, ["bad", "good"] * 10), "test": (["good", "bad"], [1, 0] * 10)},
    "numbers in test": {"train": (["good", "bad"], [1, 0] * 10), "test": (None, [1, 0] * 10)},
    "numbers in train": {"train": (None, [1, 0] * 10), "test": (["good", "bad"], [1, 0] * 10)},
    "another order in a shard": {
        "train-00000-of-00002": (["bad", "good"], [0, 1] * 10),
        "train-00001-of-00002": (["good", "bad"], [1, 0] * 10),
        "test": (["good", "bad"], [1, 0] * 10),
    },
    "a third order in dev": {
        "train": (["bad", "good", "odd"], [0, 1] * 10),
        "dev": (["odd", "good", "bad"], [2, 1] * 10),
        "test": (["good", "odd", "bad"], [2, 0] * 10),
    },
}


@pytest.mark.parametrize("kind", DECLARED)
@pytest.mark.parametrize("given", [[], ["bad", "good"], ["good", "bad"]], ids=str)
def test_the_ids_of_each_file_are_those_of_its_own_names(tmp_path: Path, kind: str, given: list[str]) -> None:
    for name, (names, values) in DECLARED[kind].items():
        write_classes(tmp_path / f"{name}.parquet", names, values, name)
    wanted = {(f"{name} {i}", ("bad", "good")[i % 2]) for name in DECLARED[kind] for i in range(20)}
    three = any("odd" in (names or []) for names, _ in DECLARED[kind].values())
    labels = [*given, "odd"] if given and three else given
    assert list_rows(load_rows(tmp_path, labels=labels, dev="dev" if "dev" in DECLARED[kind] else None)) == wanted


def test_the_names_of_a_file_may_be_numbers_in_another_order(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write_classes(tmp_path / f"{name}.parquet", ["2", "1"], [0, 1] * 10, name)
    wanted = {(f"{name} {i}", ("2", "1")[i % 2]) for name in ("train", "test") for i in range(20)}
    assert list_rows(load_rows(tmp_path)) == wanted


def test_numbers_beside_files_that_declare_different_orders_are_refused(tmp_path: Path) -> None:
    write_classes(tmp_path / "train.parquet", ["bad", "good"], [0, 1] * 10)
    write_classes(tmp_path / "dev.parquet", ["good", "bad"], [0, 1] * 10)
    write_classes(tmp_path / "test.parquet", None, [0, 1] * 10)
    with pytest.raises(ConfigurationError, match=r"test.parquet, row 1: label 0 is neither one of the labels"):
        load_rows(tmp_path, dev="dev")


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
