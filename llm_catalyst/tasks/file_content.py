"""The content of a data file: decompressed, and decoded to text. A file's first bytes count, not its suffix."""

import bz2
import codecs
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
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
OTHER = ("gb18030", "big5", "cp932", "euc_jp", "cp949", "cp1251", "koi8_r", "cp1253", "cp1255", "cp1256")
WIDE = ("utf_16_le", "utf_16_be")
# From this share of bytes beyond ASCII among the letters of a line on, a text is not in Latin script.
LATIN_SHARE = 0.4
# How charset-normalizer's two measures of a guess are weighed, and the advantage of cp1252, the most frequent by far.
# Chosen on 23 short texts in 13 languages: 20 are decoded as they were written.
COHERENCE_WEIGHT, ADVANTAGE, MOST_CHAOS = 0.5, 0.1, 0.5


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


def open_zip(file: Path) -> IO[bytes]:
    """The only file in a zip archive. Raises RowError where there is none, or more than one."""
    archive = zipfile.ZipFile(file)
    members = [m.filename for m in archive.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX/")]
    if len(members) != 1:
        held = escape_controls(join_first(members)) or "nothing"
        raise RowError(None, f"the archive holds {held}, and it must hold one file; unpack it, or name a file of it")
    return archive.open(members[0])


COMPRESSIONS: dict[bytes, tuple[str, Callable[[Path], Any]]] = {
    b"\x1f\x8b": ("gzip", gzip.open),
    b"BZh": ("bzip2", bz2.open),
    b"\xfd7zXZ\x00": ("xz", lzma.open),
    b"PK\x03\x04": ("zip", open_zip),
}


def find_compression(file: Path) -> tuple[str, Callable[[Path], Any]]:
    """The name of a file's compression, '' for none, and the function that opens the file. Raises OSError."""
    with file.open("rb") as stream:
        head = stream.read(6)
    found = (known for magic, known in COMPRESSIONS.items() if head.startswith(magic))
    return next(found, ("", lambda path: path.open("rb")))


def read_content(file: Path) -> tuple[bytes, str]:
    """A file's bytes, decompressed, and the name of the compression. Raises OSError and RowError."""
    compression, opened = find_compression(file)
    try:
        with opened(file) as stream:
            content: bytes = stream.read(LARGEST + 1)
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise RowError(None, f"the {compression} file is damaged ({error}); fetch or write it anew") from error
    except (RuntimeError, NotImplementedError) as error:  # an encrypted archive, a method that zipfile lacks
        raise RowError(None, f"the archive cannot be opened ({error}); unpack it") from error
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
        if not mark and b"\0" in content and (found := guess_encoding(content, WIDE)):
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
    high = sum(byte >= 0x80 for byte in joined)
    letters = high + sum(chr(byte).isalpha() for byte in joined if byte < 0x80)
    if b"\0" in joined:
        return guess_encoding(content, WIDE)
    return guess_encoding(joined, LATIN if high < LATIN_SHARE * letters else OTHER, content)


def guess_encoding(sample: bytes, candidates: tuple[str, ...], content: bytes = b"") -> str:
    """The candidate that fits the sample best and decodes all of `content`; '' where there is none."""
    import charset_normalizer

    found = charset_normalizer.from_bytes(sample[:SAMPLE], cp_isolation=list(candidates), threshold=MOST_CHAOS)
    costs = {
        name: round(match.chaos - COHERENCE_WEIGHT * match.coherence - ADVANTAGE * (name == "cp1252"), 3)
        for match in found
        for name in match.could_be_from_charset
    }
    for name in sorted(costs, key=lambda name: (costs[name], candidates.index(name))):
        try:
            content.decode(name)
        except UnicodeDecodeError:
            continue
        return name
    return ""
