"""What a user sets on a scaler, checked where it enters."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any, Literal, TypeAlias, get_args

from sb3_vgs_ppo.errors import UserInputError

Granularity: TypeAlias = Literal["element", "tensor", "global"]
AppliedTo: TypeAlias = Literal["gradient", "update"]

_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "beta": (lambda v: 0.0 < v < 1.0, "a number in (0, 1)"),
    "alpha": (lambda v: v >= 0.0, "a finite number >= 0"),
    "eps": (lambda v: v > 0.0, "a finite number > 0"),
    "warmup_steps": (lambda v: v >= 0, "an integer >= 0"),
    "min_scaling_factor": (lambda v: 0.0 < v <= 1.0, "a number in (0, 1]"),
    "variance_cap": (lambda v: v > 0.0, "a finite number > 0"),
}


@dataclass(frozen=True)
class Settings:
    """Settings of a scaler, as plain Python numbers; explained where the scaler takes them.

    :raises UserInputError: (a ValueError) if a value is out of range; the message names it
    """

    beta: float
    alpha: float
    eps: float
    warmup_steps: int
    min_scaling_factor: float
    variance_cap: float

    def __post_init__(self) -> None:
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            in_range, wanted = _RANGES[name]
            kind, plain = (Integral, int) if name == "warmup_steps" else (Real, float)
            number = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
            if not (number and in_range(value)):
                raise UserInputError(f"{name} must be {wanted}, got {value!r}")
            # A NumPy scalar becomes a plain number, so that torch.load(weights_only=True) reads the state
            object.__setattr__(self, name, plain(value))


@dataclass(frozen=True)
class Application:
    """How factors are applied, from version 4.0 on; explained where the scaler takes it.

    :raises UserInputError: (a ValueError) if a value is not one of the possible ones; the message names it
    """

    granularity: Granularity = "tensor"
    apply_to: AppliedTo = "gradient"
    momentum: float | None = None

    def __post_init__(self) -> None:
        for name, choices in (("granularity", get_args(Granularity)), ("apply_to", get_args(AppliedTo))):
            if (value := getattr(self, name)) not in choices:
                raise UserInputError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
        momentum = self.momentum
        if momentum is None:
            return
        if not isinstance(momentum, Real) or isinstance(momentum, bool) or not 0.0 <= momentum < 1.0:
            raise UserInputError(f"momentum must be None or a number in [0, 1), got {momentum!r}")
        object.__setattr__(self, "momentum", float(momentum))


LEGACY_APPLICATION = Application("global", "gradient", 0.0)
"""That of the versions before 4.0, which have no other."""
