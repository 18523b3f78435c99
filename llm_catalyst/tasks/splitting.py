"""Random parts of a split: a share held out of it, or a few examples of each label."""

import heapq
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from llm_catalyst.tasks.base import Example
from llm_catalyst.utils.rng import derive_seed

Rows = Sequence[Example]
Shots = tuple[int, int] | None
Sampler = Callable[[Rows, int], tuple[Rows, Rows]]


def split_rows(
    splits: Mapping[str, Rows], shots: Shots, sample: Sampler, share: float, limit: int, seed: int, report_on_dev: bool
) -> dict[str, Rows]:
    """The rows of train, dev and test.

    Args:
        splits: those of train, and of dev and test where they are given. The others are held out of train.
        shots: how many rows of each label train and dev get; None: all.
        sample: draws as many rows of each label, and returns the others, too. Train is drawn first.
        share: of train that is held out at once, at most `limit` rows.
        seed: of what is held out.
        report_on_dev: whether dev is test.
    """
    train, dev, test = splits["train"], splits.get("dev"), splits.get("test")
    if test is None:
        train, test = carve_dev(train, share, limit, derive_seed(seed, "test"))
    if shots:
        train, rest = sample(train, shots[0])
        dev = test if report_on_dev else sample(rest if dev is None else dev, shots[1])[0]
    elif report_on_dev:
        dev = test
    elif dev is None:
        train, dev = carve_dev(train, share, limit, derive_seed(seed, "dev"))
    return {"train": train, "dev": dev, "test": test}


def carve_dev(rows: Rows, share: float, limit: int, seed: int) -> tuple[list[Example], list[Example]]:
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


def first_of_each(rows: Rows, order: Sequence[int], wanted: Mapping[int, int]) -> list[int]:
    """The numbers of the first `wanted` rows of each label, in `order`."""
    left, taken = dict(wanted), []
    for i in order:
        if left[rows[i].label] > 0:
            left[rows[i].label] -= 1
            taken.append(i)
    return taken


def sample_shots(rows: Rows, shots: int, rng: random.Random) -> tuple[Rows, Rows]:
    """`shots` rows of each label (fewer where a label has fewer), and the others."""
    order = list(range(len(rows)))
    rng.shuffle(order)
    taken = first_of_each(rows, order, dict.fromkeys({e.label for e in rows}, shots))
    chosen = set(taken)
    return [rows[i] for i in taken], [e for i, e in enumerate(rows) if i not in chosen]


def sample_coop_shots(rows: Rows, shots: int, rng: random.Random) -> tuple[Rows, Rows]:
    """`shots` rows of each class, in the order in which classes first appear, and the others.

    A class that has fewer gives some of its rows more than once, drawn with replacement, as in CoOp.
    """
    of_class: dict[int, list[Example]] = {}
    for row in rows:
        of_class.setdefault(row.label, []).append(row)
    draws = (rng.sample(own, shots) if len(own) >= shots else rng.choices(own, k=shots) for own in of_class.values())
    drawn = [row for own in draws for row in own]
    taken = set(drawn)
    return drawn, [row for row in rows if row not in taken]
