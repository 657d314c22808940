"""``sb3-vgs-ppo benchmark``: speed and memory beside SB3's PPO, as ratios with their spread and their budget."""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import tyro

from sb3_vgs_ppo.cli.options import parse_options
from sb3_vgs_ppo.cli.tables import PLAIN_WIDTH
from sb3_vgs_ppo.errors import UserInputError

if TYPE_CHECKING:
    from rich.console import Console

    from sb3_vgs_ppo.runs.benchmark import Benchmark
    from sb3_vgs_ppo.runs.benchmark_growth import Sweep
    from sb3_vgs_ppo.runs.benchmark_line import Line

NOTE = """\
ratio: median (smallest to largest) of the repetitions, in CPU time where it is time and the peer is not sbx
wall: the same by the wall clock, which other processes on the machine disturb"""


@dataclass(frozen=True)
class BenchmarkOptions:
    """Measures every budget of speed and memory beside SB3's PPO, taking turns on one thread."""

    part: Literal["train", "optimizer", "vgs", "learn", "memory", "growth", "all"] = "all"
    """train(): ms per minibatch. optimizer: ms per step. vgs: its share of a minibatch. learn(): steps/s end to end.
    memory: peak and state. growth: time against parameters, tensors, environments, batch size and quantiles."""
    env_id: str = "CartPole-v1"
    """Registered gymnasium id with vector observations; the budget of learn() is stated for HalfCheetah-v5."""
    n_envs: int = 8
    """Environments stepped side by side; must divide 2048."""
    repetitions: int = 7
    """Measured rounds; in each one every contender has its turn."""
    against: Literal["sbx"] | None = None
    """Let sbx's PPO (JAX) take part in train and learn too, from an environment of its own."""
    sbx_python: str | None = None
    """Python of the environment that has sbx."""
    out: Path | None = None
    """Folder for the figure of growth, as growth.png and growth.svg."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print all ratios and times as JSON instead of tables."""


def run(argv: Sequence[str], prog: str) -> int:
    """
    :return: exit code 0, also where a budget is missed
    :raises UserInputError: an option that cannot be used, or sbx does not run
    """
    options = parse_options(BenchmarkOptions, argv, prog=prog)
    import gymnasium as gym

    from sb3_vgs_ppo.runs.benchmark import Part, check_peer, run_benchmark
    from sb3_vgs_ppo.runs.benchmark_figure import check_folder, save_growth
    from sb3_vgs_ppo.runs.benchmark_train import Task
    from sb3_vgs_ppo.runs.environments import check_environment

    parts: tuple[Part, ...] = get_args(Part) if options.part == "all" else (options.part,)
    check_peer(parts, options.against, options.sbx_python)
    check_environment(options.env_id)
    if options.out is not None:
        if "growth" not in parts:
            raise UserInputError(f"--out has no effect on --part {options.part}; remedy: --part growth or all")
        check_folder(options.out)
    try:
        benchmark = run_benchmark(
            parts,
            Task(options.env_id, options.n_envs),
            options.repetitions,
            options.sbx_python,
            progress=lambda line: print(line, file=sys.stderr),
        )
    except (AssertionError, NotImplementedError, ValueError, gym.error.Error) as error:  # SB3 asserts on user input
        if isinstance(error, UserInputError):
            raise
        raise UserInputError(f"{options.env_id}: {error}") from error
    figures = [] if options.out is None else save_growth(benchmark.sweeps, options.out)
    if options.json:
        print(json.dumps(as_json(benchmark, options), indent=2))
    else:
        _print_benchmark(benchmark, options)
        for path in figures:
            print(f"Figure: {path}")
    return 0


def as_json(benchmark: Benchmark, options: BenchmarkOptions) -> dict[str, Any]:
    """:return: everything that was measured, as plain values"""
    import torch

    return {
        "env_id": options.env_id,
        "n_envs": options.n_envs,
        "repetitions": options.repetitions,
        "torch": torch.__version__,
        "lines": [
            {**dataclasses.asdict(line), "budget": line.budget and str(line.budget), "met": line.met}
            for line in benchmark.lines
        ],
        "growth": [dataclasses.asdict(sweep) for sweep in benchmark.sweeps],
    }


def _print_benchmark(benchmark: Benchmark, options: BenchmarkOptions) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    for sweep in benchmark.sweeps:
        _print_sweep(console, sweep)
    console.print(f"{options.env_id}, {options.n_envs} environments, {options.repetitions} repetitions, one thread")
    _print_lines(console, benchmark.lines)
    console.print(NOTE)


def _print_lines(console: Console, lines: Sequence[Line]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("part", "what", "measured", "beside", "ratio", "wall", "budget", ""):
        table.add_column(column, justify="right" if column in ("measured", "ratio", "wall", "budget") else "left")
    for line in lines:
        table.add_row(
            line.part,
            line.what,
            f"{line.value:.3g} {line.unit}" if line.value < 100 else f"{line.value:.0f} {line.unit}",
            line.against,
            _spread(line.ratios),
            _spread(line.wall_ratios),
            "" if line.budget is None else str(line.budget),
            {None: "", True: "[green]met[/]", False: "[red]MISSED[/]"}[line.met],
        )
    console.print(table)


def _print_sweep(console: Console, sweep: Sweep) -> None:
    from rich.table import Table

    table = Table(
        title=f"{sweep.unit} (CPU time), against {sweep.axis}", title_justify="left", box=None, pad_edge=False
    )
    table.add_column(sweep.axis, justify="right")
    for name in sweep.times:
        table.add_column(name, justify="right")
    for value, *times in zip(sweep.values, *map(sweep.medians, sweep.times), strict=True):
        table.add_row(f"{value:,}", *(f"{time:.3g}" for time in times))
    console.print(table, "")


def _spread(ratios: Sequence[float]) -> str:
    if not ratios:
        return ""
    median = statistics.median(ratios)
    digits = 3 if median < 0.1 else 2
    return f"{median:.{digits}f} ({min(ratios):.{digits}f}–{max(ratios):.{digits}f})"
