"""Every kind of observations and actions is really learnt from: short trainings on tasks where that is quick to see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from sb3_vgs_ppo.runs import calibration
from sb3_vgs_ppo.runs.config import TrainConfig
from sb3_vgs_ppo.runs.training import train

LEARNER: dict[str, Any] = {"n_steps": 32, "batch_size": 64, "n_epochs": 8, "learning_rate": 1e-3, "gamma": 0.0}
SMALL_CNN: dict[str, Any] = {"policy_kwargs": {"features_extractor_kwargs": {"features_dim": 32}}}
"""SB3's NatureCNN with fewer features."""


@pytest.fixture(autouse=True)
def _short_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "STEPS", 16)


@pytest.mark.usefixtures("toy_envs")
@pytest.mark.parametrize(
    ("name", "chance", "changes"),
    [
        ("Image", 1 / 4, {"total_timesteps": 1_280, "algo_kwargs": {**LEARNER, **SMALL_CNN}}),
        ("Dict", 1 / 4, {}),
        ("MultiDiscrete", (1 / 3 + 1 / 2) / 2, {}),
        ("MultiBinary", 1 / 2, {}),
        ("Box", 1 / 2, {"algo_kwargs": {**LEARNER, "use_sde": True, "sde_sample_freq": 4}}),
    ],
)
def test_what_is_observed_and_done_is_learnt(
    name: str, chance: float, changes: dict[str, Any], short_config: Callable[..., TrainConfig]
) -> None:
    """Rewards of eight steps, each up to 1. Half of them is what a policy gets that is blind to one of the two bits."""
    options: dict[str, Any] = {"n_envs": 8, "total_timesteps": 2_560, "eval_every": 0, "checkpoint_every": 0}
    options |= {"env_id": f"toy_envs:ToyMatching{name}-v0", "algo_kwargs": LEARNER, **changes}
    result = train(short_config(**options))
    untrained = pd.read_csv(result.folder.progress)["rollout/ep_rew_mean"][0]
    assert untrained == pytest.approx(8 * chance, abs=0.8)
    assert result.final_evaluation is not None
    assert result.final_evaluation.mean_reward >= 7.2
