"""Quantile regression of the return distribution.

Source: Dabney, Rowland, Bellemare & Munos, "Distributional Reinforcement Learning with Quantile Regression", AAAI 2018.
There the target is itself a set of quantiles; here it can be one λ-return per state too, a sample of the return
distribution.
"""

from __future__ import annotations

import torch as th
from torch.nn import functional as F


def quantile_midpoints(n_quantiles: int) -> th.Tensor:
    """
    Cumulative probabilities τ_k = (k + ½) / n whose quantiles represent a distribution best (Dabney et al., Lemma 2).

    :param n_quantiles: number n of quantiles
    :return: midpoints, shape (n_quantiles,)
    """
    return (th.arange(n_quantiles, dtype=th.float32) + 0.5) / n_quantiles


def quantile_huber_loss(quantiles: th.Tensor, targets: th.Tensor, taus: th.Tensor, kappa: float = 1.0) -> th.Tensor:
    """
    Quantile Huber loss, mean over quantiles and batch: ρ(u) = |τ − 1{u < 0}| · L_κ(u) / κ with u = target − quantile,
    where L_κ is the Huber loss (Dabney et al., equations 9 and 10).

    The division by κ is theirs: beyond κ the slope is τ or 1 − τ for every κ, so κ can be changed without changing
    ``vf_coef``, and for κ → 0 the loss becomes the one of quantile regression, which ``kappa=0`` computes.
    They sum over the quantiles; the mean keeps the size of the loss independent of their number.

    Errors well below κ are treated almost as by a squared error, so where the whole spread of the returns is below κ
    the predicted distribution is narrower than the true one.

    Shapes: u, indicator and weight are (batch, n_quantiles): ``targets`` (batch,) → (batch, 1), ``taus`` (n_quantiles,)
    → (1, n_quantiles). With m target atoms they are (batch, m, n_quantiles), and the mean is over the atoms too:
    ``targets`` (batch, m) → (batch, m, 1), ``quantiles`` (batch, n_quantiles) → (batch, 1, n_quantiles).

    :param quantiles: predicted quantiles, shape (batch, n_quantiles), in units of the return
    :param targets: sampled returns, shape (batch,), or atoms of equal probability, shape (batch, m)
    :param taus: cumulative probabilities of the quantiles, shape (n_quantiles,)
    :param kappa: error at which the loss turns from quadratic to linear, in units of the return; 0: linear everywhere
    :return: the loss, shape ()
    """
    if targets.ndim == 2:
        quantiles = quantiles.unsqueeze(1)
    targets, quantiles = th.broadcast_tensors(targets.unsqueeze(-1), quantiles)
    weights = th.where(targets < quantiles, 1.0 - taus, taus)
    if kappa == 0:
        errors = F.l1_loss(quantiles, targets, reduction="none")
    else:
        errors = F.huber_loss(quantiles, targets, reduction="none", delta=kappa) / kappa
    return (weights * errors).mean()


def quantile_huber_loss_with_gradient(
    quantiles: th.Tensor, targets: th.Tensor, taus: th.Tensor, kappa: float = 1.0
) -> tuple[th.Tensor, th.Tensor]:
    """
    :func:`quantile_huber_loss` and its gradient, in fewer operations than autograd needs.

    With the error d = quantile − target clipped to c in [−κ, κ], the Huber loss is L_κ = c · (d − c / 2) and its slope
    c; for κ = 0 they are |d| and the sign of d.

    :return: the loss, shape (), and its gradient with respect to ``quantiles``, shape (batch, n_quantiles)
    """
    pairs = quantiles.unsqueeze(1) if targets.ndim == 2 else quantiles
    errors = pairs - targets.unsqueeze(-1)
    slopes = errors.sign() if kappa == 0 else errors.clamp(-kappa, kappa)
    losses = errors if kappa == 0 else errors.sub(slopes, alpha=0.5)
    gradient = slopes.mul_(th.where(errors > 0, 1.0 - taus, taus)).div_((kappa or 1.0) * errors.numel())
    loss = th.dot(gradient.flatten(), losses.flatten())
    return loss, gradient.sum(dim=1) if targets.ndim == 2 else gradient


def quantile_crossing(quantiles: th.Tensor) -> th.Tensor:
    """
    Fraction of neighbouring quantiles in the wrong order. Nothing in the loss forbids them, and their number falls
    as the critic fits.

    :param quantiles: predicted quantiles, shape (batch, n_quantiles)
    :return: fraction in [0, 1], shape (); 0 for a single quantile
    """
    crossed = quantiles.diff(dim=1) < 0
    return crossed.sum() / max(crossed.numel(), 1)
