"""Standard output and error that outlive their reader, and write what their encoding lacks as replacements."""

import codecs
import errno
import io
import os
import sys
from contextlib import suppress

from typing_extensions import Buffer

ENCODING_ERRORS = "catalyst_replacement"
# Of the characters that messages, tables and plots are made of, those that a Latin-1 or ASCII terminal may lack.
REPLACEMENTS = str.maketrans(
    {"–": "-", "—": "-", "…": "...", "→": "->", "·": "-", "×": "x", "±": "+/-", "▸": ">", "▶": ">", "✗": "x", "✓": "v"}
    | {
        "╭": "+",
        "╮": "+",
        "╰": "+",
        "╯": "+",
        "┤": "|",
        "┊": ":",
        "╌": "-",
        "─": "-",
        "━": "=",
        "│": "|",
        "█": "#",
        "‘": "'",
        "’": "'",
        "“": '"',
        "”": '"',
    }
)
GONE = (errno.EPIPE, errno.EIO)  # a pipe without a reader, a terminal that was closed


class LastingFile(io.FileIO):
    """A file descriptor whose output is dropped once it cannot be written, instead of ending the process.

    Where the reader is not merely gone (a full disk), standard error is told once, and `lost` says so.
    """

    lost = False

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in GONE:
                self.lost = True
                with suppress(OSError):
                    words = f"warning: the output cannot be written any more ({error.strerror}): what follows is lost\n"
                    os.write(2, words.encode())
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(data).nbytes


def lost_output() -> bool:
    """Whether a part of what was printed to standard output could not be written, though it had a reader."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    return isinstance(raw, LastingFile) and raw.lost


def replace_characters(error: UnicodeError) -> tuple[str, int]:
    """The replacement of characters that an encoding lacks: similar ones, or escapes (\\u5dee)."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(REPLACEMENTS)
    braille = "".join("*" if "\u2800" <= character <= "\u28ff" else character for character in text)  # of plots
    return braille.encode(error.encoding, "backslashreplace").decode(error.encoding), error.end


def open_lasting_streams() -> None:
    """Replace sys.stdout and sys.stderr, where they are those of the process, by streams that raise neither error."""
    codecs.register_error(ENCODING_ERRORS, replace_characters)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        buffer = stream.buffer if isinstance(stream, io.TextIOWrapper) else None
        if type(getattr(buffer, "raw", buffer)) is io.FileIO:  # it is its own buffer with PYTHONUNBUFFERED
            stream.flush()
            file = io.BufferedWriter(LastingFile(stream.fileno(), "w", closefd=False))
            lasting = io.TextIOWrapper(
                file, stream.encoding, ENCODING_ERRORS, line_buffering=name == "stderr" or stream.isatty()
            )
            setattr(sys, name, lasting)
