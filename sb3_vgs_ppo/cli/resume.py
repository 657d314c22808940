"""``resume``: continue a run from its folder, and what to do with its result."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sb3_vgs_ppo.cli.options import parse_options
from sb3_vgs_ppo.cli.train import report


@dataclass(frozen=True)
class ResumeOptions:
    """Continue a run that was stopped or killed. Everything else is taken from its folder; the result is the same."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    total_timesteps: int | None = None
    """Environment steps of the whole run, to continue a finished one; schedules follow it. As before if not given."""
    progress: bool = True
    """Show a progress bar on a terminal. Elsewhere, and without it, a few plain lines are printed."""


def run(argv: Sequence[str], prog: str) -> int:
    """
    :return: 0 if the training is finished, 128 plus the signal that stopped it otherwise
    :raises VgsPpoError: see :func:`sb3_vgs_ppo.runs.resuming.resume`
    """
    options = parse_options(ResumeOptions, argv, prog=prog)
    # torch, SB3 and gymnasium are imported only once the options are understood
    from sb3_vgs_ppo.runs.progress import make_display
    from sb3_vgs_ppo.runs.resuming import resume

    display = make_display(options.progress, out=sys.stdout, terminal=sys.stderr)
    result = resume(options.run, options.total_timesteps, display=display, command=[*prog.split(), *argv])
    if result is None:
        print(f"Nothing to do: {options.run} is finished. To train on: {prog} {options.run} --total-timesteps N")
        return 0
    return report(result)
