"""The picture of a benchmark's growth: time against size, one panel per axis, both logarithmic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.runs.benchmark_growth import Sweep
from sb3_vgs_ppo.studies.palette import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3
FORMATS = ("png", "svg")
_MARKERS = "osD^v"


def check_folder(folder: Path) -> None:
    """
    Make the folder, before anything is measured.

    :raises UserInputError: it cannot be made
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserInputError(f"--out {str(folder)!r} cannot be made: {error.strerror or error}") from error


def draw_growth(sweeps: Sequence[Sweep]) -> Figure:
    """:return: median times with their spread, one panel per sweep"""
    rows = -(-len(sweeps) // COLUMNS)
    figure = Figure(figsize=(5 * COLUMNS, 4.2 * rows), layout="constrained")
    panels = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for axes, sweep in zip(panels, sweeps, strict=False):
        _draw_sweep(axes, sweep)
    for axes in panels[len(sweeps) :]:
        axes.set_axis_off()
    return figure


def _draw_sweep(axes: Axes, sweep: Sweep) -> None:
    for (name, times), colour, marker in zip(sweep.times.items(), LIGHT, _MARKERS, strict=False):
        axes.plot(sweep.values, sweep.medians(name), color=colour, marker=marker, markersize=4, label=name)
        lowest, highest = [min(series) for series in times], [max(series) for series in times]
        axes.fill_between(sweep.values, lowest, highest, color=colour, alpha=0.15, linewidth=0)
    axes.set(xscale="log", yscale="log", xlabel=sweep.axis, ylabel=f"{sweep.unit} (CPU time)")
    axes.grid(which="major", color="0.88")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)


def save_growth(sweeps: Sequence[Sweep], folder: Path) -> list[Path]:
    """
    :param folder: that exists; files in it are replaced
    :return: ``growth.png`` and ``growth.svg``
    :raises UserInputError: a file cannot be written
    """
    figure = draw_growth(sweeps)
    paths = [folder / f"growth.{ending}" for ending in FORMATS]
    try:
        for path in paths:
            figure.savefig(path, dpi=150)
    except OSError as error:
        raise UserInputError(f"figure {str(path)!r} cannot be written: {error.strerror or error}") from error
    return paths
