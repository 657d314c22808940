"""Presets: named sets of options of ``train``. This module is the one place where they are written down."""

from __future__ import annotations

from typing import Any

from sb3_vgs_ppo.errors import UserInputError

PRESETS: dict[str, dict[str, Any]] = {
    "continual": {
        "value_head": "scalar",
        "optimizer": "adam",
        "vgs_version": "off",
        "on_change": "restart-head+reset-optimizer+raise-learning-rate",
    },
}
"""Options by name of the preset. ``continual`` is for tasks that change: SB3's PPO, bit for bit, until its critic
notices a change, and then an agent that relearns fast. It leaves ``algo_kwargs`` to the task, and ``change_kwargs``
unset: another ``on_change`` over it may not have them."""


def preset_options(name: str) -> dict[str, Any]:
    """
    :return: what the preset sets
    :raises UserInputError: there is no such preset
    """
    if name not in PRESETS:
        raise UserInputError(f"preset {name!r} is not known; remedy: {', '.join(PRESETS)}")
    return PRESETS[name]


def describe_presets() -> str:
    """:return: names and options of all presets, for a help text"""
    return "; ".join(
        f"{name}: {', '.join(f'{option} {value}' for option, value in options.items())}"
        for name, options in PRESETS.items()
    )
