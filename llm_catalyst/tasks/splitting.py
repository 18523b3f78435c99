"""Random parts of a split: a share held out of it, or a few examples of each label.

Twins, rows of the same text, never fall on two sides of a split that is made here.
"""

import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Hashable, Mapping, Sequence
from dataclasses import dataclass

from llm_catalyst.tasks.base import Example
from llm_catalyst.tasks.duplicates import TwinKey, choose_twin_key
from llm_catalyst.utils.rng import derive_seed
from llm_catalyst.utils.terminal import list_names
from llm_catalyst.utils.validation import ConfigurationError

Rows = Sequence[Example]
Names = Mapping[int, str]
Sampler = Callable[[Rows, int], tuple[Rows, Rows]]


@dataclass(frozen=True)
class SplitRule:
    """The rule by which rows are held out of train.

    Args:
        task: its name, for errors.
        seed: of the run; draws dev, and the few shots.
        split_seed: draws test, so that runs of all seeds report on the same rows. None is the rule of earlier runs:
            `seed` draws test, too, twins may be separated, a class with few rows may lack in the dev of few-shot runs,
            whose test is no more than the share.
        report_on_dev: whether dev is test.
        shots: the number of rows of each label that train and dev get; None: all.
        share: of train that is held out at once, at most `limit` rows.
    """

    task: str
    seed: int
    split_seed: int | None
    report_on_dev: bool
    shots: tuple[int, int] | None
    share: float
    limit: int


def split_rows(given: Mapping[str, Rows], rule: SplitRule, sample: Sampler, names: Names) -> dict[str, Rows]:
    """The rows of train, dev and test.

    Args:
        given: the rows of train, and of dev and test where they have their own. The others are held out of train.
        rule: of what is held out.
        sample: draws that number of rows of each label, and returns the others, too. Train is drawn first.
        names: of the label ids, for errors.

    Raises:
        ConfigurationError: nothing can be held out.
    """
    train, dev, test = given["train"], given.get("dev"), given.get("test")
    key: TwinKey = id if rule.split_seed is None else choose_twin_key(train)
    for_test = rule.seed if rule.split_seed is None else rule.split_seed
    draws_dev = dev is None and not rule.report_on_dev
    reserve: Rows = []
    if rule.shots and rule.split_seed is not None:
        if test is None:
            train, test = draw_pool(train, sum(rule.shots), derive_seed(for_test, "pool"), key)
        else:
            train, _ = draw_pool(train, len(train), derive_seed(rule.seed, "pool"), key, keep=0)
        if draws_dev:
            train, reserve = reserve_dev(train, given["train"], rule, rule.shots, names)
    elif test is None:
        train, test = carve_dev(train, rule.share, rule.limit, derive_seed(for_test, "test"), key)
    if rule.shots:
        train, rest = sample(train, rule.shots[0])
        dev = sample([*rest, *reserve] if dev is None else dev, rule.shots[1])[0] if not rule.report_on_dev else test
    elif rule.report_on_dev:
        dev = test
    elif dev is None:
        train, dev = carve_dev(train, rule.share, rule.limit, derive_seed(rule.seed, "dev"), key)
    return {"train": train, "dev": dev or [], "test": test}


def carve_dev(
    rows: Rows, share: float, limit: int, seed: int, key: TwinKey = id
) -> tuple[list[Example], list[Example]]:
    """The rows without, and with only, a random share of each label (stratified), at most `limit` in all.

    Twins stay together, so a label's part may be a little smaller than its share.
    """
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    groups = defaultdict[Hashable, list[int]](list)
    for i in order:
        groups[key(rows[i])].append(i)
    wanted = count_wanted(rows, share, limit)
    left, lacking = dict(wanted), {label for label, n in wanted.items() if n}
    taken = set[int]()
    for members in groups.values():
        counts = count_labels(rows, members)
        if all(left[label] >= n for label, n in counts.items()):
            taken.update(members)
            lacking.difference_update(counts)
            for label, n in counts.items():
                left[label] -= n
    if lacking:
        taken |= cover_labels(rows, list(groups.values()), lacking, taken)
    return [e for i, e in enumerate(rows) if i not in taken], [rows[i] for i in sorted(taken)]


def cover_labels(rows: Rows, groups: Sequence[Sequence[int]], lacking: set[int], taken: Container[int]) -> set[int]:
    """The smallest groups of twins, not taken yet, with a row of each label that is lacking.

    Their twins were too many for the share. No label gives its last row.
    """
    left = Counter(row.label for i, row in enumerate(rows) if i not in taken)
    more, lacking = set[int](), set(lacking)
    for members in sorted((members for members in groups if members[0] not in taken), key=len):
        counts = count_labels(rows, members)
        if lacking & counts.keys() and all(left[label] > n for label, n in counts.items()):
            more.update(members)
            lacking.difference_update(counts)
            left.subtract(counts)
    return more


def count_labels(rows: Rows, members: Sequence[int]) -> dict[int, int]:
    """The number of rows of each label among these, of which there is mostly one."""
    return {rows[members[0]].label: 1} if len(members) == 1 else Counter(rows[i].label for i in members)


def count_wanted(rows: Rows, share: float, limit: int) -> dict[int, int]:
    """The rows of each label that are a share of them, at most `limit` in all where that is a row of each label."""
    share = min(share, limit / len(rows))
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
    return wanted


def draw_pool(rows: Rows, most: int, seed: int, key: TwinKey, keep: int = 1) -> tuple[list[Example], list[Example]]:
    """At most `most` rows of each label, no text twice, and the rows whose texts are not among them.

    A label with three texts or more leaves `keep` of them to the others. Labels draw in turns, so that one does not
    take all texts that another shares with it.
    """
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    texts = defaultdict[int, dict[Hashable, int]](dict)  # of each label, in the order of drawing, each with a row
    for i in order:
        texts[rows[i].label].setdefault(key(rows[i]), i)
    kept = {text for own in texts.values() if len(own) > 2 for text in list(own)[:keep]}
    turns = sorted((turn, len(own), label) for label, own in texts.items() for turn in range(len(own)))
    draws = {label: iter(own.items()) for label, own in texts.items()}
    taken, used, left = set[int](), set[Hashable](), dict.fromkeys(texts, most)
    for _, _, label in turns:
        text, i = next(draws[label])
        if left[label] and text not in used and text not in kept:
            left[label] -= 1
            taken.add(i)
            used.add(text)
    return [rows[i] for i in sorted(taken)], [row for row in rows if key(row) not in used]


def reserve_dev(
    pool: Rows, given: Rows, rule: SplitRule, shots: tuple[int, int], names: Names
) -> tuple[Rows, list[Example]]:
    """The rows of a pool without, and with only, those that dev must get: of labels with too few for train and dev.

    Half of them; the shots of dev where that is less.

    Args:
        pool: rows of different texts.
        given: the rows that the pool was drawn from.

    Raises:
        ConfigurationError: the pool has a single row of a label, or none.
    """
    counts, all_counts = (Counter(row.label for row in rows) for rows in (pool, given))
    if single := [label for label in sorted(all_counts) if counts[label] < 2]:
        there = list_names(f"{names[label]} {n}" for label, n in sorted(all_counts.items()))
        raise ConfigurationError(
            f"task={rule.task}: task.shots={shots[0]} takes texts of each label for train and others for dev, but "
            f"there are not two of {list_names(names[label] for label in single)} (rows of each label: {there}); add "
            "rows of it, leave it out, or name a dev split in task.dev"
        )
    short = {label: min(n // 2, shots[1]) for label, n in counts.items() if n < sum(shots)}
    order = list(range(len(pool)))
    random.Random(derive_seed(rule.seed, "reserve")).shuffle(order)
    reserved = {*first_of_each(pool, order, {**dict.fromkeys(counts, 0), **short})}
    return [row for i, row in enumerate(pool) if i not in reserved], [pool[i] for i in sorted(reserved)]


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
