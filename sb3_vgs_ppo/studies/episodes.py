"""Training episodes of a run, from the files of SB3's ``Monitor``."""

from __future__ import annotations

import csv
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
        step whenever each of them has
    """
    files = sorted(folder.glob("*.monitor.csv"))
    steps: list[int] = []
    rewards: list[float] = []
    for path in files:
        steps_of_env = 0
        with path.open(newline="", encoding="utf-8") as file:
            file.readline()  # a comment: start time and environment
            for row in csv.DictReader(file):
                steps_of_env += int(row["l"])
                steps.append(steps_of_env * len(files))
                rewards.append(float(row["r"]))
    order = np.argsort(np.array(steps, dtype=np.int64), kind="stable")
    return Episodes(np.array(steps, dtype=np.int64)[order], np.array(rewards, dtype=np.float64)[order])
