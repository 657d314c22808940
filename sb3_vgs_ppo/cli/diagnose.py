"""``diagnose``: does each VGS version read what it claims, and does UPGD's gate keep the order of utilities?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from sb3_vgs_ppo.cli.options import parse_options

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from sb3_vgs_ppo.runs.diagnosis import Diagnosis, GateDiagnosis, Reading, VersionDiagnosis

EXIT_CLAIM_FAILED = 1

PLAIN_WIDTH = 80
"""Columns of the tables where the output is not a terminal and so has no width of its own."""

NOTE = """\
true: variance over time of a tensor's elements / square of the tensor's mean
      (for 4.0: / mean square of its elements' means, both without bias)
reads: normalized variance that the version reads
factor: that gradients are multiplied by, 1 / (1 + 0.1 reads), at least 0.0001
no claim: outside what the version claims to read; shown, not counted"""


@dataclass(frozen=True)
class DiagnoseOptions:
    """Feeds gradients of known variance to every VGS version, and utilities to UPGD; prints a verdict table."""

    vgs_version: str | None = None
    """Look at this VGS version alone, without UPGD; the exit code is 1 if it fails what it claims."""
    seed: int = 0
    """Seed of the streams' noise and of the PPO training whose gradients are read."""
    observations: int = 400
    """Gradients per stream."""
    figure: Path = Path("diagnosis.png")
    """Where to save the figure; an existing file is replaced."""
    no_figure: tyro.conf.FlagCreatePairsOff[bool] = False
    """Save no figure."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print JSON instead of tables."""


def run(argv: Sequence[str], prog: str) -> int:
    """
    :param argv: command line after the command's name
    :param prog: program and command, as the user typed them
    :return: 0; 1 if ``--vgs-version`` names a version that fails what it claims
    :raises UserInputError: unknown version, bad number, or a figure that cannot be written
    """
    options = parse_options(DiagnoseOptions, argv, prog=prog)

    from sb3_vgs_ppo.runs.diagnosis import diagnose
    from sb3_vgs_ppo.runs.diagnosis_figure import check_figure_path, save_diagnosis_figure

    if not options.no_figure:
        check_figure_path(options.figure)
    diagnosis = diagnose(options.vgs_version, options.observations, options.seed)
    if not options.no_figure:
        save_diagnosis_figure(diagnosis, options.figure)
    if options.json:
        print(json.dumps(as_json(diagnosis), indent=2, allow_nan=False))
    else:
        print_diagnosis(diagnosis)
        if not options.no_figure:
            print(f"Figure: {options.figure}")
    alone_and_failing = options.vgs_version is not None and not diagnosis.versions[0].passes
    return EXIT_CLAIM_FAILED if alone_and_failing else 0


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """:return: the diagnosis as plain values; of the gates only their range (None if any is NaN), not every element"""
    return {
        "seed": diagnosis.seed,
        "observations": diagnosis.n_observations,
        "vgs": [
            {
                "version": version.version,
                "claim": version.claim,
                "passes": version.passes,
                "readings": [asdict(reading) for reading in version.readings],
            }
            for version in diagnosis.versions
        ],
        "upgd": [
            {
                "utility_normalization": gate.normalization,
                "utilities": gate.utilities,
                "step": gate.step,
                "gate_range": None if gate.ordering == "nan" else [min(gate.gates), max(gate.gates)],
                "ordering": gate.ordering,
                "frozen": gate.frozen,
                "passes": gate.passes,
            }
            for gate in diagnosis.gates
        ],
    }


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """Print one table per VGS version and per utility normalization; in colour on a terminal."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    console.print(f"{diagnosis.n_observations} gradients per stream, seed {diagnosis.seed}\n{NOTE}")
    for version in diagnosis.versions:
        _print_version(console, version)
    for normalization in dict.fromkeys(gate.normalization for gate in diagnosis.gates):
        _print_gates(console, [gate for gate in diagnosis.gates if gate.normalization == normalization])


def _print_version(console: Console, version: VersionDiagnosis) -> None:
    judged = sum(reading.claimed for reading in version.readings)
    result = "passes" if version.passes else f"FAILS {len(version.failures)} of {judged}"
    _print_title(console, f"VGS {version.version} claims to read {version.claim}", result, version.passes)
    table = _table()
    table.add_column("gradient stream", min_width=24)
    for header in ("true", "reads", "factor"):
        table.add_column(header, justify="right", min_width=8)
    table.add_column("verdict")
    for reading in version.readings:
        numbers = (reading.true_variance, reading.normalized_variance, reading.scaling_factor)
        table.add_row(reading.stream, *(f"{number:.3g}" for number in numbers), _verdict(reading))
    console.print(table)


def _print_gates(console: Console, gates: Sequence[GateDiagnosis]) -> None:
    by_set: dict[str, list[GateDiagnosis]] = {}
    for gate in gates:
        by_set.setdefault(gate.utilities, []).append(gate)
    failed = sum(not all(gate.passes for gate in group) for group in by_set.values())
    result = f"FAILS {failed} of {len(by_set)}" if failed else "passes"
    _print_title(console, f"UPGD with utility_normalization={gates[0].normalization!r}", result, not failed)
    table = _table()
    table.add_column("utilities", min_width=15)
    for gate in next(iter(by_set.values())):
        table.add_column(f"gates, step {gate.step}", min_width=16)
    table.add_column("order", min_width=15)
    table.add_column("frozen", justify="right", min_width=9)
    for name, group in by_set.items():
        order = ", ".join(dict.fromkeys(gate.ordering for gate in group))
        table.add_row(
            name,
            *(f"{min(gate.gates):.3f} - {max(gate.gates):.3f}" for gate in group),
            _coloured(order, all(gate.passes for gate in group)),
            " / ".join(f"{gate.frozen:.0%}" for gate in group),
        )
    console.print(table)


def _print_title(console: Console, title: str, result: str, passes: bool) -> None:
    console.print(f"\n[bold]{title}: {_coloured(result, passes)}[/]")


def _table() -> Table:
    """:return: an empty table without rules, which at 80 columns would leave too little room for the numbers"""
    from rich.table import Table

    return Table(box=None, pad_edge=False)


def _coloured(text: str, good: bool) -> str:
    return f"[{'green' if good else 'red'}]{text}[/]"


def _verdict(reading: Reading) -> str:
    if reading.claimed:
        return _coloured(reading.verdict, reading.verdict == "agrees")
    return f"[yellow]{reading.verdict}[/] (no claim)"
