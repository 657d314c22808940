"""Agents of plain SB3 in files, environments with ids for them, and the expected content of the golden files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv, SimpleMultiObsEnv
from stable_baselines3.common.utils import LinearSchedule

from sb3_vgs_ppo.checkpoint import MANIFEST, Manifest, load_tensors, write_archive, write_checkpoint

GOLDEN = Path(__file__).parents[1] / "fixtures" / "legacy"
SMALL: dict[str, Any] = {"n_steps": 32, "batch_size": 16, "n_epochs": 2, "seed": 3, "device": "cpu"}
IMAGE, DICT = "MigrationImage-v0", "MigrationDict-v0"
PLAIN: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mlp": (
        "MlpPolicy",
        "CartPole-v1",
        {"policy_kwargs": {"net_arch": {"pi": [8], "vf": [6]}}, "clip_range": LinearSchedule(0.3, 0.1, 1.0)},
    ),
    "gsde": ("MlpPolicy", "Pendulum-v1", {"use_sde": True, "policy_kwargs": {"activation_fn": th.nn.ReLU}}),
    "gaussian": ("MlpPolicy", "Pendulum-v1", {"clip_range_vf": 0.2, "policy_kwargs": {"log_std_init": -0.5}}),
    "cnn": ("CnnPolicy", IMAGE, {"policy_kwargs": {"features_extractor_kwargs": {"features_dim": 16}}}),
    "dict": ("MultiInputPolicy", DICT, {"policy_kwargs": {"net_arch": [8], "share_features_extractor": False}}),
}


@dataclass(frozen=True)
class PlainAgent:
    """An agent of SB3 and the file that it was saved in."""

    path: Path
    env_id: str
    model: PPO

    def observations(self) -> Any:
        """Eight observations, as a policy takes them."""
        self.model.observation_space.seed(1)
        samples = [self.model.observation_space.sample() for _ in range(8)]
        batch = (
            {key: np.stack([s[key] for s in samples]) for key in samples[0]} if isinstance(samples[0], dict) else None
        )
        return self.model.policy.obs_to_tensor(np.stack(samples) if batch is None else batch)[0]


@pytest.fixture(scope="session", autouse=True)
def environments() -> Iterator[None]:
    """An image and a Dict environment with ids."""
    gym.register(IMAGE, lambda: FakeImageEnv(screen_height=36, screen_width=36, n_channels=1, discrete=True))
    gym.register(DICT, lambda: SimpleMultiObsEnv(num_col=2, num_row=2, random_start=False))
    yield
    del gym.registry[IMAGE], gym.registry[DICT]


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory, environments: None) -> dict[str, PlainAgent]:
    folder = tmp_path_factory.mktemp("plain")
    agents = {}
    for name, (policy, env_id, kwargs) in PLAIN.items():
        model = PPO(policy, make_vec_env(env_id, n_envs=2, seed=11), **{**SMALL, **kwargs}).learn(128)
        model.save(folder / f"{name}.zip")
        agents[name] = PlainAgent(folder / f"{name}.zip", env_id, model)
    return agents


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, Any]]:
    """What a golden file must give."""
    expected = load_tensors((GOLDEN / "expected.pt").read_bytes(), "expected.pt", "expected.pt")
    return lambda name: expected[name]


@pytest.fixture
def rewrite() -> Callable[[Path, dict[str, bytes]], None]:
    """Write members under the description that they hold, if any, with digests computed anew."""

    def rewrite(path: Path, members: dict[str, bytes]) -> None:
        content = dict(members)
        manifest = content.pop(MANIFEST, None)
        if manifest is None:
            write_archive(path, content)
        else:
            write_checkpoint(path, content, Manifest.from_json(manifest, str(path)))

    return rewrite
