from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecNormalize

from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.runs.loop import is_due, iterate

SMALL: dict[str, Any] = {"n_steps": 32, "batch_size": 16, "n_epochs": 2, "seed": 3}
TOTAL = 200  # four rollouts of 64: a part of the last is beyond
TIME = ("time/fps", "time/time_elapsed")

MODELS: dict[str, Callable[[], PPO]] = {
    "sb3": lambda: PPO("MlpPolicy", make_vec_env("CartPole-v1", 2, seed=3), learning_rate=lambda p: 1e-3 * p, **SMALL),
    "sb3-gsde": lambda: PPO(
        "MlpPolicy", VecNormalize(make_vec_env("Pendulum-v1", 2, seed=3)), use_sde=True, sde_sample_freq=5, **SMALL
    ),
    "distributional": lambda: DistributionalPPO("MlpPolicy", make_vec_env("CartPole-v1", 2, seed=3), **SMALL),
}


def train(name: str, folder: Path, *, by_learn: bool) -> tuple[PPO, float]:
    """:return: the trained model, and the next number that torch would draw"""
    model = MODELS[name]()
    model.set_logger(configure(str(folder), ["csv"]))
    if by_learn:
        model.learn(TOTAL)
    else:
        iterations = []
        for iteration in iterate(model, TOTAL):
            model.dump_logs(iteration)
            iterations.append(iteration)
        assert iterations == [1, 2, 3, 4]
    return model, th.rand(1).item()


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "progress.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", MODELS)
def test_training_equals_learn_bit_for_bit(name: str, tmp_path: Path) -> None:
    expected, expected_random = train(name, tmp_path / "learn", by_learn=True)
    actual, actual_random = train(name, tmp_path / "iterate", by_learn=False)
    assert actual.num_timesteps == expected.num_timesteps == 256
    for key, tensor in expected.policy.state_dict().items():
        assert th.equal(actual.policy.state_dict()[key], tensor), key
    states = actual.policy.optimizer.state_dict()["state"]
    for index, state in expected.policy.optimizer.state_dict()["state"].items():
        for key, value in state.items():
            assert th.equal(th.as_tensor(states[index][key]), th.as_tensor(value)), (index, key)
    np.testing.assert_array_equal(actual._last_obs, expected._last_obs)  # type: ignore[arg-type]
    assert actual_random == expected_random


def test_a_row_holds_the_rollout_and_the_update_of_one_iteration(tmp_path: Path) -> None:
    train("sb3", tmp_path / "learn", by_learn=True)
    train("sb3", tmp_path / "iterate", by_learn=False)
    sb3, ours = rows_of(tmp_path / "learn"), rows_of(tmp_path / "iterate")
    assert len(sb3) == len(ours) == 4
    assert sb3[0].keys() == ours[0].keys()
    for key in sb3[0]:
        if key.startswith("train/"):  # SB3 writes an update's figures one row later, and the last ones never
            assert [row[key] for row in ours[:-1]] == [row[key] for row in sb3[1:]], key
            assert sb3[0][key] == ""
            assert ours[-1][key] != ""
        elif key not in TIME:
            assert [row[key] for row in ours] == [row[key] for row in sb3], key


def test_periods_count_multiples_that_a_rollout_reached() -> None:
    model = MODELS["sb3"]()  # rollouts of 64 steps
    due: dict[int, list[int]] = {0: [], 50: [], 64: [], 128: [], 150: [], 256: [], 257: []}
    for _ in iterate(model, TOTAL):
        for every, steps in due.items():
            if is_due(every, model):
                steps.append(model.num_timesteps)
    assert due == {
        0: [],
        50: [64, 128, 192, 256],
        64: [64, 128, 192, 256],
        128: [128, 256],
        150: [192],
        256: [256],
        257: [],
    }


class _Recorder(BaseCallback):
    """Stops after a number of steps, and remembers what it was told."""

    def __init__(self, stop_at: int) -> None:
        super().__init__()
        self.stop_at = stop_at
        self.events: list[str] = []

    def _on_training_start(self) -> None:
        self.events.append("start")

    def _on_step(self) -> bool:
        return self.num_timesteps < self.stop_at

    def _on_training_end(self) -> None:
        self.events.append(f"end at {self.num_timesteps}")


def test_a_callback_can_stop_and_hears_of_the_end() -> None:
    callback = _Recorder(stop_at=100)
    model = MODELS["sb3"]()
    assert list(iterate(model, TOTAL, callback)) == [1]
    assert callback.events == ["start", "end at 100"]


def test_a_caller_that_leaves_ends_the_training() -> None:
    callback = _Recorder(stop_at=1000)
    for _ in iterate(MODELS["sb3"](), TOTAL, callback):
        break
    assert callback.events == ["start", "end at 64"]


def test_a_model_without_environment_is_refused(tmp_path: Path) -> None:
    model = MODELS["sb3"]()
    model.save(tmp_path / "model.zip")
    with pytest.raises(ValueError, match=r"the model has no environment; remedy: model.set_env\(env\)"):
        next(iterate(PPO.load(tmp_path / "model.zip"), TOTAL))
