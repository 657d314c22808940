"""Coverage of predicted quantiles: by hand, and against processes whose distribution is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch as th
from scipy import stats

from sb3_vgs_ppo.distributional import (
    LEVELS,
    Coverage,
    RealisedReturns,
    ValueDistribution,
    coverage_table,
    discounted_returns,
)

N_QUANTILES = 200
NORMAL = stats.norm.ppf((np.arange(N_QUANTILES) + 0.5) / N_QUANTILES)


def realised(n_episodes: int, steps: int, shared: float, scale: float = 1.0, seed: int = 0) -> RealisedReturns:
    """
    Returns of N(0, 1), of whose variance the given share is the same in all steps of an episode.

    :param scale: standard deviation that is predicted
    """
    generator = np.random.default_rng(seed)
    of_episode, of_step = generator.normal(size=(n_episodes, 1)), generator.normal(size=(n_episodes, steps))
    returns = (math.sqrt(shared) * of_episode + math.sqrt(1 - shared) * of_step).ravel()
    predicted = ValueDistribution.of(th.tensor(scale * NORMAL).expand(len(returns), N_QUANTILES))
    return RealisedReturns(predicted, returns, np.repeat(np.arange(n_episodes), steps))


def test_returns_by_hand() -> None:
    """Two environments: an episode of two steps, and one that is cut off with 10 to come; an episode of three steps."""
    rewards = np.array([[1.0, 1.0], [2.0, 0.0], [4.0, 8.0]])
    ends = np.array([[False, False], [True, False], [True, True]])
    after = np.array([[0.0, 0.0], [0.0, 0.0], [10.0, 0.0]])
    returns = discounted_returns(rewards, ends, after, gamma=0.5)
    assert returns.tolist() == [[1 + 0.5 * 2, 1 + 0.25 * 8], [2.0, 0.5 * 8], [4 + 0.5 * 10, 8.0]]


def test_shares_by_hand() -> None:
    """One atom at 5 for all: returns at it count as covered by every quantile, and no interval has any of them."""
    returns = np.array([4.0, 5.0, 6.0, 7.0])
    predicted = ValueDistribution.of(th.full((4, 1), 5.0))
    table = coverage_table(RealisedReturns(predicted, returns, np.array([0, 0, 1, 1])))
    assert [(row.kind, row.level) for row in table] == [
        *(("quantile", level) for level in LEVELS),
        *(("interval", probability) for probability in (0.9, 0.8, 0.5)),
    ]
    assert [row.coverage for row in table] == [0.5] * 7 + [0.0] * 3
    # The first episode is all covered and the second not at all: resampled shares are 0, ½ and 1
    assert [(row.low, row.high) for row in table] == [(0.0, 1.0)] * 7 + [(0.0, 0.0)] * 3


def test_intervals_are_central() -> None:
    table = coverage_table(realised(200, 5, shared=0.0, scale=2.0))
    found = {row.level: row.coverage for row in table if row.kind == "interval"}
    # P(|X| < 2 Φ⁻¹(½ + level / 2))
    expected = {level: 1 - 2 * stats.norm.cdf(-2 * stats.norm.ppf(0.5 + level / 2)) for level in (0.5, 0.8, 0.9)}
    assert found == pytest.approx(expected, abs=0.04)


def test_a_narrow_prediction_covers_too_much_at_low_levels_and_too_little_at_high_ones() -> None:
    table = coverage_table(realised(200, 10, shared=0.2, scale=0.5))
    low, high = table[0], table[len(LEVELS) - 1]
    assert (low.level, high.level) == (0.05, 0.95)
    assert low.low > 0.05  # expected: Φ(½ Φ⁻¹(0.05)) = 0.205
    assert high.high < 0.95
    assert low.coverage == pytest.approx(0.205, abs=0.04)


def hits_of_the_median(shared: float, by_episode: bool = True) -> float:
    """Share of 60 processes of 20 episodes with a right prediction whose interval contains ½."""
    rows: list[Coverage] = []
    for seed in range(60):
        sample = realised(20, 15, shared, seed=seed)
        rows.append(coverage_table(sample if by_episode else replace(sample, episodes=np.arange(300)), seed)[3])
    return float(np.mean([row.low <= 0.5 <= row.high for row in rows]))


def test_intervals_hold_their_level_however_alike_the_states_of_an_episode_are() -> None:
    """95 %, less what percentile intervals of 20 episodes lack; not so if states were resampled."""
    assert hits_of_the_median(shared=0.0) > 0.88
    assert hits_of_the_median(shared=0.9) > 0.88
    assert hits_of_the_median(shared=0.9, by_episode=False) < 0.6


def test_one_episode_tells_no_interval() -> None:
    table = coverage_table(realised(1, 30, shared=0.0))
    assert all(math.isnan(row.low) and math.isnan(row.high) for row in table)
    assert 0.2 < table[3].coverage < 0.8


def test_the_bootstrap_is_seeded() -> None:
    sample = realised(10, 5, shared=0.5)
    assert coverage_table(sample, 1) == coverage_table(sample, 1) != coverage_table(sample, 2)
