"""Learning curves of a study's cells on a common grid of steps, without a look ahead and without invented points."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from sb3_vgs_ppo._alarms import ALARMS_FILE, Alarm, read_alarms
from sb3_vgs_ppo.errors import StudyError
from sb3_vgs_ppo.studies.coverage import CALIBRATION_FILE, Shares, read_coverage
from sb3_vgs_ppo.studies.definition import Cell
from sb3_vgs_ppo.studies.episodes import Episodes, read_episodes
from sb3_vgs_ppo.studies.statistics import FloatArray
from sb3_vgs_ppo.studies.store import Completion, StudyStore
from sb3_vgs_ppo.studies.wording import METRICS

IntArray = npt.NDArray[np.int64]

RETURN = "return"
"""Metric: mean return of the last :data:`WINDOW` training episodes."""

WINDOW = 20
"""Episodes in a mean return; the evidence on continual tasks was measured with as many."""

LOGGED_METRICS = tuple(name for name in METRICS if name != RETURN)
"""Metrics that are read from ``progress.csv``, where a run has them."""

_STEPS = "time/total_timesteps"


class Logged(NamedTuple):
    """
    Values of one metric in the order in which they were logged.

    :param steps: environment steps, (rows,)
    :param values: finite, (rows,)
    """

    steps: IntArray
    values: FloatArray


_NOTHING = Logged(np.empty(0, dtype=np.int64), np.empty(0))


@dataclass(frozen=True)
class CellRecord:
    """
    What a done cell left behind. Steps are those of the agent: a cell that trains on another cell's agent counts on
    from there, and has the other's episodes, values and alarms until then.

    :param completion: what its mark says
    :param episodes: training episodes
    :param logged: logged metrics by name, those that the cell logged
    :param means: mean of each logged metric over the cell's own training, without that of its parent
    :param config: its ``config.json``
    :param alarms: changes that it noticed, None where it did not test for any
    :param coverage: predicted against realised returns of the trained agent, None where there are none
    """

    completion: Completion
    episodes: Episodes
    logged: Mapping[str, Logged]
    means: Mapping[str, float]
    config: Mapping[str, Any]
    alarms: tuple[Alarm, ...] | None
    coverage: Shares | None

    def curves(self, grid: IntArray) -> dict[str, FloatArray]:
        """
        :param grid: steps, shape (points,)
        :return: by metric its values at these steps, NaN before the first one; shape (points,)
        """
        logged = {name: last_values(metric, grid) for name, metric in self.logged.items()}
        return {RETURN: recent_returns(self.episodes, grid), **logged}


def step_grid(total_timesteps: int, n_points: int = 200) -> IntArray:
    """
    :param total_timesteps: environment steps of a cell
    :param n_points: points, evenly spaced; fewer where there are fewer steps
    :return: ascending steps of which the last is ``total_timesteps``. 0 is not among them: nothing has ended there
    """
    points = np.linspace(0, total_timesteps, n_points + 1)[1:]
    grid: IntArray = np.unique(np.rint(points[points >= 1]).astype(np.int64))
    return grid


def recent_returns(episodes: Episodes, grid: IntArray) -> FloatArray:
    """
    :param episodes: training episodes
    :param grid: steps, shape (points,)
    :return: mean return of the last :data:`WINDOW` episodes that had ended at each step (of fewer, where fewer had),
        NaN before the first; shape (points,)
    """
    ends = np.searchsorted(episodes.steps, grid, side="right")
    return _window_means(episodes.rewards, np.zeros_like(ends), ends)


def phase_returns(episodes: Episodes, phase_length: int, n_phases: int) -> FloatArray:
    """
    :param episodes: training episodes
    :param phase_length: environment steps of a phase
    :param n_phases: phases
    :return: per phase the mean return of the last :data:`WINDOW` episodes that ended in it (of fewer, where fewer did),
        NaN where none did; shape (phases,). The step that completes a phase belongs to it
    """
    borders = np.searchsorted(episodes.steps, np.arange(n_phases + 1) * phase_length, side="right")
    return _window_means(episodes.rewards, borders[:-1], borders[1:])


def last_values(logged: Logged, grid: IntArray) -> FloatArray:
    """
    A step function: what was logged stays until the next value is.

    :param logged: values of a metric
    :param grid: steps, shape (points,)
    :return: the last value that had been logged at each step, NaN before the first; shape (points,)
    """
    rows = np.searchsorted(logged.steps, grid, side="right")
    return np.concatenate([[np.nan], logged.values])[rows]


def read_records(store: StudyStore) -> dict[Cell, CellRecord]:
    """
    :return: what the done cells left behind, in the order of the study
    :raises StudyError: a cell's files are not those of its mark, or cannot be read, or it trains on the agent of a cell
        that is not done
    """
    own = {cell: record for cell in store.study.cells() if (record := _read_cell(store, cell)) is not None}
    return {cell: _with_parent(store, cell, own) for cell in own}


def _read_cell(store: StudyStore, cell: Cell) -> CellRecord | None:
    completion = store.completion(cell)
    if completion is None:
        return None
    folder = store.folder(cell)
    try:
        logged = _read_progress(folder / "progress.csv")
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return CellRecord(
            completion=completion,
            episodes=read_episodes(folder / "monitor"),
            logged=logged,
            means={name: float(metric.values.mean()) for name, metric in logged.items()},
            config=config,
            alarms=tuple(read_alarms(folder / ALARMS_FILE)) if _tests_for_changes(config) else None,
            coverage=read_coverage(folder / CALIBRATION_FILE),
        )
    except (OSError, ValueError, KeyError) as error:
        raise StudyError(
            f"{folder} cannot be read: {type(error).__name__}: {error}; "
            f"remedy: remove {folder}, and compare trains the cell again"
        ) from None


def _read_progress(path: Path) -> dict[str, Logged]:
    """:return: metrics with at least one finite value; a run that diverged in its first rollout has no table"""
    if not path.exists() or path.stat().st_size == 0:
        return {}
    wanted = {_STEPS, *LOGGED_METRICS}
    table = pd.read_csv(path, usecols=lambda name: name in wanted, dtype=np.float64)
    steps = table[_STEPS].to_numpy().astype(np.int64)
    logged = {}
    for name in LOGGED_METRICS:
        if name in table:
            values = table[name].to_numpy()
            finite = np.isfinite(values)
            if finite.any():
                logged[name] = Logged(steps[finite], values[finite])
    return logged


def _tests_for_changes(config: Mapping[str, Any]) -> bool:
    return bool(config["options"].get("on_change", "none") != "none")


def _with_parent(store: StudyStore, cell: Cell, own: Mapping[Cell, CellRecord]) -> CellRecord:
    """:return: the cell's record with what its parent did before"""
    record, parent_cell = own[cell], store.study.parent(cell)
    if parent_cell is None:
        return record
    if parent_cell not in own:
        raise StudyError(f"{cell} trains on the agent of {parent_cell}, which is not done; remedy: run compare again")
    parent, first_step = own[parent_cell], record.completion.first_step
    episodes = _continued(
        (parent.episodes.steps, parent.episodes.rewards), (record.episodes.steps, record.episodes.rewards), first_step
    )
    logged = {
        name: Logged(*_continued(parent.logged.get(name, _NOTHING), record.logged.get(name, _NOTHING), first_step))
        for name in LOGGED_METRICS
        if name in parent.logged or name in record.logged
    }
    alarms = record.alarms
    if alarms is not None:
        before = [alarm for alarm in parent.alarms or () if alarm.step <= first_step]
        alarms = (*before, *(replace(alarm, step=alarm.step + first_step) for alarm in alarms))
    return replace(record, episodes=Episodes(*episodes), logged=logged, alarms=alarms)


def _continued(
    before: tuple[IntArray, FloatArray], after: tuple[IntArray, FloatArray], first_step: int
) -> tuple[IntArray, FloatArray]:
    """:return: steps and values of the first until ``first_step``, and those of the second counted on from there"""
    (steps, values), (later_steps, later_values) = before, after
    until = int(np.searchsorted(steps, first_step, side="right"))
    return np.concatenate([steps[:until], later_steps + first_step]), np.concatenate([values[:until], later_values])


def _window_means(values: FloatArray, begins: npt.NDArray[np.intp], ends: npt.NDArray[np.intp]) -> FloatArray:
    """:return: mean of ``values[begin:end]``, of its last :data:`WINDOW` at most; NaN of none"""
    windows = [values[max(begin, end - WINDOW) : end] for begin, end in zip(begins, ends, strict=True)]
    return np.array([window.mean() if len(window) else np.nan for window in windows])
