"""The state of a Variance Gradient Scaler as a file holds it: any version, recognized but not interpreted."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sb3_vgs_ppo._types import StateDict
from sb3_vgs_ppo.checkpoint.tensors import load_tensors
from sb3_vgs_ppo.errors import CheckpointError

VGS_MEMBER = "vgs.pth"
FIRST_VERSION = "1.0"  # its files do not say so

_SETTINGS = ("enabled", "beta", "alpha", "eps", "warmup_steps", "min_scaling_factor", "variance_cap")
_MARKS = ("vgs_version", "grad_mean_ema", "param_grad_mean_ema")


@dataclass(frozen=True)
class VgsSummary:
    """
    What a VGS state says about itself.

    :param version: version of the scaler that wrote it
    :param step_count: observations that it committed
    :param n_tensors: number of parameters that it observed, None where the version did not keep it
    :param settings: arguments of the scaler, those that the version wrote
    """

    version: str
    step_count: int
    n_tensors: int | None
    settings: Mapping[str, float | bool]


def read_vgs_state(content: bytes, file: str, member: str) -> StateDict:
    """
    :param content: what ``torch.save`` wrote
    :param file: checkpoint, for messages
    :param member: member, for messages
    :return: the state, of whatever version
    :raises CheckpointError: it cannot be read safely, or is not the state of a scaler
    """
    return _require_vgs_state(load_tensors(content, file, member), f"{file}: {member}")


def is_vgs_state(state: Any) -> bool:
    """
    :param state: anything that was loaded
    :return: whether it is a dict with the fields that every version of the scaler writes
    """
    return isinstance(state, dict) and "step_count" in state and any(mark in state for mark in _MARKS)


def summarize_vgs_state(state: Any, where: str) -> VgsSummary:
    """
    :param state: anything that was loaded
    :param where: file and member, for messages
    :return: version, steps and settings
    :raises CheckpointError: it is not the state of a scaler, or a field is not what its name promises
    """
    _require_vgs_state(state, where)
    version, step_count = state.get("vgs_version", FIRST_VERSION), state["step_count"]
    if not isinstance(version, str) or not re.fullmatch(r"[0-9]+(\.[0-9]+)*", version):
        raise CheckpointError(f"{where}: vgs_version: {version!r:.80}; a version such as '3.0' expected")
    if type(step_count) is not int or step_count < 0:
        raise CheckpointError(f"{where}: step_count: {step_count!r:.80}; an integer of at least 0 expected")
    settings = {name: state[name] for name in _SETTINGS if name in state}
    for name, value in settings.items():
        if type(value) not in (bool, int, float) or not math.isfinite(value):
            raise CheckpointError(f"{where}: {name}: {value!r:.80}; a finite number expected")
    numel = state.get("param_numel")
    return VgsSummary(version, step_count, None if numel is None else len(numel), settings)


def _require_vgs_state(state: Any, where: str) -> StateDict:
    if not is_vgs_state(state):
        found = ", ".join(map(repr, state)) if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(f"{where}: not a VGS state; it holds {found[:200] or 'nothing'}")
    return state  # type: ignore[no-any-return]
