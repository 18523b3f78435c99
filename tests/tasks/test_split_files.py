"""Where the files of a split lie, and which files are no split."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
from helpers.row_files import PAIRS, as_csv, as_jsonl, list_rows, load_rows, write_files

from llm_catalyst.tasks.split_files import find_split
from llm_catalyst.utils.validation import ConfigurationError

ONE, OTHER = PAIRS[:8], PAIRS[8:]

LAYOUTS: dict[str, dict[str, str | bytes]] = {
    "test in a folder of its name": {"train.csv": as_csv(), "test/rows.csv": as_csv()},
    "test in a folder of its name, upper case": {"train.csv": as_csv(), "Test/rows.csv": as_csv()},
    "test in another folder": {"train.csv": as_csv(), "held_back/test.csv": as_csv()},
    "test as .txt": {"train.csv": as_csv(), "test.txt": as_csv()},
    "train under a name of its own": {"reviews.csv": as_csv(), "test/test.csv": as_csv()},
    "shards of which one is empty": {"train-1.csv": as_csv(), "train-2.csv": "text,label\r\n", "test.csv": as_csv()},
    "an empty file first": {"train-1.jsonl": "", "train-2.jsonl": as_jsonl(), "test.csv": as_csv()},
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


@pytest.mark.parametrize("folder", ["", "data/", "train/"])
def test_dev_and_test_are_held_out_of_shards_that_are_all_there_is(tmp_path: Path, folder: str) -> None:
    files = {f"{folder}train-0000{i}-of-00002.csv": as_csv(rows) for i, rows in enumerate((ONE, OTHER))}
    data = load_rows(write_files(tmp_path, dict(files)))
    assert len(data.train) + len(data.dev) + len(data.test) == 20
    note = "train-00000-of-00002.csv and 1 more file are the only ones: dev and test are held out of it"
    assert note in data.notes


NAMESAKES = (
    *("test.dat", "test", "_test.csv", "test.tar.gz", "test/rows.npz", "sub/test.dat", "TEST.DB"),
    *("reviews-test.log", "test_2.bin", "val.dat"),
)


@pytest.mark.parametrize("name", NAMESAKES)
def test_what_has_the_name_of_another_split_is_not_passed_over(tmp_path: Path, name: str) -> None:
    folder = write_files(tmp_path, {"train.csv": as_csv(), name: "anything"})
    with pytest.raises(ConfigurationError, match=rf"holds no test\.jsonl .*; there: .*{name.partition('/')[0]}"):
        load_rows(folder)
    assert len(load_rows(folder, test=None).test) > 0


def test_splits_beside_a_file_of_train_that_is_named_alone_are_told(tmp_path: Path) -> None:
    folder = write_files(tmp_path, {"train.csv": as_csv(), "test.csv": as_csv(), "other.csv": as_csv()})
    note = f"test.csv beside it is not used; task.path={tmp_path} uses the splits there"
    assert note in load_rows(folder / "train.csv").notes
    assert not any("beside it" in note for note in load_rows(folder / "other.csv").notes)


@pytest.mark.parametrize("name", ["latest.dat", "contest/notes.md", ".test.csv", "devices.log", "README.md"])
def test_what_has_a_similar_name_is_no_split(tmp_path: Path, name: str) -> None:
    data = load_rows(write_files(tmp_path, {"train.csv": as_csv(), name: "anything"}))
    assert "train.csv is the only file: dev and test are held out of it" in data.notes


def test_an_empty_shard_and_a_dev_split_that_is_not_used_are_said(tmp_path: Path) -> None:
    files = {"train_1.csv": as_csv(), "train_2.csv": "text,label\r\n", "test.csv": as_csv(), "val/x.csv": as_csv()}
    notes = load_rows(write_files(tmp_path, dict(files))).notes
    assert f"{tmp_path}/train_2.csv has no rows, and was passed over" in notes
    assert "val is in the folder, and not used; task.dev=val chooses by it" in notes


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_shard_without_a_column_is_refused_by_its_name(tmp_path: Path, suffix: str) -> None:
    write = as_csv if suffix == "csv" else as_jsonl
    bad = write().replace("label", "verdict")
    folder = write_files(tmp_path, {f"train_1.{suffix}": write(), f"train_2.{suffix}": bad, "test.csv": as_csv()})
    with pytest.raises(
        ConfigurationError, match=rf"train_2\.{suffix}: there is no column 'label'; there are: text, ver"
    ):
        load_rows(folder)


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, {"train.csv": as_csv(), "locked/x": ""})
    whole = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:
        if path.name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ConfigurationError, match=r"/locked cannot be read: Permission denied; give the right to read"):
        load_rows(tmp_path)
    write_files(tmp_path, {"test.csv": as_csv()})
    assert len(load_rows(tmp_path).test) == 20


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("~nobody-of-this-name/data", "task.path=~nobody-of-this-name/data does not exist"),
        ("x" * 5000, "cannot be read: File name too long; name another path"),
        ("a\0b", r"task.path=a\x00b does not exist"),
        ("/dev/null", "/dev/null is a pipe or a device, which cannot be read twice; write its content into a file"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused_in_a_short_message(path: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_rows(Path(path))
    assert words in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_folder_whose_name_begins_with_a_tilde_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, {"~mine/rows.csv": as_csv()})
    monkeypatch.chdir(tmp_path)
    assert list_rows(load_rows(Path("~mine"))) == set(PAIRS)


def test_texts_in_files_of_their_own_are_refused_with_the_command_that_joins_them(tmp_path: Path) -> None:
    texts = {"neg/0_1.txt": "Dull.", "neg/1_2.txt": 'So "slow",\nthough', "pos/0_9.txt": "Süß", "pos/1_8.txt": "Good"}
    files = {f"{split}/{name}": text for split in ("train", "test") for name, text in texts.items()}
    files |= {"README.txt": "x", "train/urls_pos.txt": "http://a\n", "train/urls_neg.txt": "http://b\n"}
    folder = write_files(tmp_path, dict(files))
    for split in ("train", "test"):
        with pytest.raises(ConfigurationError, match=rf"each text is a file of its own \({split}/neg") as caught:
            load_rows(folder)
        command = str(caught.value).partition("into one: ")[2]
        subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True)
    data = load_rows(folder, dev="test")
    assert list_rows(data) == {(text, name[:3]) for name, text in texts.items()}


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
    "dev alone": ({"dev.csv": as_csv()}, r"holds no train\.jsonl .*; there: dev\.csv"),
    "an empty folder for test": (
        {"train.csv": as_csv(), "test/.keep": ""},
        r"holds no test\.jsonl .*; there: test/, t",
    ),
    "test alone": ({"test.csv": as_csv()}, r"holds no train\.jsonl .*; there: test\.csv; name the splits by"),
    "dev for test": ({"train.csv": as_csv(), "dev.csv": as_csv()}, r"no test\.jsonl .*; there: dev\.csv, train\.csv"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_folder_that_leaves_a_doubt_is_refused_with_the_names_of_its_files(tmp_path: Path, kind: str) -> None:
    files, words = REFUSED[kind]
    with pytest.raises(ConfigurationError, match=words):
        load_rows(write_files(tmp_path, files), test=None if kind == "dev alone" else "test")


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
