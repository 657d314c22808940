"""The λ-mixture of n-step return distributions: what the λ-return is to values, for distributions.

Going backwards through a rollout, with probabilities and not values mixed in the brackets,

    Z^λ_t = r_t + γ [(1 − λ) Z(s_{t+1}) + λ Z^λ_{t+1}]                                                       (1)

Source: Nam, Kim & Park, "GMAC: A Distributional Perspective on Actor-Critic Framework", ICML 2021. Their SR(λ) draws
from Z^λ by sample replacement: of the samples of Z^λ_{t+1}, each gives way to one of Z(s_{t+1}) with probability 1 − λ.
Here nothing is drawn: weighted atoms are mixed as they are, and their number is kept down by :func:`slice_means`.

Each n-step distribution has the law of the whole return where Z is right, and so has their mixture. The λ-return of a
right Z, a mean of n-step returns, is narrower than that, the more so the smaller λ.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch as th

from sb3_vgs_ppo.distributional.value_distribution import Array, ValueDistribution

N_ATOMS = 128
"""Atoms with which a mixture goes on to the step before. With λ = 0.95 its spread is then 1 % below that of the exact
mixture, with 32 atoms 4 %, and 128 cost little more."""


def slice_means(atoms: th.Tensor, weights: th.Tensor, n_slices: int) -> th.Tensor:
    """
    Project distributions onto atoms of equal probability: the mean of each of n slices of probability 1 / n.

    The mean stays, and of all such atoms these are the closest in the 2-Wasserstein distance. Quantiles at the
    midpoints of the slices (the closest in the 1-Wasserstein distance) do not do for a recursion: what weighs less than
    half a slice, as Z(s_{t+1}) does in (1) for λ near 1, falls between them. With λ = 0.99 the spread of 32 such
    quantiles was 70 % too small after 150 steps.

    :param atoms: in any order, (..., m)
    :param weights: their probabilities, with a sum of 1, (..., m)
    :param n_slices: number n of slices
    :return: ascending, (..., n); NaN where an atom is
    """
    atoms, order = atoms.sort(dim=-1)
    smallest = atoms[..., :1]
    atoms = atoms - smallest  # large ones leave small differences few digits
    weights = weights.gather(-1, order)
    cdf = weights.cumsum(dim=-1)
    integral = (weights * atoms).cumsum(dim=-1)  # of the quantile function, from 0 to the cdf
    levels = th.arange(1, n_slices, dtype=atoms.dtype, device=atoms.device) / n_slices
    levels = levels.expand(*atoms.shape[:-1], -1).contiguous()
    at = th.searchsorted(cdf, levels).clamp(max=atoms.shape[-1] - 1)
    inner = integral.gather(-1, at) - (cdf.gather(-1, at) - levels) * atoms.gather(-1, at)
    borders = th.cat((th.zeros_like(atoms[..., :1]), inner, integral[..., -1:]), dim=-1)
    return borders.diff(dim=-1) * n_slices + smallest


def lambda_mixtures(
    rewards: Array,
    ends: npt.NDArray[np.bool_],
    following: ValueDistribution,
    after: Mapping[tuple[int, int], ValueDistribution],
    *,
    gamma: float,
    gae_lambda: float,
    n_atoms: int = N_ATOMS,
) -> th.Tensor:
    """
    Z^λ of every state of a rollout, by equation (1).

    :param rewards: (steps, n_envs)
    :param ends: whether the step ends an episode, (steps, n_envs)
    :param following: predicted for the observations after the steps, batch shape (steps, n_envs); where a step ends an
        episode it is not used
    :param after: what would have followed a step that cut an episode off, by (step, env); batch shape (). After other
        ends nothing follows
    :param gamma: discount γ
    :param gae_lambda: λ in [0, 1]; 0 for one-step distributions, 1 for those of the rewards up to the end of episode
        or rollout
    :param n_atoms: atoms of equal probability for each
    :return: atoms, (steps, n_envs, n_atoms), float32
    """
    atoms, weights = (th.from_numpy(np.ascontiguousarray(part)) for part in (following.atoms, following.probabilities))
    n_steps, n_envs, _ = atoms.shape
    mixtures = th.empty(n_steps, n_envs, n_atoms)
    kept = th.full((n_envs, n_atoms), gae_lambda / n_atoms, dtype=th.float64)
    mixture = slice_means(atoms[-1], weights[-1], n_atoms)
    for step in reversed(range(n_steps)):
        both = th.cat((atoms[step], mixture), dim=1), th.cat(((1 - gae_lambda) * weights[step], kept), dim=1)
        remaining = slice_means(*both, n_atoms)
        for env in np.flatnonzero(ends[step]):
            remaining[env] = _atoms_after(after.get((step, int(env))), n_atoms)
        mixture = th.from_numpy(rewards[step].astype(np.float64)).unsqueeze(1) + gamma * remaining
        mixtures[step] = mixture
    return mixtures


def _atoms_after(distribution: ValueDistribution | None, n_atoms: int) -> th.Tensor:
    if distribution is None:
        return th.zeros(n_atoms, dtype=th.float64)
    return slice_means(th.from_numpy(distribution.atoms), th.from_numpy(distribution.probabilities), n_atoms)
