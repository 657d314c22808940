"""Size of a checkpoint, and time to write and read it, beside SB3's own files: python scripts/measure_checkpoints.py

Agents of 64x64 MLPs on CartPole-v1 and of a Nature-CNN on 84x84x4 images. "same tensors" is DistributionalPPO with a
scalar critic, Adam and VGS off, which holds what SB3's PPO holds; "default" has 32 quantiles, AdaptiveUPGD (one more
average per weight) and VGS 3.0. Every time is the median over rounds in which all cells take turns, so that other load
on the machine meets them alike.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.envs import FakeImageEnv

from sb3_vgs_ppo import DistributionalPPO, load_checkpoint

NETWORKS: dict[str, tuple[str, Callable[[], Any], int]] = {
    "MLP 64x64": ("MlpPolicy", lambda: "CartPole-v1", 2048),
    "Nature-CNN": (
        "CnnPolicy",
        lambda: FakeImageEnv(screen_height=84, screen_width=84, n_channels=4, discrete=True),
        128,
    ),
}
PLAIN: dict[str, Any] = {"value_head": "scalar", "optimizer_class": th.optim.Adam}
AGENTS: dict[str, tuple[type[PPO], dict[str, Any]]] = {
    "SB3 PPO": (PPO, {}),
    "same tensors": (DistributionalPPO, {"policy_kwargs": PLAIN, "vgs_version": None}),
    "default": (DistributionalPPO, {}),
}


@dataclass
class Cell:
    """
    One agent's file.

    :param network: what the agent consists of
    :param agent: which kind it is
    :param model: trained for one update, so that the optimizer has its averages
    :param path: where it is saved
    :param times: seconds by what took them
    """

    network: str
    agent: str
    model: PPO
    path: Path
    times: dict[str, list[float]] = field(default_factory=lambda: {"save": [], "load": [], "load_checkpoint": []})

    def measure(self) -> None:
        """Write and read once in every way."""
        ways: dict[str, Callable[[], object]] = {
            "save": lambda: self.model.save(self.path),
            "load": lambda: type(self.model).load(self.path, device="cpu"),
        }
        if isinstance(self.model, DistributionalPPO):
            ways["load_checkpoint"] = lambda: load_checkpoint(self.path, device="cpu")
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            self.times[name].append(time.perf_counter() - start)

    def row(self) -> str:
        """One line of the table."""
        times = [f"{1e3 * statistics.median(times):.1f}" if times else "" for times in self.times.values()]
        size = self.path.stat().st_size / 2**10
        return f"| {self.network} | {self.agent} | {size:,.0f} | {' | '.join(times)} |"


def make_cells(folder: Path) -> list[Cell]:
    """Train each agent for one update."""
    cells: list[Cell] = []
    for network, (policy, make_env, n_steps) in NETWORKS.items():
        for agent, (algorithm, kwargs) in AGENTS.items():
            model = algorithm(policy, make_env(), n_steps=n_steps, n_epochs=1, seed=0, device="cpu", **kwargs)
            model.learn(n_steps)
            cells.append(Cell(network, agent, model, folder / f"{len(cells)}.zip"))
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="number of times that everything is done (20)")
    rounds = parser.parse_args().rounds
    th.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        cells = make_cells(Path(folder))
        for cell in cells:
            cell.measure()  # whatever is slow the first time only
            cell.times = {name: [] for name in cell.times}
        for position in np.random.default_rng(0).permuted(np.tile(np.arange(len(cells)), (rounds, 1)), axis=1).ravel():
            cells[position].measure()
        print("| network | agent | KiB | save, ms | load, ms | load_checkpoint, ms |\n|---|---|---|---|---|---|")
        for cell in cells:
            print(cell.row())


if __name__ == "__main__":
    main()
