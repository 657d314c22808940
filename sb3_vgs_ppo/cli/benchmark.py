"""``sb3-vgs-ppo benchmark``: speed beside SB3's PPO, as a table of ratios with their spread."""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sb3_vgs_ppo.cli.options import parse_options
from sb3_vgs_ppo.errors import UserInputError

if TYPE_CHECKING:
    from sb3_vgs_ppo.runs.benchmark import Timing


@dataclass(frozen=True)
class BenchmarkOptions:
    """Measure ms per minibatch of train() and steps/s of learn() beside SB3's PPO, taking turns in one process."""

    env_id: str = "CartPole-v1"
    """Registered gymnasium id with vector observations."""
    n_envs: int = 8
    """Environments stepped side by side; must divide 2048."""
    repetitions: int = 7
    """Measured rounds; in each one every contender learns for two rollouts of 2048 steps."""
    json: bool = False
    """Print all timings as JSON instead of the table."""


def run(argv: Sequence[str], prog: str) -> int:
    """:return: exit code 0"""
    options = parse_options(BenchmarkOptions, argv, prog=prog)
    import gymnasium as gym

    from sb3_vgs_ppo.runs.benchmark import measure
    from sb3_vgs_ppo.runs.environments import check_environment

    check_environment(options.env_id)
    try:
        timings = measure(
            options.env_id,
            options.n_envs,
            options.repetitions,
            progress=lambda line: print(line, file=sys.stderr),
        )
    except (AssertionError, NotImplementedError, ValueError, gym.error.Error) as error:  # SB3 asserts on user input
        raise UserInputError(f"{options.env_id}: {error}") from error
    if options.json:
        print(json.dumps([dataclasses.asdict(timing) for timing in timings], indent=2))
    else:
        _print_table(timings, options)
    return 0


def _print_table(timings: Sequence[Timing], options: BenchmarkOptions) -> None:
    from rich.console import Console
    from rich.table import Table

    from sb3_vgs_ppo.runs.benchmark import ratio

    table = Table(
        title=f"{options.env_id}, {options.n_envs} environments, {options.repetitions} repetitions, one thread"
    )
    for column in ("agent", "ms per minibatch", "ratio to the first", "steps/s", "ratio to the first"):
        table.add_column(column, justify="left" if column == "agent" else "right")
    first = timings[0]
    for timing in timings:
        table.add_row(
            timing.name,
            f"{statistics.median(timing.minibatch_ms):.2f}",
            _spread(*ratio(timing.minibatch_ms, first.minibatch_ms)),
            f"{statistics.median(timing.steps_per_second):.0f}",
            _spread(*ratio(timing.steps_per_second, first.steps_per_second)),
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _spread(median: float, smallest: float, largest: float) -> str:
    return f"{median:.2f} ({smallest:.2f}–{largest:.2f})"
