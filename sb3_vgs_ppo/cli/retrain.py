"""``retrain``: train a legacy agent anew under the fixed VGS, and draw the old curve against the new one."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sb3_vgs_ppo.cli.options import parse_options
from sb3_vgs_ppo.cli.shell import program


@dataclass(frozen=True)
class RetrainOptions:
    """Train what a run or checkpoint of a legacy VGS was trained for, same options and seed, under another version."""

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SOURCE")]
    """Run folder, or checkpoint."""
    out: Path | None = None
    """Study folder, new or empty; <source>_vgs-<version> if not given. One that was stopped is gone on with."""
    to_version: str = "3.0"
    """VGS version of the new training."""
    continue_: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(name="continue")] = False
    """Start from the old agent's migrated weights instead of from scratch."""
    env_id: str | None = None
    """Environment of a checkpoint that lies in no run folder."""
    total_timesteps: int | None = None
    """Environment steps of the new training; those of the old one if not given."""
    device: str | None = None
    """Where the new training computes: auto, cpu, cuda or cuda:<index>; where the old one did if not given."""
    progress: bool = True
    """Show a progress bar on a terminal. Elsewhere, and without it, a few plain lines are printed."""


def run(argv: Sequence[str], prog: str) -> int:
    """
    :return: 0 if the training is finished, 128 plus the signal that stopped it otherwise
    :raises VgsPpoError: see :func:`sb3_vgs_ppo.runs.retraining.retrain`
    """
    options = parse_options(RetrainOptions, argv, prog=prog)
    from sb3_vgs_ppo.runs.progress import make_display
    from sb3_vgs_ppo.runs.retraining import retrain

    done = retrain(
        options.source,
        options.out,
        to_version=options.to_version,
        continue_weights=options.continue_,
        env_id=options.env_id,
        total_timesteps=options.total_timesteps,
        device=options.device,
        display=make_display(options.progress, out=sys.stdout, terminal=sys.stderr),
        command=[*prog.split(), *argv],
    )
    if done.new_mean_reward is None:
        signal_number = done.result.signal_number if done.result else None
        print(f"Stopped. To go on: {program('sb3-vgs-ppo')} retrain {shlex.join(argv)}")
        return 128 + (signal_number or 0)
    print(
        f"Old agent: {done.old}\n"
        f"New agent: {done.new_mean_reward:.2f} in its final evaluation. One seed: the difference may be chance\n"
        f"Study folder: {done.folder}\n"
        "  comparison.png: old curve and new curve; summary.json: the figures; old/, new/: the runs"
    )
    return 0
