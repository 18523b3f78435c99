"""Task files as an enemy, an accident or a spreadsheet leaves them: read, or refused with file, line and fix."""

import csv
import gzip
import io
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_catalyst.tasks import file_content, row_files
from llm_catalyst.tasks.base import TaskData
from llm_catalyst.tasks.text_task import TextTask
from llm_catalyst.utils.validation import ConfigurationError

ROWS = [{"text": f"text {i}", "label": i % 2} for i in range(20)]


def write_splits(folder: Path, name: str, content: bytes) -> Path:
    """A folder with a good train and test split, but for the file `name`, which holds `content`."""
    for split in ("train", "test"):
        if not name.startswith(split):
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / name).write_bytes(content)
    return folder


def loaded(folder: Path, **changes: Any) -> TaskData:
    return TextTask(**{"name": "local", "text": "{text}", "path": str(folder), "test": "test", **changes}).load(seed=1)


def refusal(folder: Path, **changes: Any) -> str:
    """The error of a load: short, printable, on one line."""
    with pytest.raises(ConfigurationError) as caught:
        loaded(folder, **changes)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 1000
    return message


def jsonl(*extra: str | dict[str, Any]) -> bytes:
    """Twenty good lines, then these."""
    rows = (row if isinstance(row, str) else json.dumps(row) for row in (*ROWS, *extra))
    return "".join(f"{row}\n" for row in rows).encode()


def table(*extra: str) -> bytes:
    """A header and twenty good records of a CSV, then these lines."""
    good = (f"{row['text']},{row['label']}" for row in ROWS)
    return "".join(f"{line}\n" for line in ("text,label", *good, *extra)).encode()


BROKEN_JSONL = {
    "a NUL byte": (jsonl('{"text": "a\0b", "label": 1}'), 21, "NUL byte; save the file as plain UTF-8"),
    "nothing but NUL bytes": (bytes(5000), 1, "NUL byte"),
    "damaged UTF-8": (
        jsonl() + '{"text": "café où", "label": 1}\n'.encode() + b'{"text": "caf\xc3", "label": 1}\n',
        22,
        "byte 14, 0xc3, is not UTF-8; save",
    ),
    "no JSON": (jsonl("oh no"), 21, "'oh no' is no JSON (Expecting value, column 1); correct it"),
    "a cut line": (jsonl()[:-5], 20, "is no JSON"),
    "a number for an object": (jsonl("5"), 21, "5 is no JSON object; put one object on a line"),
    "null for an object": (jsonl("null"), 21, "None is no JSON object"),
    "a list for an object": (jsonl('["a", 1]'), 21, "is no JSON object"),
    "a label out of range": (jsonl({"text": "a", "label": 2}), 21, "label 2 is neither one of the labels (no, yes)"),
    "a negative label": (jsonl({"text": "a", "label": -1}), 21, "label -1 is neither"),
    "an infinite label": (jsonl('{"text": "a", "label": Infinity}'), 21, "label inf is neither"),
    "an unknown label": (jsonl({"text": "a", "label": "maybe"}), 21, "label 'maybe' is neither one of the labels"),
    "a label that is NaN": (jsonl('{"text": "a", "label": NaN}'), 21, "there is no label; fill it in or remove"),
    "a label that says nan": (jsonl({"text": "a", "label": "nan"}), 21, "there is no label"),
    "a null label": (jsonl({"text": "a", "label": None}), 21, "there is no label"),
    "an empty label": (jsonl({"text": "a", "label": ""}), 21, "there is no label"),
    "a null text": (jsonl({"text": None, "label": 1}), 21, "there is no text"),
    "a later row without its label": (jsonl({"text": "a"}), 21, "there is no label"),
    "a later row without its text": (jsonl({"label": 1}), 21, "there is no text"),
    "a list for a text": (jsonl({"text": ["a"], "label": 1}), 21, "text is a list, ['a']; it must be a text or"),
    "an object for a text": (jsonl({"text": {"a": 1}, "label": 1}), 21, "text is a dict, {'a': 1}"),
    "a list for a label": (jsonl({"text": "a", "label": [1]}), 21, "label is a list"),
    "a key twice": (jsonl('{"text": "a", "label": 1, "label": 0}'), 21, "specified twice"),
    "half a surrogate pair": (jsonl(r'{"text": "\ud800", "label": 1}'), 21, "surrogate"),
    "too large a number": (jsonl('{"text": 1e999, "label": 1}'), 21, "too big"),
    "too long a number": (jsonl('{"text": ' + "9" * 5000 + ', "label": 1}'), 21, "too long a number"),
    "deep nesting": (jsonl('{"text": ' + "[" * 10_000 + "]" * 10_000 + ', "label": 1}'), 21, "nested"),
    "quite deep nesting": (jsonl('{"text": ' + "[" * 40 + "]" * 40 + ', "label": 1}'), 21, "text is a list"),
    "a label of 10 MB": (jsonl({"text": "a", "label": "x" * 10_000_000}), 21, "label 'xxxxx"),
    "terminal codes": (jsonl({"text": "a", "label": "\x1b[31m\u202e"}), 21, r"label '\x1b[31m\u202e' is neither"),
}


@pytest.mark.parametrize("kind", BROKEN_JSONL)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_broken_line_of_json_is_refused_with_its_file_and_number(tmp_path: Path, kind: str, split: str) -> None:
    content, line, words = BROKEN_JSONL[kind]
    message = refusal(write_splits(tmp_path, f"{split}.jsonl", content), labels=["no", "yes"])
    assert f"{tmp_path / split}.jsonl, line {line}: " in message
    assert words in message


BROKEN_CSV = {
    "a NUL byte": (table("a\0b,1"), 22, "NUL byte"),
    "a field too few": (table("a"), 22, "there is 1 field, but 2 column names"),
    "a field too many": (table("a, b,1"), 22, "there are 3 fields, but 2 column names; put a field that holds a comma"),
    "a field too many in every record": (table().replace(b"text ", b"a,text "), 2, "3 fields, but 2 column names"),
    "a ragged record after a long one": (table('"a\n\nb",1', "", "c"), 26, "there is 1 field"),
    "a quotation mark that is left open": (table('"a,1', "b,0", "c,1"), 22, "unexpected end of data"),
    "quotation marks within others": (table('"a "b" c",1'), 22, "double every quotation mark"),
    "a column named twice": (table().replace(b"text,label", b"text,text"), 1, "named twice: text"),
    "an empty label": (table("a,"), 22, "there is no label; fill it in or remove the row"),
    "a blank label": (table("a, "), 22, "there is no label"),
    "a label that says nan": (table("a,nan"), 22, "there is no label"),
    "an empty text": (table(",1"), 22, "there is no text"),
    "a label out of range": (table("a,2"), 22, "label '2' is neither one of the labels (no, yes)"),
    "half a label": (table("a,0.5"), 22, "label '0.5' is neither"),
    "an endless label": (table("a,inf"), 22, "label 'inf' is neither"),
    "an unknown label": (table("a,maybe"), 22, "label 'maybe' is neither"),
    "a bad row after one of many lines": (table('"a\n\n\nb",1', "", "c,7"), 27, "label '7' is neither"),
}


@pytest.mark.parametrize("kind", BROKEN_CSV)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_broken_record_of_a_csv_is_refused_with_its_file_and_first_line(
    tmp_path: Path, kind: str, split: str
) -> None:
    content, line, words = BROKEN_CSV[kind]
    message = refusal(write_splits(tmp_path, f"{split}.csv", content), labels=["no", "yes"])
    assert f"{tmp_path / split}.csv, line {line}: " in message
    assert words in message


BROKEN_LISTS = {
    "a cut list": (json.dumps(ROWS, indent=1)[:-9].encode(), ", line 80: '\"label' is no JSON (Unterminated string"),
    "something after it": (json.dumps(ROWS).encode() + b"\n5", ", line 1: [{"),
    "no objects": (b"[1, 2]", ", row 1: 1 is no JSON object"),
    "one that is no object": (json.dumps([*ROWS, "a"]).encode(), ", row 21: 'a' is no JSON object"),
    "a null label": (json.dumps([*ROWS, {"text": "a", "label": None}]).encode(), ", row 21: there is no label"),
    "deep nesting": (b"[" * 100_000 + b"]" * 100_000, ", line 1: this is no JSON that can be read (nested too deeply)"),
    "nothing": (b"[]", ": there are no rows"),
    "several lists": (
        json.dumps({"a": ROWS, "b": ROWS}).encode(),
        ": there are several lists of objects (a, b)",
    ),
}


@pytest.mark.parametrize("kind", BROKEN_LISTS)
def test_a_broken_json_list_is_refused_with_its_file_and_row(tmp_path: Path, kind: str) -> None:
    content, words = BROKEN_LISTS[kind]
    assert f"{tmp_path}/train.json{words}" in refusal(write_splits(tmp_path, "train.json", content))


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_an_empty_file_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    message = refusal(write_splits(tmp_path, f"train.{suffix}", b""))
    assert f"{tmp_path}/train.{suffix}: " in message


@pytest.mark.parametrize("content", [b"\n \n\r\n"[:3], b"{}\n{}\n"], ids=["blank lines", "empty objects"])
def test_a_file_without_a_single_value_has_no_rows(tmp_path: Path, content: bytes) -> None:
    assert f"{tmp_path}/test.jsonl: there are no rows" in refusal(write_splits(tmp_path, "test.jsonl", content))


def test_a_parquet_file_is_known_by_its_content(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_list(ROWS).to_parquet(tmp_path / "rows.csv")
    assert len(loaded(tmp_path / "rows.csv").train) > 10


@pytest.mark.parametrize("keep", [0.2, 0.9])
def test_a_cut_parquet_file_is_refused_by_name(tmp_path: Path, keep: float) -> None:
    import datasets

    datasets.Dataset.from_list(ROWS).to_parquet(tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    message = refusal(write_splits(tmp_path, "train.parquet", content[: int(len(content) * keep)]))
    assert f"{tmp_path}/train.parquet: could not be read" in message
    assert "is the file whole" in message


def test_a_bad_row_of_a_parquet_file_is_named_by_its_number(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_list([*ROWS, {"text": None, "label": 1}]).to_parquet(tmp_path / "train.parquet")
    (tmp_path / "test.jsonl").write_bytes(jsonl())
    assert f"{tmp_path}/train.parquet, row 21: there is no text" in refusal(tmp_path)


def test_bytes_of_a_parquet_file_do_not_become_the_text_of_a_bytes_object(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_list([{**row, "text": b"raw"} for row in ROWS]).to_parquet(tmp_path / "train.parquet")
    (tmp_path / "test.jsonl").write_bytes(jsonl())
    assert "train.parquet, row 1: text is a bytes" in refusal(tmp_path)


@pytest.mark.parametrize(
    "make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("gone")], ids=["dir", "fifo", "x"]
)
def test_what_is_no_file_is_not_opened(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    make(tmp_path / "train.jsonl")
    assert f"{tmp_path}/train.jsonl is a folder, a pipe, a device or a broken link" in refusal(tmp_path)


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(jsonl())
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").symlink_to("rows")
    assert len(loaded(tmp_path).test) == 20


def test_a_text_that_no_tokenizer_could_take_is_refused(tmp_path: Path) -> None:
    rows = {"csv": b"a" * 2_000_000 + b",1\n", "jsonl": json.dumps({"text": "a" * 2_000_000, "label": 1}).encode()}
    for suffix, row in rows.items():
        (tmp_path / suffix).mkdir()
        content = (table() if suffix == "csv" else jsonl()) + row
        message = refusal(write_splits(tmp_path / suffix, f"train.{suffix}", content))
        assert f", line {22 if suffix == 'csv' else 21}: text has 2,000,000 characters, more than 1,000,000" in message


@pytest.mark.parametrize("name", ["train.csv", "train.csv.gz"])
def test_a_file_that_does_not_fit_into_memory_is_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_content, "LARGEST", 1000)
    content = table(*["a long row,1"] * 1000)
    packed = gzip.compress(content) if name.endswith("gz") else content
    assert len(packed) < 1000 or name == "train.csv"
    assert "save it as Parquet" in refusal(write_splits(tmp_path, name, packed))


def test_a_quotation_mark_left_open_in_a_large_file_is_named_by_its_line(tmp_path: Path) -> None:
    folder = write_splits(tmp_path, "train.csv", b'text,label\n"a,1\n' + (b"a" * 999 + b",1\n") * 4_000)
    assert "train.csv, line 2: this is no CSV (unexpected end of data)" in refusal(folder)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_large_file_is_read_line_by_line_and_in_linear_time(tmp_path: Path, suffix: str) -> None:
    def seconds(rows: int) -> float:
        """The least processor time of three, for a file whose last row is bad."""
        head, row = (
            ("text,label\n", "some words,{}\n") if suffix == "csv" else ("", '{{"text": "some words", "label": {}}}\n')
        )
        file = tmp_path / f"train.{suffix}"
        file.write_text(head + "".join(row.format(i % 2) for i in range(rows)))
        took = []
        for _ in range(3):
            start = time.process_time()
            read = row_files.read_rows(file, ["text", "label"])
            assert len(read.rows) == rows
            took.append(time.process_time() - start)
        assert read.numbers[-1] == rows + (suffix == "csv")
        return min(took)

    assert seconds(64_000) < 40 * seconds(8_000)


def test_a_label_of_another_type_late_in_a_large_file_is_named_by_its_line(tmp_path: Path) -> None:
    rows = [{"text": "a" * 10_000, "label": i % 2} for i in range(1200)]
    content = jsonl(*rows, {"text": "a", "label": "maybe"})
    message = refusal(write_splits(tmp_path, "train.jsonl", content), labels=["no", "yes"])
    assert "train.jsonl, line 1221: " in message
    assert "label 'maybe' is neither one of the labels (no, yes)" in message


# --- what is accepted


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["Unix", "Windows"])
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_one_kind_of_line_end_is_read_and_the_last_may_lack(tmp_path: Path, suffix: str, end: str) -> None:
    content = (table() if suffix == "csv" else jsonl()).replace(b"\n", end.encode())
    for cut in (content, content.removesuffix(end.encode()), content + end.encode() * 2):
        data = (
            loaded(write_splits(tmp_path, f"test.{suffix}", cut))
            if not (tmp_path / "test.jsonl").unlink(True)
            else None
        )
        assert data is not None
        assert [e.sequences[0][0] for e in data.test] == [row["text"] for row in ROWS]


def test_line_ends_within_quoted_fields_are_text(tmp_path: Path) -> None:
    content = b'text,label\n"a\r\nb",1\n"c\rd",0\n"e\nf, ""g""",1\n'
    data = loaded(write_splits(tmp_path, "test.csv", content))
    assert [e.sequences[0][0] for e in data.test] == ["a\r\nb", "c\rd", 'e\nf, "g"']


def test_a_number_is_a_text_and_a_cell_of_a_csv_stays_as_it_is_written(tmp_path: Path) -> None:
    data = loaded(write_splits(tmp_path, "test.jsonl", b'{"text": 7, "label": 1}\n{"text": 8, "label": 0}\n'))
    assert [e.sequences[0][0] for e in data.test] == ["7", "8"]
    (tmp_path / "test.jsonl").unlink()
    data = loaded(write_splits(tmp_path, "test.csv", b"text,label\n007,1\nNone,0\n1.50,1\nTrue,0\n"))
    assert [e.sequences[0][0] for e in data.test] == ["007", "None", "1.50", "True"]


def test_a_csv_may_begin_with_numbers_and_go_on_with_words(tmp_path: Path) -> None:
    content = b"text,label\n" + b"5,1\n" * 10_001 + b"five,0\n"
    assert loaded(write_splits(tmp_path, "test.csv", content)).test[-1].sequences == (("five", None),)


def test_columns_that_the_task_does_not_need_may_hold_anything(tmp_path: Path) -> None:
    rows = [{**row, "spans": [i, [i]], "extra": None if i % 3 else {"a": i}} for i, row in enumerate(ROWS)]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    assert len(loaded(write_splits(tmp_path, "test.jsonl", content)).test) == 20


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_a_list_of_objects_is_a_json_file_and_lines_of_objects_are_too(tmp_path: Path, suffix: str) -> None:
    content = json.dumps(ROWS, indent=1).encode() if suffix == "json" else jsonl()
    assert len(loaded(write_splits(tmp_path, f"test.{suffix}", content)).test) == 20
    (tmp_path / "test.json").write_bytes(jsonl())
    (tmp_path / "test.jsonl").unlink(missing_ok=True)
    assert len(loaded(tmp_path).test) == 20


def test_a_row_in_both_train_and_test_is_no_error(tmp_path: Path) -> None:
    assert len(loaded(write_splits(tmp_path, "test.jsonl", jsonl(*ROWS))).test) == 40


def test_braces_and_format_codes_in_the_rows_stay_as_they_are(tmp_path: Path) -> None:
    texts = ["{text}", "{0.__class__}", "{", "}}", "%s ${PATH}", "[/red]"]
    rows = [{"text": text, "label": i % 2} for i, text in enumerate(texts)]
    data = loaded(write_splits(tmp_path, "test.jsonl", jsonl(*rows)), text="<{text}>")
    assert [e.sequences[0][0] for e in data.test[20:]] == [f"<{text}>" for text in texts]


# --- templates


@pytest.mark.parametrize("template", ["{text.__class__}", "{text[0]}", "{text!r}", "{text:>9999999999}", "{0}"])
@pytest.mark.parametrize("key", ["text", "pair", "choices"])
def test_a_template_reaches_for_nothing_but_columns(tmp_path: Path, key: str, template: str) -> None:
    changes: dict[str, Any] = {key: [template, "{text}"] if key == "choices" else template}
    message = refusal(write_splits(tmp_path, "train.jsonl", jsonl()), **changes)
    assert f"there is no column {template[1:-1]!r}" in message


@pytest.mark.parametrize("name", ["Review Text", "answers.text", "a[0]", "0", "text!", "kind:sub"])
def test_a_column_of_any_name_goes_into_a_template(tmp_path: Path, name: str) -> None:
    rows = [{name: f"text {i}", "label": i % 2} for i in range(20)]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    data = loaded(write_splits(tmp_path, "train.jsonl", content), text=f"{{{{{{{name}}}}}}}", test=None)
    assert {e.sequences[0][0] for e in (*data.train, *data.dev, *data.test)} == {f"{{text {i}}}" for i in range(20)}


@pytest.mark.parametrize("cloze", ["{mask} {text}", "{mask", "It was.", "{mask!r}", "{mask:>9}"])
def test_a_cloze_holds_the_mask_and_no_other_braces(cloze: str) -> None:
    with pytest.raises(ConfigurationError, match=r"task\.cloze="):
        TextTask(name="local", text="{text}", cloze=cloze)


# --- labels that are read off the rows


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"text": "a", "label": f"label {i}"} for i in range(1001)], "column 'label' holds 1001 different labels"),
        (
            [{"text": "a", "label": "x" * n} for n in (1, 10_000_000)],
            "column 'label' holds a label of 10000000 characters, such as 'xx",
        ),
    ],
    ids=["many", "long"],
)
def test_a_column_that_can_hardly_be_the_label_is_refused(
    tmp_path: Path, rows: list[dict[str, Any]], words: str
) -> None:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    message = refusal(write_splits(tmp_path, "train.jsonl", content))
    assert f"{tmp_path}/train.jsonl: {words}" in message
    assert "task.label" in message


@pytest.mark.parametrize("label", ["nan", "NaN", ""])
def test_nan_does_not_become_a_label_of_its_own(tmp_path: Path, label: str) -> None:
    message = refusal(write_splits(tmp_path, "train.csv", table(f"a,{label}")))
    assert "train.csv, line 22: there is no label" in message


def test_one_class_only_is_refused_with_the_file(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 1}] * 5
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    assert f"{tmp_path}/train.jsonl: every row has the same label" in refusal(
        write_splits(tmp_path, "train.jsonl", content)
    )


# --- anything at all

CELLS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just("a"))
VALUES = st.recursive(
    CELLS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just("a"), inner), max_leaves=4
)
GOOD_OBJECTS = st.lists(st.fixed_dictionaries({"text": st.text(max_size=5), "label": st.integers(0, 1)}), max_size=4)
OBJECTS = st.fixed_dictionaries(
    {"text": CELLS, "label": st.sampled_from([0, 1, 1.0, True, "0"]) | VALUES}, optional={"other": VALUES, "": VALUES}
) | st.dictionaries(st.sampled_from(["text", "label"]), VALUES)
LINES = (OBJECTS | VALUES).map(json.dumps) | st.text(max_size=8)


@st.composite
def hostile_objects(draw: st.DrawFn) -> list[Any]:
    """A row of each label, good ones, and up to two that may be anything."""
    return [*ROWS[:2], *draw(GOOD_OBJECTS), *draw(st.lists(OBJECTS, max_size=2))]


@st.composite
def hostile_jsonl(draw: st.DrawFn) -> bytes:
    lines = [*map(json.dumps, draw(hostile_objects())), *draw(st.lists(LINES, max_size=1))]
    return draw(st.sampled_from(["\n", "\n", "\r\n", "\r"])).join(lines).encode("utf-8", "replace")


@st.composite
def hostile_csv(draw: st.DrawFn) -> bytes:
    """Records that are written as they should be, in odd words, and now and then an odd end."""
    header, ends = draw(st.sampled_from([["text", "label"], ["", "text", "label"]])), ["\n", "\n", "\r\n", "\r"]
    odd = st.sampled_from(["", "nan", '"', "a\nb", "a\rb", "a\r\nb", " ", ","]) | st.text(max_size=3)
    record = st.tuples(*[odd] * (len(header) - 1), st.sampled_from(["0", "1", "1", "0", "2", ""]))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator=draw(st.sampled_from(ends)))
    writer.writerows([header, ["a"] * len(header[1:]) + ["0"], ["a"] * len(header[1:]) + ["1"]])
    writer.writerows(draw(st.lists(record, max_size=3)))
    return stream.getvalue().encode("utf-8", "replace") + draw(
        st.sampled_from([b""] * 5 + [b'"', b"a", b",,,", b"\xff"])
    )


def outcome(name: str, content: bytes) -> str:
    """What comes of a load where every split is this file: an error's message, or '' where it loads."""
    with tempfile.TemporaryDirectory() as folder:
        for split in ("train", "test"):
            (Path(folder) / f"{split}.{name}").write_bytes(content)
        try:
            data = loaded(Path(folder), dev="test")
        except ConfigurationError as error:
            return str(error)
        return "" if len(data.train) == len(data.test) >= 2 else "rows were lost"


def check_outcome(name: str, content: bytes) -> None:
    """That the bytes load, or are refused in a message that names the file and is fit to be shown."""
    message = outcome(name, content)
    assert not message or f"train.{name}" in message
    assert message.isprintable()
    assert len(message) < 1000


@given(st.one_of(st.binary(max_size=60), hostile_jsonl()))
@settings(max_examples=300, derandomize=True)
def test_any_bytes_as_json_lines_load_or_are_refused(content: bytes) -> None:
    check_outcome("jsonl", content)


@given(st.one_of(st.binary(max_size=60).map(lambda tail: b"text,label\n" + tail), hostile_csv()))
@settings(max_examples=300, derandomize=True)
def test_any_bytes_as_csv_load_or_are_refused(content: bytes) -> None:
    check_outcome("csv", content)


@given(
    st.binary(max_size=60).map(lambda tail: b"[" + tail) | hostile_objects().map(lambda rows: json.dumps(rows).encode())
)
@settings(max_examples=300, derandomize=True)
def test_any_bytes_as_a_json_list_load_or_are_refused(content: bytes) -> None:
    check_outcome("json", content)
