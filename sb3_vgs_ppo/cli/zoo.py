"""
Console scripts ``sb3-vgs-zoo-train`` and ``sb3-vgs-zoo-enjoy``: the zoo's own commands, in which ``dppo`` is known.

What differs from ``python -m rl_zoo3.train`` and ``enjoy``: ``--algo`` is ``dppo`` and ``enjoy`` looks in ``logs``,
where training writes, unless the command line says otherwise.
"""

from __future__ import annotations

import sys

from sb3_vgs_ppo.errors import UserInputError, VgsPpoError

EXIT_USER_ERROR = 2
_DEFAULTS = ("--algo", "dppo")


def train() -> int:
    """
    :return: exit code: 0, or 2 for a value that the user gave and that cannot be used
    """
    return _run("train", _DEFAULTS)


def enjoy() -> int:
    """
    :return: exit code: 0, or 2 for a value that the user gave and that cannot be used
    """
    return _run("enjoy", (*_DEFAULTS, "--folder", "logs"))


def _run(command: str, defaults: tuple[str, ...]) -> int:
    try:
        _import_zoo()
        import rl_zoo3.enjoy
        import rl_zoo3.train

        sys.argv[1:1] = defaults  # in front, so that what the user wrote wins
        {"train": rl_zoo3.train.train, "enjoy": rl_zoo3.enjoy.enjoy}[command]()
    except VgsPpoError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    return 0


def _import_zoo() -> None:
    """:raises UserInputError: rl_zoo3 is not installed"""
    try:
        import rl_zoo3  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "rl_zoo3":
            raise
        raise UserInputError('rl_zoo3 is not installed; remedy: pip install "sb3-vgs-ppo[zoo]"') from None
    from sb3_vgs_ppo.zoo import register

    register()
