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

from sb3_vgs_ppo.change import Surprise, rollout_surprise
from sb3_vgs_ppo.distributional import ValueDistribution, rollout
from sb3_vgs_ppo.ppo import DistributionalPPO

SMALL = {"n_steps": 20, "batch_size": 20, "n_epochs": 2, "policy_kwargs": {"net_arch": [8]}, "seed": 0}


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
            prediction: Any = th.as_tensor(buffer.values[step]).unsqueeze(1)
            if isinstance(model, DistributionalPPO):
                with th.no_grad():
                    prediction = model.policy.predict_value_distribution(part)
            transforms += ValueDistribution.of(prediction).cdf(buffer.returns[step]).tolist()
            differences += (buffer.values[step] - buffer.returns[step]).tolist()
        self.expected.append((float(np.mean(differences)), float(np.mean(transforms))))


@pytest.mark.parametrize("env", ["CartPole-v1", DictEnv])
@pytest.mark.parametrize("value_head", ["quantile", "categorical"])
def test_a_rollout_is_measured_with_the_critic_that_predicted_it(
    env: Any, value_head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout, "_BATCH", 24)  # eight steps at once, and four that remain
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
