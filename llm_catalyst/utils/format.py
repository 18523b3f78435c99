"""Counts, amounts and long texts as people read them."""

import itertools
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence


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


def format_share(part: int, whole: int, noun: str = "row") -> str:
    """'3 of 250 rows (1.2%)'."""
    return f"{part:,} of {format_count(whole, noun)} ({part / whole:.1%})"


def shorten_text(text: str, longest: int) -> str:
    """The text; of a longer one the first `longest` characters and '…'."""
    return text if len(text) <= longest else f"{text[:longest]}…"


def shorten_middle(text: str, longest: int) -> str:
    """The text; of a longer one its beginning and its end around '…', `longest` characters together."""
    if len(text) <= longest:
        return text
    end = (longest - 1) // 2
    return f"{text[: longest - 1 - end]}…{text[len(text) - end :]}"


def shorten_apart(names: Sequence[str], longest: int) -> list[str]:
    """The names, each of at most `longest` characters and shortened in its middle, different ones still different.

    Of those that would look the same, the part is shown in which they differ: 'mentor…history=true…'.
    """
    short = {name: shorten_middle(name, longest) for name in names}
    for alike in group_equal(short):
        first = next(i for i, signs in enumerate(itertools.zip_longest(*alike)) if len(set(signs)) > 1)
        short |= {name: show_part(name, first, longest) for name in alike}
    for alike in group_equal(short):  # they differ in several places
        short |= {name: f"{list(short).index(name) + 1}: {name}"[: longest - 1] + "…" for name in alike}
    return [short[name] for name in names]


def group_equal(short: Mapping[str, str]) -> list[list[str]]:
    """The groups of names that look the same."""
    groups: dict[str, list[str]] = {}
    for name, shown in short.items():
        groups.setdefault(shown, []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def show_part(text: str, place: int, longest: int) -> str:
    """The beginning of a text, and as much around `place` as `longest` characters hold."""
    head = longest // 3
    begin = max(head, min(place - longest // 4, len(text) - (longest - head - 1)))
    room = longest - head - 1 - (len(text) - begin > longest - head - 1)
    return f"{text[:head]}…{text[begin : begin + room]}{'…' if begin + room < len(text) else ''}"


def format_ranges(numbers: Iterable[int]) -> str:
    """Numbers in ascending order, those that follow each other as a range: '2-14, 17'."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number <= ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
