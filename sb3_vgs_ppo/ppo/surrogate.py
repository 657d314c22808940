"""The clipped surrogate objective of PPO with its gradient.

Source: Schulman, Wolski, Dhariwal, Radford & Klimov, "Proximal Policy Optimization Algorithms" (arXiv:1707.06347).
"""

from __future__ import annotations

import numpy as np
import torch as th


def normalized(advantages: th.Tensor) -> th.Tensor:
    """
    :param advantages: of a minibatch, (batch,)
    :return: the same with mean 0 and standard deviation 1
    """
    # The standard deviation of a single advantage is not defined, see SB3's issue #325
    if len(advantages) == 1:
        return advantages
    return (advantages - advantages.mean()) / (advantages.std() + 1e-8)


def clipped_surrogate(log_ratio: th.Tensor, advantages: th.Tensor, clip_range: float) -> th.Tensor:
    """
    Clipped surrogate objective, negated (equation 7).

    :param log_ratio: log-probabilities under the current policy less those under the old one, (batch,)
    :param advantages: (batch,)
    :param clip_range: ε
    :return: 0-d loss
    """
    ratio = th.exp(log_ratio)
    return -th.min(advantages * ratio, advantages * th.clamp(ratio, 1 - clip_range, 1 + clip_range)).mean()


def clipped_surrogate_with_gradient(
    log_ratio: th.Tensor, advantages: th.Tensor, clip_range: float | th.Tensor
) -> tuple[th.Tensor, th.Tensor]:
    """
    :func:`clipped_surrogate` and its gradient, equal bit for bit to autograd's, which is not involved.

    Where the clipped objective is the smaller one, the ratio is beyond the clip range and the gradient is 0; where both
    are equal, autograd gives each a half of the same gradient.

    :return: 0-d loss and its gradient with respect to ``log_ratio``, (batch,)
    """
    ratio = th.exp(log_ratio)
    unclipped = advantages * ratio
    clipped = advantages * th.clamp(ratio, 1 - clip_range, 1 + clip_range)  # type: ignore[arg-type]  # one or the other
    per_sample = float(np.float32(-1.0) / np.float32(len(ratio)))  # rounded as the backward pass of the mean does
    gradient = (advantages * per_sample).mul_(ratio).masked_fill_(unclipped > clipped, 0.0)
    return -th.min(unclipped, clipped).mean(), gradient
