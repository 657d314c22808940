"""The working folder that a reader of the pages would have."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from helpers import forget_environments_but
from sb3_vgs_ppo.runs.config import TrainConfig
from sb3_vgs_ppo.runs.training import train

from .pages import ROOT

LEGACY = ROOT / "tests" / "fixtures" / "legacy"
SHORT: dict[str, Any] = {
    "total_timesteps": 64,
    "n_envs": 2,
    "eval_every": 32,
    "eval_episodes": 1,
    "algo_kwargs": {"n_steps": 16, "batch_size": 16, "n_epochs": 1},
}


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """:return: folder with a finished run and the files that pages speak of"""
    folder = tmp_path_factory.mktemp("template")
    run = train(TrainConfig(**SHORT, run_dir=str(folder / "runs" / "first"))).folder
    shutil.copy(run.final_model, folder / "agent.zip")
    for source, name in {
        "vgs_2_0_quantile.zip": "old.zip",
        "vgs_3_0_categorical.zip": "categorical.zip",
        "sb3_ppo.zip": "ppo.zip",
        "state_vgs_2_0.pt": "state.pt",
    }.items():
        shutil.copy(LEGACY / source, folder / name)
    (folder / "results").symlink_to(ROOT / "results")
    return folder


@pytest.fixture
def workplace(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """:return: a copy of the template, which is the working folder meanwhile; environments registered there go"""
    folder = tmp_path / "work"
    shutil.copytree(template, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    registered = set(gym.registry)
    yield folder
    forget_environments_but(registered)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(folder)):
            del sys.modules[name]
