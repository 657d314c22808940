"""Quantiles over the tensors that were observed so far, without asking the device how many those are."""

from __future__ import annotations

import math

import torch as th

from sb3_vgs_ppo.scaling.arrays import Array, sort, zero_unless


def ascending(values: Array) -> Array:
    """
    :param values: non-negative; NaN where nothing was observed; shape (..., P)
    :return: sorted, with 0 for what is not finite: what was not observed thus comes first
    """
    return sort(zero_unless(values < math.inf, values))


def rank_weights(values: th.Tensor, q: th.Tensor) -> th.Tensor:
    """
    Weights with which :func:`ascending` values sum up to quantiles, with linear interpolation.

    The q-quantile of n observed values lies at rank q·(n − 1) among them, and the two neighbours of that rank share its
    weight. The weights change only while n does.

    :param values: NaN where nothing was observed, shape (..., P)
    :param q: quantiles in [0, 1], shape (Q,)
    :return: shape (..., Q, P)
    """
    size = values.shape[-1]
    n_observed = (~values.isnan()).sum(-1, keepdim=True)
    rank = (size - n_observed) + q * (n_observed - 1)
    distance = th.arange(size, dtype=q.dtype, device=q.device) - rank.unsqueeze(-1)
    return (1.0 - distance.abs()).clamp_min(0.0)


def observed_quantiles(values: th.Tensor, q: th.Tensor) -> th.Tensor:
    """
    :param values: as in :func:`ascending`
    :param q: quantiles in [0, 1], shape (Q,)
    :return: q-quantiles of the observed values, 0 where there are none, shape (..., Q)
    """
    quantiles: th.Tensor = (rank_weights(values, q) @ ascending(values).unsqueeze(-1)).squeeze(-1)
    return quantiles
