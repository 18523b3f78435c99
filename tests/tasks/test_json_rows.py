"""JSON in the forms that people, pandas and the hub give it."""

import json
from pathlib import Path
from typing import Any

import pandas
import pytest
from helpers.row_files import PAIRS, as_jsonl, list_rows, load_rows, write_files

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
    **{f"pandas, {o}": pandas.DataFrame(OBJECTS).to_json(orient=o) for o in ("columns", "index", "split", "table")},
}


@pytest.mark.parametrize("suffix", ["json", "jsonl", "NDJSON"])
@pytest.mark.parametrize("form", FORMS)
def test_json_is_read_in_every_form_whatever_its_suffix(tmp_path: Path, form: str, suffix: str) -> None:
    assert list_rows(load_rows(write_files(tmp_path, {f"rows.{suffix}": FORMS[form]}))) == set(PAIRS)


def test_a_real_benchmark_with_its_rows_in_an_object_is_read(data: Path) -> None:
    file = data / "bbh" / "navigate.json"
    task: dict[str, Any] = {"text": "{input}", "label": "target"}
    loaded = load_rows(file, **task)
    assert set(loaded.labels) == {"Yes", "No"}
    assert len(loaded.train) + len(loaded.dev) + len(loaded.test) == 250
