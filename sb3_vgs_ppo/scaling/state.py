"""State dicts of the scaler: reading what files hold, and carrying it from one version to another.

Both are pure functions from dictionary to dictionary. Besides the settings and ``step_count`` a state holds statistics;
the same key means different things in different versions, and only ``vgs_version`` tells them apart:

========================================  ===========  ============  ============
key                                       2.0          3.0           3.1
========================================  ===========  ============  ============
``param_grad_mean_ema``, shape (P,)       mean|g|      μ = mean(g)   μ
``param_grad_sq_ema``, shape (P,)         var(g)       μ²            mean(g²)
``param_ema_weight``, shape (P,)          0 or 1       1 − β^n       1 − β^n
``param_numel``, shape (P,)               sizes        sizes         sizes
========================================  ===========  ============  ============

4.0 has ``element_grad_mean_ema`` and ``element_grad_var_ema`` in place of the first two, both of shape (N,): mean and
variance of each element, tensor by tensor, already divided by 1 − β^n. It also has the settings :data:`APPLICATION`.

1.0 has none of these, but all versions have the global figures of :mod:`~sb3_vgs_ppo.scaling.elements_spatial`.
``param_ema_weight`` (after n observations of a tensor) is ours; legacy files lack it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from numbers import Integral, Real
from typing import Any

import torch as th

from sb3_vgs_ppo._types import StateDict
from sb3_vgs_ppo.errors import CheckpointError, UserInputError
from sb3_vgs_ppo.scaling.elements_spatial import GLOBAL_FIGURES
from sb3_vgs_ppo.scaling.settings import Application, Settings
from sb3_vgs_ppo.scaling.versions import KNOWN_VERSIONS, MEASURES, measure_version

SETTINGS = ("enabled", *(field.name for field in fields(Settings)))
APPLICATION = tuple(field.name for field in fields(Application))
_AVERAGES = {key for measure in MEASURES.values() for key in measure.averages}
_KNOWN_KEYS = {
    *("vgs_version", "step_count", "param_numel", "param_ema_weight"),
    *(*SETTINGS, *APPLICATION, *GLOBAL_FIGURES, *_AVERAGES),
}


def parse_state(state: Any, strict: bool = True, defaults: Mapping[str, Any] | None = None) -> StateDict:
    """
    Check a state dict of any known version and bring it into the form that the scaler writes.

    :param state: as read from a file. Statistics may be tensors of any dtype, lists, or None where never observed
    :param strict: refuse unknown keys, and missing settings and global figures. Otherwise the former are ignored,
        ``defaults`` fill the gaps, and missing figures count as never observed
    :param defaults: settings that take the place of missing ones, if not ``strict``
    :return: plain Python numbers and float64 tensors; ``vgs_version`` is a known version, and ``param_ema_weight`` is
        filled in where legacy code did not write it
    :raises CheckpointError: names the field that does not fit
    """
    if not isinstance(state, Mapping):
        raise CheckpointError(f"VGS state: expected a dictionary, got {type(state).__name__}")
    version = _version(state.get("vgs_version", "1.0"))
    if strict and (unknown := sorted(str(key) for key in state if key not in _KNOWN_KEYS)):
        raise _bad(unknown[0], "is not a field of any known version (strict=False ignores it)")
    parsed: StateDict = {"vgs_version": version}
    with_defaults = state if strict else {**(defaults or {}), **state}
    parsed |= _settings(with_defaults)
    if MEASURES[version].per_element:
        parsed |= _application(with_defaults)
    parsed["step_count"] = _step_count(_required(state, "step_count"))
    for key in GLOBAL_FIGURES:
        parsed[key] = _figure(key, _required(state, key) if strict else state.get(key))
    if MEASURES[version].averages:
        parsed |= _statistics(state, version, parsed["beta"], parsed["step_count"])
    return parsed


def check_sizes(state: StateDict, sizes: Sequence[int]) -> None:
    """
    :param state: as :func:`parse_state` returns it
    :param sizes: number of elements of each tensor of the scaler that is to continue it
    :raises CheckpointError: it is of tensors of other sizes
    """
    numel = state.get("param_numel")
    if numel is None:
        return
    theirs, ours = numel.tolist(), list(sizes)
    if theirs != ours:
        raise CheckpointError(
            f"VGS state: field 'param_numel' names {len(theirs)} tensors with {sum(theirs)} elements in all, this "
            f"scaler has {len(ours)} with {sum(ours)}, or in another order"
        )


def migrate_state(state: StateDict, to_version: str) -> StateDict:
    """
    Carry a state over to a version with another measure.

    Settings and the global figures are kept. What was remembered of each tensor means something else there and is
    dropped, and ``step_count`` restarts at 0 so that warm-up runs again: without it the empty averages would be read
    as full.

    :param state: as :func:`parse_state` returns it; not changed
    :param to_version: a known version
    :return: a state of ``to_version``; the given one if it already is
    """
    if state["vgs_version"] == to_version:
        return state
    kept = {key: state[key] for key in (*SETTINGS, *GLOBAL_FIGURES)}
    migrated: StateDict = {"vgs_version": to_version, **kept, "step_count": 0}
    return migrated | empty_statistics(to_version, state.get("param_numel"))


def empty_statistics(version: str, numel: th.Tensor | None = None) -> StateDict:
    """
    :param version: a known version
    :param numel: sizes of the tensors, shape (P,), if they are known
    :return: the fields that only some versions have, as they are before anything was observed
    """
    measure = MEASURES[version]
    if not measure.averages:
        return {}
    application = asdict(Application()) if measure.per_element else {}
    return {**application, **dict.fromkeys((*measure.averages, "param_ema_weight")), "param_numel": numel}


def migration_message(found: str, from_version: str, to_version: str) -> str:
    """:return: warning that a state of ``from_version``, which its file calls ``found``, changes its measure"""
    source, target = MEASURES[from_version], MEASURES[to_version]
    reset = "Settings are kept, per-parameter statistics are RESET and warm-up runs again; the global figures are kept."
    if target.over_time and not source.over_time:
        return (
            f"VGS v3.0 CRITICAL FIX: loading a VGS state of version {found}. Previous versions (v1.x, v2.x) computed "
            "SPATIAL variance (across the elements of a gradient at ONE time); v3.0 computes STOCHASTIC variance (over "
            f"time). This scaler, version {to_version}, measures {target.summary}. {reset} "
            "Retraining is recommended: the agent was trained with gradients scaled by the wrong variance."
        )
    return (
        f"Loading a VGS state of version {found} into a scaler of version {to_version}: it holds {source.summary}, "
        f"while this scaler measures {target.summary}. {reset}"
    )


def _bad(field: str, reason: str) -> CheckpointError:
    return CheckpointError(f"VGS state: field {field!r} {reason}")


def _required(state: Mapping[str, Any], field: str) -> Any:
    if field not in state:
        raise _bad(field, "is missing")
    return state[field]


def _version(found: Any) -> str:
    version = measure_version(found) if isinstance(found, str) else None
    if version is None:
        known = ", ".join(KNOWN_VERSIONS)
        raise _bad("vgs_version", f"is {found!r}, which is not known here ({known}); a newer release may read it")
    return version


def _settings(state: Mapping[str, Any]) -> StateDict:
    enabled = _required(state, "enabled")
    if not isinstance(enabled, bool):
        raise _bad("enabled", f"must be True or False, got {enabled!r}")
    try:
        settings = Settings(**{field.name: _required(state, field.name) for field in fields(Settings)})
    except UserInputError as error:
        raise CheckpointError(f"VGS state: {error}") from error
    return {"enabled": enabled, **asdict(settings)}


def _application(state: Mapping[str, Any]) -> StateDict:
    try:
        return asdict(Application(**{name: _required(state, name) for name in APPLICATION}))
    except UserInputError as error:
        raise CheckpointError(f"VGS state: {error}") from error


def _step_count(value: Any) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 0:
        raise _bad("step_count", f"must be an integer >= 0, got {value!r}")
    return int(value)


def _figure(field: str, value: Any) -> float | None:
    """Non-finite figures count as never observed: in legacy code one NaN gradient poisoned them for ever."""
    if isinstance(value, th.Tensor) and value.numel() == 1:
        value = value.item()
    if value is None:
        return None
    if not isinstance(value, Real) or isinstance(value, bool):
        raise _bad(field, f"must be a number or None, got {value!r}")
    return float(value) if math.isfinite(value) else None


def _vector(field: str, value: Any) -> th.Tensor:
    try:
        vector = th.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _bad(field, f"must be a vector of numbers, got {type(value).__name__}: {error}") from error
    if vector.dim() != 1 or vector.dtype == th.bool or vector.is_complex():
        raise _bad(field, f"must be a vector of numbers, got shape {tuple(vector.shape)}, {vector.dtype}")
    return vector.detach().to(th.float64)


def _statistics(state: Mapping[str, Any], version: str, beta: float, step_count: int) -> StateDict:
    """:return: the fields per tensor and element, of fitting lengths; averages are None if nothing was ever observed"""
    measure = MEASURES[version]
    averages = {key: _required(state, key) for key in measure.averages}
    numel = _required(state, "param_numel")
    if numel is not None:
        numel = _vector("param_numel", numel).long()
    observed = [key for key, value in averages.items() if value is not None]
    if not observed:
        return {**averages, "param_ema_weight": None, "param_numel": numel}
    if len(observed) < len(averages) or numel is None:
        missing = next(key for key, value in {**averages, "param_numel": numel}.items() if value is None)
        raise _bad(missing, f"is None although {observed[0]!r} was observed")
    parsed = {key: _vector(key, value) for key, value in averages.items()}
    if "param_ema_weight" in state:
        parsed["param_ema_weight"] = _vector("param_ema_weight", state["param_ema_weight"])
    else:
        # Legacy code counted steps for all tensors together. EMA1 (2.0) has weight 1 from its first value on.
        weight = float(step_count > 0) if version == "2.0" else 1.0 - beta**step_count
        parsed["param_ema_weight"] = th.full((len(numel),), weight, dtype=th.float64)
    for key, vector in parsed.items():
        per_element = measure.per_element and key in averages
        expected, of = (int(numel.sum()), "elements") if per_element else (len(numel), "tensors")
        if len(vector) != expected:
            raise _bad(key, f"has {len(vector)} entries for {expected} {of}")
        if not vector.isfinite().all():
            raise _bad(key, "holds NaN or Inf")
        if key == "element_grad_var_ema" and (vector < 0.0).any():
            raise _bad(key, "holds numbers below 0")
    return {**parsed, "param_numel": numel}
