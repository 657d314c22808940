"""Predicted against realised returns: predictions that are set by hand, in environments whose returns are known."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from scipy import stats
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_vgs_ppo.distributional import RealisedReturns, ValueDistribution, coverage_table
from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.runs import calibration
from sb3_vgs_ppo.runs.calibration import play_for_calibration, write_calibration
from sb3_vgs_ppo.runs.calibration_figure import draw_calibration

WAGE = "toy_envs:ToyWage-v0"
pytestmark = pytest.mark.usefixtures("toy_envs")


def agent(env: Any, quantiles: list[float], policy: str = "MlpPolicy", **kwargs: Any) -> DistributionalPPO:
    """An agent that predicts the same distribution in every state."""
    policy_kwargs = {"net_arch": [4], "n_quantiles": len(quantiles)}
    model = DistributionalPPO(policy, env, n_steps=8, batch_size=8, seed=0, policy_kwargs=policy_kwargs, **kwargs)
    with th.no_grad():
        model.policy.value_net.weight.zero_()
        model.policy.value_net.bias.copy_(th.tensor(quantiles))
    return model


def test_returns_are_discounted_to_the_end_and_environments_have_equal_shares() -> None:
    model = agent(make_vec_env(WAGE), [7.0], gamma=0.5)
    realised = play_for_calibration(model, WAGE, 3, seed=1)
    assert len(realised.returns) == 20 * 4
    assert realised.n_episodes == 20
    for episode in np.unique(realised.episodes):
        assert realised.returns[realised.episodes == episode].tolist() == [1.875, 1.75, 1.5, 1.0]
    # Seven, seven and six episodes of three environments; the number of an episode modulo 3 is its environment
    assert np.bincount(np.unique(realised.episodes) % 3).tolist() == [6, 7, 7]
    assert realised.predicted.mean.tolist() == [7.0] * 80


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_predictions_belong_to_their_states_whatever_the_batch(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_BATCH", batch)
    model = DistributionalPPO("MlpPolicy", make_vec_env("CartPole-v1"), n_steps=8, batch_size=8, seed=0)
    realised = play_for_calibration(model, "CartPole-v1", 3, seed=1)
    first = realised.predicted[realised.episodes == 0]
    monkeypatch.setattr(calibration, "EPISODES", 3)  # the same first episodes
    again = play_for_calibration(model, "CartPole-v1", 3, seed=1)
    np.testing.assert_allclose(again.predicted[again.episodes == 0].atoms, first.atoms, rtol=1e-5, atol=1e-6)


def test_what_is_cut_off_goes_on_as_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time limit, and our own limit in the third step of the second episode: each with 8 or 80 to come."""
    monkeypatch.setattr(calibration, "STEPS", 2 * 7)
    model = agent(make_vec_env(WAGE), [8.0, 80.0], gamma=0.5)
    realised = play_for_calibration(model, WAGE, 2, seed=0, env_kwargs={"cut": True})
    assert len(realised.returns) == 14
    of_limit = realised.returns[realised.episodes == 0]
    drawn = (of_limit[-1] - 1.0) / 0.5
    assert 8.0 <= drawn <= 80.0
    assert of_limit == pytest.approx([1.875 + drawn / 16, 1.75 + drawn / 8, 1.5 + drawn / 4, 1.0 + drawn / 2])
    of_ours = realised.returns[realised.episodes == 2]
    drawn_last = (of_ours[-1] - 1.0) / 0.5
    assert drawn_last != drawn
    assert of_ours == pytest.approx([1.75 + drawn_last / 8, 1.5 + drawn_last / 4, 1.0 + drawn_last / 2])


@pytest.mark.parametrize("cut", [False, True])
def test_a_right_critic_is_found_right_also_where_episodes_are_cut_off(
    cut: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Episodes of one step. Over: the return is 1 + N(0, 1). Cut off, with γ = 0.9: N(m, s²) is right for all states if
    it is 1 + N(0, 1) + 0.9 N(m, s²), so m = 10 and s² = 1 / 0.19.
    """
    monkeypatch.setattr(calibration, "EPISODES", 1200)
    levels = (np.arange(200) + 0.5) / 200
    mean, std = (10.0, 0.19**-0.5) if cut else (1.0, 1.0)
    model = agent(make_vec_env(WAGE), stats.norm.ppf(levels, mean, std).tolist(), gamma=0.9)
    realised = play_for_calibration(model, WAGE, 4, seed=3, env_kwargs={"length": 1, "noise": 1.0, "cut": cut})
    table = coverage_table(realised)
    assert [row.coverage for row in table] == pytest.approx([row.level for row in table], abs=0.045)
    assert realised.n_episodes == 1200


def test_rewards_are_scaled_as_in_training() -> None:
    env = VecNormalize(make_vec_env(WAGE), gamma=0.5)
    env.ret_rms.var = np.array(16.0 - env.epsilon)
    model = agent(env, [0.0], gamma=0.5)
    before = env.ret_rms.var, env.ret_rms.count, env.obs_rms.count
    realised = play_for_calibration(model, WAGE, 2, seed=0)
    assert realised.returns[:8:2] == pytest.approx(np.array([1.875, 1.75, 1.5, 1.0]) / 4)
    assert (env.ret_rms.var, env.ret_rms.count, env.obs_rms.count) == before


def test_it_is_seeded_and_leaves_no_trace() -> None:
    untouched = agent(make_vec_env("CartPole-v1", 2), [0.0]).get_env()
    model = agent(make_vec_env("CartPole-v1", 2), [0.0])
    of_torch, of_numpy = th.random.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002 - SB3's own
    first, second, other = (play_for_calibration(model, "CartPole-v1", 2, seed) for seed in (1, 1, 2))
    assert th.equal(th.random.get_rng_state(), of_torch)
    assert np.random.get_state()[1].tolist() == of_numpy  # noqa: NPY002
    assert first.returns.tolist() == second.returns.tolist() != other.returns.tolist()
    assert np.array_equal(model.get_env().reset(), untouched.reset())  # type: ignore[union-attr, arg-type]


def test_it_is_the_stochastic_policy_that_plays() -> None:
    """An untrained policy draws both actions; the mode of it would be the same in all of these episodes."""
    env_id = "toy_envs:ToyVector-v0"
    model = agent(make_vec_env(env_id), [0.0], gamma=1.0)
    with th.no_grad():
        model.policy.action_net.weight.zero_()
    realised = play_for_calibration(model, env_id, 1, seed=0)  # a reward of 1 for one action, 0 for the other
    assert 0.4 < realised.returns[::8].mean() / 8 < 0.6


@pytest.mark.parametrize(("env_id", "policy"), [("ToyImage-v0", "CnnPolicy"), ("ToyMixed-v0", "MultiInputPolicy")])
def test_images_and_dicts(env_id: str, policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "STEPS", 20)
    model = agent(make_vec_env(f"toy_envs:{env_id}"), [1.0, 3.0], policy)
    realised = play_for_calibration(model, f"toy_envs:{env_id}", 2, seed=0)
    assert realised.predicted.mean == pytest.approx([2.0] * 20)


def test_noise_of_gsde_is_drawn_as_often_as_in_training() -> None:
    model = agent(make_vec_env("Pendulum-v1"), [0.0], use_sde=True, sde_sample_freq=4)
    drawn: list[int] = []
    reset_noise = model.policy.reset_noise
    model.policy.reset_noise = lambda n: (drawn.append(n), reset_noise(n))  # type: ignore[method-assign, assignment, func-returns-value]
    realised = play_for_calibration(model, "Pendulum-v1", 4, seed=0)
    assert len(realised.returns) == 4000  # twenty episodes of 200 steps
    assert drawn == [4] * 250


def test_table_and_figure(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    predicted = ValueDistribution.of(th.tensor(generator.normal(size=(300, 8))))
    realised = RealisedReturns(predicted, generator.normal(size=300), np.repeat(np.arange(10), 30))
    table = coverage_table(realised)
    write_calibration(tmp_path / "calibration.csv", table, realised)
    with (tmp_path / "calibration.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["kind", "level", "coverage", "low", "high", "states", "episodes"]
    assert [(row["kind"], float(row["coverage"])) for row in rows] == [(row.kind, row.coverage) for row in table]
    assert {(row["states"], row["episodes"]) for row in rows} == {("300", "10")}
    draw_calibration(tmp_path / "calibration.png", "an agent", realised, table)
    from matplotlib.image import imread

    pixels = imread(tmp_path / "calibration.png")[..., :3] * 255
    for colour in ((0x44, 0x77, 0xAA), (0xCC, 0x33, 0x11)):
        assert (np.abs(pixels - np.array(colour)).max(axis=-1) < 12).sum() > 200


def test_a_figure_of_one_episode_with_few_states(tmp_path: Path) -> None:
    realised = RealisedReturns(ValueDistribution.of(th.zeros(2, 3)), np.array([0.0, 1.0]), np.zeros(2, np.int64))
    draw_calibration(tmp_path / "calibration.png", "an agent", realised, coverage_table(realised))
    assert (tmp_path / "calibration.png").stat().st_size > 10_000
