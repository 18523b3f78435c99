"""Random parts of a split: a share held out of it, or a few examples of each label."""

import heapq
import random
from collections import Counter
from collections.abc import Mapping, Sequence

from llm_catalyst.tasks.base import Example


def carve_dev(rows: Sequence[Example], share: float, limit: int, seed: int) -> tuple[list[Example], list[Example]]:
    """The rows without, and with only, a random share of each label (stratified), at most `limit` in all."""
    share = min(share, limit / len(rows))
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    counts = Counter(e.label for e in rows)
    # A label with a single row stays where it can be trained on.
    wanted = {label: min(max(1, round(share * count)), count - 1) for label, count in counts.items()}
    # The largest gives first: of equals, the one that comes first.
    largest = [(-n, i, label) for i, (label, n) in enumerate(wanted.items())]
    heapq.heapify(largest)
    for _ in range(sum(wanted.values()) - max(limit, len(wanted))):
        n, i, label = largest[0]
        wanted[label] -= 1
        heapq.heapreplace(largest, (n + 1, i, label))
    taken = set(first_of_each(rows, order, wanted))
    return [e for i, e in enumerate(rows) if i not in taken], [rows[i] for i in sorted(taken)]


def first_of_each(rows: Sequence[Example], order: Sequence[int], wanted: Mapping[int, int]) -> list[int]:
    """The numbers of the first `wanted` rows of each label, in `order`."""
    left, taken = dict(wanted), []
    for i in order:
        if left[rows[i].label] > 0:
            left[rows[i].label] -= 1
            taken.append(i)
    return taken


def sample_shots(rows: Sequence[Example], shots: int | None, rng: random.Random) -> tuple[list[Example], list[Example]]:
    """`shots` rows of each label (fewer where a label has fewer), and the rest; everything without `shots`."""
    if shots is None:
        return list(rows), []
    order = list(range(len(rows)))
    rng.shuffle(order)
    taken = first_of_each(rows, order, dict.fromkeys({e.label for e in rows}, shots))
    chosen = set(taken)
    return [rows[i] for i in taken], [e for i, e in enumerate(rows) if i not in chosen]


def sample_coop_shots(rows: Sequence[Example], shots: int, rng: random.Random) -> list[Example]:
    """`shots` rows of each class, in the order in which classes first appear.

    A class that has fewer gives some of its rows more than once, drawn with replacement, as in CoOp.
    """
    of_class: dict[int, list[Example]] = {}
    for row in rows:
        of_class.setdefault(row.label, []).append(row)
    drawn = (rng.sample(own, shots) if len(own) >= shots else rng.choices(own, k=shots) for own in of_class.values())
    return [row for own in drawn for row in own]
