"""``curve.png``: the learning curve of one run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sb3_vgs_ppo.runs.episodes import Episodes
from sb3_vgs_ppo.runs.evaluation import Evaluation

_TRAINING = "#4477aa"
_EVALUATION = "#cc3311"


def draw_curve(path: Path, title: str, episodes: Episodes, evaluations: Sequence[Evaluation]) -> None:
    """
    Draw returns over environment steps: every training episode, their running mean, and the evaluations.

    :param path: PNG file to write
    :param evaluations: may be empty, as may the episodes
    """
    # The Agg canvas by name: pyplot would choose a backend and keep the figure in global state
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if len(episodes):
        # A twentieth of the run: SB3's 100 episodes would lag far behind where a run has only a few hundred
        window = min(max(len(episodes) // 20, 10), 100)
        axes.plot(
            episodes.steps, episodes.rewards, ".", color=_TRAINING, alpha=0.4, ms=4, mew=0, label="training episode"
        )
        smoothed = running_mean(episodes.rewards, window)
        axes.plot(episodes.steps, smoothed, color=_TRAINING, lw=1.8, label=f"mean of last {window} episodes")
    if evaluations:
        axes.errorbar(
            [evaluation.step for evaluation in evaluations],
            [evaluation.mean_reward for evaluation in evaluations],
            [evaluation.std_reward for evaluation in evaluations],
            color=_EVALUATION,
            fmt="o-",
            ms=4,
            lw=1.2,
            capsize=3,
            label="evaluation (mean ± sd)",
        )
    axes.set(title=title, xlabel="environment steps", ylabel="episode return", xlim=(0, None))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    if axes.has_data():
        axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def running_mean(values: npt.NDArray[np.float64], window: int) -> npt.NDArray[np.float64]:
    """
    :param values: (n,)
    :return: mean of each value and up to ``window - 1`` before it, (n,)
    """
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))
