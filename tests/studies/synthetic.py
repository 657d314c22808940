"""A study's result made up from smooth random curves: what verdicts, figures and the report are tested with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from sb3_vgs_ppo.studies.results import (
    Comparison,
    Coverage,
    Detection,
    EnvironmentResult,
    Estimate,
    StudyResult,
    VariantResult,
)
from sb3_vgs_ppo.studies.verdicts import smallest_p

BASELINE = "sb3-ppo"
ALARM_COLUMNS = ("env_id", "variant", "seed", "step", "delay", "shortfall", "pit", "p_value", "responses")
DIAGNOSTICS = ("vgs/scaling_factor", "vgs/normalized_variance", "vgs/clip_fraction", "vgs/update_ratio")
FIVE = (BASELINE, "adam+vgs-1.0", "adam+vgs-3.0", "upgd+vgs-off", "upgd+vgs-3.0")
SIXTEEN = (BASELINE, *(f"{name}+vgs-{v}" for name in ("adam", "upgd", "adaptive") for v in ("off", 1.0, 2.0, 3.0, 3.1)))


@dataclass(frozen=True)
class Task:
    """:param best: return that a perfect agent has"""

    env_id: str
    total_timesteps: int
    best: float
    phase_length: int | None = None
    threshold: float | None = None


CARTPOLE = Task("CartPole-v1", 100_000, 500.0, threshold=475.0)
CONTINUAL = Task("ContinualCartPole-v0", 480_000, 500.0, phase_length=40_000)
PENDULUM = Task("Pendulum-v1", 150_000, -150.0)


def make_study(
    tasks: Sequence[Task] = (CARTPOLE, CONTINUAL, PENDULUM),
    variants: Sequence[str] = FIVE,
    n_seeds: int = 5,
    *,
    points: int = 120,
    metrics: Sequence[str] = DIAGNOSTICS,
    missing: int = 0,
    tested: Sequence[str] = (),
    calibrated: Sequence[str] = (),
) -> StudyResult:
    """
    The second variant is clearly better than the others, the last one worse, with one diverged cell on the first task.

    :param points: of the common step grid
    :param metrics: curves beside the return
    :param missing: cells that are said to be missing
    :param tested: variants that test for changes. Each seed finds all of them but the first, and raises one alarm else
    :param calibrated: variants whose critics predict distributions
    """
    rng = np.random.default_rng(0)
    n_compared = len(tasks) * (len(variants) - 1)
    made = [
        _environment(task, variants, n_seeds, points, metrics, rng, n_compared, diverged=task is tasks[0])
        for task in tasks
    ]
    alarms = [_alarms(task, name, seed) for task in tasks for name in tested for seed in range(n_seeds)]
    n_cells = len(tasks) * len(variants) * n_seeds
    overall = {name: Estimate(0.9 - 0.05 * rank, None, None, n_seeds) for rank, name in enumerate(variants)}
    if n_seeds > 1:
        overall = {
            name: replace(found, low=found.value - 0.02, high=found.value + 0.02) for name, found in overall.items()
        }
    return StudyResult(
        baseline=variants[0],
        seeds=tuple(range(n_seeds)),
        n_cells=n_cells,
        n_done=n_cells - missing,
        environments=tuple(
            _with_coverage(_with_detection(environment, tested, n_seeds), calibrated, n_seeds)
            for environment, _ in made
        ),
        normalized=overall if len(tasks) > 1 else {},
        versions={"sb3-vgs-ppo": ("0.1.0",), "torch": ("2.13.0",), "commit": ("0123abc", "4567def")},
        curves=pd.concat([curves for _, curves in made], ignore_index=True),
        alarms=pd.concat(alarms, ignore_index=True) if alarms else pd.DataFrame(columns=ALARM_COLUMNS),
    )


def estimate(values: npt.ArrayLike) -> Estimate:
    """Mean and two standard errors: enough to draw."""
    array = np.asarray(values, dtype=float)
    if len(array) == 1:
        return Estimate(float(array[0]), None, None, 1)
    half = 2 * array.std(ddof=1) / np.sqrt(len(array))
    return Estimate(float(array.mean()), float(array.mean() - half), float(array.mean() + half), len(array))


def _environment(
    task: Task,
    names: Sequence[str],
    n_seeds: int,
    points: int,
    metrics: Sequence[str],
    rng: np.random.Generator,
    n_compared: int,
    *,
    diverged: bool,
) -> tuple[EnvironmentResult, pd.DataFrame]:
    steps = np.linspace(0, task.total_timesteps, points + 1, dtype=int)[1:]
    frames, by_variant, finals = [], {}, {}
    for rank, name in enumerate(names):
        returns = _returns(
            task, steps, n_seeds, quality=1.15 if rank == 1 else 1 - 0.5 * (rank == len(names) - 1), rng=rng
        )
        finals[name] = returns[:, -1]
        logged = {"return": returns}
        for metric in metrics:
            if metric != "vgs/scaling_factor" or rank:  # the baseline has no VGS
                logged[metric] = _logged(metric, rank, (n_seeds, points), rng)
        frames += [
            _frame(task, name, seed, steps, metric, values[seed])
            for metric, values in logged.items()
            for seed in range(n_seeds)
        ]
        by_variant[name] = _variant(task, name, logged, n_seeds, diverged=diverged and rank == len(names) - 1)
    curves = pd.concat(frames, ignore_index=True)
    return (
        EnvironmentResult(
            env_id=task.env_id,
            total_timesteps=task.total_timesteps,
            phase_length=task.phase_length,
            threshold=task.threshold,
            variants=tuple(by_variant.values()),
            comparisons=tuple(_comparisons(task, by_variant, finals, n_compared)),
            bands=_bands(curves, n_seeds),
        ),
        curves,
    )


def _returns(
    task: Task, steps: npt.NDArray[np.int64], n_seeds: int, *, quality: float, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    length = task.phase_length or task.total_timesteps
    progress = 1 - np.exp(-5 * quality * (steps % length / length + (steps % length == 0)))
    worst = -1400.0 if task.best < 0 else 20.0
    skill = np.clip(quality * 0.8 + rng.normal(0, 0.06, (n_seeds, 1)), 0, 1)
    noise = np.cumsum(rng.normal(0, 0.01, (n_seeds, len(steps))), axis=1)
    return worst + (task.best - worst) * np.clip(progress * skill + noise, 0, 1)


def _logged(metric: str, rank: int, shape: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    middle = {"vgs/scaling_factor": 1 - 0.12 * (rank % 5), "vgs/normalized_variance": 10.0 ** (rank % 5 - 1)}
    return np.abs(middle.get(metric, 0.3 + 0.02 * rank) * np.exp(rng.normal(0, 0.05, shape)))


def _frame(
    task: Task, name: str, seed: int, steps: npt.NDArray[np.int64], metric: str, values: npt.NDArray[np.float64]
) -> pd.DataFrame:
    columns = {"env_id": task.env_id, "variant": name, "seed": seed, "step": steps, "metric": metric, "value": values}
    return pd.DataFrame(columns)


def _bands(curves: pd.DataFrame, n_seeds: int) -> pd.DataFrame:
    groups = curves.groupby(["variant", "metric", "step"], sort=False)["value"]
    bands = groups.agg(n="size", value="mean", spread="std").reset_index()
    half = 2 * bands.pop("spread") / np.sqrt(n_seeds)
    return bands.assign(low=bands["value"] - half, high=bands["value"] + half)


def _variant(
    task: Task, name: str, logged: dict[str, npt.NDArray[np.float64]], n_seeds: int, *, diverged: bool
) -> VariantResult:
    returns = logged["return"]
    n_phases = task.total_timesteps // task.phase_length if task.phase_length else 0
    phases = tuple(estimate(part[:, -1]) for part in np.array_split(returns, n_phases, axis=1)) if n_phases else ()
    late = (
        np.mean([part[:, -1] for part in np.array_split(returns, n_phases, axis=1)][n_phases // 2 :], axis=0)
        if n_phases
        else None
    )
    return VariantResult(
        variant=name,
        n_seeds=n_seeds,
        n_finished=n_seeds - diverged,
        n_diverged=int(diverged),
        final=estimate(returns[:, -1]),
        evaluation=estimate(returns[:, -1] * 1.02) if not diverged else None,
        area=estimate(returns.mean(axis=1)),
        phases=phases,
        late_phases=None if late is None else estimate(late),
        threshold_step=41_000.0 if task.threshold else None,
        n_threshold=n_seeds if task.threshold else 0,
        wall_seconds=312.0,
        steps_per_second=1_240.0,
        detection=None,
        coverage=(),
        diagnostics={metric: float(logged[metric].mean()) if metric in logged else None for metric in DIAGNOSTICS},
    )


def _delay(seed: int) -> int:
    return 1_024 + 512 * seed


def _changes(task: Task) -> range:
    """:return: steps of the changes that are found"""
    return range(2 * task.phase_length, task.total_timesteps, task.phase_length) if task.phase_length else range(0)


def _alarms(task: Task, name: str, seed: int) -> pd.DataFrame:
    steps = [task.total_timesteps // 8, *(change + _delay(seed) for change in _changes(task))]
    delays = [None, *(_delay(seed) for _ in _changes(task))]
    values = [task.env_id, name, seed, steps, delays, 20.0, 0.1, 1e-4, "restart-head"]
    return pd.DataFrame(dict(zip(ALARM_COLUMNS, values, strict=True))).astype({"delay": "Int64"})


def _with_coverage(environment: EnvironmentResult, calibrated: Sequence[str], n_seeds: int) -> EnvironmentResult:
    """Predictions that are too narrow: 9 % lie below the 5 % quantile, and 71 % within the central 90 %."""
    shares = {("quantile", 0.05): 0.09, ("quantile", 0.5): 0.48, ("interval", 0.9): 0.71}
    found = tuple(
        Coverage(*what, Estimate(share, share - 0.02, share + 0.02, n_seeds)) for what, share in shares.items()
    )
    variants = [
        replace(variant, coverage=found) if variant.variant in calibrated else variant
        for variant in environment.variants
    ]
    return replace(environment, variants=tuple(variants))


def _with_detection(environment: EnvironmentResult, tested: Sequence[str], n_seeds: int) -> EnvironmentResult:
    length, total = environment.phase_length, environment.total_timesteps
    n_changes = (total - 1) // length if length else 0
    found = Detection(
        n_changes=n_seeds * n_changes,
        n_found=n_seeds * max(n_changes - 1, 0),
        median_delay=_delay(0) + 256 * (n_seeds - 1) if n_changes else None,
        largest_delay=_delay(n_seeds - 1) if n_changes else None,
        n_other_alarms=n_seeds,
    )
    variants = [
        replace(variant, detection=found) if variant.variant in tested else variant for variant in environment.variants
    ]
    return replace(environment, variants=tuple(variants))


def _comparisons(
    task: Task, variants: dict[str, VariantResult], finals: dict[str, npt.NDArray[np.float64]], n_compared: int
) -> list[Comparison]:
    baseline, *others = variants.values()
    comparisons = []
    for measure in ("final", "area", *(["late_phases"] if task.phase_length else [])):
        ours: Estimate = getattr(baseline, measure)
        for variant in others:
            theirs: Estimate = getattr(variant, measure)
            gap = theirs.value - ours.value
            pairs = finals[variant.variant][:, None] - finals[baseline.variant][None]
            chance = float((pairs > 0).mean())
            interval = (None, None)
            around = (None, None)
            if theirs.high is not None and ours.high is not None:
                half = np.hypot(theirs.high - theirs.value, ours.high - ours.value)
                interval = (gap - half, gap + half)
                around = (max(chance - 0.2, 0.0), min(chance + 0.15, 1.0))
            p = smallest_p(ours.n, theirs.n) if chance in (0.0, 1.0) else 0.4
            comparisons.append(
                Comparison(
                    env_id=task.env_id,
                    variant=variant.variant,
                    baseline=baseline.variant,
                    measure=measure,
                    difference=Estimate(gap, *interval, theirs.n),
                    probability=Estimate(chance, *around, theirs.n),
                    p_value=p,
                    p_holm=min(p * n_compared, 1.0),
                )
            )
    return comparisons
