"""Statistics of repeated runs: mean, spread, bootstrap intervals, paired tests, correction for many tests.

docs/analysis.md says when not to trust them.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
from scipy import stats

MOST_AT_ONCE = 10**7  # values that are drawn in one go
SEED = 0  # of the bootstrap: the same values give the same interval
DECIMALS = 12  # of differences: below them is only the rounding of binary fractions
LEVEL = 0.05  # the level of significance in warnings


@dataclass(frozen=True)
class Summary:
    """Mean and spread of n values.

    `std` is the sample's standard deviation (n - 1 in the denominator); `low` and `high` are the ends of a
    percentile bootstrap interval of the mean. All three are None where n < 2.
    """

    n: int
    mean: float
    std: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Comparison:
    """Values against a reference, pair by pair; a win is a pair in which the value is larger.

    `difference` is the mean of value - reference, `low` and `high` are its bootstrap interval, `t_p` and `wilcoxon_p`
    the two-sided p-values of Student's paired t-test and of Wilcoxon's signed-rank test, `effect` is Cohen's d_z: the
    mean difference in standard deviations of the differences. What is not defined is None. `warning` says what these
    pairs cannot tell, '' where nothing is to be said.
    """

    pairs: int
    difference: float
    low: float | None
    high: float | None
    t_p: float | None
    wilcoxon_p: float | None
    effect: float | None
    wins: int
    ties: int
    losses: int
    warning: str


def summarize_values(values: Iterable[float], level: float = 0.95) -> Summary:
    """Mean, spread and interval of the mean, independent of the order of the values.

    Args:
        values: numbers, also a column of a pandas table.
        level: the confidence level of the interval.

    Raises:
        ValueError: there are no values, or one is missing or not finite.
    """
    known = to_floats(values)
    std = stdev(known) if len(known) > 1 else None
    return Summary(len(known), fmean(known), std, *bootstrap_interval(known, level))


def compare_paired(values: Iterable[float], reference: Iterable[float]) -> Comparison:
    """Paired comparison of `values` with `reference`, in the same order, such as that of seeds.

    Raises:
        ValueError: there are no pairs, or a number is missing or not finite.
    """
    ours, theirs = to_floats(values), to_floats(reference)
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} values and {len(theirs)} of the reference do not make pairs")
    differences = [round(value - other, DECIMALS) for value, other in zip(ours, theirs, strict=True)]
    mean, std = fmean(differences), stdev(differences) if len(differences) > 1 else None
    low, high = bootstrap_interval(differences)
    return Comparison(
        pairs=len(differences),
        difference=mean,
        low=low,
        high=high,
        t_p=t_test(differences),
        wilcoxon_p=wilcoxon_test(differences),
        effect=mean / std if std else None,
        wins=sum(d > 0 for d in differences),
        ties=differences.count(0),
        losses=sum(d < 0 for d in differences),
        warning=warn_of_sample(differences),
    )


def adjust_holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Each p-value adjusted for all of them: the chance of one false finding or more stays at the level.

    Holm (1979), Scandinavian Journal of Statistics 6, 65-70. None, a test that was not made, stays None and does not
    count.

    Raises:
        ValueError: a p-value is not in [0, 1].
    """
    made = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    least = 0.0
    for before, (p, i) in enumerate(made):
        if not 0 <= p <= 1:
            raise ValueError(f"{p} is no p-value")
        adjusted[i] = least = max(least, min(1.0, (len(made) - before) * p))
    return adjusted


def bootstrap_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | tuple[None, None]:
    """The percentile bootstrap interval of the mean; undefined for one value."""
    if len(values) < 2:
        return None, None
    generator = np.random.default_rng(SEED)
    sample = np.sort(np.asarray(values, dtype=float))
    # All samples at once would be gigabytes for the rows of a large split.
    batch = max(1, MOST_AT_ONCE // len(sample))
    found = stats.bootstrap((sample,), np.mean, confidence_level=level, method="percentile", rng=generator, batch=batch)
    ends = sorted(found.confidence_interval)
    low, high = np.clip(ends, sample[0], sample[-1])  # rounding may move or swap the ends of equal means
    return float(low), float(high)


def t_test(differences: Sequence[float]) -> float | None:
    """The two-sided p-value for a mean of 0; 1 if all differences are 0, None for fewer than 3, or if all are equal."""
    if len(differences) < 3:
        return None
    if len(set(differences)) == 1:
        return None if differences[0] else 1.0
    return float(stats.ttest_1samp(differences, 0).pvalue)


def wilcoxon_test(differences: Sequence[float]) -> float | None:
    """The p-value for a distribution that is symmetric about 0; 1 if all differences are 0, None for fewer than 3.

    Differences of 0 do not count, tied ones share their mean rank. The test is exact; scipy.stats.wilcoxon is so only
    without ties, which accuracies often have, or by enumeration, which takes seconds for 13 pairs.
    """
    if len(differences) < 3:
        return None
    others = np.array([d for d in differences if d])
    ranks = np.rint(2 * stats.rankdata(np.abs(others))).astype(int)  # doubled: a mean rank may end in .5
    chances = np.zeros(ranks.sum() + 1)  # of each sum of the ranks of positive differences, if all signs are by chance
    chances[0] = 1
    for rank in ranks:
        chances = (chances + np.roll(chances, rank)) / 2
    seen = ranks[others > 0].sum()
    return min(1.0, 2 * float(min(chances[: seen + 1].sum(), chances[seen:].sum())))


def warn_of_sample(differences: Sequence[float]) -> str:
    """A warning of what these few differences cannot show; '' if there is nothing to warn of."""
    n, others = len(differences), sum(d != 0 for d in differences)
    if n < 3:
        return f"{n} pair{'s' * (n > 1)}: too few for a test"
    if not others:
        return f"all {n} differences are 0"
    least = 2 / 2**others
    differ = "1 pair that differs" if others == 1 else f"{others} pairs that differ"
    words = [f"{differ}: the Wilcoxon test cannot give less than p = {least:.3g}"] * (least > LEVEL)
    words += [f"all {n} differences are the same: no t-test"] * (len(set(differences)) == 1)
    return "; ".join(words)


def to_floats(values: Iterable[float]) -> list[float]:
    """The values as floats.

    Raises:
        ValueError: there are none, or one is missing or not finite.
    """
    try:
        found = [float(value) for value in values]
    except TypeError:  # None, pandas' NA
        raise ValueError("a value is missing; leave out what is not known") from None
    if not found:
        raise ValueError("there are no values")
    for value in found:
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a finite number; leave out what is not known")
    return found
