"""How far the returns of a rollout lie below what the critic predicted.

The critic is the one that saw the rollout being collected: the same weights predicted every value in the buffer.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy

Distribution: TypeAlias = th.Tensor | tuple[th.Tensor, th.Tensor]
"""Quantiles (batch, n), or atoms (n,) and their probabilities (batch, n), in units of the return."""

_BATCH = 512
"""Observations that are predicted at once, so that a rollout of images fits into memory."""


class Surprise(NamedTuple):
    """
    :param shortfall: mean predicted value minus mean λ-return, in units of the return; positive: less than predicted
    :param pit: mean probability integral transform F(G) of the λ-returns G under the predicted distributions, in
        [0, 1]: ½ where the prediction fits, 0 where every return lies below everything that was thought possible. It
        asks how many returns fall short, not by how much, so a single failed episode hardly moves it
    """

    shortfall: float
    pit: float


@th.no_grad()
def rollout_surprise(buffer: RolloutBuffer, policy: ActorCriticPolicy) -> Surprise:
    """
    :param buffer: full, with returns computed and not yet read: as it is in ``on_rollout_end``
    :param policy: that collected it. One with ``predict_value_distribution`` is asked for distributions; for any other
        the value stands for a distribution with a single point
    """
    shortfall = np.mean(buffer.values, dtype=np.float64) - np.mean(buffer.returns, dtype=np.float64)
    steps = max(_BATCH // buffer.n_envs, 1)
    parts = [slice(start, start + steps) for start in range(0, buffer.buffer_size, steps)]
    pits = [_transform(buffer, policy, part) for part in parts]
    return Surprise(float(shortfall), th.cat(pits).double().mean().item())


def probability_integral_transform(distribution: Distribution, returns: th.Tensor) -> th.Tensor:
    """
    F(G), with half of the probability of a point counted below it.

    Between two atoms F is linear. A return that is always the same and that two-hot targets split between its
    neighbours has F = ½ then, wherever between them it lies.

    :param distribution: quantiles, in any order, or ascending atoms and probabilities
    :param returns: shape (batch,)
    :return: shape (batch,)
    """
    if isinstance(distribution, th.Tensor):
        return (0.5 + 0.5 * th.sign(returns.unsqueeze(1) - distribution)).mean(dim=1)
    atoms, probabilities = distribution
    cumulative = probabilities.cumsum(dim=1) - 0.5 * probabilities
    above = th.searchsorted(atoms, returns.contiguous()).clamp(1, len(atoms) - 1)
    low, high = (cumulative.gather(1, index.unsqueeze(1)).squeeze(1) for index in (above - 1, above))
    share = (returns - atoms[above - 1]) / (atoms[above] - atoms[above - 1])
    return th.lerp(low, high, share.clamp(0.0, 1.0))


def _transform(buffer: RolloutBuffer, policy: ActorCriticPolicy, steps: slice) -> th.Tensor:
    """:return: transforms of the returns of some steps, shape (steps * n_envs,)"""

    def joined(values: npt.NDArray[Any]) -> th.Tensor:
        part = values[steps]
        return buffer.to_torch(part.reshape(-1, *part.shape[2:]))

    predict = getattr(policy, "predict_value_distribution", None)
    if predict is None:
        return probability_integral_transform(joined(buffer.values).unsqueeze(1), joined(buffer.returns))
    observations = buffer.observations
    if isinstance(observations, dict):
        distribution = predict({name: joined(values) for name, values in observations.items()})
    else:
        distribution = predict(joined(observations))
    return probability_integral_transform(distribution, joined(buffer.returns))
