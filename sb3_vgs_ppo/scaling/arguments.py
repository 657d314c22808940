"""What may stand in ``vgs_kwargs``, wherever a scaler is built on behalf of a user."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.scaling.scaler import VarianceGradientScaler

_SET_BY_OWNER = {"parameters", "version", "logger"}


def check_vgs_kwargs(names: Iterable[str], version_argument: str) -> None:
    """
    :param names: of keyword arguments for :class:`VarianceGradientScaler`
    :param version_argument: the owner's own argument for the version, for the message
    :raises UserInputError: one that the scaler does not take, or that its owner sets
    """
    taken = set(inspect.signature(VarianceGradientScaler).parameters) - _SET_BY_OWNER
    for name in names:
        if name in _SET_BY_OWNER:
            raise UserInputError(
                f"vgs_kwargs has {name!r}, which is set elsewhere; "
                f"remedy: {version_argument} for the version, and drop the rest"
            )
        if name not in taken:
            raise UserInputError(f"vgs_kwargs has {name!r}; remedy: one of {', '.join(sorted(taken))}")
