"""
Python values as JSON, instead of the pickles that SB3 writes.

JSON's own types stand for themselves. Everything else is an object with one key that starts with ``$``: ``$tuple``,
``$dict`` (keys that are not plain strings), ``$float`` (nan and infinities), ``$numpy`` (a scalar), ``$device``,
``$class`` (see ``classes``) and ``$schedule``. A value that has no such form is written as ``$unsupported`` with its
``repr``, so that saving never fails because of it and loading fails only if it is needed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule

from sb3_vgs_ppo.checkpoint.classes import class_name, is_allowed, resolve_class
from sb3_vgs_ppo.checkpoint.faults import as_checkpoint_error
from sb3_vgs_ppo.checkpoint.json_text import Json
from sb3_vgs_ppo.errors import CheckpointError

DTYPES = {
    name: np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64"),
        *("uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"),
    )
}
"""The NumPy types that have a form, in the machine's byte order."""

_MAX_DEPTH = 64
_MAX_REPR = 200  # characters
_MAX_INT_BITS = 4096  # Python refuses to write integers of more than 4,300 digits


def unsupported(value: object) -> Json:
    """
    Note that a value could not be written.

    :param value: any object
    :return: ``{"$unsupported": repr}``, which :func:`decode` refuses
    """
    try:
        text = repr(value)
    except Exception:  # a repr is foreign code, and a note is not worth a failed save
        text = f"<{class_name(type(value))}>"
    # Without addresses, so that two equal runs write equal files.
    return {"$unsupported": re.sub(r" at 0x[0-9a-fA-F]+", "", text)[:_MAX_REPR]}


def refuse_unsupported(encoded: Json, where: str) -> None:
    """
    :param encoded: what :func:`encode` returned
    :param where: file, member and field, for messages
    :raises CheckpointError: it is the note of :func:`unsupported`
    """
    if isinstance(encoded, dict) and "$unsupported" in encoded:
        raise CheckpointError(
            f"{where}: {encoded['$unsupported']!s:.200} could not be stored without pickle; give it when loading"
        )


def encode(value: Any) -> Json:
    """
    Write a value as JSON.

    :param value: anything; see the module's docstring for what can be read back
    :return: JSON that :func:`decode` turns into an equal value of the same type
    """
    return _encode(value, depth=0)


def encode_mapping(values: dict[str, Any]) -> dict[str, Json]:
    """
    Write keyword arguments as a JSON object.

    :param values: anything under names that are identifiers
    :return: the encoded values under the same names
    """
    return {name: encode(value) for name, value in values.items()}


def decode(encoded: Json, where: str, argument: str = "") -> Any:
    """
    Read a value that :func:`encode` wrote.

    :param encoded: parsed JSON
    :param where: file, member and field, for messages
    :param argument: name of the argument that the value is for, which decides what a class must derive from
    :return: the value
    :raises CheckpointError: a form that is unknown or damaged, or a value that could not be written
    """
    with as_checkpoint_error(where):
        return _decode(encoded, where, argument)


def unsupported_fields(encoded: Json, path: str = "") -> list[str]:
    """
    :param encoded: parsed JSON
    :param path: how to reach it
    :return: where in it :func:`decode` would meet a value that could not be written
    """
    if isinstance(encoded, list):
        return [field for index, item in enumerate(encoded) for field in unsupported_fields(item, f"{path}[{index}]")]
    if not isinstance(encoded, dict):
        return []
    if "$unsupported" in encoded:
        return [path]
    return [
        field
        for key, item in encoded.items()
        for field in unsupported_fields(item, path if key.startswith("$") else f"{path}.{key}".lstrip("."))
    ]


def _encode(value: Any, depth: int) -> Json:
    if depth > _MAX_DEPTH:
        return unsupported(value)
    # By exact type, because a subclass (an IntEnum, a named tuple) would come back as something else.
    if type(value) in _ENCODERS:
        return _ENCODERS[type(value)](value, depth + 1)
    if isinstance(value, np.generic) and value.dtype.name in DTYPES:
        return {"$numpy": [value.dtype.name, _encode(value.item(), depth + 1)]}
    if isinstance(value, type) and is_allowed(value):
        return {"$class": class_name(value)}
    return unsupported(value)


def _encode_plain(value: Any, depth: int) -> Json:
    return value


def _encode_int(value: int, depth: int) -> Json:
    return value if value.bit_length() <= _MAX_INT_BITS else unsupported(value)


def _encode_float(value: float, depth: int) -> Json:
    return value if math.isfinite(value) else {"$float": str(value)}


def _encode_list(value: list[Any], depth: int) -> Json:
    return [_encode(item, depth) for item in value]


def _encode_tuple(value: tuple[Any, ...], depth: int) -> Json:
    return {"$tuple": [_encode(item, depth) for item in value]}


def _encode_dict(value: dict[Any, Any], depth: int) -> Json:
    if all(type(key) is str and not key.startswith("$") for key in value):
        return {key: _encode(item, depth) for key, item in value.items()}
    return {"$dict": [[_encode(key, depth), _encode(item, depth)] for key, item in value.items()]}


def _encode_device(value: th.device, depth: int) -> Json:
    return {"$device": str(value)}


def _encode_constant(value: ConstantSchedule, depth: int) -> Json:
    return {"$schedule": {"constant": _encode(value.val, depth)}}


def _encode_linear(value: LinearSchedule, depth: int) -> Json:
    return {"$schedule": {"linear": _encode([value.start, value.end, value.end_fraction], depth)}}


def _encode_float_schedule(value: FloatSchedule, depth: int) -> Json:
    return {"$schedule": {"float": _encode(value.value_schedule, depth)}}


_ENCODERS: dict[type, Callable[[Any, int], Json]] = {
    type(None): _encode_plain,
    bool: _encode_plain,
    str: _encode_plain,
    int: _encode_int,
    float: _encode_float,
    list: _encode_list,
    tuple: _encode_tuple,
    dict: _encode_dict,
    th.device: _encode_device,
    ConstantSchedule: _encode_constant,
    LinearSchedule: _encode_linear,
    FloatSchedule: _encode_float_schedule,
}


def _decode(encoded: Json, where: str, argument: str = "") -> Any:
    if isinstance(encoded, list):
        return [_decode(item, f"{where}[{index}]") for index, item in enumerate(encoded)]
    if not isinstance(encoded, dict):
        return encoded
    refuse_unsupported(encoded, where)
    tag = next((key for key in encoded if key.startswith("$")), None)
    if tag is None:
        return {key: _decode(item, f"{where}.{key}", argument=key) for key, item in encoded.items()}
    if tag == "$class" and len(encoded) == 1:
        return resolve_class(str(encoded[tag]), where, argument)
    if tag not in _DECODERS or len(encoded) != 1:
        raise CheckpointError(f"{where}: {encoded!r:.80} has no form that this version knows")
    with as_checkpoint_error(f"{where}: {tag}"):
        return _DECODERS[tag](encoded[tag], where)


def _decode_tuple(content: Json, where: str) -> tuple[Any, ...]:
    if not isinstance(content, list):
        raise ValueError(f"{content!r:.80}: a list expected")
    return tuple(_decode(content, where))


def _decode_dict(content: Json, where: str) -> dict[Any, Any]:
    return {_decode(key, f"{where}[key]"): _decode(item, f"{where}[{key!r:.40}]") for key, item in content}


def _decode_float(content: Json, where: str) -> float:
    if content not in ("nan", "inf", "-inf"):
        raise ValueError(f"{content!r:.80}: nan, inf or -inf expected")
    return float(content)


def _decode_numpy(content: Json, where: str) -> np.generic:
    name, number = content
    number = _decode(number, where)
    expected = {"b": (bool,), "f": (float,)}.get(str(name)[0], (int,))
    if name not in DTYPES or type(number) not in expected:
        raise ValueError(f"{content!r:.80}: a dtype and a number of that type expected")
    return DTYPES[name].type(number)


def _decode_device(content: Json, where: str) -> th.device:
    if not isinstance(content, str):
        raise ValueError(f"{content!r:.80}: the name of a device expected")
    return th.device(content)


def _decode_schedule(content: Json, where: str) -> ConstantSchedule | LinearSchedule | FloatSchedule:
    ((kind, parameters),) = content.items()
    decoded = _decode(parameters, where)
    if kind == "float" and isinstance(decoded, ConstantSchedule | LinearSchedule):
        return FloatSchedule(decoded)
    numbers = decoded if kind == "linear" else [decoded]
    if kind not in ("constant", "linear") or not all(_is_number(number) for number in numbers):
        raise ValueError(f"{content!r:.80}: constant, linear or float with numbers expected")
    return LinearSchedule(*numbers) if kind == "linear" else ConstantSchedule(numbers[0])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


_DECODERS: dict[str, Callable[[Json, str], Any]] = {
    "$tuple": _decode_tuple,
    "$dict": _decode_dict,
    "$float": _decode_float,
    "$numpy": _decode_numpy,
    "$device": _decode_device,
    "$schedule": _decode_schedule,
}
