"""From names, as users write them, to a callback."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sb3_vgs_ppo._hints import did_you_mean
from sb3_vgs_ppo.change.callback import ChangeCallback
from sb3_vgs_ppo.change.chart import SelfStartingChart
from sb3_vgs_ppo.change.oracle import OracleCallback
from sb3_vgs_ppo.change.responses import (
    RaiseEntropy,
    RaiseLearningRate,
    RaiseNoise,
    ResetOptimizer,
    Response,
    RestartHead,
    RestartNetwork,
    ShrinkHead,
)
from sb3_vgs_ppo.errors import UserInputError

NONE, REPORT = "none", "report"
TOLD = "told"
"""Argument that makes an oracle of the agent, see :class:`OracleCallback`."""

RESPONSES: dict[str, type[Response]] = {
    response.name: response
    for response in (
        RestartHead,
        ShrinkHead,
        RestartNetwork,
        ResetOptimizer,
        RaiseNoise,
        RaiseEntropy,
        RaiseLearningRate,
    )
}


def make_change_callback(
    on_change: str, kwargs: Mapping[str, Any] | None = None, file: Path | None = None
) -> ChangeCallback | None:
    """
    :param on_change: ``"none"``; ``"report"``; or responses, joined by ``+`` if there are several
    :param kwargs: arguments of the test and of the responses by name. One that several responses have goes to all;
        ``told=True`` makes it an :class:`OracleCallback`
    :param file: see :class:`ChangeCallback`
    :return: the callback, None for ``"none"``
    :raises UserInputError: an unknown name, an argument that nothing takes, or a value out of range
    """
    kwargs = dict(kwargs or {})
    names = [] if on_change in (NONE, REPORT) else on_change.split("+")
    for name in names:
        if name in (NONE, REPORT):
            raise UserInputError(f"on_change {on_change!r}: {name} stands alone; remedy: leave it out")
        if name not in RESPONSES:
            raise UserInputError(
                f"on_change {on_change!r}: {name!r} is no response; {did_you_mean(name, [NONE, REPORT, *RESPONSES])}"
            )
    if len(set(names)) < len(names):
        raise UserInputError(f"on_change {on_change!r} names a response twice; remedy: each once")
    parts: list[type[Any]] = [] if on_change == NONE else [SelfStartingChart, *(RESPONSES[name] for name in names)]
    told = kwargs.pop(TOLD, False) if parts else False
    if not isinstance(told, bool):
        raise UserInputError(f"change_kwargs {TOLD}={told!r} is not true or false")
    taken = [inspect.signature(part).parameters for part in parts]
    known = {TOLD, *(name for parameters in taken for name in parameters)} if parts else set()
    for name in kwargs:
        if name not in known:
            hint = did_you_mean(name, known) if known else f"remedy: on_change {REPORT!r}, or a response"
            raise UserInputError(f"change_kwargs {name!r}: on_change {on_change!r} has no such argument; {hint}")
    if not parts:
        return None
    chart, *responses = (
        part(**{name: value for name, value in kwargs.items() if name in parameters})
        for part, parameters in zip(parts, taken, strict=True)
    )
    return (OracleCallback if told else ChangeCallback)(responses, chart, file)
