"""Alarms of a run, and the file ``changes.jsonl`` that keeps them: one line of JSON each."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

ALARMS_FILE = "changes.jsonl"
"""Name of the file in a run folder; there is none while nothing has been noticed."""


@dataclass(frozen=True)
class Alarm:
    """
    A change that was noticed.

    :param step: environment steps at the end of the rollout that showed it
    :param shortfall: see :class:`~sb3_vgs_ppo.change.surprise.Surprise`
    :param pit: likewise
    :param p_value: see :class:`~sb3_vgs_ppo.change.chart.Verdict`
    :param responses: names of what was done
    """

    step: int
    shortfall: float
    pit: float
    p_value: float
    responses: list[str]


def append_alarm(path: Path, alarm: Alarm) -> None:
    """Write an alarm as the last line of a file, which is made where it is missing."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(alarm)) + "\n")


def read_alarms(path: Path) -> list[Alarm]:
    """
    :return: alarms in their order, none where there is no file
    :raises OSError: the file cannot be read
    :raises ValueError: a line is no alarm
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        return [Alarm(**json.loads(line)) for line in lines]
    except TypeError as error:
        raise ValueError(f"{path.name} holds something else than alarms: {error}") from None
