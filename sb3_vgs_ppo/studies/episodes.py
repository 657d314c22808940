"""Training episodes of a run, from the files of SB3's ``Monitor``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Episodes:
    """
    Finished training episodes in the order in which they ended.

    :param steps: environment steps over all environments when the episode ended, (episodes,)
    :param rewards: sum of each episode's rewards, (episodes,)
    """

    steps: npt.NDArray[np.int64]
    rewards: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.steps)


def read_episodes(folder: Path) -> Episodes:
    """
    :param folder: folder with one ``<i>.monitor.csv`` per environment. They step together, so environment i has made a
        step whenever each of them has. An episode that a checkpoint cut off has a length there and NaN for its return:
        it counts for the steps of the later ones
    """
    tables = [_read_monitor(path) for path in sorted(folder.glob("*.monitor.csv"))]
    if not tables:
        return Episodes(np.empty(0, dtype=np.int64), np.empty(0))
    steps = np.concatenate([np.cumsum(table[:, 1].astype(np.int64)) for table in tables]) * len(tables)
    rewards = np.concatenate([table[:, 0] for table in tables])
    order = np.argsort(steps, kind="stable")
    finished = order[~np.isnan(rewards[order])]
    return Episodes(steps[finished], rewards[finished])


def _read_monitor(path: Path) -> npt.NDArray[np.float64]:
    """:return: rewards and lengths of the episodes, (episodes, 2)"""
    # The first line is a comment (start time and environment), the second names the columns r, l, t
    lines = path.read_text(encoding="utf-8").splitlines()[2:]
    if not lines:
        return np.empty((0, 2))  # loadtxt warns of nothing to read
    return np.loadtxt(lines, delimiter=",", usecols=(0, 1), ndmin=2)
