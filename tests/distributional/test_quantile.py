"""Quantile Huber loss against numbers derived by hand, and the quantiles it learns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch as th
from torch.nn import functional as F

from sb3_vgs_ppo.distributional import quantile_crossing, quantile_huber_loss, quantile_midpoints
from sb3_vgs_ppo.distributional.quantile import quantile_huber_loss_with_gradient

# Three samples and three quantiles, so that a transposed broadcast goes unnoticed by the shapes; κ = 2.
#
#   τ            1/6              1/2              5/6
#   y =  1    u =  2           u =  0.5         u = −3
#   L_κ(u)/κ  ½·2²/2  = 1      ½·0.25/2 = 1/16  2(3 − 1)/2 = 2
#   weight       1/6              1/2              1/6             → 1/6 + 1/32 + 1/3  = 17/32
#   y =  2.5  u =  2.5         u = −0.5         u =  0.5
#   L_κ(u)/κ  2(2.5 − 1)/2 = 3/2  1/16          1/16
#   weight       1/6              1/2              5/6             → 1/4 + 1/32 + 5/96 = 1/3
#   y = −1    u = −2           u =  1           u = −1
#   L_κ(u)/κ  1                ½/2 = 1/4        1/4
#   weight       5/6              1/2              1/6             → 5/6 + 1/8 + 1/24  = 1
QUANTILES = [[-1.0, 0.5, 4.0], [0.0, 3.0, 2.0], [1.0, -2.0, 0.0]]
TARGETS = [1.0, 2.5, -1.0]
KAPPA = 2.0
EXPECTED = (17 / 32 + 1 / 3 + 1) / 9


def reference(
    *,
    kappa: float = KAPPA,
    tau_shift: float = 0.5,
    flip_indicator: bool = False,
    swap_sign: bool = False,
    transpose: bool = False,
    divide_by_kappa: bool = True,
    reduce: str = "mean",
) -> float:
    """The loss in NumPy, with a switch for every mistake that is easily made."""
    quantiles, targets = np.array(QUANTILES), np.array(TARGETS)
    u = (targets[None, :] if transpose else targets[:, None]) - quantiles
    if swap_sign:
        u = -u
    tau = (np.arange(3) + tau_shift) / 3
    indicator = (u > 0) if flip_indicator else (u < 0)
    huber = np.where(np.abs(u) <= kappa, 0.5 * u**2, kappa * (np.abs(u) - 0.5 * kappa))
    rho = np.abs(tau - indicator) * huber / (kappa if divide_by_kappa else 1.0)
    return float({"mean": rho.mean(), "sum_quantiles": rho.sum(1).mean(), "sum": rho.sum()}[reduce])


def test_loss_matches_hand_derivation() -> None:
    loss = quantile_huber_loss(th.tensor(QUANTILES), th.tensor(TARGETS), quantile_midpoints(3), KAPPA)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(EXPECTED, rel=1e-6)
    assert reference() == pytest.approx(EXPECTED, rel=1e-12)


@pytest.mark.parametrize(
    "mistake",
    [
        {"flip_indicator": True},
        {"swap_sign": True},
        {"transpose": True},
        {"tau_shift": 0.0},
        {"tau_shift": 1.0},
        {"divide_by_kappa": False},
        {"kappa": 1.0},
        {"reduce": "sum_quantiles"},
        {"reduce": "sum"},
    ],
    ids=str,
)
def test_inputs_tell_wrong_variants_apart(mistake: dict[str, object]) -> None:
    assert abs(reference(**mistake) - EXPECTED) > 0.005  # type: ignore[arg-type]


def test_kappa_zero_is_the_pinball_loss() -> None:
    # τ = 1/4, 3/4; u = 1 and −2: weights 1/4 and 1 − 3/4, so (1/4·1 + 1/4·2) / 2.
    quantiles, targets = th.tensor([[0.0, 3.0]]), th.tensor([1.0])
    loss = quantile_huber_loss(quantiles, targets, quantile_midpoints(2), kappa=0.0)
    assert loss.item() == pytest.approx(0.375)
    almost = quantile_huber_loss(quantiles, targets, quantile_midpoints(2), kappa=1e-4)
    assert almost.item() == pytest.approx(0.375, abs=1e-4)


def test_one_quantile_is_a_scalar_huber_critic() -> None:
    th.manual_seed(0)
    targets = 3 * th.randn(50)
    predictions = (3 * th.randn(50, 1)).requires_grad_()
    quantile_huber_loss(predictions, targets, quantile_midpoints(1), KAPPA).backward()
    scalar = predictions.detach().clone().requires_grad_()
    # |τ − 1{u < 0}| = ½ for τ = ½, and ours is divided by κ.
    (0.5 * F.huber_loss(scalar.flatten(), targets, delta=KAPPA) / KAPPA).backward()
    th.testing.assert_close(predictions.grad, scalar.grad)


def fit(taus: th.Tensor, targets: th.Tensor, kappa: float) -> th.Tensor:
    """Minimise the loss for one state, starting from zero."""
    quantiles = th.zeros(1, len(taus), requires_grad=True)
    optimizer = th.optim.Adam([quantiles], lr=2.0)
    schedule = th.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
    for _ in range(600):
        optimizer.zero_grad()
        quantile_huber_loss(quantiles.expand(len(targets), -1), targets, taus, kappa).backward()
        optimizer.step()
        schedule.step()
    return quantiles.detach().flatten()


# Exponential distribution with mean 10 as 2,000 equally likely values of its quantile function −10·ln(1 − p).
EXPONENTIAL = -10 * th.log1p(-quantile_midpoints(2000))


@pytest.mark.parametrize("kappa", [0.0, 0.1])
def test_recovers_the_quantiles_of_a_skewed_distribution(kappa: float) -> None:
    taus = quantile_midpoints(8)
    expected = [-10 * math.log(1 - (k + 0.5) / 8) for k in range(8)]  # 0.65, 2.08, …, 27.7
    th.testing.assert_close(fit(taus, EXPONENTIAL, kappa), th.tensor(expected), rtol=0.01, atol=0.05)


def test_kappa_decides_between_median_and_mean() -> None:
    taus = quantile_midpoints(1)
    assert fit(taus, EXPONENTIAL, kappa=0.0).item() == pytest.approx(10 * math.log(2), abs=0.05)
    assert fit(taus, EXPONENTIAL, kappa=1000.0).item() == pytest.approx(10, abs=0.05)


def test_crossing_counts_strictly_descending_neighbours() -> None:
    # Of 2 × 3 neighbouring pairs one descends; equal ones do not count.
    assert quantile_crossing(th.tensor([[0.0, 1.0, 0.5, 2.0], [3.0, 3.0, 5.0, 6.0]])).item() == pytest.approx(1 / 6)
    assert quantile_crossing(th.tensor([[1.0], [0.0]])).item() == 0.0


def test_a_second_axis_of_the_targets_holds_atoms() -> None:
    quantiles, targets, taus = th.tensor(QUANTILES), th.tensor(TARGETS), quantile_midpoints(3)
    assert quantile_huber_loss(quantiles, targets.unsqueeze(1), taus, KAPPA).item() == pytest.approx(EXPECTED)
    atoms = th.tensor([[0.0, 2.0, 7.0, -1.0], [1.0, 1.0, 3.0, 0.5], [-2.0, 0.0, 4.0, 9.0]])
    by_atom = [quantile_huber_loss(quantiles, column, taus, KAPPA) for column in atoms.T]
    th.testing.assert_close(quantile_huber_loss(quantiles, atoms, taus, KAPPA), th.stack(by_atom).mean())


@pytest.mark.parametrize("kappa", [0.0, 0.3, 2.0])
def test_the_gradient_by_hand_is_autograds(kappa: float) -> None:
    generator = th.Generator().manual_seed(0)
    quantiles = th.randn(7, 5, generator=generator, dtype=th.float64).requires_grad_()
    targets = th.randn(7, generator=generator, dtype=th.float64)
    taus = quantile_midpoints(5).double()
    expected = quantile_huber_loss(quantiles, targets, taus, kappa)
    expected.backward()
    loss, gradient = quantile_huber_loss_with_gradient(quantiles.detach(), targets, taus, kappa)
    th.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=0.0)
    th.testing.assert_close(gradient, quantiles.grad, rtol=1e-12, atol=1e-15)
