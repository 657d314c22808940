"""Short runs for every test of this room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import TOYS
from sb3_vgs_ppo.runs.config import TrainConfig

SHORT: dict[str, Any] = {
    "total_timesteps": 512,
    "n_envs": 2,
    "eval_every": 256,
    "eval_episodes": 3,
    "checkpoint_every": 128,
    "algo_kwargs": {"n_steps": 64, "batch_size": 32, "n_epochs": 2},
}
"""Four rollouts of 128 steps; evaluations after the second and the fourth."""


@pytest.fixture
def short_config(tmp_path: Path) -> Callable[..., TrainConfig]:
    """:return: makes options of a short run into ``tmp_path / "run"``, with the given ones changed"""

    def make(**changes: Any) -> TrainConfig:
        return TrainConfig(**{**SHORT, "run_dir": str(tmp_path / "run"), **changes})

    return make


@pytest.fixture
def toy_envs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes ``toy_envs:ToyImage-v0`` and the like importable."""
    monkeypatch.syspath_prepend(TOYS)
