"""Presets: named sets of options of ``train``. This module is the one place where they are written down."""

from __future__ import annotations

from typing import Any

from sb3_vgs_ppo.errors import UserInputError

PRESETS: dict[str, dict[str, Any]] = {
    "continual": {
        "value_head": "quantile",
        "optimizer": "adaptive-upgd",
        "vgs_version": "off",
        "on_change": "restart-head+reset-optimizer",
        "algo_kwargs": {"learning_rate": 1e-3, "ent_coef": 0.004},
    },
}
"""Options by name of the preset. ``continual`` is for tasks that change: the best trial of results/search, with
the default α of the test and rounded numbers. No ``change_kwargs``: another ``on_change`` over it may not have them."""


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
