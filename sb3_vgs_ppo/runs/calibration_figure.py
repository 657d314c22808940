"""``calibration.png``: the coverage of predicted quantiles, and predicted beside realised returns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sb3_vgs_ppo.distributional import Coverage, RealisedReturns

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PREDICTED = "#4477aa"
_REALISED = "#cc3311"
_BINS = 12
_SHOWN = (0.05, 0.25, 0.5, 0.75, 0.95)


def draw_calibration(path: Path, title: str, realised: RealisedReturns, table: Sequence[Coverage]) -> None:
    """
    :param path: PNG file to write
    :param table: coverage of ``realised``
    """
    # The Agg canvas by name: pyplot would choose a backend and keep the figure in global state
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=[4, 6])
    figure.suptitle(f"{title}\n{len(realised.returns):,} states of {realised.n_episodes} episodes", fontsize=11)
    _draw_coverage(left, [row for row in table if row.kind == "quantile"])
    _draw_returns(right, realised)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    figure.savefig(path, dpi=150)


def _draw_coverage(axes: Axes, rows: Sequence[Coverage]) -> None:
    levels = [row.level for row in rows]
    axes.plot([0, 1], [0, 1], color="0.4", lw=1, ls="--", label="calibrated")
    axes.fill_between(
        levels,
        [row.low for row in rows],
        [row.high for row in rows],
        color=_REALISED,
        alpha=0.2,
        lw=0,
        label="95 % interval",
    )
    axes.plot(levels, [row.coverage for row in rows], "o-", color=_REALISED, ms=4, lw=1.4, label="this critic")
    axes.set(
        xlim=(0, 1), ylim=(0, 1), xlabel="level of the predicted quantile", ylabel="share of returns at or below it"
    )


def _draw_returns(axes: Axes, realised: RealisedReturns) -> None:
    """
    States in bins of equal size by predicted mean: quantiles of the predictions and of the returns in each. They are
    drawn at their ranks, because many states often have nearly the same mean.
    """
    ordered = np.argsort(realised.predicted.mean, kind="stable")
    bins = [part for part in np.array_split(ordered, _BINS) if len(part)]
    centres = (np.arange(len(bins)) + 0.5) * 100 / len(bins)
    predicted = np.array([realised.predicted[part].quantile(_SHOWN).mean(axis=0) for part in bins]).T
    found = np.array([np.quantile(realised.returns[part], _SHOWN) for part in bins]).T
    for low, high, alpha in ((0, -1, 0.18), (1, -2, 0.3)):
        label = f"predicted {_SHOWN[low]:.0%} to {_SHOWN[high]:.0%}"
        axes.fill_between(centres, predicted[low], predicted[high], color=_PREDICTED, alpha=alpha, lw=0, label=label)
    axes.plot(centres, predicted[2], color=_PREDICTED, lw=1.6, label="predicted median")
    for low, high, width in ((0, -1, 1.0), (1, -2, 3.0)):
        axes.vlines(centres, found[low], found[high], color=_REALISED, lw=width)
    axes.plot(centres, found[2], "o", color=_REALISED, ms=4.5, label="realised, likewise")
    axes.set(xlim=(0, 100), xlabel="states by predicted mean, lowest first (%)", ylabel="discounted return")
