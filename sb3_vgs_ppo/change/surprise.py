"""How far the returns of a rollout lie below what the critic predicted.

The critic is the one that saw the rollout being collected: the same weights predicted every value in the buffer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_vgs_ppo.distributional import rollout_distributions


class Surprise(NamedTuple):
    """
    :param shortfall: mean predicted value minus mean λ-return, in units of the return; positive: less than predicted
    :param pit: mean probability integral transform F(G) of the λ-returns G under the predicted distributions, in
        [0, 1]: ½ where the prediction fits, 0 where every return lies below everything that was thought possible. It
        asks how many returns fall short, not by how much, so a single failed episode hardly moves it
    """

    shortfall: float
    pit: float


def rollout_surprise(buffer: RolloutBuffer, policy: ActorCriticPolicy) -> Surprise:
    """
    :param buffer: full, with returns computed and not yet read: as it is in ``on_rollout_end``
    :param policy: that collected it. One with ``predict_value_distribution`` is asked for distributions; for any other
        the value stands for a distribution with a single point
    """
    shortfall = np.mean(buffer.values, dtype=np.float64) - np.mean(buffer.returns, dtype=np.float64)
    predicted = rollout_distributions(buffer, policy)
    pits = [distribution.cdf(buffer.returns[steps]) for steps, distribution in predicted]
    return Surprise(float(shortfall), float(np.mean(np.concatenate(pits))))
