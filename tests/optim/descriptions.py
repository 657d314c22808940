"""Each optimizer described once: its state, inputs that it must take, and inputs that it must refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from sb3_vgs_ppo.optim import UPGD, AdaptiveUPGD

NORMALIZATIONS = ("minmax", "max", "official")
NOISES = ("absolute", "relative")


@dataclass(frozen=True)
class Description:
    """What the suite has to know about one optimizer.

    :param optimizer: the class
    :param state: names of the state tensors of one parameter
    :param valid: keyword arguments that must construct and step
    :param invalid: keyword arguments with the pattern of the error that they must raise
    """

    optimizer: Callable[..., Any]
    state: tuple[str, ...]
    valid: tuple[dict[str, Any], ...]
    invalid: tuple[tuple[dict[str, Any], str], ...]

    @property
    def name(self) -> str:
        return self.optimizer.__name__


_VALID = (
    {},
    {"lr": 0.0, "sigma": 0.0, "weight_decay": 0.0},
    {"lr": 1, "sigma": 1, "weight_decay": 1},
    {"beta_utility": 0.0},
    {"utility_normalization": "max", "noise": "relative"},
    {"utility_normalization": "official", "maximize": True},
    {"foreach": True},
    {"foreach": False},
)
_INVALID = (
    ({"lr": -1.0}, r"Invalid learning rate: -1\.0 .*>= 0"),
    ({"lr": float("nan")}, r"Invalid learning rate: nan"),
    ({"weight_decay": -0.5}, r"Invalid weight_decay value: -0\.5"),
    ({"sigma": -2.0}, r"Invalid sigma value: -2\.0"),
    ({"beta_utility": 1.0}, r"Invalid beta_utility value: 1\.0 .*\[0, 1\)"),
    ({"beta_utility": -0.1}, r"Invalid beta_utility value: -0\.1"),
    ({"utility_normalization": "rank"}, r"Invalid utility_normalization value: 'rank' .*minmax, max, official"),
    ({"noise": None}, r"Invalid noise value: None .*absolute, relative"),
)

DESCRIPTIONS = (
    Description(UPGD, ("avg_utility",), _VALID, _INVALID),
    Description(
        AdaptiveUPGD,
        ("avg_utility", "exp_avg", "exp_avg_sq"),
        (*_VALID, {"betas": (0.0, 0.0), "eps": 0.0, "sigma": 0.0}, {"betas": [0.5, 0.9]}),
        (
            *_INVALID,
            ({"betas": (1.0, 0.9)}, r"Invalid beta parameter at index 0: 1\.0"),
            ({"betas": (0.9, -0.1)}, r"Invalid beta parameter at index 1: -0\.1"),
            ({"eps": -1e-8}, r"Invalid epsilon value: -1e-08"),
        ),
    ),
)

every_optimizer = pytest.mark.parametrize("description", DESCRIPTIONS, ids=lambda description: description.name)
every_normalization = pytest.mark.parametrize("normalization", NORMALIZATIONS)
every_noise = pytest.mark.parametrize("noise", NOISES)
both_paths = pytest.mark.parametrize("foreach", [False, True], ids=["oracle", "fast"])
