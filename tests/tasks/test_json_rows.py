"""JSON in the forms that people, pandas and the hub give it."""

import json
from pathlib import Path
from typing import Any

import pandas
import pytest
from helpers.row_files import PAIRS, as_csv, as_jsonl, list_rows, load_rows, write_files

from llm_catalyst.utils.validation import ConfigurationError

OBJECTS = [{"text": text, "label": label} for text, label in PAIRS]
FORMS: dict[str, str] = {
    "lines": as_jsonl(),
    "lines with blank ones between": as_jsonl().replace("\n", "\n\n"),
    "objects over several lines": "\n".join(json.dumps(row, indent=1) for row in OBJECTS),
    "a list": json.dumps(OBJECTS),
    "a list over several lines": json.dumps(OBJECTS, indent=2),
    "data": json.dumps({"version": "1.1", "data": OBJECTS}),
    "examples": json.dumps({"canary": "keep", "examples": OBJECTS}),
    "rows beside another list": json.dumps({"authors": [{"name": "A"}], "rows": OBJECTS}),
    "nested data": json.dumps({"data": {"rows": OBJECTS}}),
    "columns": json.dumps({"text": [text for text, _ in PAIRS], "label": [label for _, label in PAIRS]}),
    "the hub's server": json.dumps({"features": [], "rows": [{"row_idx": i, "row": r} for i, r in enumerate(OBJECTS)]}),
    "columns beside a name": json.dumps(
        {"name": "x", "text": [text for text, _ in PAIRS], "label": [label for _, label in PAIRS], "tags": ["a"]}
    ),
    "columns in other orders": json.dumps(
        {
            "text": {str(i): text for i, (text, _) in enumerate(PAIRS)},
            "label": {str(i): label for i, (_, label) in reversed([*enumerate(PAIRS)])},
        }
    ),
    **{
        f"pandas with names of rows, {o}": pandas.DataFrame(OBJECTS, index=[f"id {i}" for i in range(20)]).to_json(
            orient=o
        )
        for o in ("columns", "index", "split", "table")
    },
    **{f"pandas, {o}": pandas.DataFrame(OBJECTS).to_json(orient=o) for o in ("columns", "index", "split", "table")},
}


@pytest.mark.parametrize("suffix", ["json", "jsonl", "NDJSON", "csv", "txt", "data", "parquet"])
@pytest.mark.parametrize("form", FORMS)
def test_json_is_read_in_every_form_whatever_its_suffix(tmp_path: Path, form: str, suffix: str) -> None:
    file = write_files(tmp_path, {f"rows.{suffix}": FORMS[form]}) / f"rows.{suffix}"
    assert list_rows(load_rows(file)) == set(PAIRS)


def test_a_real_benchmark_with_its_rows_in_an_object_is_read(data: Path) -> None:
    file = data / "bbh" / "navigate.json"
    task: dict[str, Any] = {"text": "{input}", "label": "target"}
    loaded = load_rows(file, **task)
    assert set(loaded.labels) == {"Yes", "No"}
    assert len(loaded.train) + len(loaded.dev) + len(loaded.test) == 250


@pytest.mark.parametrize("suffix", ["json", "jsonl", "parquet", "feather"])
@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_delimited_text_is_read_whatever_its_suffix(tmp_path: Path, suffix: str, delimiter: str) -> None:
    assert list_rows(load_rows(write_files(tmp_path, {f"rows.{suffix}": as_csv(delimiter=delimiter)}))) == set(PAIRS)


@pytest.mark.parametrize("name", ["[text]", "{text}", "[1]"])
def test_a_csv_whose_first_column_begins_like_json_stays_a_csv(tmp_path: Path, name: str) -> None:
    content = as_csv([(label, text) for text, label in PAIRS], (name, "text"))
    assert list_rows(load_rows(write_files(tmp_path, {"rows.csv": content}), label=name)) == set(PAIRS)


CLASSES = [{"name": "text", "type": {"dtype": "string"}}, {"name": "label", "type": {"names": ["bad", "good"]}}]


def serve(**changes: Any) -> str:
    """What the hub's data set server gives of the rows, with these keys in the last of them."""
    rows = [{"row_idx": i, "row": {**row, "label": i % 2}, "truncated_cells": []} for i, row in enumerate(OBJECTS)]
    return json.dumps({"features": CLASSES, "rows": [*rows[:-1], {**rows[-1], **changes}]})


def test_the_class_names_of_the_hubs_server_count(tmp_path: Path) -> None:
    assert list_rows(load_rows(write_files(tmp_path, {"rows.json": serve(truncated_cells=["other"])}))) == set(PAIRS)


REFUSED: dict[str, tuple[str, str]] = {
    "a cell that the server cut": (serve(truncated_cells=["text"]), r"row 20: the server cut text \(truncated_cells\)"),
    "test beside data": (json.dumps({"data": OBJECTS, "test": OBJECTS}), r"several lists of objects \(data, test\)"),
    "test without labels beside rows": (
        json.dumps({"rows": OBJECTS, "test": [{"text": "a"}]}),
        r"several lists of objects \(rows, test\); write each into a file of its own",
    ),
    "test in an object beside data": (
        json.dumps({"data": {"rows": OBJECTS}, "test": {"rows": OBJECTS}}),
        r"several lists of objects \(data, test\)",
    ),
    "names equal but for blanks": (
        as_jsonl() + '{"text": "a", " text": "b", "label": "bad"}\n',
        "line 21: 'text' is there twice, but for blanks; give each its own name",
    ),
    "columns of test beside those of data": (
        json.dumps({split: {"text": ["a", "b"], "label": ["x", "y"]} for split in ("data", "test")}),
        r"several lists of objects \(data, test\)",
    ),
    "a column named twice": (
        json.dumps({"columns": ["text", " text", "label"], "data": [["a", "b", "x"]]}),
        "columns are named twice: 'text'; give each its own name",
    ),
    "a row of pandas that is too long": (
        json.dumps({"columns": ["text", "label"], "data": [["a", "x"], ["b", "c", "y"]]}),
        r"row 2: \['b', 'c', 'y'\] is no list of a value for each of 2 columns; correct it",
    ),
    "a row of pandas that is no list": (
        json.dumps({"columns": ["text", "label"], "data": [7]}),
        "row 1: 7 is no list of a value for each of 2 columns",
    ),
    "columns of other lengths": (
        json.dumps({"text": ["a", "b"], "label": ["x"]}),
        "rows .2 of text and 1 of label",
    ),
    "columns of other rows": (
        json.dumps({"text": {"0": "a", "1": "b"}, "label": {"0": "x", "2": "y"}}),
        "the columns have not the same rows",
    ),
}


def test_lines_of_the_hubs_server_are_read(tmp_path: Path) -> None:
    lines = "".join(
        json.dumps({"row_idx": i, "row": row, "truncated_cells": []}) + "\n" for i, row in enumerate(OBJECTS)
    )
    assert list_rows(load_rows(write_files(tmp_path, {"rows.jsonl": lines}))) == set(PAIRS)


def test_a_part_of_the_hubs_rows_is_noted(tmp_path: Path) -> None:
    content = json.dumps({**json.loads(serve()), "num_rows_total": 872})
    notes = load_rows(write_files(tmp_path, {"rows.json": content})).notes
    assert any("rows.json, the server gave 20 of 872 rows; fetch the others" in note for note in notes)


@pytest.mark.parametrize("kind", REFUSED)
def test_json_in_which_rows_would_be_lost_or_mixed_is_refused(tmp_path: Path, kind: str) -> None:
    content, words = REFUSED[kind]
    with pytest.raises(ConfigurationError, match=words):
        load_rows(write_files(tmp_path, {"rows.json": content}))
