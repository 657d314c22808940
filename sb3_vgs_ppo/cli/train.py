"""``train``: options, one training run, and what to do with its result."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from sb3_vgs_ppo.cli.options import parse_options
from sb3_vgs_ppo.cli.shell import program
from sb3_vgs_ppo.presets import describe_presets
from sb3_vgs_ppo.runs.config import TrainConfig
from sb3_vgs_ppo.runs.config_file import config_from_mapping, over_preset, read_config_file

if TYPE_CHECKING:
    from sb3_vgs_ppo.runs.folder import RunFolder
    from sb3_vgs_ppo.runs.training import TrainingResult


_PRESET_HELP = (
    f"Named set of options; --config and flags win over it, mappings are merged. {describe_presets()} "
    "(what they give: docs/change.md)."
)


@dataclass(frozen=True)
class TrainOptions(TrainConfig):
    """Train a DistributionalPPO agent on a gymnasium environment, evaluate it, and keep everything in a run folder."""

    preset: Annotated[str | None, tyro.conf.arg(help=_PRESET_HELP)] = None
    config: Path | None = None
    """YAML or JSON file with these options by name (env_id: Hopper-v5), or config.json of a run; flags win over it."""


def run(argv: Sequence[str], prog: str) -> int:
    """
    :return: 0 if the training is finished, 128 plus the signal that stopped it otherwise
    :raises VgsPpoError: see :func:`sb3_vgs_ppo.runs.training.train`
    """
    config = read_options(argv, prog)
    # torch, SB3 and gymnasium are imported only once the options are understood
    from sb3_vgs_ppo.runs.progress import make_display
    from sb3_vgs_ppo.runs.training import train

    display = make_display(config.progress, out=sys.stdout, terminal=sys.stderr)
    return report(train(config, display=display, command=[*prog.split(), *argv]))


def read_options(argv: Sequence[str], prog: str) -> TrainConfig:
    """
    :return: the options: defaults, changed by the preset, changed by the file, changed by the flags
    :raises UserInputError: an option, or a key of the file, cannot be understood
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--config", nargs="?")
    finder.add_argument("--preset", nargs="?")
    found = finder.parse_known_args(argv)[0]
    if found.config:
        values = read_config_file(Path(found.config), found.preset)
    else:
        values = config_from_mapping({"preset": found.preset}, "--preset")
    options = parse_options(TrainOptions, argv, prog=prog, default=TrainOptions(**vars(values)))
    return TrainConfig(**over_preset({field.name: getattr(options, field.name) for field in fields(TrainConfig)}))


def report(result: TrainingResult) -> int:
    """
    Print how a run ended and what to do next.

    :return: exit code: 0 if the training is finished, 128 plus the signal that stopped it otherwise
    """
    _print_stopped(result) if result.signal_number else _print_finished(result)
    return 128 + result.signal_number if result.signal_number else 0


def _print_finished(result: TrainingResult) -> None:
    folder = result.folder
    print(
        f"Finished: {result.num_timesteps:,} steps, {result.episodes:,} episodes, "
        f"{result.steps_per_second:,.0f} steps/s\n"
        f"Final evaluation: {result.final_evaluation}\n"
        f"Run folder: {folder.path}\n"
        f"  {folder.curve.name}: learning curve\n"
        f"{_calibration_line(folder)}"
        f"  {folder.final_model.name}: the final agent; {folder.best_model.name}: the best at an evaluation\n"
        f"{_video_line(result)}"
        f"{_tracker_lines(result)}"
        f"Next: {program('sb3-vgs-ppo')} inspect {shlex.quote(str(folder.path))}"
    )


def _calibration_line(folder: RunFolder) -> str:
    figure = folder.calibration_figure
    return f"  {figure.name}: predicted against realised returns\n" if figure.exists() else ""


def _video_line(result: TrainingResult) -> str:
    video = result.video
    if video is None:
        return ""
    return (
        f"  {video.path.name}: an episode of {video.agent} ({video.step:,} steps of training): "
        f"{video.n_steps:,} steps, return {video.episode_return:.2f}\n"
    )


def _tracker_lines(result: TrainingResult) -> str:
    """:return: per tracker, the address of the run or the command that shows it"""
    shown = {
        title: words[0] if len(words) == 1 else f"{program(words[0])} {shlex.join(words[1:])}"
        for title, words in result.shown_by.items()
    }
    return "".join(f"{title}: {how}\n" for title, how in shown.items())


def _print_stopped(result: TrainingResult) -> None:
    print(
        f"Stopped after {result.num_timesteps:,} steps; everything so far is saved.\n"
        f"Run folder: {result.folder.path}\n"
        f"Next: {program('sb3-vgs-ppo')} resume {shlex.quote(str(result.folder.path))}"
    )
