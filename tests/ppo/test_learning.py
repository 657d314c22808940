"""Each value head learns CartPole-v1 with each optimizer."""

from __future__ import annotations

from typing import Any

import pytest
import torch as th
from stable_baselines3.common.callbacks import EvalCallback, StopTrainingOnRewardThreshold
from stable_baselines3.common.env_util import make_vec_env

from sb3_vgs_ppo.optim import UPGD, AdaptiveUPGD
from sb3_vgs_ppo.ppo import DistributionalPPO

HEADS: dict[str, dict[str, Any]] = {
    "scalar": {"value_head": "scalar"},
    "quantile": {"value_head": "quantile"},
    "categorical": {"value_head": "categorical"},
    "categorical-none": {"value_head": "categorical", "value_transform": "none", "v_min": 0.0, "v_max": 100.0},
}
# Plain UPGD steps along the gradient, whose norm is clipped to 0.5: it needs SGD's learning rates
OPTIMIZERS: dict[str, tuple[type[th.optim.Optimizer], float]] = {
    "adam": (th.optim.Adam, 3e-4),
    "adamw": (th.optim.AdamW, 3e-4),
    "upgd": (UPGD, 0.3),
    "adaptive-upgd": (AdaptiveUPGD, 3e-4),
}


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_cartpole_is_solved_within_100k_steps(head: str, optimizer: str) -> None:
    optimizer_class, learning_rate = OPTIMIZERS[optimizer]
    # Squared errors of returns near 100 fill the clipped gradient; without Adam's normalization the policy would stand
    vf_coef = 0.005 if (optimizer, head) == ("upgd", "scalar") else 0.5
    model = DistributionalPPO(
        "MlpPolicy",
        make_vec_env("CartPole-v1", n_envs=8, seed=0),
        learning_rate=learning_rate,
        n_steps=256,
        vf_coef=vf_coef,
        policy_kwargs={**HEADS[head], "optimizer_class": optimizer_class},
        seed=0,
        device="cpu",
    )
    evaluation = EvalCallback(
        make_vec_env("CartPole-v1", n_envs=5, seed=100),
        callback_on_new_best=StopTrainingOnRewardThreshold(475.0),
        n_eval_episodes=20,
        eval_freq=1_024,  # calls of env.step, each of 8 environments
        verbose=0,
    )
    model.learn(100_000, callback=evaluation)
    assert evaluation.best_mean_reward >= 475.0
    assert model.num_timesteps <= 100_000 + 2_048
