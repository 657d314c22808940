"""The loss of quantile regression in one pass; import it through :mod:`sb3_vgs_ppo._numba`."""

from __future__ import annotations

import numpy as np

from sb3_vgs_ppo._numba import compiled


@compiled(reorders=True)
def quantile_huber(
    quantiles: np.ndarray,
    targets: np.ndarray,
    taus: np.ndarray,
    kappa: float,
    coefficient: float,
    gradient: np.ndarray,
) -> float:
    """
    :func:`~sb3_vgs_ppo.distributional.quantile.quantile_huber_loss_with_gradient` of float32 samples.

    :param quantiles: shape (B, n), as ``gradient``
    :param targets: shape (B,)
    :param taus: shape (n,)
    :param coefficient: by which the gradient is multiplied
    :return: the loss; its gradient is written
    """
    n, k = quantiles.shape
    bound, zero, one = np.float32(kappa), np.float32(0.0), np.float32(1.0)
    share, factor = np.float32(1.0 / ((kappa or 1.0) * n * k)), np.float32(coefficient)
    loss = 0.0
    for i in range(n):
        row, written, target = quantiles[i], gradient[i], targets[i]
        for j in range(k):
            error = row[j] - target
            weight = one - taus[j] if error > zero else taus[j]
            if kappa == 0.0:
                slope = one if error > zero else (-one if error < zero else error)
                height = error
            else:
                slope = bound if error > bound else (-bound if error < -bound else error)
                height = error - np.float32(0.5) * slope
            weighted = weight * slope * share
            loss += np.float64(weighted * height)
            written[j] = weighted * factor
    return loss
