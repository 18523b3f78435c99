"""Compressed files and texts in other encodings are read as they were written, or refused with their place."""

import bz2
import gzip
import io
import lzma
import pickle
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas
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
    "zip": lambda content: zipped({".DS_Store": "x", "a/.DS_Store": "x", "a/rows.jsonl": content.decode(), "a/": ""}),
    "jsonl.lzma": lambda content: lzma.compress(content, lzma.FORMAT_ALONE),
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


def tarred(members: dict[str, str]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content.encode())
            archive.addfile(member, io.BytesIO(content.encode()))
    return stream.getvalue()


def of_sqlite() -> bytes:
    with sqlite3.connect(":memory:") as database:
        database.execute("create table rows (text, label)")
        return database.serialize()


# A real Zstandard frame of "text", as `zstd` writes it; the first sector of an Excel sheet of 1997 to 2003.
ZSTANDARD = bytes.fromhex("28b52ffd0458210000746578749cd8ea6d")
OLD_SHEET = bytes.fromhex("d0cf11e0a1b11ae1").ljust(512, b"\0")
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
SHEET = {"[Content_Types].xml": "<x/>", "xl/workbook.xml": "<x/>"}
FOREIGN: dict[str, tuple[bytes, str]] = {
    "Zstandard": (ZSTANDARD, r"this is compressed by Zstandard; decompress it \(zstd"),
    "tar": (tarred({"train.csv": as_csv()}), "this is a tar archive; unpack it, and name a file of it"),
    "tar and gzip": (gzip.compress(tarred({"train.csv": as_csv()})), "this is a tar archive; unpack it"),
    "a pickle": (pickle.dumps([PAIRS]), "this is a pickle of Python; save its rows as CSV"),
    "SQLite": (of_sqlite(), "this is a database of SQLite; export its table"),
    "an old sheet": (OLD_SHEET, "an office program, such as an Excel sheet; save the sheet as CSV"),
    "a sheet": (zipped(SHEET), "an office program, such as a spreadsheet; save the sheet as CSV"),
    "Feather 1": (b"FEA1" + bytes(60), "Feather's first version; write it anew as Parquet"),
    "a pointer": (POINTER.encode(), r"this is a pointer of Git LFS, not the file itself; fetch that \(git lfs pull\)"),
    "a page": (
        b"<!DOCTYPE html>\n<html><body>Too large, to scan</body></html>",
        "this is a web page, .*; fetch",
    ),
    "a page behind a mark": (b"\xef\xbb\xbf\n<HTML lang='en'>", "this is a web page"),
    "XML": (b'<?xml version="1.0"?>\n<rows/>', "this is XML; save its rows as CSV"),
    "XML without its declaration": (b"<rows>\n <row a='b'/></rows>", "this is XML"),
    "compressed twice": (gzip.compress(gzip.compress(as_csv().encode())), "this is compressed twice; decompress it"),
    "a document": (b"{\\rtf1\\ansi text}", "this is a document of a word processor"),
    "a comment of a page": (b"<!-- saved from url=(0022) -->\n<html>", "this is a web page"),
    "a picture": (b"\xff\xd8\xff\xe0" + bytes(range(256)), "this is a picture; name the folder of pictures"),
    "a picture and gzip": (gzip.compress(b"\x89PNG\r\n"), "this is a picture"),
    "nothing in an archive": (zipped({}), "the archive holds nothing, and it must hold one file"),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "dat"])
def test_a_file_of_another_kind_is_named_with_the_way_to_its_rows(tmp_path: Path, kind: str, suffix: str) -> None:
    content, words = FOREIGN[kind]
    with pytest.raises(ConfigurationError, match=words):
        load_rows(write_files(tmp_path, {f"rows.{suffix}": content}) / f"rows.{suffix}")


@pytest.mark.parametrize("first", ["<text>", "FEA1", "GIF8", "ORCID", "Objects", "%PDF", "MZ", "PK", "<b>", "text"])
def test_a_csv_whose_first_column_is_named_like_another_kind_is_read(tmp_path: Path, first: str) -> None:
    assert list_rows(
        load_rows(write_files(tmp_path, {"rows.csv": as_csv(header=(first, "label"))}), text=f"{{{first}}}")
    )


@pytest.mark.parametrize("place", ["train.jsonl.zst", "train.xlsm", "train.csv.lz4"])
def test_a_file_that_is_not_read_is_found_by_its_name_and_refused(tmp_path: Path, place: str) -> None:
    content = zipped(SHEET) if place.endswith("xlsm") else ZSTANDARD
    with pytest.raises(ConfigurationError, match=rf"{place}: (this is|spreadsheets are)"):
        load_rows(write_files(tmp_path, {place: content, "test.csv": as_csv()}))


def test_parquet_and_feather_are_read_by_their_content(tmp_path: Path) -> None:
    frame = pandas.DataFrame(PAIRS, columns=["text", "label"])
    frame.to_parquet(tmp_path / "rows.parquet")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.write(tmp_path / "rows.parquet", "rows.parquet")
    for name, content in {
        "a.zip": stream.getvalue(),
        "b.csv.gz": gzip.compress((tmp_path / "rows.parquet").read_bytes()),
    }.items():
        assert list_rows(load_rows(write_files(tmp_path / name, {name: content}))) == set(PAIRS)
    (tmp_path / "feather").mkdir()
    frame.to_feather(tmp_path / "feather" / "train.feather")
    frame.to_feather(tmp_path / "feather" / "test.feather")
    assert list_rows(load_rows(tmp_path / "feather")) == set(PAIRS)


SCRIPTS = {
    "cp1252": [("Un vrai régal, à voir — c’est génial", "réussi"), ("Nul et ennuyeux, à éviter", "raté")],
    "cp1250": [("Świetny film, polecam każdemu", "dobry"), ("Bardzo słaby, żałuję", "zły")],
    "cp1254": [("Çok güzel yemek, yine geleceğim", "positive"), ("Hizmet çok kötüydü", "negative")],
    "cp1251": [("Отлично! Всем советую посмотреть", "хорошо"), ("Ужасно. Зря потратил время", "плохо")],
    "gb18030": [("这部电影很好看", "positive"), ("太差了", "negative"), ("不错", "positive")],
    "cp1253": [("Πολύ καλό φαγητό, θα ξανάρθω", "positive"), ("Απαράδεκτη εξυπηρέτηση", "negative")],
    "cp866": [("Очень вкусно, обязательно вернусь", "positive"), ("Ужасно, не советую", "negative")],
    "iso2022_jp_2": [("とても美味しかったです", "positive"), ("値段が高すぎると思う", "negative")],
    "cp949": [("정말 재미있는 영화", "좋음"), ("지루한 영화", "나쁨")],
}


@pytest.mark.parametrize("encoding", SCRIPTS)
def test_text_that_is_not_utf_8_is_decoded_and_that_is_said_once(tmp_path: Path, encoding: str) -> None:
    rows = [(f"{text} {i}", label) for i in range(5) for text, label in SCRIPTS[encoding]]
    data = load_rows(write_files(tmp_path, {"rows.csv": as_csv(rows).encode(encoding)}))
    assert list_rows(data) == set(rows)
    assert len([note for note in data.notes if f"was read as {encoding}, a guess" in note]) == 1


@pytest.mark.parametrize("label", ["positive", "1"])
@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Ça va très bien, déjà vu à l'été"),
        ("cp1252", "Þetta er góð mynd og ég mæli með henni, ýmislegt þó"),
        ("cp1250", "Příliš žluťoučký kůň"),
        ("gb18030", "很好吃"),
    ],
)
def test_the_letters_of_other_columns_do_not_mislead_the_guess(
    tmp_path: Path, encoding: str, text: str, label: str
) -> None:
    rows = [(f"{text} {i}", label if i % 2 else "0") for i in range(9)]
    data = load_rows(write_files(tmp_path, {"rows.csv": as_csv(rows).encode(encoding)}))
    assert list_rows(data) == set(rows)


def test_one_damaged_byte_among_good_ones_is_refused_and_not_taken_for_another_encoding(tmp_path: Path) -> None:
    content = as_csv([(f"Ein schöner Film über Köln {i}", i % 2) for i in range(9)]).encode() + b"caf\xe9,1\n"
    with pytest.raises(ConfigurationError, match=r"line 11: byte 4, 0xe9, is not UTF-8; save the file as UTF-8"):
        load_rows(write_files(tmp_path, {"rows.csv": content}))
