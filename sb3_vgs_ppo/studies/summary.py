"""From the folder of a study to what it found: every number of a report is computed here, before anything is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pandas as pd

from sb3_vgs_ppo._hints import did_you_mean
from sb3_vgs_ppo.errors import StudyError
from sb3_vgs_ppo.studies.coverage import coverage
from sb3_vgs_ppo.studies.curves import LOGGED_METRICS, CellRecord, IntArray, read_records, step_grid
from sb3_vgs_ppo.studies.definition import Cell, Study
from sb3_vgs_ppo.studies.detection import detection
from sb3_vgs_ppo.studies.results import Comparison, Detection, EnvironmentResult, Estimate, StudyResult, VariantResult
from sb3_vgs_ppo.studies.scores import CellScores, score_cell
from sb3_vgs_ppo.studies.statistics import (
    FloatArray,
    difference_interval,
    holm,
    iqm,
    iqm_interval,
    mann_whitney_p,
    probability_interval,
    probability_of_improvement,
    stratified_interval,
)
from sb3_vgs_ppo.studies.store import StudyStore

T = TypeVar("T")

MEASURES: Mapping[str, Callable[[CellScores], float]] = {
    "final": lambda scores: scores.final,
    "area": lambda scores: scores.area,
    "late_phases": lambda scores: scores.late_phases,
}
"""What variants are compared by: fields of :class:`~sb3_vgs_ppo.studies.results.VariantResult`."""


def summarize(store: StudyStore, *, variants: Sequence[str] | None = None, baseline: str | None = None) -> StudyResult:
    """
    :param store: a study, whether all of its cells are done or not
    :param variants: names of those to show, all by default; the others do not enter any number
    :param baseline: the variant that the shown ones are compared with, that of the study by default
    :return: what the done cells found
    :raises StudyError: a name that the study does not have, no cell is done, or one cannot be read
    """
    study = store.study
    names, baseline = _shown(study, variants, baseline)
    records = {cell: record for cell, record in read_records(store).items() if cell.variant in names}
    if not records:
        raise StudyError(f"{store.path} has no finished cell; remedy: run compare until one is done")
    grids = {env_id: step_grid(study.steps(env_id)) for env_id in study.env_ids}
    scores = {
        cell: score_cell(record, grids[cell.env_id], study.phase_length(cell.env_id), study.thresholds.get(cell.env_id))
        for cell, record in records.items()
    }
    comparisons = _holm_corrected(
        [found for env_id in study.env_ids for found in _compare(names, baseline, env_id, scores)]
    )
    return StudyResult(
        baseline=baseline,
        seeds=study.seeds,
        n_cells=sum(cell.variant in names for cell in study.cells()),
        n_done=len(records),
        environments=tuple(
            EnvironmentResult(
                env_id=env_id,
                total_timesteps=study.steps(env_id),
                phase_length=study.phase_length(env_id),
                threshold=study.thresholds.get(env_id),
                variants=tuple(
                    _variant(name, study, _of(records, env_id, name), _of(scores, env_id, name)) for name in names
                ),
                comparisons=tuple(found for found in comparisons if found.env_id == env_id),
                bands=_bands(names, env_id, scores, grids[env_id]),
            )
            for env_id in study.env_ids
        ),
        normalized=_normalized(study.env_ids, names, scores) if len(study.env_ids) > 1 else {},
        versions=_versions(records.values()),
        curves=_curves(scores, grids),
        alarms=_alarms(scores),
    )


def _shown(study: Study, variants: Sequence[str] | None, baseline: str | None) -> tuple[list[str], str]:
    """:return: names of the variants to show, in the study's order, and of the one that they are compared with"""
    known = [variant.name for variant in study.variants]
    baseline = baseline or study.baseline
    wanted = {*(variants or known), baseline}
    for name in sorted(wanted):
        if name not in known:
            raise StudyError(f"variant {name!r} is not in the study; {did_you_mean(name, known)}")
    return [name for name in known if name in wanted], baseline


def _of(cells: Mapping[Cell, T], env_id: str, variant: str) -> list[T]:
    return [found for cell, found in cells.items() if (cell.env_id, cell.variant) == (env_id, variant)]


def _variant(name: str, study: Study, records: Sequence[CellRecord], scores: Sequence[CellScores]) -> VariantResult:
    n_diverged = sum(record.completion.state == "diverged" for record in records)
    reached = [score.threshold_step for score in scores]
    median = float(np.median(reached)) if reached else math.inf
    speeds = [record.completion.steps_per_second for record in records]
    seconds = [record.completion.num_timesteps / speed for record, speed in zip(records, speeds, strict=True) if speed]
    phases = np.array([score.phases for score in scores])
    return VariantResult(
        variant=name,
        n_seeds=len(study.seeds),
        n_finished=len(records) - n_diverged,
        n_diverged=n_diverged,
        final=_estimate(score.final for score in scores),
        evaluation=_estimate(score.evaluation for score in scores),
        area=_estimate(score.area for score in scores),
        phases=tuple(_estimate(phase) or Estimate(math.nan, None, None, 0) for phase in phases.T),
        late_phases=_estimate(score.late_phases for score in scores),
        threshold_step=median if math.isfinite(median) else None,
        n_threshold=sum(map(math.isfinite, reached)),
        wall_seconds=_mean(seconds),
        steps_per_second=_mean([speed for speed in speeds if speed]),
        detection=_detection(scores),
        coverage=coverage((record.coverage for record in records), _estimate),
        diagnostics={
            metric: _mean([record.means[metric] for record in records if metric in record.means])
            for metric in LOGGED_METRICS
        },
    )


def _detection(scores: Iterable[CellScores]) -> Detection | None:
    tested = [(score.n_changes, score.alarms) for score in scores if score.alarms is not None]
    if not tested:
        return None
    return detection(sum(n_changes for n_changes, _ in tested), [one for _, alarms in tested for one in alarms])


def _estimate(values: Iterable[float]) -> Estimate | None:
    """:return: IQM and interval of the values that are not NaN, None of none"""
    known = _known(values)
    if not len(known):
        return None
    low, high = _ends(iqm_interval(known))
    return Estimate(float(iqm(known)), low, high, len(known))


def _known(values: Iterable[float]) -> FloatArray:
    return np.array([value for value in values if not math.isnan(value)])


def _ends(interval: tuple[FloatArray | float, FloatArray | float] | None) -> tuple[float | None, float | None]:
    return (None, None) if interval is None else (float(interval[0]), float(interval[1]))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _compare(names: Sequence[str], baseline: str, env_id: str, scores: Mapping[Cell, CellScores]) -> list[Comparison]:
    """:return: all comparisons in one environment, with uncorrected p-values in both places"""
    found = []
    for measure, score in MEASURES.items():
        samples = {name: _known(map(score, _of(scores, env_id, name))) for name in names}
        y = samples.pop(baseline)
        for name, x in samples.items():
            if len(x) and len(y):
                # As many seeds as the smaller of the two samples has
                n = min(len(x), len(y))
                difference = Estimate(float(iqm(x) - iqm(y)), *_ends(difference_interval(x, y)), n)
                probability = Estimate(probability_of_improvement(x, y), *_ends(probability_interval(x, y)), n)
                p = mann_whitney_p(x, y)
                found.append(Comparison(env_id, name, baseline, measure, difference, probability, p, p))
    return found


def _holm_corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """:return: the comparisons, those of one measure corrected together"""
    corrected = []
    for measure in MEASURES:
        family = [comparison for comparison in comparisons if comparison.measure == measure]
        p_values = holm([comparison.p_value for comparison in family])
        corrected += [replace(comparison, p_holm=p) for comparison, p in zip(family, p_values, strict=True)]
    return corrected


def _bands(names: Sequence[str], env_id: str, scores: Mapping[Cell, CellScores], grid: IntArray) -> pd.DataFrame:
    bands = [
        _band(name, metric, grid, np.array(curves))
        for name in names
        for metric, curves in _curves_by_metric(_of(scores, env_id, name)).items()
    ]
    empty = pd.DataFrame(columns=["variant", "metric", "step", "n", "value", "low", "high"])
    return pd.concat(bands, ignore_index=True) if bands else empty


def _curves_by_metric(scores: Sequence[CellScores]) -> dict[str, list[FloatArray]]:
    curves: dict[str, list[FloatArray]] = {}
    for score in scores:
        for metric, values in score.curves.items():
            curves.setdefault(metric, []).append(values)
    return curves


def _band(variant: str, metric: str, grid: IntArray, curves: FloatArray) -> pd.DataFrame:
    """
    :param curves: shape (cells, points), NaN where a cell has no value yet
    :return: IQM and interval over the cells that have a value, at the steps where one has
    """
    counts = (~np.isnan(curves)).sum(axis=0)
    ordered = np.sort(curves, axis=0)  # NaN comes last
    value, low, high = np.full((3, len(grid)), np.nan)
    for n in np.unique(counts[counts > 0]):
        points = counts == n
        known = ordered[:n, points]
        value[points] = iqm(known, axis=0)
        interval = iqm_interval(known)
        if interval is not None:
            low[points], high[points] = interval
    columns = {"step": grid, "n": counts, "value": value, "low": low, "high": high}
    known_columns = {name: column[counts > 0] for name, column in columns.items()}
    return pd.DataFrame({"variant": variant, "metric": metric, **known_columns})


def _normalized(env_ids: Sequence[str], names: Sequence[str], scores: Mapping[Cell, CellScores]) -> dict[str, Estimate]:
    """:return: scaled areas of the variants that have a cell in every environment"""
    strata: dict[str, list[FloatArray]] = {name: [] for name in names}
    for env_id in env_ids:
        areas = {name: _known(score.area for score in _of(scores, env_id, name)) for name in strata}
        everything = np.concatenate(list(areas.values()))
        if not len(everything):
            return {}
        worst, best = everything.min(), everything.max()
        for name, values in areas.items():
            # Where all cells are equal none is better than another
            strata[name].append((values - worst) / (best - worst) if best > worst else np.full(len(values), 0.5))
    return {
        name: Estimate(
            float(iqm(np.concatenate(of_variant))), *_ends(stratified_interval(of_variant)), min(map(len, of_variant))
        )
        for name, of_variant in strata.items()
        if all(map(len, of_variant))
    }


def _versions(records: Iterable[CellRecord]) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    for record in records:
        for start in (record.config, *record.config.get("resumptions", ())):
            for package, version in start["versions"].items():
                found.setdefault(package, set()).add(version)
        git = record.config["git"]
        if git is not None:
            found.setdefault("commit", set()).add(git["commit"] + (" (modified)" if git["modified"] else ""))
    return {name: tuple(sorted(versions)) for name, versions in found.items()}


def _curves(scores: Mapping[Cell, CellScores], grids: Mapping[str, IntArray]) -> pd.DataFrame:
    frames = []
    for cell, score in scores.items():
        for metric, values in score.curves.items():
            columns = {"env_id": cell.env_id, "variant": cell.variant, "seed": cell.seed, "step": grids[cell.env_id]}
            frames.append(pd.DataFrame({**columns, "metric": metric, "value": values}))
    return pd.concat(frames, ignore_index=True).dropna(subset="value", ignore_index=True)


def _alarms(scores: Mapping[Cell, CellScores]) -> pd.DataFrame:
    rows = [
        {**vars(cell), **vars(alarm), "delay": delay, "responses": "+".join(alarm.responses)}
        for cell, score in scores.items()
        for alarm, delay in score.alarms or ()
    ]
    columns = ["env_id", "variant", "seed", "step", "delay", "shortfall", "pit", "p_value", "responses"]
    return pd.DataFrame(rows, columns=columns).astype({"delay": "Int64"})
