"""The glossary of metrics: what stands in it is what trainings log, and its pages are up to date."""

from __future__ import annotations

import csv
import runpy
from collections import Counter
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from sb3_vgs_ppo.glossary import GLOSSARY
from sb3_vgs_ppo.runs.config import TrainConfig
from sb3_vgs_ppo.runs.training import train

from .pages import ROOT

KEYS = [key for metrics in GLOSSARY.values() for metric in metrics for key in metric.keys]


class Camera(gym.Env[Any, Any]):
    """Images, for a feature extractor with weights, and episodes of eight steps that say whether they succeeded."""

    observation_space = spaces.Box(0, 255, (36, 36, 3), np.uint8)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros((36, 36, 3), np.uint8), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return np.zeros((36, 36, 3), np.uint8), float(action), self.steps == 8, False, {"is_success": bool(action)}


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """:return: columns of ``progress.csv`` of three short runs that differ in critic, actions, optimizer and inputs"""
    gym.register("Camera-v0", Camera)
    rollouts: dict[str, Any] = {"n_steps": 16, "batch_size": 16, "n_epochs": 1}
    short: dict[str, Any] = {"total_timesteps": 64, "n_envs": 2, "eval_every": 32, "eval_episodes": 1}
    runs: list[dict[str, Any]] = [
        {"env_id": "Camera-v0", "value_head": "quantile", "on_change": "report", "algo_kwargs": rollouts},
        {"env_id": "Pendulum-v1", "value_head": "categorical", "vgs_version": "off", "algo_kwargs": rollouts},
        {"value_head": "scalar", "optimizer": "adam", "algo_kwargs": {**rollouts, "clip_range_vf": 0.2}},
    ]
    columns: set[str] = set()
    for number, options in enumerate(runs):
        folder = tmp_path_factory.mktemp("runs") / str(number)
        progress = train(TrainConfig(**short, **options, run_dir=str(folder))).folder.progress
        with progress.open(newline="") as file:
            columns |= set(next(csv.reader(file)))
    del gym.registry["Camera-v0"]
    return columns


def test_every_logged_key_is_in_the_glossary(logged: set[str]) -> None:
    assert logged - set(KEYS) == set()


def test_every_key_of_the_glossary_is_logged(logged: set[str]) -> None:
    assert set(KEYS) - logged == set()


def test_no_key_stands_twice() -> None:
    assert [key for key, count in Counter(KEYS).items() if count > 1] == []


@pytest.fixture(scope="module")
def with_tables() -> Callable[[str], str]:
    function: Callable[[str], str] = runpy.run_path(str(ROOT / "scripts" / "write_metrics_page.py"))["with_tables"]
    return function


@pytest.mark.parametrize("page", ["metrics.md", "change.md"])
def test_the_pages_are_up_to_date(page: str, with_tables: Callable[[str], str]) -> None:
    text = (ROOT / "docs" / page).read_text()
    assert with_tables(text) == text, "run python scripts/write_metrics_page.py"


def test_all_tables_of_the_glossary_stand_on_a_page() -> None:
    pages = "".join((ROOT / "docs" / page).read_text() for page in ("metrics.md", "change.md"))
    assert [key for key in KEYS if f"| `{key}`" not in pages and f", `{key}`" not in pages] == []


def test_only_the_table_is_replaced(with_tables: Callable[[str], str]) -> None:
    lines = with_tables("before\n<!-- metrics: change -->\nold\n<!-- end of metrics -->\nafter\n").splitlines()
    assert [*lines[:2], *lines[-2:]] == ["before", "<!-- metrics: change -->", "<!-- end of metrics -->", "after"]
    assert "old" not in lines
    assert lines[-4].startswith("| `change/alarms` | alarms |")
