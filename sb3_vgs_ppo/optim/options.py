"""The options of a parameter group: their values and their limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any, Literal, TypeAlias, get_args

from torch import Tensor

from sb3_vgs_ppo.errors import UserInputError

UtilityNormalization: TypeAlias = Literal["minmax", "max", "official"]
Noise: TypeAlias = Literal["absolute", "relative"]
Options: TypeAlias = Mapping[str, Any]

OPTIMIZER_WIDE = ("utility_normalization", "foreach")
"""Options that all groups must share: there is one gate over the tensors of all groups, computed in one way."""

LATER_OPTIONS: dict[str, Any] = {
    "utility_normalization": "minmax",
    "noise": "absolute",
    "foreach": None,
    "maximize": False,
}
"""Options that a saved state may lack, each with what a step did before it had that option."""


def check_options(options: Options) -> None:
    """Refuse options that no step could use.

    :param options: the options of one group, defaults filled in; ``betas`` and ``eps`` may be absent
    :raises UserInputError: echoes the first bad value; worded as torch's own optimizers do
    """
    if isinstance(options["lr"], Tensor):
        raise UserInputError(f"Invalid learning rate: {options['lr']} (must be a Python number: call .item())")
    for name, label in (
        ("lr", "learning rate"),
        ("weight_decay", "weight_decay value"),
        ("sigma", "sigma value"),
        ("eps", "epsilon value"),
    ):
        if name in options and not (isinstance(options[name], Real) and 0.0 <= options[name] < math.inf):
            raise UserInputError(f"Invalid {label}: {options[name]} (must be a finite number >= 0)")
    if not 0.0 <= options["beta_utility"] < 1.0:
        raise UserInputError(f"Invalid beta_utility value: {options['beta_utility']} (must be in [0, 1))")
    _check_betas(options.get("betas", (0.0, 0.0)))
    for name, choices in (("utility_normalization", get_args(UtilityNormalization)), ("noise", get_args(Noise))):
        if options[name] not in choices:
            raise UserInputError(f"Invalid {name} value: {options[name]!r} (must be one of {', '.join(choices)})")
    if options["foreach"] not in (None, True, False):
        raise UserInputError(f"Invalid foreach value: {options['foreach']!r} (must be True, False or None)")


def _check_betas(betas: tuple[float, ...]) -> None:
    if len(betas) != 2:
        raise UserInputError(f"Invalid betas: {betas} (must be two numbers)")
    for i, beta in enumerate(betas):
        if not 0.0 <= beta < 1.0:
            raise UserInputError(f"Invalid beta parameter at index {i}: {beta} (must be in [0, 1))")
