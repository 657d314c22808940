"""Noise: who draws it, how much of it, and that it is the same in both implementations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_vgs_ppo.optim import UPGD, AdaptiveUPGD

from .descriptions import Description, both_paths, every_noise, every_optimizer


def noise_of_first_step(
    optimizer: Any, grads: list[th.Tensor], **options: Any
) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    """ξ, read off ``Δp = −lr·(d + ξ)``: weights of 0 have utility 0, so s = 0.5; d comes from a step without noise."""
    results = []
    for sigma in (options.pop("sigma", 0.5), 0.0):
        params = [th.nn.Parameter(th.zeros_like(grad)) for grad in grads]
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad
        optimizer(params, 1.0, sigma=sigma, weight_decay=0.0, **options).step()
        results.append([param.detach().double().numpy() for param in params])
    return [plain - noisy for noisy, plain in zip(*results, strict=True)]


@every_optimizer
@both_paths
def test_absolute_noise_has_the_standard_deviation_sigma(description: Description, foreach: bool) -> None:
    th.manual_seed(0)
    (xi,) = noise_of_first_step(description.optimizer, [th.full((40_000,), 7.0)], sigma=0.5, foreach=foreach)
    assert (xi.mean(), xi.std()) == (pytest.approx(0.0, abs=0.01), pytest.approx(0.5, rel=0.02))


@both_paths
def test_relative_noise_follows_each_tensor_of_plain_upgd(foreach: bool) -> None:
    """RMS of (6, 8, 0, 0) repeated is 5, that of a constant 0.01 is 0.01."""
    th.manual_seed(0)
    grads = [th.tensor([6.0, 8.0, 0.0, 0.0]).repeat(5_000), th.full((20_000,), 0.01)]
    large, small = noise_of_first_step(UPGD, grads, sigma=0.5, noise="relative", foreach=foreach)
    assert large.std() == pytest.approx(0.5 * 5, rel=0.02)
    assert small.std() == pytest.approx(0.5 * 0.01, rel=0.02)


@both_paths
@pytest.mark.parametrize(
    ("optimizer", "noise", "ratio"),
    [(UPGD, "absolute", 1.0), (UPGD, "relative", 1000.0), (AdaptiveUPGD, "absolute", 1.0)],
)
def test_which_noise_scales_with_the_gradient(optimizer: Any, noise: str, ratio: float, foreach: bool) -> None:
    """AdaptiveUPGD's update does not scale, so neither may its noise; the same seed gives the same draws."""
    grad = th.linspace(-1, 1, 50, dtype=th.float64)
    options = {"noise": noise, "foreach": foreach}
    (xi,), (xi_scaled,) = (
        noise_of_first_step(optimizer, [scale * grad], generator=th.Generator().manual_seed(3), **options)
        for scale in (1.0, 1000.0)
    )
    np.testing.assert_allclose(xi_scaled, ratio * xi, rtol=1e-6)


@every_optimizer
@every_noise
def test_both_implementations_leave_the_generator_in_the_same_state(description: Description, noise: str) -> None:
    states = []
    for foreach in (False, True):
        generator = th.Generator().manual_seed(5)
        params = [th.nn.Parameter(th.ones(shape)) for shape in [(3, 5), (7,), ()]]
        for param in params:
            param.grad = th.ones_like(param)
        description.optimizer(params, noise=noise, foreach=foreach, generator=generator).step()
        states.append(generator.get_state())
    twin = th.Generator().manual_seed(5)
    assert not th.equal(states[0], twin.get_state())
    th.empty(15 + 7 + 1).normal_(generator=twin)
    assert th.equal(states[0], twin.get_state())
    assert th.equal(states[1], twin.get_state())


@both_paths
def test_noise_is_bit_identical_in_both_implementations_and_follows_the_documented_order(foreach: bool) -> None:
    """A zero gradient leaves −2·lr·ξ·(1 − 0.5) = −ξ, without rounding."""
    params = [th.nn.Parameter(th.zeros(shape)) for shape in [(3, 5), (), (4,), (2, 9)]]
    double = th.nn.Parameter(th.zeros(6, dtype=th.float64))
    for param in (*params, double):
        param.grad = th.zeros_like(param)
    params[2].grad = None  # takes no part in the draw
    groups = [{"params": params[:1]}, {"params": [params[1], double, *params[2:]], "sigma": 2.0}]
    UPGD(groups, 1.0, sigma=0.5, foreach=foreach, generator=th.Generator().manual_seed(9)).step()
    twin = th.Generator().manual_seed(9)
    first = th.empty(15).normal_(0.0, 0.5, generator=twin)
    second = th.empty(1 + 18).normal_(0.0, 2.0, generator=twin)
    third = th.empty(6, dtype=th.float64).normal_(0.0, 2.0, generator=twin)
    assert th.equal(params[0], -first.view(3, 5))
    assert th.equal(params[1], -second[0])
    assert th.equal(params[2], th.zeros(4))
    assert th.equal(params[3], -second[1:].view(2, 9))
    assert th.equal(double, -third)


@every_optimizer
@both_paths
def test_without_sigma_nothing_is_drawn(description: Description, foreach: bool) -> None:
    generator = th.Generator().manual_seed(1)
    own, shared = generator.get_state(), th.get_rng_state()
    param = th.nn.Parameter(th.ones(20))
    param.grad = th.ones(20)
    description.optimizer([param], sigma=0.0, foreach=foreach, generator=generator).step()
    assert th.equal(generator.get_state(), own)
    assert th.equal(th.get_rng_state(), shared)


@both_paths
def test_an_own_generator_leaves_the_global_one_alone(foreach: bool) -> None:
    shared = th.get_rng_state()
    param = th.nn.Parameter(th.ones(20))
    param.grad = th.ones(20)
    UPGD([param], foreach=foreach, generator=th.Generator().manual_seed(1)).step()
    assert th.equal(th.get_rng_state(), shared)
    UPGD([param], foreach=foreach).step()
    assert not th.equal(th.get_rng_state(), shared)
