"""Statistics against textbooks, against scipy, and against enumerations of their own."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from llm_catalyst.report import statistics
from llm_catalyst.report.statistics import Summary, adjust_holm, compare_paired, summarize_values

ZERO = [0.0] * 20

# Cushny and Peebles (1905), hours of sleep gained by two drugs: the data of Student (1908), and of R's ?t.test.
SLEEP_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SLEEP_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
# Hollander and Wolfe (1973), p. 29: depression before and after therapy, in R's ?wilcox.test.
BEFORE = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
AFTER = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]
# Darwin's maize (1876) as in Wilcoxon (1945): differences in height of crossed and self-fertilized plants.
MAIZE = [6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75]

scores = st.floats(0, 1).map(lambda x: round(x, 4))
p_values = st.floats(0, 1)


def enumerated_wilcoxon(differences: Sequence[float]) -> float:
    """The two-sided p-value of the signed-rank test over all 2^n signs, mean ranks for ties, zeros left out."""
    sizes = [abs(d) for d in differences if d]
    ranks = [sum(other < size for other in sizes) + (sizes.count(size) + 1) / 2 for size in sizes]
    seen = sum(rank for rank, d in zip(ranks, (d for d in differences if d), strict=True) if d > 0)
    sums = [math.fsum(r for r, up in zip(ranks, ups, strict=True) if up) for ups in product(len(ranks))]
    below, above = sum(s <= seen for s in sums), sum(s >= seen for s in sums)
    return min(1.0, 2 * min(below, above) / len(sums))


def product(n: int) -> Iterator[tuple[bool, ...]]:
    """All choices of some of n things."""
    return itertools.product((False, True), repeat=n)


def closed_bonferroni(p: Sequence[float]) -> list[float]:
    """Holm's p-values from their definition: a hypothesis falls where every intersection with it falls."""
    adjusted = []
    for i in range(len(p)):
        sets = [[p[j] for j, there in enumerate(chosen) if there] for chosen in product(len(p)) if chosen[i]]
        adjusted.append(max(min(1.0, len(those) * min(those)) for those in sets))
    return adjusted


# --- one sample


def test_mean_and_spread_are_those_of_the_sample() -> None:
    found = summarize_values([0.80, 0.82, 0.87])
    assert (found.n, found.mean, found.std) == (
        3,
        pytest.approx(0.83),
        pytest.approx(np.std([0.80, 0.82, 0.87], ddof=1)),
    )
    assert found.low is not None
    assert found.high is not None
    assert 0.80 <= found.low < 0.83 < found.high <= 0.87


def test_one_value_has_a_mean_and_no_spread() -> None:
    found = summarize_values([0.7])
    assert (found.n, found.mean, found.std, found.low, found.high) == (1, 0.7, None, None, None)


def test_equal_values_have_an_interval_without_width() -> None:
    found = summarize_values([0.1, 0.1, 0.1])
    assert found.std == 0
    assert found.low == found.high == pytest.approx(0.1)


@pytest.mark.parametrize("values", [[], [0.5, math.nan], [math.inf], [0.5, -math.inf]])
def test_no_values_and_unknown_ones_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"no values|finite"):
        summarize_values(values)


@pytest.mark.parametrize("missing", [None, pd.NA])
def test_a_missing_value_is_refused_and_not_left_out_in_silence(missing: Any) -> None:
    with pytest.raises(ValueError, match="a value is missing"):
        summarize_values([0.5, missing])
    with pytest.raises(ValueError, match="a value is missing"):
        compare_paired([0.5, 0.6], [0.5, missing])


def test_columns_of_a_table_are_taken_as_they_are() -> None:
    ours, theirs = pd.Series([0.8, 0.9, 0.6], dtype="Float64"), np.array([0.7, 0.5, 0.5])
    assert summarize_values(ours) == summarize_values([0.8, 0.9, 0.6])
    assert compare_paired(ours, theirs) == compare_paired([0.8, 0.9, 0.6], [0.7, 0.5, 0.5])


def test_equal_values_have_an_interval_of_that_value() -> None:
    assert summarize_values([0.8438] * 2) == Summary(2, 0.8438, 0.0, 0.8438, 0.8438)


@given(st.lists(scores, min_size=2, max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_an_interval_lies_within_the_values_whatever_their_order(values: list[float], random: object) -> None:
    found = summarize_values(values)
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert summarize_values(shuffled) == found
    assert found.low is not None
    assert found.high is not None
    assert min(values) - 1e-12 <= found.low <= found.high <= max(values) + 1e-12


def test_the_interval_is_that_of_all_resamples() -> None:
    values = [0.71, 0.74, 0.78, 0.79]
    means = [sum(drawn) / 4 for drawn in itertools.product(values, repeat=4)]
    found = summarize_values(values, level=0.9)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, (0.05, 0.95))), abs=0.003)


def test_a_higher_level_makes_a_wider_interval() -> None:
    narrow, wide = (summarize_values(SLEEP_1, level) for level in (0.5, 0.99))
    assert narrow.low is not None
    assert narrow.high is not None
    assert wide.low is not None
    assert wide.high is not None
    assert wide.low < narrow.low < narrow.high < wide.high


# --- pairs


def test_the_paired_t_test_gives_what_r_prints_for_students_sleep_data() -> None:
    found = compare_paired(SLEEP_1, SLEEP_2)
    assert found.difference == pytest.approx(-1.58)
    assert found.t_p == pytest.approx(0.002833, abs=5e-7)
    assert found.effect is not None
    assert found.effect * math.sqrt(10) == pytest.approx(-4.0621, abs=5e-5)
    assert (found.pairs, found.wins, found.ties, found.losses, found.warning) == (10, 0, 1, 9, "")


def test_the_signed_rank_test_gives_the_published_p_values() -> None:
    assert compare_paired(BEFORE, AFTER).wilcoxon_p == pytest.approx(2 * 0.01953, abs=1e-5)
    assert compare_paired([float(d) for d in MAIZE], ZERO[:15]).wilcoxon_p == pytest.approx(0.041259765625)


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(-6, 6)), min_size=3, max_size=9))
@settings(max_examples=60)
def test_the_signed_rank_test_is_exact_with_ties_and_zeros(pairs: list[tuple[int, int]]) -> None:
    reference = [base / 400 for base, _ in pairs]
    values = [(base + difference) / 400 for base, difference in pairs]
    expected = enumerated_wilcoxon([difference for _, difference in pairs])
    assert compare_paired(values, reference).wilcoxon_p == pytest.approx(expected)


@given(st.lists(st.tuples(scores, scores), min_size=3, max_size=7))
@settings(max_examples=40)
def test_both_tests_are_those_of_scipy_where_scipy_defines_them(pairs: list[tuple[float, float]]) -> None:
    values, reference = [a for a, _ in pairs], [b for _, b in pairs]
    differences = {round(a - b, 12) for a, b in pairs}
    found = compare_paired(values, reference)
    if len(differences) > 1:
        assert found.t_p == pytest.approx(stats.ttest_rel(values, reference).pvalue, rel=1e-6)
    elif differences == {0.0}:
        assert (found.t_p, found.wilcoxon_p, found.effect) == (1.0, 1.0, None)
    else:
        assert (found.t_p, found.effect) == (None, None)
    if 0.0 not in differences:
        rounded = [round(a - b, 12) for a, b in pairs]
        assert found.wilcoxon_p == pytest.approx(stats.wilcoxon(rounded).pvalue)


@given(st.lists(st.tuples(scores, scores), min_size=1, max_size=8))
@settings(max_examples=25)
def test_a_comparison_turned_round_says_the_opposite_with_the_same_p(pairs: list[tuple[float, float]]) -> None:
    values, reference = [a for a, _ in pairs], [b for _, b in pairs]
    one, other = compare_paired(values, reference), compare_paired(reference, values)
    assert one.difference == pytest.approx(-other.difference)
    assert (one.wins, one.ties, one.losses) == (other.losses, other.ties, other.wins)
    assert one.wins + one.ties + one.losses == one.pairs
    assert (one.t_p, one.wilcoxon_p) == (other.t_p, other.wilcoxon_p)
    assert one.warning == other.warning


def test_differences_that_only_rounding_sets_apart_are_ties() -> None:
    found = compare_paired([0.3, 0.7, 0.9], [0.1 + 0.2, 0.7, 0.9])
    assert (found.wins, found.ties, found.losses, found.t_p, found.wilcoxon_p) == (0, 3, 0, 1.0, 1.0)
    assert found.warning == "all 3 differences are 0"
    shifted = compare_paired([0.8, 0.9, 0.6], [0.7, 0.8, 0.5])
    assert (shifted.t_p, shifted.effect, shifted.wins) == (None, None, 3)
    assert "all 3 differences are the same: no t-test" in shifted.warning


@pytest.mark.parametrize(("pairs", "tested"), [(1, False), (2, False), (3, True)])
def test_fewer_than_three_pairs_are_not_tested(pairs: int, tested: bool) -> None:
    found = compare_paired([0.8, 0.9, 0.7][:pairs], [0.7, 0.85, 0.4][:pairs])
    assert (found.t_p is not None, found.wilcoxon_p is not None) == (tested, tested)
    assert ("too few for a test" in found.warning) is not tested
    assert (found.low is None) == (pairs == 1)


@pytest.mark.parametrize("pairs", range(3, 9))
def test_a_warning_says_where_the_signed_rank_test_cannot_find_anything(pairs: int) -> None:
    best = compare_paired([i / 100 for i in range(1, pairs + 1)], ZERO[:pairs])
    assert best.wilcoxon_p == pytest.approx(2 / 2**pairs)
    assert ("cannot give less than" in best.warning) == (2 / 2**pairs > 0.05) == (pairs < 6)


@pytest.mark.parametrize(
    ("values", "reference", "words"),
    [
        ([], [], "no values"),
        ([1.0], [1.0, 2.0], "do not make pairs"),
        ([1.0, math.nan], [1.0, 2.0], "nan is not a finite number"),
        ([1.0, 2.0], [1.0, math.inf], "inf is not a finite number"),
    ],
)
def test_what_makes_no_pairs_is_refused(values: list[float], reference: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        compare_paired(values, reference)


# --- many tests


def test_holm_gives_the_adjusted_values_of_the_textbook_example() -> None:
    # Wikipedia, "Holm-Bonferroni method", example: H4 and H1 are rejected at 0.05, H3 and H2 are not.
    assert adjust_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_a_test_that_was_not_made_does_not_count() -> None:
    assert adjust_holm([0.01, None, 0.04, 0.03, None, 0.005]) == [0.03, None, 0.06, 0.06, None, 0.02]
    assert adjust_holm([None, None]) == [None, None]
    assert adjust_holm([]) == []


@given(st.lists(p_values, min_size=1, max_size=6))
@settings(max_examples=60)
def test_holm_is_the_closure_of_bonferroni(p: list[float]) -> None:
    assert adjust_holm(p) == pytest.approx(closed_bonferroni(p))


@given(st.lists(st.none() | p_values, max_size=12))
def test_holm_never_lowers_a_p_value_nor_changes_their_order(p: list[float | None]) -> None:
    pairs = [(raw, own) for raw, own in zip(p, adjust_holm(p), strict=True) if raw is not None and own is not None]
    assert len(pairs) == len(p) - p.count(None)
    assert all(raw <= own <= 1 for raw, own in pairs)
    assert [own for _, own in sorted(pairs)] == sorted(own for _, own in pairs)


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_holm_refuses_what_is_no_p_value(p: float) -> None:
    with pytest.raises(ValueError, match="no p-value"):
        adjust_holm([0.5, p])


def test_many_values_are_resampled_in_parts_to_the_same_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).normal(size=30)
    whole = stats.bootstrap(
        (np.sort(values),), np.mean, method="percentile", rng=np.random.default_rng(statistics.SEED)
    ).confidence_interval
    monkeypatch.setattr(statistics, "MOST_AT_ONCE", 100)
    assert statistics.bootstrap_interval(list(values)) == pytest.approx((whole.low, whole.high))
