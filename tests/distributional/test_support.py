"""Atoms, encodings of returns and moments of the categorical critic, against numbers computed by another route."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st

from sb3_vgs_ppo.distributional import LinearSupport, Support, SymexpSupport, hl_gauss, make_support, two_hot
from sb3_vgs_ppo.errors import UserInputError


def mean64(probabilities: th.Tensor, support: Support) -> th.Tensor:
    """Plain Σ p z in float64, shape (batch,)."""
    return (probabilities.double() * support.atoms.double()).sum(1)


def test_symexp_atoms() -> None:
    atoms = SymexpSupport(5).atoms  # symexp of −20, −10, 0, 10, 20
    th.testing.assert_close(atoms[2:], th.tensor([0.0, math.e**10 - 1, math.e**20 - 1]))
    assert th.equal(atoms, -atoms.flip(0))


@pytest.mark.parametrize("n_atoms", [2, 100, 101, 255])
def test_symexp_atoms_are_antisymmetric_to_the_last_bit(n_atoms: int) -> None:
    atoms = SymexpSupport(n_atoms).atoms
    assert th.equal(atoms, -atoms.flip(0))
    assert bool((atoms.diff() > 0).all())


def test_linear_atoms_reach_three_bins_beyond_the_range() -> None:
    support = LinearSupport(11, v_min=-1.0, v_max=3.0)  # 5 atoms in the range, width 1
    th.testing.assert_close(support.atoms, th.arange(-4.0, 7.0))
    th.testing.assert_close(support.edges, th.arange(-4.5, 7.0))


def test_two_hot_splits_in_units_of_the_return() -> None:
    # 2 lies a third of the way from 1 to 4. Split in symlog units it would lie at ln(3/2) / ln(5/2) = 0.44.
    atoms = th.tensor([-1.0, 0.0, 1.0, 4.0])
    encoded = two_hot(th.tensor([2.0, 1.0, -1.0, 4.0, -0.25]), atoms)
    expected = [[0, 0, 2 / 3, 1 / 3], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0.25, 0.75, 0, 0]]
    th.testing.assert_close(encoded, th.tensor(expected))


@given(size=st.floats(1e-3, 1e6), sign=st.sampled_from([-1, 1]), n_atoms=st.sampled_from([41, 100, 101, 255]))
def test_two_hot_mean_is_the_target(size: float, sign: int, n_atoms: int) -> None:
    support = SymexpSupport(n_atoms)
    targets = th.tensor([sign * size])
    encoded = support.encode(targets)
    assert encoded.sum().item() == pytest.approx(1, abs=1e-6)
    assert int((encoded > 0).sum()) <= 2
    assert mean64(encoded, support).item() == pytest.approx(targets.item(), rel=1e-5, abs=1e-6)
    assert support.mean(encoded).item() == pytest.approx(targets.item(), rel=1e-5, abs=1e-6)


def test_hl_gauss_against_erf_in_float64() -> None:
    edges = np.array([-3.0, -1.0, 0.0, 2.0, 2.5])
    targets, sigma = [0.3, -2.9, 2.6], 0.8

    def probabilities(target: float) -> list[float]:
        cdf = [0.5 * (1 + math.erf((edge - target) / (sigma * math.sqrt(2)))) for edge in edges]
        return [(high - low) / (cdf[-1] - cdf[0]) for low, high in pairwise(cdf)]

    encoded = hl_gauss(th.tensor(targets), th.tensor(edges, dtype=th.float32), sigma)
    th.testing.assert_close(encoded, th.tensor([probabilities(y) for y in targets]), rtol=1e-5, atol=1e-6)


def test_hl_gauss_width_is_three_quarters_of_a_bin() -> None:
    # Target on an atom: the middle bin holds P(|N(0, 1)| < 0.5 / 0.75) = erf(0.5 / 0.75 / √2) = 0.495.
    support = LinearSupport(27, v_min=0.0, v_max=100.0)  # width 5, atom 13 at 50
    assert support.encode(th.tensor([50.0]))[0, 13].item() == pytest.approx(
        math.erf(0.5 / 0.75 / math.sqrt(2)), abs=1e-5
    )


def test_hl_gauss_mean_is_the_target_up_to_the_borders() -> None:
    support = LinearSupport(101, v_min=-50.0, v_max=150.0)
    targets = th.linspace(-50, 150, 4001)
    errors = (mean64(support.encode(targets), support) - targets.double()).abs() / (200 / 94)  # in bin widths
    assert errors.max().item() < 5e-5
    # The same Gaussian cut off half a bin beyond the outermost target is wrong by a third of a bin.
    inner = support.edges[3:-3]
    cut_off = hl_gauss(th.tensor([150.0]), inner, support.sigma)
    assert (150 - (cut_off * support.atoms[3:-3]).sum().item()) / (200 / 94) == pytest.approx(0.37, abs=0.01)


SUPPORTS = {"symlog": SymexpSupport(101), "none": LinearSupport(101, v_min=-10.0, v_max=30.0)}


@pytest.fixture(params=list(SUPPORTS.values()), ids=list(SUPPORTS))
def support(request: pytest.FixtureRequest) -> Support:
    assert isinstance(request.param, Support)
    return request.param


def test_targets_outside_are_clamped_and_counted(support: Support) -> None:
    targets = th.tensor([support.low, support.high, 1.0, -1e9, 1e9, 2e9, math.inf, math.nan])
    assert support.clipped(targets).tolist() == [False, False, False, True, True, True, True, False]
    encoded = support.encode(targets)
    assert th.equal(encoded[3], encoded[0])
    assert th.equal(encoded[4], encoded[1])
    assert th.equal(encoded[5], encoded[1])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_targets_stay_visible(support: Support, value: float) -> None:
    encoded = support.encode(th.tensor([value, 1.0]))
    assert bool(encoded[0].isnan().any())
    assert bool(encoded[1].isfinite().all())


def test_mean_in_float32_agrees_with_float64(support: Support) -> None:
    th.manual_seed(0)
    logits = support.prior_logits + 2 * th.randn(500, 101)
    exact = mean64(logits.double().softmax(1), support)
    th.testing.assert_close(support.mean(logits.softmax(1)).flatten().double(), exact, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("n_atoms", [2, 100, 101, 255])
def test_mean_of_a_symmetric_distribution_is_exactly_the_centre(n_atoms: int) -> None:
    symexp = SymexpSupport(n_atoms)
    uniform = th.full((1, n_atoms), 1 / n_atoms)
    assert symexp.mean(uniform).item() == 0.0
    assert symexp.mean(symexp.prior_logits.softmax(0).unsqueeze(0)).item() == 0.0
    assert (
        LinearSupport(max(n_atoms, 8), -10.0, 30.0).mean(th.full((1, max(n_atoms, 8)), 1 / max(n_atoms, 8))).item()
        == 10.0
    )


def test_plain_float32_sum_would_not_be_zero() -> None:
    atoms = SymexpSupport(101).atoms
    assert abs((th.full((101,), 1 / 101) * atoms).sum().item()) > 0.1


def test_prior_survives_noise_that_the_uniform_distribution_does_not() -> None:
    support = SymexpSupport(101)
    th.manual_seed(0)
    noise = 0.001 * th.randn(1000, 101)
    from_prior = support.mean((support.prior_logits + noise).softmax(1))
    from_uniform = support.mean(noise.softmax(1))
    assert from_prior.abs().max().item() < 0.05
    assert from_uniform.abs().mean().item() > 1000


def test_std_by_hand() -> None:
    support = LinearSupport(11, v_min=-1.0, v_max=3.0)  # atoms −4, …, 6
    probabilities = th.zeros(3, 11)
    probabilities[0, 5] = 1.0  # certain
    probabilities[1, [2, 8]] = 0.5  # −2 or 4, evenly: 3
    probabilities[2, [4, 6]] = th.tensor([0.206, 0.794])  # 0.206 − 0.01 of 0.98 is 0.2: 2·√(0.2·0.8) = 0.8
    th.testing.assert_close(support.std(probabilities), th.tensor([0.0, 3.0, 0.8]))


def test_std_is_not_ruled_by_what_the_softmax_leaves_on_the_outermost_atoms() -> None:
    support = SymexpSupport(101)
    probabilities = support.encode(th.tensor([700.0]))
    inner = support.std(probabilities).item()
    assert 0 < inner < 0.2 * 700
    probabilities = 0.99 * probabilities
    probabilities[0, [0, -1]] += 0.005
    assert support.std(probabilities).item() == pytest.approx(inner, rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("log", 101, None, None), r"unknown value_transform='log'.*'symlog' or 'none'"),
        (("symlog", 1, None, None), r"n_atoms=1 is not an integer of at least 2"),
        (("symlog", 10.0, None, None), r"n_atoms=10\.0 is not an integer"),
        (("symlog", 101, -1.0, None), r"does not use v_min=-1\.0 .*value_transform='none'"),
        (("symlog", 101, None, 2.0), r"does not use .*v_max=2\.0"),
        (("none", 101, None, 1.0), r"needs v_min and v_max, got v_min=None and v_max=1\.0"),
        (("none", 101, 0.0, None), r"needs v_min and v_max, got v_min=0\.0 and v_max=None"),
        (("none", 7, 0.0, 1.0), r"n_atoms=7 is not an integer of at least 8"),
        (("none", 101, 1.0, 1.0), r"v_min=1\.0 and v_max=1\.0 .*v_min < v_max"),
        (("none", 101, 2.0, 1.0), r"v_min=2\.0 and v_max=1\.0"),
        (("none", 101, math.nan, 1.0), r"v_min=nan"),
        (("none", 101, -math.inf, 1.0), r"v_min=-inf"),
        (("none", 101, 0.0, 1e39), r"v_max=1e\+39"),
        (("none", 101, 1e9, 1e9 + 1), r"ascending finite atoms in float32"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[str, int, float | None, float | None], message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        make_support(*arguments)
