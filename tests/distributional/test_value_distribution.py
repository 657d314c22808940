"""Mean, quantiles, CVaR and distribution function of predicted returns, against numbers derived by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch as th
from scipy import stats

from sb3_vgs_ppo.distributional import CategoricalHead, QuantileHead, ValueDistribution
from sb3_vgs_ppo.errors import UserInputError

QUANTILES = ValueDistribution.of(th.tensor([[3.0, 1.0, 4.0, 2.0], [0.0, 0.0, 0.0, 8.0]]))
WEIGHTED = ValueDistribution(np.array([-10.0, 0.0, 20.0]), np.array([0.1, 0.3, 0.6]))


def test_moments_of_both_kinds() -> None:
    assert QUANTILES.shape == (2,)
    assert QUANTILES.mean.tolist() == [2.5, 2.0]
    assert QUANTILES.std.tolist() == pytest.approx([1.25**0.5, 12**0.5])
    assert WEIGHTED.shape == ()
    assert WEIGHTED.mean == 11.0
    assert WEIGHTED.std == pytest.approx((0.1 * 21**2 + 0.3 * 11**2 + 0.6 * 9**2) ** 0.5)


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        (0.05, -10.0),
        (0.1, -10.0),
        (0.25, (0.1 * -10 + 0.15 * 0) / 0.25),
        (0.5, (0.1 * -10 + 0.3 * 0 + 0.1 * 20) / 0.5),
        (1.0, 11.0),
    ],
)
def test_cvar_takes_the_worst_atoms_and_a_fraction_of_the_last(alpha: float, expected: float) -> None:
    assert WEIGHTED.cvar(alpha) == pytest.approx(expected)


@pytest.mark.parametrize(("alpha", "expected"), [(0.05, -10.0), (0.15, 0.0), (0.39, 0.0), (0.41, 20.0), (1.0, 20.0)])
def test_value_at_risk_is_the_atom_that_fills_the_share(alpha: float, expected: float) -> None:
    assert WEIGHTED.value_at_risk(alpha) == expected


def test_cvar_of_quantiles_in_any_order() -> None:
    assert QUANTILES.cvar(0.25).tolist() == [1.0, 0.0]
    assert QUANTILES.cvar(0.6).tolist() == pytest.approx([(0.25 * 1 + 0.25 * 2 + 0.1 * 3) / 0.6, 0.0])
    assert QUANTILES.cvar(0.9).tolist() == pytest.approx([(1.5 + 0.15 * 4) / 0.9, 0.15 * 8 / 0.9])


@pytest.mark.parametrize("alpha", [0.07, 0.25, 0.8])
def test_cvar_is_the_maximum_of_rockafellar_and_uryasev(alpha: float) -> None:
    """max over ν of ν − E(ν − Z)₊ / α, which is attained at an atom because the objective bends only there."""
    generator = np.random.default_rng(0)
    atoms, probabilities = np.sort(generator.normal(size=(5, 9))), generator.dirichlet(np.ones(9), size=5)
    shortfalls = np.maximum(atoms[:, :, None] - atoms[:, None, :], 0.0)
    objective = atoms - np.einsum("bvk,bk->bv", shortfalls, probabilities) / alpha
    assert ValueDistribution(atoms, probabilities).cvar(alpha) == pytest.approx(objective.max(axis=1))


def test_cvar_of_many_quantiles_is_that_of_the_normal_distribution() -> None:
    atoms = th.tensor(stats.norm.ppf((np.arange(2000) + 0.5) / 2000))
    # −φ(Φ⁻¹(α)) / α
    assert ValueDistribution.of(atoms[None]).cvar(0.1) == pytest.approx([-1.7550], abs=2e-3)


def test_quantiles_are_the_heads_outputs_at_the_midpoints_and_linear_between() -> None:
    assert QUANTILES.quantile([0.125, 0.375, 0.625, 0.875])[0].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert QUANTILES.quantile(0.25).tolist() == [1.5, 0.0]
    assert QUANTILES.quantile([[0.0, 0.75], [1.0, 0.5]])[0].tolist() == [[1.0, 3.5], [4.0, 2.5]]
    assert WEIGHTED.quantile(0.15) == pytest.approx(-5.0)
    # Middles of the atoms' probabilities: 0.05, 0.25, 0.7
    assert WEIGHTED.quantile([0.05, 0.15, 0.25, 0.7, 0.9]).tolist() == pytest.approx([-10.0, -5.0, 0.0, 20.0, 20.0])


def test_distribution_function_counts_those_below_and_half_of_equal_ones() -> None:
    """Of four quantiles 1 to 4; beyond them 0 and 1, and of three equal ones half of their mass."""
    values = [2.5, 2.0, 0.0, 9.0, 1.0, 1.5]
    of_each = ValueDistribution.of(th.tensor([[3.0, 1.0, 4.0, 2.0]]).expand(6, 4))
    assert of_each.cdf(values).tolist() == [0.5, 0.375, 0.0, 1.0, 0.125, 0.25]
    assert QUANTILES.cdf([2.5, 0.0])[1] == pytest.approx(3 / 8)


def test_distribution_function_of_atoms_is_linear_between_them() -> None:
    atoms, probabilities = th.tensor([0.0, 10.0]), th.tensor([[0.25, 0.75]]).expand(5, 2)
    transformed = ValueDistribution.of((atoms, probabilities)).cdf([-3.0, 0.0, 5.0, 10.0, 20.0])
    assert transformed.tolist() == [0.0, 0.125, 0.375, 0.625, 1.0]


@pytest.mark.parametrize("upper", [0.0, 0.1, 0.5, 0.9])
def test_a_return_that_is_always_the_same_is_the_median_of_its_two_hot_prediction(upper: float) -> None:
    atoms = th.tensor([-5.0, 60.0, 90.0, 134.0])
    distribution = ValueDistribution.of((atoms, th.tensor([[0.0, 1.0 - upper, upper, 0.0]])))
    assert distribution.cdf([60.0 + 30.0 * upper]) == pytest.approx([0.5])
    assert distribution.quantile(0.5) == pytest.approx([60.0 + 30.0 * upper])


def test_one_atom_is_a_point() -> None:
    point = ValueDistribution.of(th.tensor([[2.0]] * 3))
    assert point.cdf([1.0, 2.0, 3.0]).tolist() == [0.0, 0.5, 1.0]
    assert point.quantile([0.0, 0.3, 1.0]).tolist() == [[2.0] * 3] * 3
    assert point.cvar(0.1).tolist() == [2.0] * 3


def test_transforms_are_uniform_where_the_prediction_is_right_and_low_where_returns_have_dropped() -> None:
    returns = np.random.default_rng(0).normal(size=20_000)
    quantiles = th.tensor(stats.norm.ppf((np.arange(200) + 0.5) / 200))
    distribution = ValueDistribution.of(quantiles.expand(20_000, 200))
    levels = [0.1, 0.5, 0.9]
    assert [(distribution.cdf(returns) < level).mean() for level in levels] == pytest.approx(levels, abs=0.01)
    # P(X < G − 1) for independent X, G ~ N(0, 1) is Φ(−1 / √2)
    assert distribution.cdf(returns - 1.0).mean() == pytest.approx(0.2398, abs=0.005)


@pytest.mark.parametrize("head", ["quantile", "symlog", "none"])
def test_what_the_heads_predict(head: str) -> None:
    th.manual_seed(0)
    heads = {
        "quantile": lambda: QuantileHead(4, 8),
        "symlog": lambda: CategoricalHead(4),
        "none": lambda: CategoricalHead(4, 41, "none", -3.0, 9.0),
    }
    value_head = heads[head]()
    if head != "quantile":
        th.nn.init.normal_(value_head.weight, std=2.0)
    with th.no_grad():
        predictions = value_head.predict(th.randn(6, 4))
    distribution = ValueDistribution.of(value_head.distribution(predictions))
    mean = value_head.mean(predictions).squeeze(1).double().numpy()
    assert distribution.mean == pytest.approx(mean, rel=1e-4, abs=1e-4)
    middle = distribution.quantile([0.1, 0.5, 0.9])
    assert (np.diff(middle) >= 0).all()
    assert distribution.cdf(middle[:, 1]) == pytest.approx([0.5] * 6)


def test_a_softmax_that_never_empties_an_atom_does_not_decide_the_tail() -> None:
    """Of the exact CVaR of these atoms, 1e-9 · 4.85e8 / 0.25 = 1.94 would come of the outermost alone."""
    head = CategoricalHead(1)
    atoms = head.support.atoms
    probabilities = th.full((1, 101), 1e-9)
    at_ten = int(th.searchsorted(atoms, 10.0))
    probabilities[0, [at_ten, at_ten + 1]] = 0.5
    distribution = ValueDistribution.of((atoms, probabilities))
    assert distribution.cvar(0.25) == pytest.approx([atoms[at_ten].item()], rel=0.02)
    assert distribution.std[0] < 3.0
    exact = ValueDistribution(distribution.atoms, distribution.probabilities)
    assert distribution.cvar(0.25)[0] - exact.cvar(0.25)[0] > 1.9


def test_another_mean_without_what_a_softmax_puts_into_the_tails() -> None:
    atoms = th.tensor([-4e8, 0.0, 1.0, 4e8])
    predicted = ValueDistribution.of((atoms, th.tensor([[0.001, 0.499, 0.499, 0.001], [0.0, 0.25, 0.75, 0.0]])))
    moved = predicted.with_mean([7.0, -2.0])
    np.testing.assert_allclose(moved.mean, [7.0, -2.0])
    np.testing.assert_allclose(moved.atoms[1, 1:3], [-2.75, -1.75])
    assert moved.std[0] == pytest.approx(predicted.std[0], rel=1e-6)
    assert moved.std[0] < 1e8
    assert moved.tail == 0.0


def test_parts_of_a_batch() -> None:
    grid = ValueDistribution.of(th.arange(24.0).reshape(6, 4)).reshape(2, 3)
    assert grid.mean.tolist() == [[1.5, 5.5, 9.5], [13.5, 17.5, 21.5]]
    assert grid.quantile([0.125, 0.875]).shape == (2, 3, 2)
    assert grid.cdf(np.full((2, 3), 5.0)).tolist() == [[1.0, 0.375, 0.0], [0.0] * 3]
    assert grid[1, 2].cvar(0.25) == 20.0
    assert ValueDistribution.concatenate([grid, grid[:1]]).mean[2].tolist() == [1.5, 5.5, 9.5]


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.1, float("nan")])
def test_a_share_is_above_0_and_at_most_1(alpha: float) -> None:
    with pytest.raises(UserInputError, match=f"alpha={alpha!r}; remedy"):
        WEIGHTED.cvar(alpha)


def test_a_level_is_a_probability() -> None:
    with pytest.raises(UserInputError, match=r"level \[0\.5, 1\.5\]; remedy"):
        WEIGHTED.quantile([0.5, 1.5])
