"""The picture of a :class:`~sb3_vgs_ppo.runs.diagnosis.Diagnosis`: readings against the truth, and UPGD's gates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.runs.diagnosis import GATE_STEPS, ZERO, Diagnosis, GateDiagnosis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, which stays apart for colour-blind readers; the shapes say the same without colour.
VERSION_STYLES = {
    "1.0": ("#E69F00", "s"),
    "2.0": ("#D55E00", "^"),
    "3.0": ("#0072B2", "o"),
    "3.1": ("#CC79A7", "D"),
    "4.0": ("#009E73", "P"),
}
"""Colour and marker of each version of :data:`~sb3_vgs_ppo.runs.diagnosis.CLAIMS`."""

MARKER: dict[str, Any] = {"markersize": 7, "markeredgewidth": 1.8, "linestyle": "", "zorder": 3}

GATE_STYLES = {
    ("minmax", GATE_STEPS[0]): ("minmax", "#0072B2", "-"),
    ("max", GATE_STEPS[0]): ("max", "#E69F00", "--"),
    ("official", GATE_STEPS[0]): (f"official, step {GATE_STEPS[0]}", "#D55E00", ":"),
    ("official", GATE_STEPS[1]): (f"official, step {GATE_STEPS[1]}", "#CC79A7", "-."),
}
"""Label, colour and line per normalization and step; only the official gate depends on the step."""

GATE_COLUMNS = 4


def check_figure_path(path: Path) -> None:
    """
    Refuse a path that the figure could not be written to, before anything is computed.

    :raises UserInputError: unknown picture format, missing folder, or a folder in the file's place
    """
    formats = Figure().canvas.get_supported_filetypes()
    if path.suffix.lstrip(".").lower() not in formats:
        raise UserInputError(f"figure {str(path)!r}: name a picture format by its ending, e.g. .png, .svg or .pdf")
    if not path.parent.is_dir():
        raise UserInputError(f"figure {str(path)!r}: there is no folder {str(path.parent)!r}; create it first")
    if path.is_dir():
        raise UserInputError(f"figure {str(path)!r}: this is a folder; name a file in it")


def draw_diagnosis(diagnosis: Diagnosis) -> Figure:
    """
    Draw what each VGS version reads per stream, and below it, if UPGD was diagnosed, the gates per set of utilities.

    :return: the figure, 10 inches wide
    """
    sets = list(dict.fromkeys(gate.utilities for gate in diagnosis.gates))
    gate_rows = math.ceil((len(sets) + 1) / GATE_COLUMNS)  # one panel more than sets, for the legend
    reading_height, gate_height = 1.6 + 0.55 * len(diagnosis.versions[0].readings), 0.6 + 2.1 * gate_rows
    if not sets:
        figure = Figure(figsize=(10, reading_height), layout="constrained")
        _draw_readings(figure, diagnosis)
        return figure
    figure = Figure(figsize=(10, reading_height + gate_height), layout="constrained")
    parts = figure.subfigures(2, 1, height_ratios=[reading_height, gate_height], hspace=0.03, squeeze=False)
    _draw_readings(parts[0, 0], diagnosis)
    _draw_gates(parts[1, 0], diagnosis.gates, sets, gate_rows)
    return figure


def save_diagnosis_figure(diagnosis: Diagnosis, path: Path) -> None:
    """
    :param path: ``.png`` or another format that matplotlib writes; an existing file is replaced
    :raises UserInputError: the file cannot be written
    """
    check_figure_path(path)
    figure = draw_diagnosis(diagnosis)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise UserInputError(f"figure {str(path)!r} cannot be written: {error.strerror or error}") from error


def _draw_readings(parent: Figure | SubFigure, diagnosis: Diagnosis) -> None:
    """One row per stream: grey bars at the truths of the claims, and a marker per version, filled where it agrees."""
    axes = parent.subplots()
    versions = diagnosis.versions
    streams = versions[0].readings
    rows = np.arange(len(streams))
    truths = {
        (row, reading.true_variance)
        for version in versions
        for row, reading in zip(rows, version.readings, strict=True)
    }
    axes.barh(rows[1::2], 1.0, height=1.0, color="0.955", transform=axes.get_yaxis_transform(), zorder=0)
    for row, truth in sorted(truths):
        axes.vlines(truth, row - 0.42, row + 0.42, color="0.6", linewidth=5, zorder=1)
    handles = [Line2D([], [], color="0.6", linewidth=5, label="truth")]
    offsets = np.linspace(-0.3, 0.3, len(versions)) if len(versions) > 1 else [0.0]
    for version, offset in zip(versions, offsets, strict=True):
        colour, marker = VERSION_STYLES[version.version]
        for row, reading in zip(rows, version.readings, strict=True):
            face = colour if reading.verdict == "agrees" else "white"
            axes.plot(reading.normalized_variance, row + offset, marker, color=colour, markerfacecolor=face, **MARKER)
        label = f"VGS {version.version} {'passes' if version.passes else 'fails'}"
        handles += axes.plot([], [], marker, color=colour, label=label, **MARKER)
    handles += axes.plot([], [], "o", color="0.3", markerfacecolor="white", label="hollow: not the truth", **MARKER)
    parent.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, columnspacing=1.4)

    readings = [reading for version in versions for reading in version.readings]
    _scale_from_zero(axes, max(max(reading.true_variance, reading.normalized_variance) for reading in readings))
    axes.set_yticks(rows, [reading.stream for reading in streams])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_title(
        f"What each VGS version reads after {diagnosis.n_observations} gradients (seed {diagnosis.seed})", fontsize=12
    )


def _scale_from_zero(axes: Axes, highest: float) -> None:
    """Logarithmic above the bound under which a reading counts as none, linear below, so that zero has a place."""
    axes.set_xscale("symlog", linthresh=ZERO, linscale=0.6)
    axes.set_xlim(-ZERO / 3, max(highest, 1.0) * 4)
    exponents = range(round(math.log10(ZERO)), math.floor(math.log10(axes.get_xlim()[1])) + 1)
    axes.set_xticks([0.0, *(10.0**e for e in exponents)], ["0", *(f"$10^{{{e}}}$" for e in exponents)])
    axes.set_xticks([], minor=True)
    axes.grid(axis="x", color="0.88")
    axes.set_axisbelow(True)
    axes.set_xlabel(f"normalized variance (linear from 0 to {ZERO}, logarithmic above)")


def _draw_gates(parent: Figure | SubFigure, gates: Sequence[GateDiagnosis], sets: Sequence[str], n_rows: int) -> None:
    """One panel per set of utilities: gate against the rank of the utility, one line per normalization and step."""
    panels = parent.subplots(n_rows, GATE_COLUMNS, sharex=True, sharey=True, squeeze=False).flat
    for axes, name in zip(panels, sets, strict=False):
        _draw_gate_panel(axes, [gate for gate in gates if gate.utilities == name], name)
    for axes in panels[len(sets) :]:
        axes.set_axis_off()
    legend = panels[len(sets)]
    for label, colour, line in GATE_STYLES.values():
        legend.plot([], [], line, color=colour, linewidth=2.2, label=label)
    legend.legend(loc="center", frameon=False, title="utility_normalization")
    parent.suptitle("UPGD: gate of each element by its utility (1 = frozen, 0 = unprotected)", fontsize=12)
    parent.supxlabel("element's rank by utility (0: lowest, 1: highest)", fontsize=10)
    parent.supylabel("gate", fontsize=10)


def _draw_gate_panel(axes: Axes, gates: Sequence[GateDiagnosis], name: str) -> None:
    for gate in gates:
        if (gate.normalization, gate.step) in GATE_STYLES:
            _, colour, line = GATE_STYLES[gate.normalization, gate.step]
            axes.plot(np.linspace(0.0, 1.0, len(gate.gates)), gate.gates, line, color=colour, linewidth=2.2)
    not_numbers = sorted({gate.normalization for gate in gates if gate.ordering == "nan"})
    if not_numbers:
        axes.text(0.5, 0.85, f"{', '.join(not_numbers)}: NaN", ha="center", color="0.3")
    axes.set_title(name, fontsize=10)
    axes.set_xticks([0, 1])
    axes.set_yticks([0, 0.5, 1])
    axes.set_ylim(-0.06, 1.06)
    axes.grid(color="0.88")
    axes.spines[["top", "right"]].set_visible(False)
