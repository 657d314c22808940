"""What the critic that collected a rollout predicted for its states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch as th

from sb3_vgs_ppo.distributional.value_distribution import ValueDistribution

if TYPE_CHECKING:
    from stable_baselines3.common.buffers import RolloutBuffer
    from stable_baselines3.common.policies import ActorCriticPolicy

_BATCH = 512
"""Observations that are predicted at once, so that a rollout of images fits into memory."""


@th.no_grad()
def rollout_distributions(
    buffer: RolloutBuffer, policy: ActorCriticPolicy
) -> Iterator[tuple[slice, ValueDistribution]]:
    """
    The distributions that a policy predicts for a rollout.

    :param buffer: full and not yet read, as it is in ``on_rollout_end``
    :param policy: one with ``predict_value_distribution``. For any other, the values in the buffer stand for
        distributions with a single atom
    :return: steps, and the distributions of their states, batch shape (steps, n_envs)
    """
    predict = getattr(policy, "predict_value_distribution", None)
    observations: Any = buffer.observations
    size = max(_BATCH // buffer.n_envs, 1)
    for steps in (slice(start, start + size) for start in range(0, buffer.buffer_size, size)):

        def joined(values: npt.NDArray[Any], steps: slice = steps) -> th.Tensor:
            part = values[steps]
            return buffer.to_torch(part.reshape(-1, *part.shape[2:]))

        if predict is None:
            prediction = joined(buffer.values).unsqueeze(1)
        elif isinstance(observations, dict):
            prediction = predict({name: joined(values) for name, values in observations.items()})
        else:
            prediction = predict(joined(observations))
        yield steps, ValueDistribution.of(prediction).reshape(-1, buffer.n_envs)
