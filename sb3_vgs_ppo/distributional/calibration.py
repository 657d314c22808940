"""Are predicted distributions of returns right? The share of realised returns below each predicted quantile.

States of one episode share its luck, so an interval for such a share comes from resampling whole episodes (the cluster
bootstrap: Cameron, Gelbach & Miller, "Bootstrap-Based Improvements for Inference with Clustered Errors", Review of
Economics and Statistics 2008).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from sb3_vgs_ppo.distributional.value_distribution import Array, ValueDistribution

LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
"""Cumulative probabilities whose quantiles are checked; the first and the last, the second and the last but one, …
bound the central intervals."""

_N_INTERVALS = len(LEVELS) // 2
_RESAMPLES = 2000
_CONFIDENCE = (0.025, 0.975)


@dataclass(frozen=True, eq=False)
class RealisedReturns:
    """
    What was predicted for states and what came of them.

    :param predicted: distributions of the return, batch shape (states,)
    :param returns: discounted rewards from the state to the end of its episode, (states,)
    :param episodes: number of the state's episode, (states,)
    """

    predicted: ValueDistribution
    returns: Array
    episodes: npt.NDArray[np.int64]

    @property
    def n_episodes(self) -> int:
        """Number of different episodes."""
        return len(np.unique(self.episodes))


class Coverage(NamedTuple):
    """
    :param kind: share of returns at or below the quantile of this level, or within the central interval of this
        probability
    :param level: the share that there should be
    :param coverage: the share that there is, every state with the same weight
    :param low: lower end of its 95 % interval; NaN if there is only one episode
    :param high: upper end
    """

    kind: Literal["quantile", "interval"]
    level: float
    coverage: float
    low: float
    high: float


def discounted_returns(rewards: Array, ends: npt.NDArray[np.bool_], after: Array, gamma: float) -> Array:
    """
    Returns from every step to the end of its episode, in several environments at a time.

    :param rewards: (steps, n_envs)
    :param ends: whether the step ends an episode, (steps, n_envs); true in the last row
    :param after: return from there on where an episode was cut off rather than over, 0 elsewhere, (steps, n_envs)
    :param gamma: discount γ
    :return: shape (steps, n_envs)
    """
    returns = np.zeros_like(rewards)
    following = np.zeros(rewards.shape[1])
    for step in reversed(range(len(rewards))):
        following = rewards[step] + gamma * np.where(ends[step], after[step], following)
        returns[step] = following
    return returns


def coverage_table(realised: RealisedReturns, seed: int = 0) -> list[Coverage]:
    """
    :param realised: at least one state
    :param seed: of the bootstrap
    :return: one row per level of :data:`LEVELS`, then one per central interval, the widest first
    """
    below = realised.returns[:, None] <= realised.predicted.quantile(LEVELS)  # (states, levels)
    within = np.stack([below[:, -1 - k] & ~below[:, k] for k in range(_N_INTERVALS)], axis=1)
    coverages, lows, highs = _shares(np.concatenate([below, within], axis=1), realised.episodes, seed)
    asked: list[tuple[Literal["quantile", "interval"], float]] = [("quantile", level) for level in LEVELS]
    asked += [("interval", round(1 - 2 * level, 10)) for level in LEVELS[:_N_INTERVALS]]
    rows = zip(asked, coverages.tolist(), lows.tolist(), highs.tolist(), strict=True)
    return [Coverage(*what, *numbers) for what, *numbers in rows]


def _shares(hits: npt.NDArray[np.bool_], episodes: npt.NDArray[np.int64], seed: int) -> tuple[Array, Array, Array]:
    """
    :param hits: (states, columns)
    :return: share of hits per column, and the ends of its percentile interval over resampled episodes, (columns,)
    """
    _, index, sizes = np.unique(episodes, return_inverse=True, return_counts=True)
    sums = np.zeros((len(sizes), hits.shape[1]))
    np.add.at(sums, index, hits)
    shares = sums.sum(axis=0) / len(hits)
    if len(sizes) < 2:
        unknown = np.full_like(shares, np.nan)
        return shares, unknown, unknown
    drawn = np.random.default_rng(seed).multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), _RESAMPLES)
    low, high = np.quantile(drawn @ sums / (drawn @ sizes)[:, None], _CONFIDENCE, axis=0)
    return shares, low, high
