"""Curves as the report's page gets them: thinned and rounded, so that the file stays small for any study."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sb3_vgs_ppo.studies.figures import needs_log_scale, phase_changes, shown_metrics, testing_variants
from sb3_vgs_ppo.studies.palette import MANY, styles
from sb3_vgs_ppo.studies.results import EnvironmentResult, StudyResult
from sb3_vgs_ppo.studies.wording import metric_label

MAX_NUMBERS = 400_000
"""In all curves together: about 2.5 MB, beside 4.8 MB of plotly.js."""

MAX_POINTS = 200
MIN_POINTS = 20
_DIGITS = 4


def page_data(result: StudyResult) -> dict[str, Any]:
    """
    :return: what ``report.js`` draws, as JSON's kinds: ``variants`` (name, colours, dash), ``environments`` (phases,
        threshold, per metric a list of series, and alarms) and ``bands``, whether intervals are drawn from the start. A
        series has the index ``v`` of its variant, the index ``x`` of its steps in ``grids``, values ``y`` and, where
        there are intervals, ``low`` and ``high``; those of single seeds have ``seed``. Alarms have the index ``v`` of
        their variant, which tests for changes, and per alarm ``x``, ``seed``, ``delay`` and ``responses``
    """
    look = styles(result)
    grids: dict[tuple[int, ...], int] = {}
    thin = _Thinning(_points_per_curve(result), list(look), grids)
    environments = [
        {
            "id": environment.env_id,
            "steps": environment.total_timesteps,
            "phases": phase_changes(environment),
            "threshold": environment.threshold,
            "metrics": [_metric(environment, metric, thin) for metric in ("return", *shown_metrics(environment.bands))],
            "alarms": [
                {"v": list(look).index(name), **_alarms(result.alarms, environment.env_id, name)}
                for name in testing_variants(environment)
            ],
            "seeds": thin.single_seeds(result.curves[result.curves["env_id"] == environment.env_id]),
        }
        for environment in result.environments
    ]
    return {
        "variants": [
            {"name": name, "light": style.light, "dark": style.dark, "dash": style.dash} for name, style in look.items()
        ],
        "bands": len(look) <= MANY,
        "environments": environments,
        "grids": [list(grid) for grid in grids],
    }


def rounded(values: Iterable[float]) -> list[float | None]:
    """:return: the values to four significant digits, whole numbers without a point; None for what is not finite"""
    short = (float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None for value in values)
    return [int(value) if value is not None and value.is_integer() else value for value in short]


def _points_per_curve(result: StudyResult) -> int:
    bands = sum(len(environment.bands.groupby(["variant", "metric"])) for environment in result.environments)
    seeds = len(result.curves[result.curves["metric"] == "return"].groupby(["env_id", "variant", "seed"]))
    return min(MAX_POINTS, max(MIN_POINTS, MAX_NUMBERS // max(3 * bands + seeds, 1)))


def _alarms(alarms: pd.DataFrame, env_id: str, variant: str) -> dict[str, list[Any]]:
    chosen = alarms[(alarms["env_id"] == env_id) & (alarms["variant"] == variant)]
    return {
        "x": chosen["step"].tolist(),
        "seed": chosen["seed"].tolist(),
        "delay": [None if pd.isna(delay) else int(delay) for delay in chosen["delay"]],
        "responses": chosen["responses"].tolist(),
    }


def _metric(environment: EnvironmentResult, metric: str, thin: _Thinning) -> dict[str, Any]:
    bands = environment.bands[environment.bands["metric"] == metric]
    return {
        "name": metric,
        "label": metric_label(metric),
        "log": metric != "return" and needs_log_scale(bands["value"]),
        "series": thin.bands(bands),
    }


class _Thinning:
    """
    Takes every so many points of curves.

    :param n_points: most points of a curve
    :param variants: all names; a series tells its variant by the index among them
    :param grids: different sequences of steps so far, to which new ones are added: most curves share one
    """

    def __init__(self, n_points: int, variants: Sequence[str], grids: dict[tuple[int, ...], int]) -> None:
        self.n_points = n_points
        self.index = {name: i for i, name in enumerate(variants)}
        self.grids = grids

    def bands(self, bands: pd.DataFrame) -> list[dict[str, Any]]:
        """:return: one series per variant"""
        series = []
        for name, rows in bands.groupby("variant", sort=False):
            curve = self._thinned(rows)
            found = {"v": self.index[str(name)], "n": int(curve["n"].max()), **self._points(curve)}
            if curve["low"].notna().any():
                found |= {end: rounded(curve[end]) for end in ("low", "high")}
            series.append(found)
        return sorted(series, key=lambda found: int(found["v"]))

    def single_seeds(self, curves: pd.DataFrame) -> list[dict[str, Any]]:
        """:return: one series of returns per cell"""
        returns = curves[curves["metric"] == "return"]
        return [
            {"v": self.index[name], "seed": seed, **self._points(self._thinned(rows[rows["seed"] == seed]))}
            for name in self.index
            for rows in [returns[returns["variant"] == name]]
            for seed in sorted(rows["seed"].unique().tolist())
        ]

    def _thinned(self, rows: pd.DataFrame) -> pd.DataFrame:
        """:return: evenly spaced rows, the last one among them, in the order of their steps"""
        rows = rows.sort_values("step")
        chosen: npt.NDArray[np.int64] = np.unique(
            np.linspace(len(rows) - 1, 0, min(self.n_points, len(rows))).round().astype(np.int64)
        )
        return rows.iloc[chosen]

    def _points(self, curve: pd.DataFrame) -> dict[str, Any]:
        steps = tuple(int(step) for step in curve["step"])
        return {"x": self.grids.setdefault(steps, len(self.grids)), "y": rounded(curve["value"])}
