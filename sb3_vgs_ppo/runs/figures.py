"""``curve.png``: the learning curve of one run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sb3_vgs_ppo._alarms import Alarm
from sb3_vgs_ppo.runs.evaluation import Evaluation
from sb3_vgs_ppo.studies.episodes import Episodes

_TRAINING = "#4477aa"
_EVALUATION = "#cc3311"
_ALARM = "#aa3377"


def draw_curve(
    path: Path, title: str, episodes: Episodes, evaluations: Sequence[Evaluation], alarms: Sequence[Alarm] = ()
) -> None:
    """
    Draw returns over environment steps: every training episode, their running mean, the evaluations, and where a change
    was noticed.

    :param path: PNG file to write
    :param evaluations: may be empty, as may the episodes
    :param alarms: changes that were noticed, none by default
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
        axes.plot(*smoothed(episodes, window), color=_TRAINING, lw=1.8, label=f"mean of last {window} episodes")
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
    if alarms:
        axes.plot(
            [alarm.step for alarm in alarms],
            np.zeros(len(alarms)),
            "^",
            color=_ALARM,
            ms=6,
            transform=axes.get_xaxis_transform(),
            clip_on=False,
            label="change noticed",
        )
    axes.set(title=title, xlabel="environment steps", ylabel="episode return", xlim=(0, None))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    if axes.has_data():
        axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def smoothed(episodes: Episodes, window: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """
    :param episodes: at least one
    :return: the steps at which episodes ended, each once, and the mean return of the last ``window`` episodes there
    """
    sums = np.concatenate([[0.0], np.cumsum(episodes.rewards)])
    ends = np.flatnonzero(np.append(np.diff(episodes.steps), 1)) + 1  # the last of those that ended at the same step
    starts = np.maximum(ends - window, 0)
    return episodes.steps[ends - 1], (sums[ends] - sums[starts]) / (ends - starts)
