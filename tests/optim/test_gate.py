"""Whom the gate protects: order, range, invariances and degenerate utilities."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_vgs_ppo.optim import UPGD, AdaptiveUPGD

from .descriptions import (
    NORMALIZATIONS,
    Description,
    both_paths,
    every_normalization,
    every_optimizer,
)
from .reference import Array

pytestmark = pytest.mark.usefixtures("each_computation")

LR = 0.25
SIGMOID_ONE = 1 / (1 + np.exp(-1.0))


def first_step(
    optimizer: Any, weights: list[Array], grads: list[Array], **options: Any
) -> tuple[list[Array], list[th.nn.Parameter]]:
    """Change of every weight in the first step, without noise and decay, and the parameters."""
    params = [th.nn.Parameter(th.tensor(weight, dtype=th.float64)) for weight in weights]
    for param, grad in zip(params, grads, strict=True):
        param.grad = th.tensor(grad, dtype=th.float64)
    optimizer(params, LR, sigma=0.0, weight_decay=0.0, **options).step()
    return [param.detach().numpy() - weight for param, weight in zip(params, weights, strict=True)], params


def upgd_gate(weights: Array, grads: Array, **options: Any) -> Array:
    """The gate s of the first step, read off ``Δp = −2·lr·g·(1 − s)``."""
    (change,), _ = first_step(UPGD, [weights], [grads], **options)
    return 1 + change / (2 * LR * grads)


@both_paths
def test_minmax_protects_by_utility_when_every_utility_is_negative(foreach: bool) -> None:
    # Utility −g·p: −1 is the most useful, −8 the least. x = 1, 6/7, 4/7, 0.
    gate = upgd_gate(np.array([1.0, 2.0, 2.0, 4.0]), np.array([1.0, 1.0, 2.0, 2.0]), foreach=foreach)
    x = np.array([1.0, 6 / 7, 4 / 7, 0.0])
    np.testing.assert_allclose(gate, 1 / (1 + np.exp(-2 * (x - 0.5))), atol=1e-12)
    assert np.all(np.diff(gate) < 0)


@every_optimizer
@both_paths
def test_a_stream_of_negative_utilities_moves_useless_weights_more(description: Description, foreach: bool) -> None:
    """The gradient of every weight is the same, so that only the gate can order the distances moved."""
    weights = th.tensor([4.0, 1.0, 3.0, 2.0], dtype=th.float64)
    param = th.nn.Parameter(weights.clone())
    optimizer = description.optimizer([param], 1e-3, sigma=0.0, weight_decay=0.0, foreach=foreach)
    for _ in range(50):
        param.grad = th.ones_like(param)  # utility −p, always negative: the largest weight is the least useful
        optimizer.step()
    moved = (weights - param.detach()).numpy()
    assert list(np.argsort(moved)) == [1, 3, 2, 0]
    assert moved.max() > 1.5 * moved.min() > 0


@both_paths
def test_max_gives_every_negative_utility_the_same_gate(foreach: bool) -> None:
    gate = upgd_gate(np.array([1.0, 2.0, 4.0]), np.ones(3), utility_normalization="max", foreach=foreach)
    np.testing.assert_allclose(gate, 0.5, atol=1e-12)


@both_paths
def test_official_protects_the_least_useful_when_every_utility_is_negative(foreach: bool) -> None:
    """The corner case of the published code that is documented, not repaired. Utilities −1, −2, −4; maximum −1."""
    options = {"utility_normalization": "official", "beta_utility": 0.0, "foreach": foreach}
    gate = upgd_gate(np.array([1.0, 2.0, 4.0]), np.ones(3), **options)
    np.testing.assert_allclose(gate, 1 / (1 + np.exp(-np.array([1.0, 2.0, 4.0]))), atol=1e-12)


@both_paths
def test_official_saturates_at_step_one_and_the_corrected_gates_do_not(foreach: bool) -> None:
    rng = np.random.default_rng(0)
    weights, grads = rng.normal(size=11_000), rng.normal(size=11_000)
    official, corrected, minmax = (
        upgd_gate(weights, grads, utility_normalization=normalization, foreach=foreach)
        for normalization in ("official", "max", "minmax")
    )
    # An uncorrected maximum is 1/(1 − 0.999) = 1,000 times too small.
    assert 0.4 < np.mean(official > 0.99) < 0.5
    assert 0.4 < np.mean(official < 0.01) < 0.5
    assert corrected.max() == pytest.approx(SIGMOID_ONE)
    assert 0.2 < corrected.min() < 0.4
    assert (minmax.min(), minmax.max()) == pytest.approx((1 - SIGMOID_ONE, SIGMOID_ONE))


@every_optimizer
@both_paths
@pytest.mark.parametrize("scale", [1e-6, 0.3, 1e6])
def test_minmax_gate_ignores_the_scale_of_the_loss(description: Description, foreach: bool, scale: float) -> None:
    rng = np.random.default_rng(1)
    weights, grads = [rng.normal(size=6), rng.normal(size=(2, 2))], [rng.normal(size=6), rng.normal(size=(2, 2))]
    # Adam's direction is free of the scale, the gradient is proportional to it.
    adaptive = description.optimizer is AdaptiveUPGD
    options = {"foreach": foreach, **({"eps": 0.0} if adaptive else {})}
    expected, _ = first_step(description.optimizer, weights, grads, **options)
    scaled, _ = first_step(description.optimizer, weights, [scale * grad for grad in grads], **options)
    for change, change_scaled in zip(expected, scaled, strict=True):
        np.testing.assert_allclose(change_scaled, change * (1.0 if adaptive else scale), rtol=1e-8)


@settings(deadline=None, max_examples=20)
@given(
    sizes=st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(sum),
    first_group=st.integers(0, 6),
    normalization=st.sampled_from(NORMALIZATIONS),
    foreach=st.booleans(),
    seed=st.integers(0, 100),
)
def test_how_weights_are_split_into_tensors_and_groups_does_not_matter(
    sizes: list[int], first_group: int, normalization: str, foreach: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weights, grads = rng.normal(size=sum(sizes)), rng.normal(size=sum(sizes))
    options = {"utility_normalization": normalization, "foreach": foreach}
    (whole,), _ = first_step(AdaptiveUPGD, [weights], [grads], **options)

    params = [th.nn.Parameter(piece.clone()) for piece in th.tensor(weights).split(sizes)]
    for param, grad in zip(params, th.tensor(grads).split(sizes), strict=True):
        param.grad = grad
    groups = [{"params": params[:first_group]}, {"params": params[first_group:]}]
    AdaptiveUPGD(groups, LR, sigma=0.0, weight_decay=0.0, **options).step()
    split = np.concatenate([param.detach().numpy() for param in params]) - weights
    np.testing.assert_allclose(split, whole, atol=1e-14)


@both_paths
def test_tensors_without_gradient_do_not_enter_the_range(foreach: bool) -> None:
    params = [th.nn.Parameter(th.tensor(values, dtype=th.float64)) for values in ([1.0, 2.0], [100.0])]
    optimizer = UPGD(params, LR, sigma=0.0, weight_decay=0.0, foreach=foreach)
    for param in params:
        param.grad = th.ones_like(param)
    optimizer.step()  # the second tensor has the lowest utility of all, −100
    before = params[0].detach().clone()
    params[0].grad, params[1].grad = th.ones_like(params[0]), None
    optimizer.step()
    gate = 1 + (params[0].detach() - before) / (2 * LR)
    assert gate.tolist() == pytest.approx([SIGMOID_ONE, 1 - SIGMOID_ONE])
    assert optimizer.state[params[1]]["step"] == 1


@every_optimizer
@both_paths
@pytest.mark.parametrize("normalization", ["minmax", "max"])
@pytest.mark.parametrize("weight", [0.0, 1.0], ids=["zero parameters", "equal utilities"])
def test_without_a_range_the_step_is_that_of_sgd_or_adam(
    description: Description, foreach: bool, normalization: str, weight: float
) -> None:
    """s = 0.5 everywhere: 2·(1 − s) = 1. With g = 2 the utility is 0 or −2."""
    options = {"utility_normalization": normalization, "foreach": foreach}
    weights, grads = [np.full(3, weight), np.array(weight)], [np.full(3, 2.0), np.array(2.0)]
    changes, params = first_step(description.optimizer, weights, grads, **options)
    twins = [th.nn.Parameter(th.tensor(weight)) for weight in weights]
    for twin, param in zip(twins, params, strict=True):
        twin.grad = param.grad
    adam_or_sgd = (
        th.optim.Adam(twins, LR, eps=1e-5) if description.optimizer is AdaptiveUPGD else th.optim.SGD(twins, LR)
    )
    adam_or_sgd.step()
    for change, twin, before in zip(changes, twins, weights, strict=True):
        np.testing.assert_allclose(change, twin.detach().numpy() - before, rtol=1e-12)


@every_optimizer
@both_paths
def test_official_turns_zero_parameters_into_nan_as_the_published_code_does(
    description: Description, foreach: bool
) -> None:
    options = {"utility_normalization": "official", "foreach": foreach}
    (change,), _ = first_step(description.optimizer, [np.zeros(2)], [np.ones(2)], **options)
    assert np.isnan(change).all()


@every_normalization
@both_paths
@pytest.mark.parametrize("scale", [1e-40, 1e-45], ids=["subnormal", "smallest subnormal"])
def test_a_vanishing_range_stays_finite(normalization: str, foreach: bool, scale: float) -> None:
    """Quotients like 1 / range would overflow."""
    param = th.nn.Parameter(th.tensor([1.0, 2.0, -3.0]))
    param.grad = th.full_like(param, scale)
    optimizer = AdaptiveUPGD([param], utility_normalization=normalization, beta_utility=0.0, foreach=foreach)
    optimizer.step()
    assert th.isfinite(param).all()


@both_paths
def test_one_range_over_mixed_dtypes(foreach: bool) -> None:
    """The extremes lie in different dtypes: utilities −1 (float32), −2 (bfloat16), −3 (float64)."""
    dtypes = (th.float32, th.bfloat16, th.float64)
    params = [
        th.nn.Parameter(th.tensor([weight], dtype=dtype)) for weight, dtype in zip((1, 2, 3), dtypes, strict=True)
    ]
    for param in params:
        param.grad = th.ones_like(param)
    UPGD(params, LR, sigma=0.0, weight_decay=0.0, foreach=foreach).step()
    moved = [weight - param.item() for weight, param in zip((1, 2, 3), params, strict=True)]
    expected = [2 * LR * (1 - s) for s in (SIGMOID_ONE, 0.5, 1 - SIGMOID_ONE)]
    assert moved == pytest.approx(expected, abs=4e-3)  # bfloat16 rounds 1.75 exactly, float32 and float64 are far finer
    assert [param.dtype for param in params] == list(dtypes)


@every_optimizer
@every_normalization
@both_paths
def test_the_gates_that_are_read_are_those_of_the_last_step(
    description: Description, normalization: str, foreach: bool
) -> None:
    """Two groups with traces of different length; weights move by ``2·lr·d·(1 − s)`` and nothing else."""
    rng = np.random.default_rng(3)
    params = [th.nn.Parameter(th.tensor(rng.normal(size=size))) for size in (4, (2, 3))]
    groups = [{"params": params[:1], "beta_utility": 0.9}, {"params": params[1:]}]
    options = {"utility_normalization": normalization, "foreach": foreach, "sigma": 0.0, "weight_decay": 0.0}
    optimizer = description.optimizer(groups, LR, **options)
    assert optimizer.gates() == {}
    for _ in range(3):
        before = [param.detach().clone() for param in params]
        for param in params:
            param.grad = th.tensor(rng.normal(size=param.shape))
        optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    gates = optimizer.gates()
    for param, old in zip(params, before, strict=True):
        state = optimizer.state[param]
        direction = param.grad
        if description.optimizer is AdaptiveUPGD:
            direction = state["exp_avg"] / (1 - 0.9**3) / ((state["exp_avg_sq"] / (1 - 0.999**3)).sqrt() + 1e-5)
        expected = 1 + (param.detach() - old) / (2 * LR * direction)
        np.testing.assert_allclose(gates[param].numpy(), expected.numpy(), atol=1e-9)
    after = optimizer.state_dict()
    assert after["param_groups"] == saved["param_groups"]
    for key, state in saved["state"].items():
        assert all(
            th.equal(th.as_tensor(value), th.as_tensor(after["state"][key][name])) for name, value in state.items()
        )


def test_gates_are_those_of_tensors_that_were_ever_updated() -> None:
    params = [th.nn.Parameter(th.ones(2)) for _ in range(3)]
    optimizer = UPGD(params, sigma=0.0)
    params[0].grad = th.tensor([1.0, 2.0])
    optimizer.step()
    assert list(optimizer.gates()) == [params[0]]
    assert optimizer.gates()[params[0]].tolist() == pytest.approx([SIGMOID_ONE, 1 - SIGMOID_ONE])
    assert len(optimizer.state) == 1
