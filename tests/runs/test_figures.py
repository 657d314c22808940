from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sb3_vgs_ppo._alarms import Alarm
from sb3_vgs_ppo.runs.evaluation import Evaluation
from sb3_vgs_ppo.runs.figures import draw_curve, smoothed
from sb3_vgs_ppo.studies.episodes import Episodes

NONE = Episodes(np.zeros(0, np.int64), np.zeros(0))
SOME = Episodes(np.arange(10, 60, 10), np.array([1.0, 5.0, 2.0, 8.0, 3.0]))
EVALUATIONS = [Evaluation(20, (1.0, 3.0), (4, 4)), Evaluation(40, (6.0, 8.0), (4, 4))]


def coloured(path: Path, colour: tuple[int, int, int]) -> int:
    """Pixels of about this colour."""
    from matplotlib.image import imread

    pixels = imread(path)[..., :3] * 255
    return int((np.abs(pixels - np.array(colour)).max(axis=-1) < 12).sum())


def test_smoothing_by_hand() -> None:
    episodes = Episodes(np.array([10, 20, 20, 30]), np.array([2.0, 4.0, 6.0, 0.0]))
    steps, means = smoothed(episodes, 2)
    assert steps.tolist() == [10, 20, 30]
    assert means.tolist() == [2.0, 5.0, 3.0]  # 2; (4 + 6) / 2; (6 + 0) / 2
    assert smoothed(episodes, 10)[1].tolist() == [2.0, 4.0, 3.0]


@pytest.mark.parametrize(
    ("episodes", "evaluations", "blue", "red"),
    [
        (SOME, EVALUATIONS, True, True),
        (SOME, [], True, False),
        (NONE, EVALUATIONS, False, True),
        (NONE, [], False, False),
    ],
)
def test_a_curve_shows_what_there_is(
    episodes: Episodes, evaluations: list[Evaluation], blue: bool, red: bool, tmp_path: Path
) -> None:
    path = tmp_path / "curve.png"
    draw_curve(path, "CartPole-v1", episodes, evaluations)
    assert (coloured(path, (0x44, 0x77, 0xAA)) > 200) is blue
    assert (coloured(path, (0xCC, 0x33, 0x11)) > 200) is red


def test_a_curve_shows_where_a_change_was_noticed(tmp_path: Path) -> None:
    path = tmp_path / "curve.png"
    purple = []
    for steps in ((), (20,), (20, 40)):
        draw_curve(path, "CartPole-v1", SOME, [], [Alarm(step, 1.0, 0.1, 1e-4, []) for step in steps])
        purple.append(coloured(path, (0xAA, 0x33, 0x77)))
    assert purple[0] == 0
    assert purple[2] > 1.4 * purple[1] > 0  # one is in the legend
