"""What one call of ``train()`` leaves in the logger, and what is to blame where it cannot go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.utils import explained_variance
from torch import nn

from sb3_vgs_ppo.ppo.distribution_targets import DistributionRolloutBuffer
from sb3_vgs_ppo.ppo.minibatch_log import MinibatchLog

if TYPE_CHECKING:
    from sb3_vgs_ppo.ppo.dppo import DistributionalPPO


def flat_parameters(policy: nn.Module) -> th.Tensor:
    """:return: copy of all parameters, 1-d"""
    with th.no_grad():
        return th.nn.utils.parameters_to_vector(policy.parameters())


def record_update(model: DistributionalPPO, log: MinibatchLog, parameters_before: th.Tensor) -> None:
    """
    Record the figures of one ``train()`` call: SB3's keys, the critic's and the scaler's.

    :param log: of all minibatches
    :param parameters_before: :func:`flat_parameters` before the first one
    """
    record, policy, buffer = model.logger.record, model.policy, model.rollout_buffer
    clip_range = model.clip_range(model._current_progress_remaining)  # type: ignore[operator]
    for name, value in log.means(clip_range).items():
        record(f"train/{name}", value)
    record("train/loss", log.last("loss"))  # of the last minibatch, as in SB3
    record("train/skipped_updates", log.skipped)
    record("train/explained_variance", explained_variance(buffer.values.flatten(), buffer.returns.flatten()))
    for name, tensor in policy.value_net.metrics(*log.last_epoch_predictions()).items():
        record(f"train/{name}", tensor.item())
    if isinstance(buffer, DistributionRolloutBuffer) and buffer.value_target_clipped is not None:
        record("train/value_target_clipped", buffer.value_target_clipped)  # in the place of the λ-returns' share
    if hasattr(policy, "log_std"):
        record("train/std", th.exp(policy.log_std).mean().item())
    record("train/n_updates", model._n_updates, exclude="tensorboard")
    record("train/clip_range", clip_range)
    if model.clip_range_vf is not None:
        record("train/clip_range_vf", model.clip_range_vf(model._current_progress_remaining))  # type: ignore[operator]
    # With VGS off too: a study compares versions against "off"
    change = flat_parameters(policy) - parameters_before
    record("vgs/clip_fraction", log.fraction_above("grad_norm", model.max_grad_norm))
    record("vgs/update_ratio", (change.norm() / parameters_before.norm()).item())
    if model.vgs is not None:
        for name, value in model.vgs.pop_metrics().items():
            record(name, value)


def nonfinite_gradients(policy: nn.Module) -> list[str]:
    """:return: names of the parameters whose gradient holds NaN or Inf"""
    return [
        name
        for name, parameter in policy.named_parameters()
        if parameter.grad is not None and not th.isfinite(parameter.grad.norm())
    ]


def nonfinite_arrays(buffer: RolloutBuffer) -> list[str]:
    """:return: names of the rollout's arrays that hold NaN or Inf, which tells the environment's fault from ours"""
    observations = buffer.observations
    parts = observations.values() if isinstance(observations, dict) else [observations]
    arrays = {"observations": list(parts), "rewards": [buffer.rewards]}
    return [name for name, values in arrays.items() if not all(np.isfinite(value).all() for value in values)]
