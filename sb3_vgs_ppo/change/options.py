"""From names, as users write them, to a callback."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sb3_vgs_ppo._hints import did_you_mean
from sb3_vgs_ppo.change.callback import ChangeCallback
from sb3_vgs_ppo.change.chart import SelfStartingChart
from sb3_vgs_ppo.change.responses import RaiseEntropy, RaiseNoise, ResetOptimizer, Response, RestartHead, ShrinkHead
from sb3_vgs_ppo.errors import UserInputError

NONE, REPORT = "none", "report"

RESPONSES: dict[str, type[Response]] = {
    response.name: response for response in (RestartHead, ShrinkHead, ResetOptimizer, RaiseNoise, RaiseEntropy)
}


def make_change_callback(
    on_change: str, kwargs: Mapping[str, Any] | None = None, file: Path | None = None
) -> ChangeCallback | None:
    """
    :param on_change: ``"none"``; ``"report"``; or responses, joined by ``+`` if there are several
    :param kwargs: arguments of the test and of the responses by name. One that several responses have goes to all
    :param file: see :class:`ChangeCallback`
    :return: the callback, None for ``"none"``
    :raises UserInputError: an unknown name, an argument that nothing takes, or a value out of range
    """
    kwargs = kwargs or {}
    names = [] if on_change in (NONE, REPORT) else on_change.split("+")
    for name in names:
        if name not in RESPONSES:
            raise UserInputError(f"on_change {name!r}: {did_you_mean(name, [NONE, REPORT, *RESPONSES])}")
    if len(set(names)) < len(names):
        raise UserInputError(f"on_change {on_change!r} names a response twice; remedy: each once")
    parts: list[type[Any]] = [] if on_change == NONE else [SelfStartingChart, *(RESPONSES[name] for name in names)]
    taken = [inspect.signature(part).parameters for part in parts]
    known = {name for parameters in taken for name in parameters}
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
    return ChangeCallback(responses, chart, file)
