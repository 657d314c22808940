from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from sb3_vgs_ppo.change import Surprise, probability_integral_transform, rollout_surprise
from sb3_vgs_ppo.change import surprise as surprise_module
from sb3_vgs_ppo.ppo import DistributionalPPO

SMALL = {"n_steps": 20, "batch_size": 20, "n_epochs": 2, "policy_kwargs": {"net_arch": [8]}, "seed": 0}


def test_transform_of_quantiles_counts_those_below_and_half_of_equal_ones() -> None:
    quantiles = th.tensor([[3.0, 1.0, 4.0, 2.0]]).expand(4, 4)
    transformed = probability_integral_transform(quantiles, th.tensor([2.5, 2.0, 0.0, 9.0]))
    assert transformed.tolist() == [0.5, (1 + 0.5) / 4, 0.0, 1.0]


def test_transform_of_atoms_is_linear_between_them_and_constant_beyond() -> None:
    """Half of an atom's own probability lies below it: F(0) = 0.125 and F(10) = 0.25 + 0.375."""
    atoms, probabilities = th.tensor([0.0, 10.0]), th.tensor([[0.25, 0.75]]).expand(5, 2)
    transformed = probability_integral_transform((atoms, probabilities), th.tensor([-3.0, 0.0, 5.0, 10.0, 20.0]))
    assert transformed.tolist() == [0.125, 0.125, 0.375, 0.625, 0.625]


@pytest.mark.parametrize("upper", [0.0, 0.1, 0.5, 0.9])
def test_a_return_that_is_always_the_same_is_in_the_middle_of_its_two_hot_prediction(upper: float) -> None:
    atoms = th.tensor([-5.0, 60.0, 90.0, 134.0])
    probabilities = th.tensor([[0.0, 1.0 - upper, upper, 0.0]])
    returns = th.tensor([60.0 + 30.0 * upper])
    assert probability_integral_transform((atoms, probabilities), returns).item() == pytest.approx(0.5)


def test_transforms_are_uniform_where_the_prediction_is_right_and_low_where_returns_have_dropped() -> None:
    generator = th.Generator().manual_seed(0)
    returns = th.randn(20_000, generator=generator)
    quantiles = th.distributions.Normal(0.0, 1.0).icdf((th.arange(200) + 0.5) / 200)
    transformed = probability_integral_transform(quantiles.expand(20_000, 200), returns)
    share_below = [(transformed < level).double().mean().item() for level in (0.1, 0.5, 0.9)]
    assert share_below == pytest.approx([0.1, 0.5, 0.9], abs=0.01)
    dropped = probability_integral_transform(quantiles.expand(20_000, 200), returns - 1.0)
    # P(X < G - 1) for independent X, G ~ N(0, 1) is Φ(-1 / √2)
    assert dropped.mean().item() == pytest.approx(0.2398, abs=0.005)


class DictEnv(gym.Env[Any, Any]):
    """Observations of two kinds, rewards that nobody can predict, episodes of seven steps."""

    observation_space = spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Discrete(3)})
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        self.steps = 0

    def observe(self) -> dict[str, Any]:
        return {"a": self.np_random.uniform(-1, 1, 2).astype(np.float32), "b": self.np_random.integers(3)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return self.observe(), float(self.np_random.normal()), self.steps % 7 == 0, False, {}


class Measure(BaseCallback):
    """Surprises, and the same computed step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Surprise] = []
        self.expected: list[tuple[float, float]] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        model: Any = self.model
        buffer = model.rollout_buffer
        self.found.append(rollout_surprise(buffer, model.policy))
        differences, transforms = [], []
        for step in range(buffer.buffer_size):
            observations: Any = buffer.observations
            if isinstance(observations, dict):
                part: Any = {name: th.as_tensor(values[step]) for name, values in observations.items()}
            else:
                part = th.as_tensor(observations[step])
            distribution = th.as_tensor(buffer.values[step]).unsqueeze(1)
            if isinstance(model, DistributionalPPO):
                with th.no_grad():
                    distribution = model.policy.predict_value_distribution(part)
            returns = th.as_tensor(buffer.returns[step])
            transforms += probability_integral_transform(distribution, returns).tolist()
            differences += (buffer.values[step] - buffer.returns[step]).tolist()
        self.expected.append((float(np.mean(differences)), float(np.mean(transforms))))


@pytest.mark.parametrize("env", ["CartPole-v1", DictEnv])
@pytest.mark.parametrize("value_head", ["quantile", "categorical"])
def test_a_rollout_is_measured_with_the_critic_that_predicted_it(
    env: Any, value_head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surprise_module, "_BATCH", 24)  # eight steps at once, and four that remain
    policy = "MlpPolicy" if env == "CartPole-v1" else "MultiInputPolicy"
    kwargs = {**SMALL, "policy_kwargs": {"net_arch": [8], "value_head": value_head}}
    measure = Measure()
    DistributionalPPO(policy, make_vec_env(env, 3, seed=0), **kwargs).learn(180, callback=measure)
    assert len(measure.found) == 3
    for found, expected in zip(measure.found, measure.expected, strict=True):
        assert found == pytest.approx(expected, rel=1e-5)


def test_a_scalar_critic_is_a_distribution_with_one_point() -> None:
    measure = Measure()
    A2C("MlpPolicy", make_vec_env("CartPole-v1", 2, seed=0), seed=0).learn(30, callback=measure)
    for found, expected in zip(measure.found, measure.expected, strict=True):
        assert found == pytest.approx(expected, rel=1e-5)
        assert (found.pit * 10).is_integer()  # five steps in two environments, none exactly as predicted
