from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sb3_vgs_ppo.studies.statistics import (
    FloatArray,
    area_under_curve,
    bootstrap_iqms,
    difference_interval,
    expanded_tail,
    first_step_to,
    holm,
    iqm,
    iqm_interval,
    mann_whitney_p,
    probability_interval,
    probability_of_improvement,
    stratified_interval,
)

# Five seeds of three environments, after the tables of Agarwal et al. (2021)
X = np.array([[0.9, 0.2, 3.0], [1.1, 0.4, 1.0], [1.0, 0.1, 2.0], [5.0, 0.3, 2.5], [0.8, 0.5, 1.5]])
Y = np.array([[0.7, 0.3, 1.2], [0.9, 0.3, 0.9], [1.2, 0.2, 0.8], [0.6, 0.1, 1.1], [0.5, 0.4, 1.5]])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([4.0, 1.0, 100.0, 2.0, 3.0], 3.0),  # 1 and 100 are left out
        ([0.0, 0.0, 1.0, 2.0, 3.0, 6.0, 50.0, 90.0], 3.0),  # two at either end: (1 + 2 + 3 + 6) / 4
        ([1.0, 2.0, 9.0], 4.0),  # of three none is
        ([7.0], 7.0),
    ],
)
def test_interquartile_mean(values: list[float], expected: float) -> None:
    assert iqm(values) == expected


def test_interquartile_mean_over_seeds_and_environments_as_in_rliable() -> None:
    # rliable's aggregate_iqm trims 25 % of all values of the table: here the three smallest and the three largest
    assert float(iqm(X)) == pytest.approx((0.4 + 0.5 + 0.8 + 0.9 + 1.0 + 1.0 + 1.1 + 1.5 + 2.0) / 9)
    assert iqm(X, axis=0).tolist() == pytest.approx([1.0, 0.3, 2.0])


def test_bootstrap_draws_with_replacement_and_takes_the_iqm_of_what_was_drawn() -> None:
    curve = np.column_stack([X[:, 0], -X[:, 0], X[:, 2] ** 2])
    ranks = np.random.default_rng(7).integers(5, size=(300, 5))
    expected = [stats.trim_mean(np.sort(curve, axis=0)[drawn], 0.25, axis=0) for drawn in ranks]
    assert bootstrap_iqms(curve, seed=7, resamples=300) == pytest.approx(np.array(expected))


def test_the_tail_of_an_expanded_interval() -> None:
    # t(0.975, 4) = 2.7764, times the root of 5/4 is 3.1041; two samples of five have 8 degrees of freedom: 2.5782
    assert expanded_tail(5) == pytest.approx(stats.norm.cdf(-3.1041), rel=1e-3)
    assert expanded_tail(10, strata=2) == pytest.approx(stats.norm.cdf(-2.5782), rel=1e-3)
    assert expanded_tail(10_000) == pytest.approx(0.025, rel=1e-3)


def test_five_seeds_give_their_range() -> None:
    interval = iqm_interval(np.array([[3.0, 500.0], [1.0, 500.0], [2.0, 500.0], [10.0, 500.0], [4.0, 500.0]]))
    assert interval is not None
    assert interval[0].tolist() == [1.0, 500.0]
    assert interval[1].tolist() == [10.0, 500.0]


def test_one_seed_has_no_interval() -> None:
    one, five = np.array([1.0]), X[:, 0]
    assert iqm_interval(one) is None
    assert difference_interval(five, one) is None
    assert stratified_interval([five, one]) is None
    assert probability_interval(one, five) is None


def test_intervals_are_seeded() -> None:
    values = np.random.default_rng(0).normal(size=12)
    assert iqm_interval(values, seed=1) == iqm_interval(values, seed=1)
    assert iqm_interval(values, seed=1) != iqm_interval(values, seed=2)


def coverage(n: int, draw: str, truth: float, plain: bool = False) -> float:
    """Share of 2,000 samples of n seeds whose interval holds the true IQM."""
    samples: FloatArray = getattr(np.random.default_rng(n), draw)(size=(n, 2000))
    if plain:
        low, high = np.quantile(bootstrap_iqms(samples), [0.025, 0.975], axis=0)
    else:
        interval = iqm_interval(samples)
        assert interval is not None
        low, high = interval
    return float(np.mean((low <= truth) & (truth <= high)))


# The mean of the middle half of an exponential distribution: twice the integral of -ln(1 - u) from 1/4 to 3/4
EXPONENTIAL_IQM = 2 * (0.25 * math.log(0.25) - 0.75 * math.log(0.75) + 0.5)


@pytest.mark.parametrize(("draw", "truth"), [("standard_normal", 0.0), ("standard_exponential", EXPONENTIAL_IQM)])
@pytest.mark.parametrize(("n", "least", "most"), [(5, 0.92, 0.95), (10, 0.94, 0.98), (30, 0.94, 0.975)])
def test_coverage_of_intervals(draw: str, truth: float, n: int, least: float, most: float) -> None:
    assert least < coverage(n, draw, truth) < most


def test_plain_percentile_intervals_of_five_seeds_cover_too_little() -> None:
    assert 0.88 < coverage(5, "standard_normal", 0.0, plain=True) < 0.915


def test_fewer_than_five_seeds_cover_what_their_range_covers() -> None:
    # A median lies below all of n values, or above all, with probability 2 / 2^n
    assert coverage(3, "standard_normal", 0.0) == pytest.approx(0.75, abs=0.03)


def test_coverage_of_differences() -> None:
    generator = np.random.default_rng(0)
    samples = [(generator.normal(size=5), generator.normal(size=5) + 2) for _ in range(400)]
    intervals = [difference_interval(x, y) for x, y in samples]
    covered = np.mean([interval is not None and interval[0] <= -2 <= interval[1] for interval in intervals])
    assert 0.95 < covered < 0.995


def test_samples_of_a_difference_are_drawn_independently() -> None:
    # The same ranks for both would make every difference of a sample from itself zero
    x = np.arange(10.0)
    single, difference = iqm_interval(x), difference_interval(x, x)
    assert single is not None
    assert difference is not None
    assert 1.2 < (difference[1] - difference[0]) / (single[1] - single[0]) < 1.6  # root of 2, less the milder tail


def test_every_environment_has_its_share_of_a_resample() -> None:
    # Unstratified resamples would hold anything between no and eight ones
    assert stratified_interval([np.zeros(4), np.ones(4)]) == (0.5, 0.5)


def test_coverage_over_environments() -> None:
    generator = np.random.default_rng(0)
    intervals = [stratified_interval(list(generator.normal(size=(3, 5)))) for _ in range(200)]
    covered = np.mean([interval is not None and interval[0] <= 0 <= interval[1] for interval in intervals])
    assert 0.92 < covered < 0.99


def test_probability_of_improvement_by_counting() -> None:
    # 3 beats 1, equals 3, loses against 4; 5 beats all: 1 + 0.5 + 0 + 3 of 6
    assert probability_of_improvement(np.array([3.0, 5.0]), np.array([1.0, 3.0, 4.0])) == 0.75


def test_probability_of_improvement_as_in_rliable() -> None:
    # rliable: U of scipy's test over the number of pairs
    for x, y in zip(X.T, Y.T, strict=True):
        assert probability_of_improvement(x, y) == pytest.approx(stats.mannwhitneyu(x, y).statistic / 25)


def test_interval_of_a_probability_ends_where_the_observed_one_is_just_plausible() -> None:
    interval = probability_interval(X[:, 0], Y[:, 0])
    observed = probability_of_improvement(X[:, 0], Y[:, 0])
    assert interval is not None
    for theta in interval:
        inner = 1 + 4 * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        assert abs(theta - observed) == pytest.approx(1.95996 * math.sqrt(theta * (1 - theta) / 25 * inner), rel=1e-4)
    assert interval[0] < observed < interval[1]


def test_interval_of_a_probability_where_all_seeds_win() -> None:
    better, worse = np.arange(5.0) + 10, np.arange(5.0)
    assert probability_interval(better, worse) == pytest.approx((0.6427, 1.0), abs=1e-4)
    assert probability_interval(worse, better) == pytest.approx((0.0, 0.3573), abs=1e-4)


def test_coverage_of_a_probability() -> None:
    generator = np.random.default_rng(0)
    truth = stats.norm.cdf(1.5 / math.sqrt(2))
    samples = [(generator.normal(size=5) + 1.5, generator.normal(size=5)) for _ in range(400)]
    intervals = [probability_interval(x, y) for x, y in samples]
    covered = np.mean([interval is not None and interval[0] <= truth <= interval[1] for interval in intervals])
    assert 0.91 < covered < 0.985


def test_mann_whitney() -> None:
    # Exact: of the 252 ways to split ten values into two fives, two are as extreme as complete separation
    assert mann_whitney_p(np.arange(5.0), np.arange(5.0) + 10) == pytest.approx(2 / 252)
    assert mann_whitney_p(np.arange(3.0) + 10, np.arange(3.0)) == pytest.approx(2 / 20)
    assert mann_whitney_p(np.array([500.0] * 5), np.array([500.0] * 5)) == 1.0
    assert mann_whitney_p(np.array([1.0]), np.array([2.0])) == 1.0


def test_holm() -> None:
    # 4 · 0.01; 3 · 0.03; 2 · 0.04 = 0.08 may not fall below 0.09; 1 · 0.5
    assert holm([0.04, 0.01, 0.5, 0.03]) == pytest.approx([0.09, 0.04, 0.5, 0.09])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_area_under_a_curve() -> None:
    # (0 + 1) / 2 · 10 + 1 · 20 = 25 of a length of 30
    assert area_under_curve([0, 10, 30], np.array([0.0, 1.0, 1.0])) == pytest.approx(25 / 30)
    assert area_under_curve([0, 10, 30], np.array([math.nan, 2.0, 4.0])) == 3.0
    assert area_under_curve([0, 10], np.array([math.nan, 2.0])) == 2.0
    assert math.isnan(area_under_curve([0, 10], np.array([math.nan, math.nan])))


def test_first_step_to_a_threshold() -> None:
    curve = np.array([math.nan, 1.0, 5.0, 3.0, 6.0])
    assert first_step_to([10, 20, 30, 40, 50], curve, 5.0) == 30
    assert first_step_to([10, 20, 30, 40, 50], curve, 6.5) == math.inf
