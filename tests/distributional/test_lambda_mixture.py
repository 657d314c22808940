"""The λ-mixture against sample replacement, against the exact mixture, and in its limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch as th

from sb3_vgs_ppo.distributional import ValueDistribution, lambda_mixtures, slice_means

Rollout = dict[str, Any]
GAMMA = 0.9


def rollout(n_steps: int = 7, n_envs: int = 2, n_atoms: int = 5) -> Rollout:
    """Skewed predictions with unequal weights; the second environment has both kinds of ends."""
    numbers = np.random.default_rng(1)
    atoms = np.sort(numbers.exponential(3.0, (n_steps, n_envs, n_atoms)), axis=-1)
    ends = np.zeros((n_steps, n_envs), bool)
    ends[[2, 5], 1:] = True
    return {
        "rewards": numbers.normal(size=(n_steps, n_envs)).astype(np.float32),
        "ends": ends,
        "following": ValueDistribution(atoms, numbers.dirichlet(np.ones(n_atoms), (n_steps, n_envs))),
        "after": {(5, 1): ValueDistribution(np.array([-4.0, 9.0]), np.array([0.7, 0.3]))},
    }


def draw(distribution: ValueDistribution, n: int, numbers: np.random.Generator) -> npt.NDArray[np.float64]:
    """:return: n draws, without what lies between the atoms"""
    return numbers.choice(distribution.atoms, n, p=distribution.probabilities)


def sample_replacement(rollout: Rollout, env: int, gae_lambda: float, n: int) -> npt.NDArray[np.float64]:
    """SR(λ), Nam et al. 2021: samples of Z^λ for every step, (steps, n)."""
    numbers = np.random.default_rng(0)
    n_steps = len(rollout["rewards"])
    samples = draw(rollout["following"][n_steps - 1, env], n, numbers)
    found = np.empty((n_steps, n))
    for step in reversed(range(n_steps)):
        if rollout["ends"][step, env]:
            after = rollout["after"].get((step, env))
            samples = np.zeros(n) if after is None else draw(after, n, numbers)
        else:
            fresh = draw(rollout["following"][step, env], n, numbers)
            samples = np.where(numbers.random(n) < gae_lambda, samples, fresh)
        samples = rollout["rewards"][step, env] + GAMMA * samples
        found[step] = samples
    return found


@pytest.mark.parametrize("env", [0, 1])
@pytest.mark.parametrize("gae_lambda", [0.6, 0.95])
def test_it_has_the_distribution_of_sample_replacement(gae_lambda: float, env: int) -> None:
    data = rollout()
    mixtures = lambda_mixtures(**data, gamma=GAMMA, gae_lambda=gae_lambda, n_atoms=1000)[:, env].numpy()
    samples = sample_replacement(data, env, gae_lambda, 100_000)
    quantiles = np.sort(samples).reshape(len(samples), 1000, -1).mean(axis=-1)  # slice means of the samples
    distances = np.abs(quantiles - mixtures).mean(axis=1)  # 1-Wasserstein
    assert (distances < 0.02 * samples.std(axis=1) + 1e-6).all()
    # It is a mixture: the distribution of a weighted sum, in which the λ-return is one, would be narrower
    spread = mixtures.std(axis=1)
    np.testing.assert_allclose(spread, samples.std(axis=1), rtol=0.04, atol=1e-6)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.7, 1.0])
def test_its_mean_is_the_lambda_return_of_the_means(gae_lambda: float) -> None:
    data = rollout()
    expected = np.empty((7, 2))
    following = data["following"].mean
    returns = following[-1]
    for step in reversed(range(7)):
        rest = (1 - gae_lambda) * following[step] + gae_lambda * returns
        rest = np.where(data["ends"][step], 0.0, rest)
        if step == 5:
            rest[1] = data["after"][5, 1].mean
        returns = expected[step] = data["rewards"][step] + GAMMA * rest
    mixtures = lambda_mixtures(**data, gamma=GAMMA, gae_lambda=gae_lambda, n_atoms=16)
    np.testing.assert_allclose(mixtures.mean(dim=-1).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_with_lambda_0_it_is_the_one_step_distribution() -> None:
    data = rollout()
    mixtures = lambda_mixtures(**data, gamma=GAMMA, gae_lambda=0.0, n_atoms=8)
    following = data["following"]
    expected = slice_means(th.from_numpy(following.atoms), th.from_numpy(following.probabilities), 8)
    expected = th.from_numpy(data["rewards"]).unsqueeze(2) + GAMMA * expected
    goes_on = th.from_numpy(~data["ends"])
    th.testing.assert_close(mixtures[goes_on], expected[goes_on].float())


def test_with_lambda_1_rewards_are_certain_up_to_the_end_of_episode_or_rollout() -> None:
    data = rollout()
    mixtures = lambda_mixtures(**data, gamma=GAMMA, gae_lambda=1.0)
    spread = mixtures.std(dim=-1, correction=0).numpy()
    last = data["following"][6, 0].std
    np.testing.assert_allclose(spread[:, 0], last * GAMMA ** np.arange(7, 0, -1), rtol=0.03)
    cut = data["after"][5, 1].std
    np.testing.assert_allclose(spread[:3, 1], 0.0, atol=1e-5)
    np.testing.assert_allclose(spread[3:6, 1], cut * GAMMA ** np.arange(3, 0, -1), rtol=0.01)


def exact_mixture(rollout: Rollout, gae_lambda: float) -> ValueDistribution:
    """Z^λ of the first step of one environment without ends, with all of its weighted atoms."""
    following = rollout["following"]
    atoms, weights = following.atoms[-1, 0], following.probabilities[-1, 0]
    for step in reversed(range(len(rollout["rewards"]))):
        atoms = np.concatenate([following.atoms[step, 0], atoms]) * GAMMA + rollout["rewards"][step, 0]
        weights = np.concatenate([(1 - gae_lambda) * following.probabilities[step, 0], gae_lambda * weights])
    order = np.argsort(atoms)
    return ValueDistribution(atoms[order], weights[order])


@pytest.mark.parametrize(("n_atoms", "loss"), [(32, 0.06), (128, 0.02)])
def test_the_bias_of_the_projection(n_atoms: int, loss: float) -> None:
    """Every projection leaves out what spreads within its slices; over 150 steps that stays small."""
    data = rollout(n_steps=150, n_envs=1, n_atoms=32)
    exact = exact_mixture(data, 0.95)
    found = lambda_mixtures(**data, gamma=GAMMA, gae_lambda=0.95, n_atoms=n_atoms)[0, 0]
    assert found.mean().item() == pytest.approx(float(exact.mean), rel=1e-6)
    assert (1 - loss) * exact.std < found.std(correction=0) <= exact.std


def test_slice_means_by_hand() -> None:
    """Sorted: 1, 2, 3 with 0.3, 0.2, 0.5. Halves: (0.3 · 1 + 0.2 · 2) / 0.5 = 1.4, 3; second quarter 1.8."""
    atoms, weights = th.tensor([[3.0, 1.0, 2.0]]), th.tensor([[0.5, 0.3, 0.2]])
    th.testing.assert_close(slice_means(atoms, weights, 1), th.tensor([[2.2]]))
    th.testing.assert_close(slice_means(atoms, weights, 2), th.tensor([[1.4, 3.0]]))
    th.testing.assert_close(slice_means(atoms, weights, 4), th.tensor([[1.0, 1.8, 3.0, 3.0]]))


def test_slice_means_of_large_numbers_keep_their_differences() -> None:
    atoms = th.randn(4, 128).sort(dim=1).values
    weights = th.full_like(atoms, 1 / 128)
    for shift in (1e4, 1e5):
        shifted = slice_means(atoms + shift, weights, 32)
        th.testing.assert_close(shifted - shift, slice_means(atoms, weights, 32), rtol=0, atol=1e-6 * shift)
        assert (shifted.diff(dim=1) >= 0).all()


def test_what_is_not_finite_is_not_hidden() -> None:
    data = rollout()
    data["rewards"][4, 0] = np.nan
    mixtures = lambda_mixtures(**data, gamma=GAMMA, gae_lambda=0.9)
    assert mixtures[:5, 0].isnan().any(dim=1).all()
    assert mixtures[5:, 0].isfinite().all()
    assert mixtures[:, 1].isfinite().all()
