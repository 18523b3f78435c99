"""Texts that stand in several rows: within a split, in two splits, with two labels.

Two texts are the same if they differ in nothing but Unicode form (NFKC), case and blanks.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Sequence

from llm_catalyst.tasks.base import Example
from llm_catalyst.utils.checksums import sha256

Rows = Sequence[Example]
TwinKey = Callable[[Example], Hashable]  # rows of equal keys are twins


def normalize_text(text: str) -> str:
    """The text in Unicode form NFKC and without case, each run of blanks as one."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def hash_text(text: str) -> str:
    """The SHA-256 of the normalized text, in hexadecimal."""
    return sha256(normalize_text(text).encode("utf-8", "surrogatepass"))


def hash_input(example: Example) -> str:
    """The hash of all texts of an example, the path of a picture among them."""
    if example.twin is None:  # a path: the case of its letters counts
        return example.sequences[0][0]
    return hash_text("\0".join(text for sequence in example.sequences for text in sequence if text is not None))


def choose_twin_key(rows: Rows) -> TwinKey:
    """The key by which rows are twins, which must stand on one side of a split.

    It is `Example.twin`, the hash of a row's text. Where rows have too few different texts to be split by them (the
    same question in every row), it is the whole input. A picture is only its own twin.
    """
    if any(row.twin is None for row in rows):
        return id
    different = len({row.twin for row in rows})
    enough = max(len(rows) / 10, min(10, len(rows) / 2))
    return (lambda row: row.twin) if different >= enough else hash_input


def count_repeated(inputs: Sequence[str]) -> int:
    """The rows whose input stands in an earlier row, too."""
    return len(inputs) - len(set(inputs))


def count_shared(inputs: Sequence[str], others: Collection[str]) -> int:
    """The rows whose input stands among `others`."""
    known = set(others)
    return sum(each in known for each in inputs)


def count_contradictory(inputs: Sequence[str], labels: Sequence[Hashable]) -> int:
    """The rows whose input stands in another row with another label."""
    found = defaultdict[str, set[Hashable]](set)
    for each, label in zip(inputs, labels, strict=True):
        found[each].add(label)
    return sum(n for each, n in Counter(inputs).items() if len(found[each]) > 1)
