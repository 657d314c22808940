"""What may be said about a few seeds: pure functions of numbers, after Agarwal et al. (2021).

*Deep Reinforcement Learning at the Edge of the Statistical Precipice*, NeurIPS 2021, and its library rliable 1.2.0:
interquartile means over seeds, stratified percentile bootstrap, probability of improvement. Two intervals differ from
rliable's, since for as few seeds as studies have these do not cover what they promise: see :func:`expanded_tail` and
:func:`probability_interval`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import stats  # type: ignore[import-untyped]
from scipy.optimize import brentq  # type: ignore[import-untyped]

FloatArray = npt.NDArray[np.float64]

RESAMPLES = 2_000
"""The ends of an interval over ten seeds then vary by 2 % of its width from one seed of the bootstrap to another, those
over five not at all."""

CONFIDENCE = 0.95
_TRIMMED = 0.25


def iqm(values: npt.ArrayLike, axis: int | None = None) -> FloatArray:
    """
    Interquartile mean: the mean of the middle half (Agarwal et al. 2021, section 4.3; rliable's ``aggregate_iqm``).

    The smallest and the largest ``floor(n / 4)`` of n values are left out: one of five at either end, none of three or
    fewer, which leaves their mean.

    :param values: numbers without NaN
    :param axis: the mean is taken along it; over all values by default
    """
    return np.asarray(stats.trim_mean(np.asarray(values, dtype=np.float64), _TRIMMED, axis=axis))


def bootstrap_iqms(values: FloatArray, *, seed: int = 0, resamples: int = RESAMPLES) -> FloatArray:
    """
    IQMs of samples that are drawn with replacement.

    A resample of a sorted sample is given by how often each rank is drawn, and its IQM is a weighted mean of the order
    statistics. The weights serve for every column, so that a whole curve costs one matrix product. Columns share the
    drawn ranks, not the drawn seeds: intervals are meant for each point of a curve by itself.

    :param values: shape (n, …), seeds first
    :param seed: of the random generator; what is compared with one another must be drawn with different ones
    :param resamples: number of samples
    :return: shape (resamples, …)
    """
    ordered = np.sort(values, axis=0)
    counts = _drawn_after_trimming(len(values), seed, resamples)
    flat: FloatArray = counts @ ordered.reshape(len(values), -1) / counts[0].sum()
    return flat.reshape(resamples, *values.shape[1:])


def iqm_interval(values: FloatArray, *, seed: int = 0) -> tuple[FloatArray, FloatArray] | None:
    """
    95 % interval of the IQM over seeds.

    :param values: shape (n, …), seeds first
    :return: lower and upper ends, each of shape (…); None for one seed, which says nothing about others
    """
    if len(values) < 2:
        return None
    return _percentiles(bootstrap_iqms(values, seed=seed), expanded_tail(len(values)))


def difference_interval(x: FloatArray, y: FloatArray, *, seed: int = 0) -> tuple[float, float] | None:
    """
    95 % interval of IQM(x) − IQM(y), each sample resampled by itself.

    :param x: values of the seeds of one variant, shape (n,)
    :param y: of the other, shape (m,)
    :return: lower and upper end; None if a sample has one seed
    """
    if min(len(x), len(y)) < 2:
        return None
    # The same ranks drawn for both would make good samples of x meet good samples of y, and the interval too short
    differences = bootstrap_iqms(x, seed=seed) - bootstrap_iqms(y, seed=seed + 1)
    low, high = _percentiles(differences, expanded_tail(len(x) + len(y), strata=2))
    return float(low), float(high)


def stratified_interval(strata: Sequence[FloatArray], *, seed: int = 0) -> tuple[float, float] | None:
    """
    95 % interval of the IQM over all values of several environments: seeds are drawn with replacement within each
    environment, and every resample has as many of it as the sample (rliable's ``StratifiedBootstrap``).

    :param strata: per environment the values of its seeds, shape (n,)
    :return: lower and upper end; None if an environment has one seed
    """
    if min(len(values) for values in strata) < 2:
        return None
    generator = np.random.default_rng(seed)
    drawn = [values[generator.integers(len(values), size=(RESAMPLES, len(values)))] for values in strata]
    n_values = sum(len(values) for values in strata)
    low, high = _percentiles(iqm(np.concatenate(drawn, axis=1), axis=1), expanded_tail(n_values, len(strata)))
    return float(low), float(high)


def expanded_tail(n: int, strata: int = 1) -> float:
    r"""
    Probability at either end outside an *expanded* percentile interval (Hesterberg, *What Teachers Should Know About
    the Bootstrap*, The American Statistician 69, 2015, section 5.3).

    A plain percentile interval takes 2.5 %. It is too short for few values: the spread of a resample is smaller by
    :math:`\sqrt{(n - 1)/n}` than it should be, and the normal stands where Student's t with n − 1 degrees of freedom
    should. Both are undone by taking :math:`\Phi(-\sqrt{n/(n - 1)}\, t_{0.975, n - 1})`; with k strata n − k stands for
    n − 1. For five seeds that is 0.1 %.

    Measured coverage of 95 % intervals of an IQM, plain and expanded (4,000 samples each, standard error 0.4 %):

    ======== ============== ============== ============== ==============
    seeds    normal         exponential    lognormal      difference
    ======== ============== ============== ============== ==============
    3        76 → 76 %      76 → 76 %      75 → 75 %      81 → 90 %
    5        90 → 93 %      90 → 94 %      91 → 94 %      95 → 98 %
    10       93 → 97 %      92 → 96 %      93 → 96 %      95 → 97 %
    30       95 → 96 %      94 → 96 %      95 → 96 %      95 → 96 %
    ======== ============== ============== ============== ==============

    No resample lies outside the sample, so with fewer than five seeds the interval is the range of the seeds and covers
    less than it says (50, 75 and 88 % for two, three and four).

    :param n: values, over all strata
    :param strata: groups within which they are resampled
    """
    freedom = n - strata
    return float(stats.norm.cdf(-math.sqrt(n / freedom) * stats.t.ppf((1 + CONFIDENCE) / 2, freedom)))


def probability_of_improvement(x: FloatArray, y: FloatArray) -> float:
    """
    P(X > Y) + P(X = Y) / 2 for a seed of either (Agarwal et al. 2021, section 4.3), which is the Mann-Whitney U
    statistic over the number of pairs.

    :param x: values of the seeds of one variant, shape (n,)
    :param y: of the other, shape (m,)
    """
    difference = x[:, None] - y[None, :]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def probability_interval(x: FloatArray, y: FloatArray) -> tuple[float, float] | None:
    r"""
    95 % interval of the probability of improvement: Newcombe, *Confidence intervals for an effect size measure based on
    the Mann-Whitney statistic, part 2*, Statistics in Medicine 25, 2006, method 5.

    It holds every probability θ from which the observed one is at most 1.96 of θ's own standard deviations away,

    .. math:: \sqrt{\frac{\theta(1-\theta)}{nm}
        \left[1 + \left(\frac{n+m}{2} - 1\right)\left(\frac{1-\theta}{2-\theta} + \frac{\theta}{1+\theta}\right)\right]}

    The bootstrap, which rliable takes, shrinks to a point where every seed of one variant beats every seed of the
    other, the case that matters most. Measured coverage of its and of this interval for normal returns (1,500 samples
    each; 300 for 30 seeds):

    ======== ============== ============== ==============
    seeds    θ = 0.69       θ = 0.86       θ = 0.96
    ======== ============== ============== ==============
    3        76 → 96 %      56 → 97 %      22 → 90 %
    5        91 → 97 %      80 → 94 %      41 → 97 %
    10       92 → 95 %      89 → 97 %      75 → 97 %
    30       96 → 97 %      94 → 97 %      89 → 98 %
    ======== ============== ============== ==============

    :param x: values of the seeds of one variant, shape (n,)
    :param y: of the other, shape (m,)
    :return: lower and upper end; None if a sample has one seed
    """
    n, m = len(x), len(y)
    if min(n, m) < 2:
        return None
    observed = probability_of_improvement(x, y)
    z = stats.norm.ppf((1 + CONFIDENCE) / 2)

    def beyond(theta: float) -> float:
        pairs = 1 + ((n + m) / 2 - 1) * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return abs(theta - observed) - float(z) * math.sqrt(theta * (1 - theta) / (n * m) * pairs)

    inside = min(max(observed, 1e-9), 1 - 1e-9)  # at 0 and at 1 the standard deviation vanishes
    low = brentq(beyond, 0.0, inside) if observed > 0 else 0.0
    high = brentq(beyond, inside, 1.0) if observed < 1 else 1.0
    return float(low), float(high)


def mann_whitney_p(x: FloatArray, y: FloatArray) -> float:
    """
    Two-sided p-value of the Mann-Whitney U test: exact for up to eight seeds without ties, else by the normal
    approximation corrected for ties and continuity.

    :param x: values of the seeds of one variant, shape (n,)
    :param y: of the other, shape (m,)
    """
    if np.ptp(np.concatenate([x, y])) == 0.0:
        return 1.0  # the approximation divides by their spread
    return float(stats.mannwhitneyu(x, y, alternative="two-sided").pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """
    p-values corrected for their number: the probability that *any* true null hypothesis among them is rejected stays
    below the level (Holm, *A simple sequentially rejective multiple test procedure*, 1979).

    :param p_values: of all tests of one family
    :return: in the same order; the i-th smallest of m (from 0) is multiplied by m − i, and none falls below one that
        was smaller before
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return [float(value) for value in np.minimum(corrected, 1.0)]


def area_under_curve(steps: npt.ArrayLike, values: FloatArray) -> float:
    """
    Area under a curve by the trapezoidal rule, divided by its length: the mean value over the training.

    :param steps: increasing, shape (n,)
    :param values: shape (n,). Where they are NaN, before the first episode has ended, there is no curve yet
    :return: NaN if there is none at all; the only value of a curve with one
    """
    known = ~np.isnan(values)
    x, y = np.asarray(steps, dtype=np.float64)[known], values[known]
    if len(x) < 2:
        return float(y[0]) if len(y) else math.nan
    return float(np.trapezoid(y, x) / (x[-1] - x[0]))


def first_step_to(steps: npt.ArrayLike, values: FloatArray, threshold: float) -> float:
    """
    :param steps: increasing, shape (n,)
    :param values: shape (n,)
    :param threshold: what is to be reached
    :return: first of the steps at which the value is at least the threshold; infinity if there is none
    """
    reached = np.flatnonzero(values >= threshold)
    return float(np.asarray(steps)[reached[0]]) if len(reached) else math.inf


@lru_cache(maxsize=128)
def _drawn_after_trimming(n: int, seed: int, resamples: int) -> FloatArray:
    """
    :return: how often each rank of a sample is in the middle half of a resample, shape (resamples, n). Integers, so
        that seeds with one and the same return have exactly that IQM
    """
    ranks = np.sort(np.random.default_rng(seed).integers(n, size=(resamples, n)), axis=1)
    trimmed = math.floor(_TRIMMED * n)
    counts = np.zeros((resamples, n))
    np.add.at(counts, (np.arange(resamples)[:, None], ranks[:, trimmed : n - trimmed]), 1.0)
    counts.flags.writeable = False
    return counts


def _percentiles(resampled: FloatArray, tail: float) -> tuple[FloatArray, FloatArray]:
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    return low, high
