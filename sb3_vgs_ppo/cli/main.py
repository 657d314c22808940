"""The console script ``sb3-vgs-ppo``: picks the command, and is the one place where errors become exit codes.

Nothing heavy is imported here or at the top of a command's module, so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import NamedTuple

from sb3_vgs_ppo import __version__
from sb3_vgs_ppo._hints import did_you_mean
from sb3_vgs_ppo.errors import TrainingDiverged, UserInputError, VgsPpoError

PROGRAM = "sb3-vgs-ppo"

EXIT_DIVERGED = 1
EXIT_USER_ERROR = 2
EXIT_SIGINT = 130  # 128 + SIGINT, as shells report it


class Command(NamedTuple):
    """
    :param module: module with ``run(argv: Sequence[str], prog: str) -> int``, which returns the exit code
    :param summary: one line for ``--help``
    """

    module: str
    summary: str


COMMANDS = {
    "train": Command("sb3_vgs_ppo.cli.train", "train an agent, evaluate it and keep everything in a run folder"),
    "resume": Command("sb3_vgs_ppo.cli.resume", "continue a run that was stopped or killed, as if it never had been"),
    "compare": Command("sb3_vgs_ppo.cli.compare", "train variants with many seeds, and compare their learning curves"),
    "diagnose": Command("sb3_vgs_ppo.cli.diagnose", "feed known gradients to every VGS version, and print verdicts"),
    "benchmark": Command("sb3_vgs_ppo.cli.benchmark", "measure speed beside SB3's PPO, side by side"),
    "retrain": Command("sb3_vgs_ppo.cli.retrain", "train a legacy agent anew under the fixed VGS, draw both curves"),
    "search": Command(
        "sb3_vgs_ppo.cli.search", "try options of train for families of agents, and keep the best of each"
    ),
    "report": Command("sb3_vgs_ppo.cli.report", "show what a study's learning curves say: a page, figures and tables"),
    "inspect": Command("sb3_vgs_ppo.cli.inspect", "show what a checkpoint or a run folder holds, without running it"),
    "migrate": Command("sb3_vgs_ppo.cli.migrate", "write a checkpoint from one of an older version, or from SB3's"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run one command.

    :param argv: command line without the program's name; ``sys.argv[1:]`` if None
    :return: exit code: 0, 1 (diverged), 2 (a value that the user gave cannot be used), 130 or 143 (SIGINT, SIGTERM)
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ± is no reason to lose a result
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        return _dispatch([argument for argument in arguments if argument != "--debug"])
    except VgsPpoError as error:
        _report(str(error), debug)
        return EXIT_DIVERGED if isinstance(error, TrainingDiverged) else EXIT_USER_ERROR
    except KeyboardInterrupt as error:
        _report(str(error) or "stopped", debug)
        return EXIT_SIGINT


def _dispatch(arguments: list[str]) -> int:
    """:raises UserInputError: no such command"""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0 if arguments else EXIT_USER_ERROR
    name, *rest = arguments
    if name == "--version":
        print(__version__)
        return 0
    if name not in COMMANDS:
        raise UserInputError(f"no command {name!r}; {did_you_mean(name, COMMANDS)}")
    exit_code: int = import_module(COMMANDS[name].module).run(rest, prog=f"{PROGRAM} {name}")
    return exit_code


def _help() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items())
    return (
        f"usage: {PROGRAM} COMMAND [OPTIONS]\n\n{commands}\n\n"
        f"{PROGRAM} COMMAND --help lists a command's options. --debug shows the traceback of an error, "
        "--version the version."
    )


def _report(message: str, debug: bool) -> None:
    """Print one line on stderr, whatever the message looks like; the traceback above it only with ``--debug``."""
    if debug:
        traceback.print_exc()
    print("error:", " ".join(message.split()), file=sys.stderr)
