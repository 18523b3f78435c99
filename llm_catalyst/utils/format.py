"""Counts, amounts and long texts as people read them."""

import math
import shlex
from collections.abc import Iterable, Sequence


def format_count(number: int, noun: str) -> str:
    """A number with its noun: '1 call', '1,200 calls'."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def join_first(names: Sequence[str], most: int = 3, between: str = ", ") -> str:
    """The first names, and the number of the others: 'a, b, c and 4 more'."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return between.join(names[:most]) + more


def format_dollars(amount: float) -> str:
    """US dollars with cents; amounts below one dollar with at least four decimals, of which two are not zero."""
    if amount >= 1 or amount == 0:
        return f"${amount:,.2f}"
    return f"${amount:.{max(4, 1 - math.floor(math.log10(amount)))}f}"


def format_duration(seconds: float) -> str:
    """Hours, minutes and whole seconds: '0:01:12'."""
    whole = max(0, int(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def format_mebibytes(size: float) -> str:
    """Bytes as '1,234 MiB'."""
    return f"{size / 2**20:,.0f} MiB"


def format_number(value: float) -> str:
    """A number as '2.5', '800', '9,200', '25.6k' or '1.7M'."""
    if value >= 999_950:
        return f"{value / 1e6:,.1f}M"
    if value >= 10_000:
        return f"{value / 1e3:.1f}k"
    return f"{value:,.1f}" if value < 100 and value != int(value) else f"{value:,.0f}"


def format_compact(value: float) -> str:
    """A number with three significant digits: '1.5k', '20M', '0.05'."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def join_command(words: Iterable[str]) -> str:
    """A command as one types it into a shell."""
    return " ".join(map(quote_word, words))


def quote_word(word: str) -> str:
    """A word of a command in the fewest quotes with which a shell reads it back: task.text='{review}'."""
    if not word.isprintable():
        escaped = ("\\" * (c in "\\'") + c if c.isprintable() else c.encode("unicode_escape").decode() for c in word)
        return f"$'{''.join(escaped)}'"
    key, sign, value = word.partition("=")
    forms = [f"{shlex.quote(key)}={shlex.quote(value)}"] if sign and value else []
    forms += [shlex.quote(word), *([f'"{word}"'] if not set(word) & set('"$`\\!') else [])]
    return min(forms, key=len)


def shorten_text(text: str, longest: int) -> str:
    """The text; of a longer one the first `longest` characters and '…'."""
    return text if len(text) <= longest else f"{text[:longest]}…"


def format_ranges(numbers: Iterable[int]) -> str:
    """Numbers in ascending order, those that follow each other as a range: '2-14, 17'."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number <= ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
