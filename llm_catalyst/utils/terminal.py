"""Text from models, vocabularies and files, made safe to look at in a terminal, a log or an SVG."""

from rich.console import Console


def escape_controls(text: str) -> str:
    """`text` on one line: line ends, control, bidirectional and invisible characters become visible escapes (\\x1b)."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def quote_prompt(text: str, longest: int | None = None) -> str:
    """A prompt between quotation marks, so that blanks at its ends are seen; shortened where `longest` is given."""
    shown = escape_controls(text)
    return f'"{shown}"' if longest is None or len(shown) <= longest else f'"{shown[:longest]}…"'


def escape_paragraphs(text: str) -> str:
    """`text` with its line ends and tabs kept as such, and everything else as `printable` has it."""
    return "\n".join(escape_controls(line.expandtabs(4)) for line in text.replace("\r\n", "\n").split("\n"))


def forgive_encoding(console: Console) -> None:
    """Let the console's stream write what its encoding lacks as an escape, instead of failing half-way."""
    reconfigure = getattr(console.file, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
