"""What a study found, as plain values: computed once, then drawn, printed and saved as ``summary.json``."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Estimate:
    """
    A number with the interval that the seeds allow.

    :param value: point estimate
    :param low: lower end of the 95 % interval, None where there is none (one seed)
    :param high: upper end, None likewise
    :param n: seeds behind it
    """

    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Detection:
    """
    What the alarms of one variant in one environment found, over all of its cells together.

    :param n_changes: changes of the task that the cells trained through; 0 where the task stays
    :param n_found: of these, changes with an alarm in the first half of the phase that they begin
    :param median_delay: environment steps from a change to the end of the rollout that showed it; None if none is found
    :param largest_delay: likewise
    :param n_other_alarms: alarms that found no change: second ones of a phase, late ones, and all where the task stays
    """

    n_changes: int
    n_found: int
    median_delay: float | None
    largest_delay: int | None
    n_other_alarms: int


@dataclass(frozen=True)
class Coverage:
    """
    How many of the returns that came after the training lay where the critic predicted them.

    :param kind: ``quantile``: at or below the quantile of this level; ``interval``: within the central interval of this
        probability
    :param level: the share that there should be
    :param share: the share that there is
    """

    kind: str
    level: float
    share: Estimate


@dataclass(frozen=True)
class VariantResult:
    """
    One variant in one environment. Returns are those of training episodes, as the curves show them, unless said
    otherwise; estimates are interquartile means (IQM) over seeds.

    :param variant: its name
    :param n_seeds: seeds in the study
    :param n_finished: cells that are done and did not diverge
    :param n_diverged: cells whose training diverged. Their curve goes on with the last value that they reached
    :param final: mean return of the last 20 training episodes
    :param evaluation: mean return of the final evaluation (deterministic policy, 20 episodes), None if no cell has one
    :param area: area under the curve, divided by the steps: the mean return over the training
    :param phases: per completed phase of a continual task the mean return of its last 20 episodes; empty where the task
        stays. NaN with no seed behind it where no episode ended in it
    :param late_phases: mean over the second half of the phases; None where the task stays
    :param threshold_step: median over seeds of the first step at which the curve reaches the threshold, where a seed
        that never does counts as infinite; None if there is no threshold or the median is infinite
    :param n_threshold: seeds that reach the threshold
    :param wall_seconds: mean training time of the cells that did not diverge
    :param steps_per_second: mean over these cells
    :param detection: what its alarms found, None where no cell tests for changes
    :param coverage: predicted against realised returns; empty where no critic predicts a distribution
    :param diagnostics: means over training and seeds by name, e.g. ``vgs/scaling_factor``; None where a variant does
        not log it. Of a cell that trains on another one's agent, its own training only
    """

    variant: str
    n_seeds: int
    n_finished: int
    n_diverged: int
    final: Estimate | None
    evaluation: Estimate | None
    area: Estimate | None
    phases: tuple[Estimate, ...]
    late_phases: Estimate | None
    threshold_step: float | None
    n_threshold: int
    wall_seconds: float | None
    steps_per_second: float | None
    detection: Detection | None
    coverage: tuple[Coverage, ...]
    diagnostics: dict[str, float | None]


@dataclass(frozen=True)
class Comparison:
    """
    One variant against the baseline in one environment.

    :param measure: field of :class:`VariantResult` that is compared: ``final``, ``area`` or ``late_phases``
    :param difference: IQM of the variant minus IQM of the baseline, with the interval of the difference
    :param probability: probability of improvement P(X > Y) + P(X = Y) / 2 of a seed of the variant over one of the
        baseline (Agarwal et al. 2021, section 4.3)
    :param p_value: two-sided, of the Mann-Whitney U test
    :param p_holm: the same, corrected for all comparisons of this measure in the study (Holm 1979)
    """

    env_id: str
    variant: str
    baseline: str
    measure: str
    difference: Estimate
    probability: Estimate
    p_value: float
    p_holm: float


@dataclass(frozen=True)
class EnvironmentResult:
    """
    :param total_timesteps: environment steps of a cell
    :param phase_length: steps of a phase, None where the task stays the same
    :param threshold: return whose first step is reported
    :param bands: aggregated curves, one row per (variant, metric, step): columns ``variant``, ``metric``, ``step``,
        ``n`` (cells that have a value there, at least one), ``value`` (IQM), ``low``, ``high`` (95 % interval, NaN with
        one cell). Metric ``return`` is the mean return of the last 20 training episodes; the others are logged values
        such as ``vgs/scaling_factor``
    """

    env_id: str
    total_timesteps: int
    phase_length: int | None
    threshold: float | None
    variants: tuple[VariantResult, ...]
    comparisons: tuple[Comparison, ...]
    bands: pd.DataFrame


@dataclass(frozen=True)
class StudyResult:
    """
    :param baseline: variant that the others are compared with
    :param seeds: seeds of the study
    :param n_cells: cells of the study
    :param n_done: cells that are done, diverged ones among them
    :param environments: results by environment, in the study's order
    :param normalized: per variant the IQM over all environments and seeds of the area, scaled so that in every
        environment 0 is the worst and 1 the best cell of the study; stratified bootstrap by environment. Without the
        variants that have no cell in an environment; empty for a study of one environment
    :param versions: packages by name, and the commit, of the cells; several values where cells differ
    :param curves: all cells: columns ``env_id``, ``variant``, ``seed``, ``step``, ``metric``, ``value``
    :param alarms: changes that the cells noticed: columns ``env_id``, ``variant``, ``seed``, ``step``, ``delay`` (steps
        since the change that was found, missing where none was), ``shortfall``, ``pit``, ``p_value``, ``responses``
        (joined by ``+``)
    """

    baseline: str
    seeds: tuple[int, ...]
    n_cells: int
    n_done: int
    environments: tuple[EnvironmentResult, ...]
    normalized: dict[str, Estimate]
    versions: dict[str, tuple[str, ...]]
    curves: pd.DataFrame
    alarms: pd.DataFrame
