"""What alarms found: which changes of the task, how late, and what else they were raised for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from sb3_vgs_ppo._alarms import Alarm
from sb3_vgs_ppo.envs import phase_of
from sb3_vgs_ppo.studies.results import Detection


class JudgedAlarm(NamedTuple):
    """
    :param delay: steps since the change that the alarm found, None if it found none
    """

    alarm: Alarm
    delay: int | None


def judge_alarms(alarms: Iterable[Alarm], phase_length: int | None) -> tuple[JudgedAlarm, ...]:
    """
    The first alarm in the first half of a phase finds the change that the phase begins with; all others find nothing.

    :param alarms: of one cell, in their order
    :param phase_length: steps of a phase, None where the task stays
    """
    judged = []
    found = {0}  # nothing changes before the first phase
    for alarm in alarms:
        phase = phase_of(alarm.step, phase_length)
        delay = alarm.step - phase * (phase_length or 0)
        if phase in found or delay > (phase_length or 0) / 2:
            judged.append(JudgedAlarm(alarm, None))
        else:
            found.add(phase)
            judged.append(JudgedAlarm(alarm, delay))
    return tuple(judged)


def detection(n_changes: int, judged: Sequence[JudgedAlarm]) -> Detection:
    """
    :param n_changes: changes of the task that the cells of a variant trained through, all together
    :param judged: alarms of all these cells
    """
    delays = [one.delay for one in judged if one.delay is not None]
    return Detection(
        n_changes=n_changes,
        n_found=len(delays),
        median_delay=float(np.median(delays)) if delays else None,
        largest_delay=max(delays, default=None),
        n_other_alarms=len(judged) - len(delays),
    )
