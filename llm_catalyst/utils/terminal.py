"""Text from models, vocabularies and files, escaped for a terminal, a log or an SVG."""

import io

from rich.console import Console

from llm_catalyst.utils.format import shorten_text


def escape_controls(text: str) -> str:
    """`text` on one line: line ends, control, bidirectional and invisible characters become visible escapes (\\x1b)."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def quote_prompt(text: str, longest: int | None = None) -> str:
    """A prompt between quotation marks, which show blanks at its ends; shortened to `longest` characters if given."""
    shown = escape_controls(text)
    return f'"{shown if longest is None else shorten_text(shown, longest)}"'


def escape_paragraphs(text: str) -> str:
    """`text` with its line ends kept, tabs expanded, and each line escaped by `escape_controls`."""
    return "\n".join(escape_controls(line.expandtabs(4)) for line in text.replace("\r\n", "\n").split("\n"))


def forgive_encoding(console: Console) -> None:
    """Let the console's stream write characters that its encoding lacks as escapes, instead of raising an error."""
    if isinstance(console.file, io.TextIOWrapper):
        console.file.reconfigure(errors="backslashreplace")
