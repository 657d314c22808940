"""Trained agents of every kind, in files, and a way to tamper with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv, SimpleMultiObsEnv
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv

from sb3_vgs_ppo.checkpoint import Manifest, read_archive, write_checkpoint
from sb3_vgs_ppo.ppo import DistributionalPPO

SMALL: dict[str, Any] = {"n_steps": 32, "batch_size": 16, "n_epochs": 2, "seed": 3, "device": "cpu"}
NET: dict[str, Any] = {"net_arch": [8]}


def image_env() -> FakeImageEnv:
    env = FakeImageEnv(screen_height=36, screen_width=36, n_channels=1, discrete=True)
    env.observation_space.seed(0)  # from which it samples
    return env


def dict_env() -> SimpleMultiObsEnv:
    np.random.seed(0)  # noqa: NPY002 - with which it draws its images
    return SimpleMultiObsEnv(num_col=2, num_row=2, random_start=False)


AGENTS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "quantile": ("MlpPolicy", "CartPole-v1", {"policy_kwargs": {**NET, "n_quantiles": 4}}),
    "scalar": (
        "MlpPolicy",
        "CartPole-v1",
        {
            "policy_kwargs": {"net_arch": {"pi": [8], "vf": [4, 4]}, "value_head": "scalar"},
            "learning_rate": LinearSchedule(1e-2, 1e-3, 0.5),
            "clip_range_vf": 0.3,
            "vgs_version": "2.0",
            "vgs_kwargs": {"alpha": 0.7},
        },
    ),
    "categorical": (
        "MlpPolicy",
        "Pendulum-v1",
        {
            "policy_kwargs": {"value_head": "categorical", "n_atoms": 9, "activation_fn": th.nn.ReLU},
            "use_sde": True,
            "target_kl": 0.1,
            "vgs_version": None,
        },
    ),
    "adam": ("MlpPolicy", "Pendulum-v1", {"policy_kwargs": {**NET, "optimizer_class": th.optim.Adam}, "gamma": 0.9}),
    "cnn": ("CnnPolicy", image_env, {"policy_kwargs": {"features_extractor_kwargs": {"features_dim": 16}}}),
    "dict": ("MultiInputPolicy", dict_env, {"policy_kwargs": {**NET, "share_features_extractor": False}}),
}


def make_env(env: Any) -> VecEnv:
    return make_vec_env(env, n_envs=2, seed=11)


@pytest.fixture
def env_of() -> Callable[[str], VecEnv]:
    """An environment for an agent, by the agent's name."""
    return lambda name: make_env(AGENTS[name][1])


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A trained agent of each kind."""
    folder = tmp_path_factory.mktemp("agents")
    for name, (policy, env, kwargs) in AGENTS.items():
        DistributionalPPO(policy, make_env(env), **{**SMALL, **kwargs}).learn(64).save(folder / f"{name}.zip")
    return {name: folder / f"{name}.zip" for name in AGENTS}


@pytest.fixture(scope="module")
def sb3_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sb3") / "ppo.zip"
    kwargs = {"net_arch": {"pi": [8], "vf": [4]}, "activation_fn": th.nn.ReLU, "optimizer_kwargs": {"eps": 1e-6}}
    clip_range = LinearSchedule(0.3, 0.1, 0.5)
    PPO("MlpPolicy", make_env("Pendulum-v1"), policy_kwargs=kwargs, clip_range=clip_range, **SMALL).learn(64).save(path)
    return path


@pytest.fixture
def rewrite() -> Callable[..., Path]:
    """Change a checkpoint as somebody would who computes its digests anew."""

    def rewrite(
        source: Path,
        target: Path,
        members: Callable[[dict[str, bytes]], Any] = lambda members: None,
        manifest: Callable[[dict[str, Any]], Any] = lambda values: None,
    ) -> Path:
        content = dict(read_archive(source).members)
        values = json.loads(content.pop("manifest.json"))
        members(content)
        manifest(values)
        write_checkpoint(target, content, Manifest(**values))
        return target

    return rewrite
