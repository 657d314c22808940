"""The numbers of one cell: what its curve comes down to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sb3_vgs_ppo.envs import phase_of
from sb3_vgs_ppo.studies.curves import RETURN, CellRecord, IntArray, phase_returns, recent_returns
from sb3_vgs_ppo.studies.detection import JudgedAlarm, judge_alarms
from sb3_vgs_ppo.studies.statistics import FloatArray, area_under_curve, first_step_to


@dataclass(frozen=True)
class CellScores:
    """
    NaN stands for what a cell does not have: a return before its first episode has ended, an evaluation if it diverged.

    :param curves: by metric its values on the grid
    :param final: mean return of the last 20 training episodes at the end of the grid. A cell trains on to the end of
        its rollout; what it does there is left out, so that variants whose rollouts differ in length are compared at
        the same step
    :param evaluation: mean return of the final evaluation
    :param area: area under the curve of returns, divided by its length
    :param phases: per phase the mean return of its last 20 episodes, empty where the task stays. A cell that diverged
        has the last value that it reached in the phases after that
    :param late_phases: mean over the second half of the phases, without those in which no episode ended
    :param threshold_step: first step of the grid at which the curve of returns reaches the threshold, else infinite
    :param n_changes: changes of the task that the cell trained through
    :param alarms: until the end of the grid, None where the cell does not test for changes
    """

    curves: Mapping[str, FloatArray]
    final: float
    evaluation: float
    area: float
    phases: FloatArray
    late_phases: float
    threshold_step: float
    n_changes: int
    alarms: tuple[JudgedAlarm, ...] | None


def score_cell(record: CellRecord, grid: IntArray, phase_length: int | None, threshold: float | None) -> CellScores:
    """
    :param record: what the cell left behind
    :param grid: common steps, the last one being the end
    :param phase_length: steps of a phase, None where the task stays. Phases that end after the grid do not count
    :param threshold: return that is to be reached
    """
    curves = record.curves(grid)
    returns, end = curves[RETURN], int(grid[-1])
    phases = np.empty(0) if phase_length is None else _phases(record, phase_length, end // phase_length)
    late = phases[len(phases) // 2 :]
    late = late[~np.isnan(late)]
    evaluation = record.completion.final_return
    alarms = None if record.alarms is None else [alarm for alarm in record.alarms if alarm.step <= end]
    return CellScores(
        curves=curves,
        final=float(returns[-1]),
        evaluation=math.nan if evaluation is None else evaluation,
        area=area_under_curve(grid, returns),
        phases=phases,
        late_phases=float(late.mean()) if len(late) else math.nan,
        threshold_step=math.inf if threshold is None else first_step_to(grid, returns, threshold),
        n_changes=phase_of(min(record.completion.num_timesteps, end), phase_length),
        alarms=None if alarms is None else judge_alarms(alarms, phase_length),
    )


def _phases(record: CellRecord, length: int, n_phases: int) -> FloatArray:
    phases = phase_returns(record.episodes, length, n_phases)
    if record.completion.state == "diverged":
        reached = recent_returns(record.episodes, np.arange(1, n_phases + 1) * length)
        phases = np.where(np.isnan(phases), reached, phases)
    return phases
