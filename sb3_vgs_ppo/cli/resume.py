"""``resume``: continue a run from its folder, and what to do with its result."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from sb3_vgs_ppo.cli.options import parse_options
from sb3_vgs_ppo.cli.train import report
from sb3_vgs_ppo.errors import UserInputError

if TYPE_CHECKING:
    from sb3_vgs_ppo.runs.progress import Display
    from sb3_vgs_ppo.runs.training import TrainingResult


@dataclass(frozen=True)
class ResumeOptions:
    """Continue a run that was stopped or killed, as it was; or train on from a checkpoint file, in a new run folder."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Run folder; or checkpoint file, such as a migrated one."""
    total_timesteps: int | None = None
    """Environment steps of the whole run, to continue a finished one; schedules follow it. As before if not given."""
    run_dir: Path | None = None
    """Folder of the new run that starts from a checkpoint file; <file>_continued if not given."""
    env_id: str | None = None
    """Environment of a checkpoint file that lies in no run folder."""
    device: str | None = None
    """Where to compute from here on: auto, cpu, cuda or cuda:<index>; as before if not given."""
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
    if options.run.is_file():
        return report(_start_from_file(options, display, [*prog.split(), *argv]))
    for name in ("run_dir", "env_id"):
        if getattr(options, name) is not None:
            flag = "--" + name.replace("_", "-")
            raise UserInputError(f"{flag} is for checkpoint files, {options.run} is none; remedy: leave it out")
    result = resume(
        options.run, options.total_timesteps, options.device, display=display, command=[*prog.split(), *argv]
    )
    if result is None:
        print(f"Nothing to do: {options.run} is finished. To train on: {prog} {options.run} --total-timesteps N")
        return 0
    return report(result)


def _start_from_file(options: ResumeOptions, display: Display, command: Sequence[str]) -> TrainingResult:
    from sb3_vgs_ppo.runs.retraining import continue_checkpoint

    return continue_checkpoint(
        options.run,
        options.run_dir,
        env_id=options.env_id,
        total_timesteps=options.total_timesteps,
        device=options.device,
        display=display,
        command=command,
    )
