"""Learning curves of the default agent beside SB3's PPO with Adam, from real runs: python scripts/learning_curves.py

The baseline is trained by the same command with a scalar critic, Adam and VGS off, which is SB3's PPO bit for bit
(tests/ppo/test_parity.py, tests/runs/test_baseline.py).

Every cell (environment x agent x seed) is one ``sb3-vgs-ppo train`` in a process of its own. A finished cell is kept,
so an interrupted call continues where it stopped. Writes ``curves.csv`` and ``curves.png`` and prints the table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pandas as pd

from sb3_vgs_ppo.studies.episodes import read_episodes

GRID = 100  # points of the common step grid
OUT = Path(__file__).parents[1] / "results" / "learning_curves"


@dataclass(frozen=True)
class Agent:
    """:param options: what ``train`` gets besides environment, steps and seed"""

    name: str
    label: str
    color: str
    options: tuple[str, ...]


AGENTS = (
    Agent("default", "DistributionalPPO, quantile head, AdaptiveUPGD, VGS 3.0", "#0072B2", ()),
    Agent(
        "sb3_ppo", "SB3 PPO, Adam", "#D55E00", ("--value-head", "scalar", "--optimizer", "adam", "--vgs-version", "off")
    ),
)
ENVIRONMENTS: dict[str, tuple[int, tuple[str, ...]]] = {
    "CartPole-v1": (100_000, ()),
    "Pendulum-v1": (
        150_000,
        ("--normalize", "--algo-kwargs", json.dumps({"gamma": 0.9, "learning_rate": 1e-3})),
    ),
}


def run_cell(env_id: str, agent: Agent, seed: int, runs: Path) -> Path:
    """Train one cell unless it is finished. :return: its run folder"""
    folder = runs / env_id / agent.name / str(seed)
    status = folder / "status.json"
    if status.exists() and json.loads(status.read_text())["state"] == "finished":
        return folder
    steps, options = ENVIRONMENTS[env_id]
    if folder.exists():
        folder.rename(folder.with_name(f"{seed}.interrupted-{status.stat().st_mtime_ns if status.exists() else 0}"))
    command = [sys.executable, "-m", "sb3_vgs_ppo", "train", "--env-id", env_id, "--total-timesteps", str(steps)]
    command += ["--seed", str(seed), "--run-dir", str(folder), "--no-progress", *options, *agent.options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    print("done:", env_id, agent.name, seed, flush=True)
    return folder


def curve(folder: Path, grid: npt.NDArray[Any], window: int = 20) -> npt.NDArray[np.float64]:
    """Mean return of the last ``window`` training episodes, at the given steps."""
    episodes = read_episodes(folder / "monitor")
    smooth = pd.Series(episodes.rewards).rolling(window, min_periods=1).mean()
    return np.asarray(np.interp(grid, episodes.steps, smooth), dtype=np.float64)


def collect(seeds: int, runs: Path) -> pd.DataFrame:
    """Tidy curves of all cells: env_id, agent, seed, step, episode_return."""
    rows: list[pd.DataFrame] = []
    for env_id, (steps, _) in ENVIRONMENTS.items():
        grid = np.linspace(0, steps, GRID + 1)[1:]
        for agent in AGENTS:
            for seed in range(seeds):
                values = curve(runs / env_id / agent.name / str(seed), grid)
                columns = {"env_id": env_id, "agent": agent.name, "seed": seed, "step": grid, "episode_return": values}
                rows.append(pd.DataFrame(columns))
    curves: pd.DataFrame = pd.concat(rows, ignore_index=True)
    return curves


def table(seeds: int, runs: Path) -> str:
    """Markdown table: final evaluation of every seed."""
    lines = ["| environment | agent | final evaluation, by seed | mean |", "|---|---|---|---|"]
    for env_id in ENVIRONMENTS:
        for agent in AGENTS:
            status = [runs / env_id / agent.name / str(seed) / "status.json" for seed in range(seeds)]
            summary = [json.loads(path.read_text())["summary"] for path in status]
            finals = [cell["final_mean_reward"] for cell in summary]
            by_seed = ", ".join(f"{value:.0f}" for value in finals)
            lines.append(f"| {env_id} | {agent.label} | {by_seed} | {np.mean(finals):.0f} |")
    return "\n".join(lines) + "\n"


def draw(curves: pd.DataFrame, path: Path) -> None:
    """One panel per environment: thin lines are seeds, the thick one is their mean."""
    figure, axes = plt.subplots(1, len(ENVIRONMENTS), figsize=(11, 4), layout="constrained")
    for axis, env_id in zip(axes, ENVIRONMENTS, strict=True):
        for agent in AGENTS:
            cells = curves[(curves.env_id == env_id) & (curves.agent == agent.name)]
            for _, cell in cells.groupby("seed"):
                axis.plot(cell.step, cell.episode_return, color=agent.color, alpha=0.35, linewidth=0.9)
            mean = cells.groupby("step").episode_return.mean()
            axis.plot(mean.index, mean, color=agent.color, linewidth=2.2, label=agent.label)
        axis.set(title=env_id, xlabel="environment steps", ylabel="return of the last 20 training episodes")
        axis.grid(alpha=0.25)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(AGENTS), frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 … N-1 (3)")
    parser.add_argument("--workers", type=int, default=1, help="cells that are trained at a time (1)")
    parser.add_argument("--runs", type=Path, default=Path("runs/learning_curves"), help="folder of the cells")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the results")
    options = parser.parse_args()
    cells = [(env_id, agent, seed) for env_id in ENVIRONMENTS for seed in range(options.seeds) for agent in AGENTS]
    with ThreadPoolExecutor(options.workers) as pool:
        list(pool.map(lambda cell: run_cell(cell[0], cell[1], cell[2], options.runs), cells))
    options.out.mkdir(parents=True, exist_ok=True)
    curves = collect(options.seeds, options.runs)
    curves.to_csv(options.out / "curves.csv", index=False, float_format="%.5g")
    draw(curves, options.out / "curves.png")
    print(table(options.seeds, options.runs))
    print("written to", options.out)


if __name__ == "__main__":
    main()
