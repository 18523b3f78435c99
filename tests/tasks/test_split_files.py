"""Where the files of a split lie, and which files are no split."""

from pathlib import Path

import datasets
import pytest
from helpers.row_files import PAIRS, as_csv, as_jsonl, list_rows, load_rows, write_files

from llm_catalyst.tasks.split_files import find_split
from llm_catalyst.utils.validation import ConfigurationError

ONE, OTHER = PAIRS[:8], PAIRS[8:]

LAYOUTS: dict[str, dict[str, str | bytes]] = {
    "upper case": {"TRAIN.CSV": as_csv(), "Test.Csv": as_csv()},
    "the hub's folder": {f"data/{split}-00000-of-00001.jsonl": as_jsonl() for split in ("train", "test")},
    "several shards": {
        "train-00000-of-00002.jsonl": as_jsonl(ONE),
        "train-00001-of-00002.jsonl": as_jsonl(OTHER),
        "test.jsonl": as_jsonl(),
    },
    "shards with a hash": {
        "train-00000-of-00001-0123456789abcdef.jsonl": as_jsonl(),
        "test-00000-of-00001-fedcba9876543210.jsonl": as_jsonl(),
    },
    "a folder for each split": {f"default/{split}/0000.jsonl": as_jsonl() for split in ("train", "test")},
    "beside other files": {"train.csv": as_csv(), "test.csv": as_csv(), "train_notes.txt": "x", "README.md": "x"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_splits_are_found_as_people_and_the_hub_lay_them_out(tmp_path: Path, layout: str) -> None:
    data = load_rows(write_files(tmp_path, LAYOUTS[layout]))
    assert (len(data.train) + len(data.dev), len(data.test)) == (20, 20)
    assert list_rows(data) == set(PAIRS)


def test_shards_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    write_files(tmp_path, {f"train_{i}.csv": as_csv(PAIRS[i : i + 2]) for i in range(0, 20, 2)})
    assert [file.name for file in find_split(tmp_path, "train")] == [f"train_{i}.csv" for i in range(0, 20, 2)]


def test_a_folder_that_the_datasets_library_saved_is_read_with_its_class_names(tmp_path: Path) -> None:  # E7
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    rows = {"text": [text for text, _ in PAIRS], "label": [i % 2 for i in range(20)]}
    split = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(train=split, test=split).save_to_disk(str(tmp_path))
    assert list_rows(load_rows(tmp_path)) == set(PAIRS)


@pytest.mark.parametrize(
    ("files", "path"),
    [
        ({"reviews.csv": as_csv()}, "reviews.csv"),
        ({"reviews.data": as_csv()}, "reviews.data"),
        ({"reviews.csv": as_csv(), "README.txt": "x"}, ""),
        ({"train.csv": as_csv()}, ""),
    ],
)
def test_one_file_is_enough_and_dev_and_test_are_held_out_of_it(
    tmp_path: Path, files: dict[str, str | bytes], path: str
) -> None:
    data = load_rows(write_files(tmp_path, files) / path, dev="validation")
    assert list_rows(data) == set(PAIRS)
    assert all((data.train, data.dev, data.test))
    assert f"{next(iter(files))} is the only file: dev and test are held out of it" in data.notes


REFUSED: dict[str, tuple[dict[str, str | bytes], str]] = {
    "two formats": ({"train.csv": as_csv(), "train.jsonl": as_jsonl()}, r"more than once \(train\.csv, train\.jsonl\)"),
    "a file and shards": ({"train.csv": as_csv(), "train-1.csv": as_csv()}, "more than once"),
    "a missing shard": ({"train-00000-of-00003.jsonl": as_jsonl()}, "their names say 3; fetch the missing ones"),
    "two folders": ({"a/train.csv": as_csv(), "b/train.csv": as_csv()}, "in several folders .*; set task.path to one"),
    "a spreadsheet": ({"train.xlsx": b"PK\x03\x04", "test.csv": as_csv()}, r"train\.xlsx.* save the sheet as CSV"),
    "an archive": ({"train.tar.gz": b"", "test.csv": as_csv()}, r"holds no train\.jsonl.*; unpack train\.tar\.gz"),
    "too few rows": (
        {"train.csv": as_csv(PAIRS[:2])},
        r"empty: it is held out of the 2 rows \(bad 1, good 1\)",
    ),
    "test alone": ({"test.csv": as_csv()}, r"holds no train\.jsonl .*; there: test\.csv; name the splits by"),
    "dev for test": ({"train.csv": as_csv(), "dev.csv": as_csv()}, r"no test\.jsonl .*; there: dev\.csv, train\.csv"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_folder_that_leaves_a_doubt_is_refused_with_the_names_of_its_files(tmp_path: Path, kind: str) -> None:
    files, words = REFUSED[kind]
    with pytest.raises(ConfigurationError, match=words):
        load_rows(write_files(tmp_path, files))


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_rows_that_changed_are_seen_though_the_files_time_did_not(  # E2
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    swapped = [(text, "bad" if label == "good" else "good") for text, label in PAIRS]
    found = []
    for rows in (PAIRS, swapped):
        table = datasets.Dataset.from_list([{"text": text, "label": label} for text, label in rows])
        writers = {"jsonl": table.to_json, "csv": table.to_csv, "parquet": table.to_parquet}
        for split in ("train", "test"):
            file = tmp_path / f"{split}.{suffix}"
            writers[suffix](str(file))
            os.utime(file, (1, 1))
        data = load_rows(tmp_path)
        assert list_rows(data) == set(rows)
        found.append(data.fingerprints())
    assert found[0] != found[1]
    assert list(home.rglob("*")) == []
