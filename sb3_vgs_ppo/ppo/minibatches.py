"""The rollout in minibatches: SB3's samples in SB3's random order, gathered once per epoch instead of per minibatch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import torch as th
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.type_aliases import DictRolloutBufferSamples, RolloutBufferSamples

from sb3_vgs_ppo.ppo.distribution_targets import (
    DistributionDictRolloutBuffer,
    DistributionRolloutBuffer,
    DistributionSamples,
)

Minibatch: TypeAlias = RolloutBufferSamples | DictRolloutBufferSamples | DistributionSamples

_GATHERED_AT_ONCE = (RolloutBuffer, DictRolloutBuffer, DistributionRolloutBuffer, DistributionDictRolloutBuffer)

LARGE_ROLLOUT = 2**26
"""Bytes of observations (64 MiB) from which on a second copy of the rollout would be felt in memory."""


def minibatches(buffer: RolloutBuffer, batch_size: int) -> Iterator[Minibatch]:
    """
    One epoch over a full buffer. The samples are those of ``buffer.get(batch_size)``, and NumPy's global generator is
    drawn from as there: once, for one permutation.

    :param buffer: rollout; one of a derived class is asked for its minibatches itself
    :param batch_size: samples per minibatch; the last one has what is left over
    """
    if type(buffer) not in _GATHERED_AT_ONCE or _observation_bytes(buffer) > LARGE_ROLLOUT:
        yield from buffer.get(batch_size)
        return
    (epoch,) = buffer.get()  # without a batch size: all samples, permuted
    observations = epoch.observations
    if isinstance(observations, dict):
        parts = zip(*(values.split(batch_size) for values in observations.values()), strict=True)
        batches = [dict(zip(observations, part, strict=True)) for part in parts]
    else:
        batches = observations.split(batch_size)
    columns = (column.split(batch_size) for column in epoch[1:] if isinstance(column, th.Tensor))
    for batch in zip(batches, *columns, strict=True):
        yield type(epoch)(*batch)


def value_targets(minibatch: Minibatch) -> th.Tensor:
    """:return: what the critic is to predict: distributions (batch, k) where there are such, else λ-returns (batch,)"""
    return minibatch.value_targets if isinstance(minibatch, DistributionSamples) else minibatch.returns


def _observation_bytes(buffer: RolloutBuffer) -> int:
    observations: np.ndarray | dict[str, np.ndarray] = buffer.observations
    parts = observations.values() if isinstance(observations, dict) else [observations]
    return sum(part.nbytes for part in parts)
