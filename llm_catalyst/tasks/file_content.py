"""The content of a data file: decompressed, and decoded to text. A file's first bytes count, not its suffix."""

import bz2
import codecs
import gzip
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from llm_catalyst.utils.format import join_first
from llm_catalyst.utils.terminal import escape_controls

GIBIBYTE = 2**30
LARGEST = GIBIBYTE  # of a text file, decompressed
SAMPLE = 2**16  # bytes from which an encoding is guessed

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# The encodings that spreadsheets and databases still write, the more frequent first.
LATIN = ("cp1252", "cp1250", "cp1254", "mac_roman")
ASIAN = ("gb18030", "big5", "cp932", "euc_jp", "cp949")
OTHER = (*ASIAN, "cp1251", "koi8_r", "cp1253", "cp1255", "cp1256", "cp866", "mac_cyrillic")
TURKISH = "ğışĞİŞ"
WIDE = ("utf_16_le", "utf_16_be")
SHIFTED = {b"\x1b$B": "iso2022_jp_2", b"\x1b$@": "iso2022_jp_2", b"\x1b$)C": "iso2022_kr"}  # by their first escape
# From this share of bytes beyond ASCII among the letters of words that have any on, a text is not in Latin script.
LATIN_SHARE = 0.55
WORD = re.compile(rb"[^\s,;\"]+")
# How charset-normalizer's two measures of a guess are weighed, and the advantage of cp1252, the most frequent by far.
# Chosen on 23 short texts in 13 languages: 20 are decoded as they were written.
COHERENCE_WEIGHT, ADVANTAGE, MOST_CHAOS = 0.5, 0.1, 0.5


OFFICE = ("[Content_Types].xml", "mimetype")  # in the archives of Excel, LibreOffice and their relatives
UNSEEN = ("__MACOSX/", ".", "Thumbs.db", "desktop.ini")  # how names begin that systems add to archives

# The first bytes of files that are no rows as they are: what such a file is, and the fix.
SHEET_FIX = "save the sheet as CSV (UTF-8)"
ROWS_FIX = "save its rows as CSV, JSON Lines or Parquet"
UNPACK_FIX = "unpack it, and name a file of it"
FOREIGN = {
    rb"\x28\xb5\x2f\xfd": ("compressed by Zstandard", "decompress it (zstd -d FILE)"),
    rb"\x04\x22\x4d\x18": ("compressed by LZ4", "decompress it (lz4 -d FILE)"),
    rb"\x1f\x8b|BZh[1-9]1AY|\xfd7zXZ\x00|PK\x03\x04": ("compressed twice", "decompress it once"),
    rb"\{\\rtf": ("a document of a word processor", ROWS_FIX),
    rb".{257}ustar": ("a tar archive", UNPACK_FIX),
    rb"7z\xbc\xaf": ("an archive of 7-Zip", UNPACK_FIX),
    rb"Rar!\x1a": ("an archive of RAR", UNPACK_FIX),
    rb"\x80[\x02-\x05]": ("a pickle of Python", ROWS_FIX),
    rb"SQLite format 3": ("a database of SQLite", "export its table (sqlite3 -header -csv FILE 'select * from TABLE')"),
    rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("a file of an office program, such as an Excel sheet", SHEET_FIX),
    rb"FEA1\x00": ("of Feather's first version", "write it anew as Parquet (pandas.read_feather, to_parquet)"),
    rb"\xff\xd8\xff|\x89PNG|GIF8[79]a|RIFF....WEBP|II\*\x00|MM\x00\*": (
        "a picture",
        "name the folder of pictures, and task=image_folder",
    ),
    rb"%PDF-": ("a PDF", ROWS_FIX),
    rb"\x93NUMPY|\x89HDF|ORC[\x00-\x1f]|Obj\x01|RD[AX][23]\n|MATLAB 5\.0|\$FL2@": (
        "a file of another program",
        ROWS_FIX,
    ),
    rb"\x7fELF|MZ[\x00-\x7f]\x00": ("a program", "name a file of rows"),
    rb"version https://git-lfs": ("a pointer of Git LFS, not the file itself", "fetch that (git lfs pull)"),
    rb"(?i:(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html|head|body|script|!--)(?![\w:]))": (
        "a web page, as a server gives one in place of the file",
        "fetch the file anew",
    ),
    rb"(?:\xef\xbb\xbf)?\s*<(?:\?xml\b|[A-Za-z][\w:.-]*(?:\s[^<>]*)?/?>\s*(?:<|$))": ("XML", ROWS_FIX),
}
HEAD = 1024  # bytes in which they stand


class RowError(ValueError):
    """A line of a file (or a row, as `unit` says), None where it is not known, and the problem there with its fix."""

    def __init__(self, number: int | None, problem: str, unit: str = "line") -> None:
        super().__init__(f"{unit} {number}: {problem}" if number else problem)
        self.number = number


@dataclass(frozen=True)
class TextContent:
    """The text of a file, the encoding that was guessed for it ('' for UTF-8), and how it was read, in words."""

    text: str
    guessed: str
    form: str


@dataclass(frozen=True)
class ParsedRows:
    """The rows of a text in the columns that were asked for.

    Args:
        rows: a missing value is None.
        numbers: the line or row of each.
        columns: the names of all columns.
        form: the form of the text, in words.
        unit: what `numbers` count: lines or rows.
        notes: what a reader of the results should know of the text.
        classes: the names of the ids of a column that declares them.
    """

    rows: list[dict[str, Any]]
    numbers: Sequence[int]
    columns: list[str]
    form: str
    unit: str = "line"
    notes: tuple[str, ...] = ()
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)


def open_zip(file: Path) -> IO[bytes]:
    """The only file in a zip archive. Raises RowError where there is none, or more than one."""
    archive = zipfile.ZipFile(file)
    named = [member.filename for member in archive.infolist() if not member.is_dir()]
    if any(name in OFFICE for name in named):
        raise RowError(None, f"this is a file of an office program, such as a spreadsheet; {SHEET_FIX}")
    members = [n for n in named if not n.startswith(UNSEEN) and not n.rpartition("/")[2].startswith(UNSEEN)]
    if len(members) != 1:
        held = escape_controls(join_first(members)) or "nothing"
        raise RowError(None, f"the archive holds {held}, and it must hold one file; unpack it, or name a file of it")
    return archive.open(members[0])


COMPRESSIONS: dict[bytes, tuple[str, Callable[[Path], Any]]] = {
    b"\x1f\x8b": ("gzip", gzip.open),
    b"BZh": ("bzip2", bz2.open),
    b"\xfd7zXZ\x00": ("xz", lzma.open),
    b"\x5d\x00\x00": ("lzma", lzma.open),
    b"PK\x03\x04": ("zip", open_zip),
    b"PK\x05\x06": ("zip", open_zip),  # without any file
}


def find_compression(file: Path) -> tuple[str, Callable[[Path], Any]]:
    """The name of a file's compression, '' for none, and the function that opens the file. Raises OSError."""
    with file.open("rb") as stream:
        head = stream.read(6)
    found = (known for magic, known in COMPRESSIONS.items() if head.startswith(magic))
    return next(found, ("", lambda path: path.open("rb")))


@contextmanager
def open_content(file: Path) -> Iterator[tuple[IO[bytes], str]]:
    """A file's bytes as a stream, decompressed, and the name of the compression. Raises OSError and RowError."""
    compression, opened = find_compression(file)
    try:
        with opened(file) as stream:
            yield stream, compression
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise RowError(None, f"the {compression} file is damaged ({error}); fetch or write it anew") from error
    except (RuntimeError, NotImplementedError) as error:  # an encrypted archive, a method that zipfile lacks
        raise RowError(None, f"the archive cannot be opened ({error}); unpack it") from error


def read_head(file: Path) -> bytes:
    """A file's first bytes, decompressed. Raises OSError, and RowError where they are those of no file of rows."""
    with open_content(file) as (stream, _):
        head = stream.read(HEAD)
    for begin, (what, fix) in FOREIGN.items():
        if re.match(begin, head, re.DOTALL):
            raise RowError(None, f"this is {what}; {fix}")
    return head


def read_content(file: Path) -> tuple[bytes, str]:
    """A file's bytes, decompressed, and the name of the compression. Raises OSError and RowError."""
    with open_content(file) as (stream, compression):
        content: bytes = stream.read(LARGEST + 1)
    if len(content) > LARGEST:
        limit = f"{LARGEST // GIBIBYTE} GiB"
        raise RowError(None, f"the text is larger than {limit}; take a part of it, or save it as Parquet")
    return content, compression


def read_text(file: Path) -> TextContent:
    """A file's text. UTF-8 is tried first; the encoding of anything else is guessed.

    Raises OSError, and RowError with the line for what is no text.
    """
    content, compression = read_content(file)
    mark = next((mark for mark in BYTE_ORDER_MARKS if content.startswith(mark)), None)
    guessed = ""
    try:
        encoding = BYTE_ORDER_MARKS[mark] if mark else "utf-8"
        text = content.decode(encoding)
        if not mark and (found := find_shifted(content)):
            encoding = guessed = found
            text = content.decode(guessed)
    except UnicodeDecodeError as error:
        encoding = guessed = "" if mark else choose_encoding(content)
        if not guessed:
            raise undecodable(content, error) from None
        text = content.decode(guessed)
    if (at := text.find("\0")) >= 0:
        raise RowError(text.count("\n", 0, at) + 1, "there is a NUL byte; save the file as plain UTF-8 text")
    form = ", ".join(filter(None, (encoding.removesuffix("-sig").upper(), compression)))
    return TextContent(text, guessed, form)


def find_shifted(content: bytes) -> str:
    """The encoding of text that only seems to be UTF-8: of two bytes, or one that shifts by escapes; '' for none."""
    if b"\0" in content:
        return guess_encoding(content, WIDE)
    return next((name for begin, name in SHIFTED.items() if begin in content and can_decode(content, name)), "")


def undecodable(content: bytes, error: UnicodeDecodeError) -> RowError:
    """The error for a byte that does not fit its encoding: its line, its column in bytes, and its value."""
    begin = content.rfind(b"\n", 0, error.start) + 1
    byte = f"byte {error.start - begin + 1}, 0x{content[error.start]:02x}"
    name = error.encoding.replace("utf-8", "UTF-8")
    return RowError(content.count(b"\n", 0, error.start) + 1, f"{byte}, is not {name}; save the file as UTF-8")


def choose_encoding(content: bytes) -> str:
    """The encoding of text that is not UTF-8; '' where none fits, or where only some bytes of UTF-8 are damaged."""
    lines = (line for line in content.splitlines() if not line.isascii())
    sample, size = list[bytes](), 0
    for line in lines:
        sample.append(line)
        size += len(line)
        if size > SAMPLE:
            break
    joined = b"\n".join(sample)[:SAMPLE]
    decoded = joined.decode("utf-8", "replace")
    damaged = decoded.count("\ufffd")
    if sum(not c.isascii() for c in decoded) - damaged > damaged:
        return ""
    if b"\0" in joined:
        return guess_encoding(content, WIDE)
    # Other words, such as labels in English beside texts in Greek, say nothing about the encoding.
    words = b"\n".join(b" ".join(word for word in WORD.findall(line) if not word.isascii()) for line in sample)
    high = sum(byte >= 0x80 for byte in words)
    letters = high + sum(chr(byte).isalpha() for byte in words if byte < 0x80)
    if high >= LATIN_SHARE * letters:
        return guess_encoding(words, OTHER, content)
    guessed = guess_encoding(joined, LATIN, content)
    return "cp1254" if guessed == "cp1252" and is_turkish(words) else guessed


def is_turkish(words: bytes) -> bool:
    """Whether words are in Turkish: cp1254 differs from cp1252 in six letters only, which count little in a guess."""
    letters = {c for c in words.decode("cp1254", "replace") if c.isalpha() and not c.isascii()}
    return letters <= {*"çöüâîûÇÖÜÂÎÛ", *TURKISH} and not letters.isdisjoint(TURKISH)


def guess_encoding(sample: bytes, candidates: tuple[str, ...], content: bytes = b"") -> str:
    """The candidate that fits the sample best and decodes all of `content`; '' where there is none."""
    import charset_normalizer

    found = charset_normalizer.from_bytes(sample[:SAMPLE], cp_isolation=list(candidates), threshold=MOST_CHAOS)
    costs = {
        name: round(match.chaos - COHERENCE_WEIGHT * match.coherence - ADVANTAGE * (name == "cp1252"), 3)
        for match in found
        for name in match.could_be_from_charset
    }
    ranked = sorted(costs, key=lambda name: (costs[name], candidates.index(name)))
    return next((name for name in ranked if can_decode(content, name)), "")


def can_decode(content: bytes, encoding: str) -> bool:
    """Whether bytes are text in an encoding."""
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
