"""``comparison.png``: an agent of a legacy VGS version beside the one that was retrained."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING

from sb3_vgs_ppo.runs.evaluation import read_evaluations
from sb3_vgs_ppo.runs.figures import smoothed
from sb3_vgs_ppo.runs.folder import RunFolder
from sb3_vgs_ppo.studies.episodes import read_episodes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OLD = "#D55E00"
_NEW = "#0072B2"
_WINDOW = 20


def draw_comparison(
    path: Path,
    env_id: str,
    *,
    old_run: RunFolder | None,
    old_label: str,
    old_mean: float,
    new_run: RunFolder,
    new_label: str,
    offset: int,
) -> None:
    """
    Two panels: returns over environment steps, and the factor by which VGS scaled the gradients.

    :param path: PNG file to write
    :param old_run: None if nothing is left of the old training; then a line stands for the old agent
    :param old_mean: mean return of the old agent's final evaluation
    :param offset: environment steps that the new agent had behind it
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    returns, factors = figure.subplots(1, 2)
    if old_run is None:
        returns.axhline(old_mean, color=_OLD, ls="--", lw=1.5, label=old_label)
    else:
        _draw_run(returns, factors, old_run, old_label, _OLD, 0)
    _draw_run(returns, factors, new_run, new_label, _NEW, offset)
    returns.set(
        title=f"{env_id}: mean of the last {_WINDOW} training episodes; points: evaluations", ylabel="episode return"
    )
    factors.set(title="What VGS did", ylabel="scaling factor of the gradients", ylim=(-0.03, 1.05))
    for axes in (returns, factors):
        axes.set(xlabel="environment steps", xlim=(0, None))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.legend(*returns.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=130)


def _draw_run(returns: Axes, factors: Axes, run: RunFolder, label: str, color: str, offset: int) -> None:
    episodes = read_episodes(run.monitor)
    if len(episodes):
        steps, means = smoothed(episodes, _WINDOW)
        returns.plot(steps + offset, means, color=color, lw=1.8, label=label)
    evaluations = read_evaluations(run.evaluations)
    returns.plot(
        [evaluation.step + offset for evaluation in evaluations],
        [evaluation.mean_reward for evaluation in evaluations],
        "o",
        color=color,
        ms=4,
        alpha=0.7,
    )
    steps_of_factors, values = scaling_factors(run.progress)
    factors.plot([step + offset for step in steps_of_factors], values, color=color, lw=1.8)


def scaling_factors(progress: Path) -> tuple[list[int], list[float]]:
    """
    :param progress: ``progress.csv`` of a run
    :return: environment steps, and the mean factor of the rollout before; empty where VGS was off
    """
    if not progress.is_file():
        return [], []
    with progress.open(newline="", encoding="utf-8") as file:
        rows = [
            (int(float(row["time/total_timesteps"])), float(row["vgs/scaling_factor"]))
            for row in csv.DictReader(file)
            if row.get("vgs/scaling_factor") and row.get("time/total_timesteps")
        ]
    finite = [(step, factor) for step, factor in rows if math.isfinite(factor)]
    return [step for step, _ in finite], [factor for _, factor in finite]
