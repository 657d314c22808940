"""``value_target="distribution"``: what rollouts keep, that its mean is the λ-return, and what critics learn."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_vgs_ppo import load_checkpoint
from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.ppo.distribution_targets import DistributionDictRolloutBuffer, DistributionRolloutBuffer
from sb3_vgs_ppo.ppo.minibatches import minibatches, value_targets

from .conftest import dict_env
from .test_dppo import HEADS, small_model

DISTRIBUTIONAL = [name for name in HEADS if name != "scalar"]


class Chain(gym.Env[Any, Any]):
    """
    Each step pays N(0, 1); the observation tells the step, and after ``length`` steps the episode ends.

    :param cut_off: whether as by a time limit
    """

    action_space = spaces.Discrete(2)

    def __init__(self, length: int = 6, cut_off: bool = False) -> None:
        self.length, self.cut_off = length, cut_off
        self.observation_space = spaces.Box(0.0, 1.0, (length + 1,), np.float32)

    def _observe(self) -> np.ndarray:
        return np.eye(self.length + 1, dtype=np.float32)[self.steps]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        is_over = self.steps == self.length
        return self._observe(), float(self.np_random.normal()), is_over and not self.cut_off, is_over, {}


def collected(env: Any, head: str = "quantile", policy: str = "MlpPolicy", **kwargs: Any) -> DistributionalPPO:
    """A model with a full rollout that no update has read, and a critic that predicts something."""
    kwargs = {"value_target": "distribution", "policy_kwargs": HEADS[head], **kwargs}
    model = small_model(env, policy, **kwargs)
    th.manual_seed(0)
    with th.no_grad():
        for parameter in model.policy.value_net.parameters():
            parameter.add_(0.3 * th.randn_like(parameter))
    _, callback = model._setup_learn(64)
    training_env: Any = model.get_env()
    assert model.collect_rollouts(training_env, callback, model.rollout_buffer, 64)
    return model


def means(model: DistributionalPPO, targets: Any) -> th.Tensor:
    """:param targets: (..., k)"""
    targets = th.as_tensor(targets)
    if model.policy.value_head == "quantile":
        return targets.mean(dim=-1)
    return (targets.double() * model.policy.value_net.support.atoms.double()).sum(dim=-1)  # type: ignore[operator]


ENVIRONMENTS: dict[str, Callable[[], Any]] = {
    "ends": lambda: make_vec_env(Chain, n_envs=2, seed=1),
    "cut off": lambda: make_vec_env(lambda: Chain(cut_off=True), n_envs=3, seed=1),
    "normalized": lambda: VecNormalize(make_vec_env("CartPole-v1", n_envs=1, seed=1)),
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
@pytest.mark.parametrize("head", DISTRIBUTIONAL)
def test_the_mean_of_the_target_is_the_lambda_return(head: str, name: str) -> None:
    model = collected(ENVIRONMENTS[name](), head, gae_lambda=0.8, gamma=0.9)
    buffer = model.rollout_buffer
    assert isinstance(buffer, DistributionRolloutBuffer)
    assert buffer.value_targets.shape == (64, buffer.n_envs, len(model.policy.value_net.bias))
    np.testing.assert_allclose(means(model, buffer.value_targets), buffer.returns, rtol=2e-3, atol=2e-3)


def test_atoms_outside_the_support_are_counted() -> None:
    """Each half of the distribution, of returns of ±1 one step before the end, is outside of [-0.5, 0.5]."""
    kwargs = {"value_head": "categorical", "value_transform": "none", "v_min": -0.5, "v_max": 0.5}
    model = small_model(make_vec_env(Chain, n_envs=2, seed=1), value_target="distribution", policy_kwargs=kwargs)
    model.learn(64)
    buffer = model.rollout_buffer
    assert isinstance(buffer, DistributionRolloutBuffer)
    assert model.logger.name_to_value["train/value_target_clipped"] == buffer.value_target_clipped
    assert buffer.value_target_clipped is not None
    assert buffer.value_target_clipped > 0.3


def test_samples_keep_their_targets() -> None:
    """Rewards of N(0, 1) give every state another mean, by which its target can be told."""
    model = collected(ENVIRONMENTS["ends"]())
    np.random.seed(1)  # noqa: NPY002 - SB3's generator
    samples = list(minibatches(model.rollout_buffer, 50))
    assert [value_targets(one).shape for one in samples] == [(50, 32), (50, 32), (28, 32)]
    for one in samples:
        th.testing.assert_close(means(model, value_targets(one)), one.returns, rtol=1e-4, atol=1e-4)
    np.random.seed(1)  # noqa: NPY002
    for one, other in zip(samples, model.rollout_buffer.get(50), strict=True):
        assert all(th.equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))


def test_dict_observations() -> None:
    model = collected(make_vec_env(dict_env, n_envs=2), policy="MultiInputPolicy")
    assert type(model.rollout_buffer) is DistributionDictRolloutBuffer
    one = next(minibatches(model.rollout_buffer, 32))
    assert set(one.observations) == {"img", "vec"}
    th.testing.assert_close(means(model, value_targets(one)), one.returns, rtol=1e-4, atol=1e-4)
    model.train()


@pytest.mark.parametrize("cut_off", [False, True])
def test_an_episode_cut_off_goes_on_in_the_whole_distribution(cut_off: bool) -> None:
    """And one that is over in nothing: its last reward is certain."""
    model = collected(make_vec_env(lambda: Chain(cut_off=cut_off), n_envs=2, seed=1), gamma=0.9)
    last_steps = slice(5, 60, 6)
    targets = model.rollout_buffer.value_targets[last_steps]  # type: ignore[attr-defined]
    if not cut_off:
        assert np.ptp(targets, axis=-1).max() < 1e-4
        return
    terminal = model.value_distribution(np.eye(7, dtype=np.float32)[6])
    np.testing.assert_allclose(targets.std(axis=-1), 0.9 * terminal.std, rtol=1e-3)
    # SB3 has added 0.9 V to the rewards, which is not to be counted twice
    rewards = model.rollout_buffer.rewards[last_steps]
    np.testing.assert_allclose(targets.mean(axis=-1), rewards, atol=1e-5)
    expected = np.sort(rewards[..., None] + 0.9 * (terminal.atoms - terminal.mean), axis=-1)
    np.testing.assert_allclose(targets, expected, atol=1e-5)


def test_the_next_rollout_forgets_the_episodes_cut_off() -> None:
    model = collected(make_vec_env(lambda: Chain(cut_off=True), n_envs=2, seed=1))
    assert len(model.rollout_buffer._cut_off) == 20  # type: ignore[attr-defined]
    model.rollout_buffer.reset()
    assert model.rollout_buffer._cut_off == {}  # type: ignore[attr-defined]


def trained(value_target: str, head: dict[str, Any]) -> DistributionalPPO:
    model = DistributionalPPO(
        "MlpPolicy",
        make_vec_env(Chain, n_envs=8, seed=0),
        learning_rate=lambda progress: 1e-2 * progress,
        n_steps=60,
        batch_size=120,
        gamma=1.0,
        gae_lambda=0.5,
        seed=0,
        device="cpu",
        vgs_version=None,
        value_target=value_target,  # type: ignore[arg-type]
        policy_kwargs={**head, "net_arch": {"pi": [4], "vf": [32]}, "optimizer_class": th.optim.Adam},
    )
    return model.learn(12 * 480)


@pytest.mark.parametrize(
    "head",
    [
        {"value_head": "quantile", "huber_kappa": 0.0},
        {"value_head": "categorical", "value_transform": "none", "v_min": -12.0, "v_max": 12.0},
    ],
    ids=["quantile", "categorical"],
)
def test_the_spread_is_that_of_the_whole_return_and_with_samples_that_of_lambda_returns(head: dict[str, Any]) -> None:
    """
    Returns of k more steps have the variance k. λ-returns have v_k = 1 + λ² v_{k−1}, here 1, 1.25, … up to 4/3.
    """
    observations = np.eye(7, dtype=np.float32)[:6]
    of_distributions = trained("distribution", head).value_distribution(observations)
    whole = np.sqrt(np.arange(6.0, 0.0, -1.0))
    np.testing.assert_allclose(of_distributions.std, whole, rtol=0.2)
    of_samples = trained("sample", head).value_distribution(observations)
    np.testing.assert_allclose(of_samples.std, np.sqrt((1 - 0.25 ** np.arange(6, 0, -1)) / 0.75), rtol=0.2)


def test_an_agent_learns_and_composes_with_a_risk_measure() -> None:
    model = small_model(value_target="distribution", risk_measure="cvar:0.5", n_steps=256, batch_size=64)
    model.learn(512)
    assert model.logger.name_to_value["train/skipped_updates"] == 0
    assert model.logger.name_to_value["train/value_std"] > 0.1


def test_it_is_saved_with_the_model_which_learns_on_alike(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    model = small_model(make_vec_env(Chain, n_envs=2, seed=0), value_target="distribution").learn(128)
    model.save(path)
    after = []
    for loaded in (DistributionalPPO.load(path), load_checkpoint(path), model):
        assert loaded.value_target == "distribution"
        loaded.set_env(make_vec_env(Chain, n_envs=2, seed=7))
        loaded.set_random_seed(7)
        loaded.learn(128)
        assert type(loaded.rollout_buffer) is DistributionRolloutBuffer
        after.append(th.nn.utils.parameters_to_vector(loaded.policy.parameters()))
    assert th.equal(after[0], after[2])
    assert th.equal(after[1], after[2])
    for other in (
        DistributionalPPO.load(path, value_target="sample"),
        load_checkpoint(path, overrides={"value_target": "sample"}),
    ):
        assert type(other.rollout_buffer) is RolloutBuffer


def test_files_without_it_were_trained_with_samples(tmp_path: Path, rewrite: Callable[..., Path]) -> None:
    small_model().save(tmp_path / "new.zip")
    old = rewrite(tmp_path / "new.zip", tmp_path / "old.zip", manifest=lambda m: m["arguments"].pop("value_target"))
    assert load_checkpoint(old).value_target == "sample"


class OwnBuffer(RolloutBuffer):
    pass


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"value_target": "mean"}, "value_target='mean'; remedy: 'sample' or 'distribution'"),
        ({"policy_kwargs": HEADS["scalar"]}, "value_target='distribution' needs .*; remedy: value_head 'quantile'"),
        ({"rollout_buffer_class": OwnBuffer}, "rollout_buffer_class=OwnBuffer keeps no distributions.*remedy"),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        small_model(**{"value_target": "distribution", **kwargs})


def test_sb3s_own_buffer_classes_are_what_none_stands_for() -> None:
    for given in (RolloutBuffer, DictRolloutBuffer):
        model = small_model(value_target="distribution", rollout_buffer_class=copy.copy(given))
        assert type(model.rollout_buffer) is DistributionRolloutBuffer
        assert model.rollout_buffer_class is given
