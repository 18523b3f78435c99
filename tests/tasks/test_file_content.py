"""Compressed files and texts in other encodings are read as they were written, or refused with their place."""

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.row_files import PAIRS, as_csv, as_jsonl, list_rows, load_rows, write_files

from llm_catalyst.utils.validation import ConfigurationError


def zipped(members: dict[str, str]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "jsonl.gz": gzip.compress,
    "jsonl.bz2": bz2.compress,
    "JSONL.XZ": lzma.compress,
    "jsonl.zip": lambda content: zipped({"rows.jsonl": content.decode(), "__MACOSX/._rows": ""}),
}


@pytest.mark.parametrize("suffix", PACKED)
def test_a_compressed_file_is_read(tmp_path: Path, suffix: str) -> None:
    data = load_rows(write_files(tmp_path, {f"train.{suffix}": PACKED[suffix](as_jsonl().encode())}), test=None)
    assert list_rows(data) == set(PAIRS)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gzip.compress(as_csv().encode())[:-20], "the gzip file is damaged"),
        (zipped({"a.csv": as_csv(), "b.csv": as_csv()}), "the archive holds a.csv, b.csv, and it must hold one file"),
        (zipped({"a.csv": as_csv()})[:-30], "the zip file is damaged"),
    ],
)
def test_an_archive_that_is_damaged_or_holds_several_files_is_refused(
    tmp_path: Path, content: bytes, words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        load_rows(write_files(tmp_path, {"rows.csv": content}) / "rows.csv")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_no_part_of_the_first_column_and_worth_no_words(tmp_path: Path, encoding: str) -> None:
    data = load_rows(write_files(tmp_path, {"rows.csv": as_csv(delimiter="\t").encode(encoding)}))
    assert list_rows(data) == set(PAIRS)
    assert not any("UTF" in note for note in data.notes)


SCRIPTS = {
    "cp1252": [("Un vrai régal, à voir — c’est génial", "réussi"), ("Nul et ennuyeux, à éviter", "raté")],
    "cp1250": [("Świetny film, polecam każdemu", "dobry"), ("Bardzo słaby, żałuję", "zły")],
    "cp1251": [("Отлично! Всем советую посмотреть", "хорошо"), ("Ужасно. Зря потратил время", "плохо")],
    "gb18030": [("这部电影很好看", "好评"), ("太差了不推荐", "差评")],
    "cp949": [("정말 재미있는 영화", "좋음"), ("지루한 영화", "나쁨")],
}


@pytest.mark.parametrize("encoding", SCRIPTS)
def test_text_that_is_not_utf_8_is_decoded_and_that_is_said_once(tmp_path: Path, encoding: str) -> None:
    rows = [(f"{text} {i}", label) for i in range(5) for text, label in SCRIPTS[encoding]]
    data = load_rows(write_files(tmp_path, {"rows.csv": as_csv(rows).encode(encoding)}))
    assert list_rows(data) == set(rows)
    assert len([note for note in data.notes if f"was read as {encoding}, a guess" in note]) == 1


def test_one_damaged_byte_among_good_ones_is_refused_and_not_taken_for_another_encoding(tmp_path: Path) -> None:
    content = as_csv([(f"Ein schöner Film über Köln {i}", i % 2) for i in range(9)]).encode() + b"caf\xe9,1\n"
    with pytest.raises(ConfigurationError, match=r"line 11: byte 4, 0xe9, is not UTF-8; save the file as UTF-8"):
        load_rows(write_files(tmp_path, {"rows.csv": content}))
