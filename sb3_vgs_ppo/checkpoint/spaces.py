"""
Gymnasium spaces as JSON, instead of the pickles that SB3 writes.

The spaces are those that SB3 trains on: ``Box``, ``Discrete``, ``MultiDiscrete``, ``MultiBinary`` and ``Dict`` of them.
The state of a space's random generator is not part of its description.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_vgs_ppo.checkpoint.encoding import DTYPES, refuse_unsupported, unsupported
from sb3_vgs_ppo.checkpoint.faults import as_checkpoint_error
from sb3_vgs_ppo.checkpoint.json_text import Json
from sb3_vgs_ppo.errors import CheckpointError

_TAG = "$space"
# Equal bounds are written as one number, so that a few bytes can ask for any size. Ten full-HD images have 2**26.
_MAX_ELEMENTS = 2**26


def encode_space(space: spaces.Space[Any]) -> Json:
    """
    Describe a space as JSON.

    :param space: any space
    :return: its description; for a space that SB3 does not train on (``Tuple``, ``Text``, subclasses of users …) a note
        that :func:`decode_space` refuses
    """
    try:
        return _encode(space)
    except _NotDescribable:
        return unsupported(space)


def decode_space(description: Json, where: str) -> spaces.Space[Any]:
    """
    Build a space from its description.

    :param description: what :func:`encode_space` returned
    :param where: file, member and field, for messages
    :return: an equal space
    :raises CheckpointError: not a description of a space, one that could not be described, or one that is too large
    """
    with as_checkpoint_error(where):
        if (n_elements := _n_elements(description)) > _MAX_ELEMENTS:
            raise CheckpointError(f"{where}: {n_elements} elements, more than the limit of {_MAX_ELEMENTS}")
        return _decode(description, where)


class _NotDescribable(Exception):  # noqa: N818 - never leaves this module
    """A space, or one inside it, has no description."""


def _encode(space: spaces.Space[Any]) -> dict[str, Json]:
    # By exact type: a subclass may mean something else by the same attributes.
    if type(space) is spaces.Dict and all(type(key) is str for key in space.spaces):
        return {_TAG: "Dict", "spaces": {key: _encode(item) for key, item in space.spaces.items()}}
    if type(space) is spaces.MultiBinary:
        return {_TAG: "MultiBinary", "n": space.n if isinstance(space.n, int) else [int(n) for n in space.n]}
    dtype = _dtype_name(space)
    if type(space) is spaces.Discrete:
        return {_TAG: "Discrete", "n": int(space.n), "start": int(space.start), "dtype": dtype}
    if type(space) is spaces.MultiDiscrete:
        return {_TAG: "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist(), "dtype": dtype}
    if type(space) is spaces.Box:
        low = _encode_bound(space.low, space.bounded_below, "-inf")
        high = _encode_bound(space.high, space.bounded_above, "inf")
        return {_TAG: "Box", "low": low, "high": high, "shape": list(space.shape), "dtype": dtype}
    raise _NotDescribable


def _dtype_name(space: spaces.Space[Any]) -> str:
    dtype = np.dtype(space.dtype)
    if DTYPES.get(dtype.name) != dtype:  # another byte order, longdouble
        raise _NotDescribable
    return dtype.name


def _encode_bound(bound: np.ndarray, bounded: np.ndarray, unbounded: str) -> Json:
    """
    :param bound: ``low`` or ``high``
    :param bounded: where it holds; an integer Box has the type's smallest or largest number elsewhere
    :param unbounded: what to write elsewhere
    :return: one number if all are equal, else all of them in C order
    """
    values: np.ndarray = bound.ravel()
    flags: np.ndarray = bounded.ravel()
    if values.size and (values == values[0]).all() and (flags == flags[0]).all():
        values, flags = values[:1], flags[:1]
    numbers = [
        unbounded if not flag else str(value) if math.isinf(value) else value
        for value, flag in zip(values.tolist(), flags.tolist(), strict=True)
    ]
    return numbers[0] if values.size == 1 else numbers


def _decode(description: Json, where: str) -> spaces.Space[Any]:
    refuse_unsupported(description, where)
    kind = description.get(_TAG) if isinstance(description, dict) else None
    if not isinstance(kind, str) or kind not in _DECODERS:
        raise CheckpointError(
            f"{where}: {description!r:.80} does not describe a space; known are {', '.join(_DECODERS)}"
        )
    with as_checkpoint_error(f"{where}: {kind}"):
        return _DECODERS[kind](description, where)


def _field(description: dict[str, Json], name: str) -> Json:
    if name not in description:
        raise ValueError(f"{name} is missing")
    return description[name]


def _dtype(description: dict[str, Json]) -> np.dtype:
    name = _field(description, "dtype")
    if not isinstance(name, str) or name not in DTYPES:
        raise ValueError(f"dtype={name!r:.80}: one of {', '.join(DTYPES)} expected")
    return DTYPES[name]


def _is_shape(shape: Json) -> bool:
    return isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)


def _decode_dict(description: dict[str, Json], where: str) -> spaces.Dict:
    items = _field(description, "spaces").items()
    # As a sequence of pairs, because Dict sorts the keys of a dict.
    return spaces.Dict([(key, _decode(item, f"{where}.{key}")) for key, item in items])


def _decode_box(description: dict[str, Json], where: str) -> spaces.Box:
    dtype = _dtype(description)
    if not _is_shape(shape := _field(description, "shape")):
        raise ValueError(f"shape={shape!r:.80}: a list of sizes expected")
    low, bounded_below = _decode_bound(_field(description, "low"), shape, dtype, "-inf")
    high, bounded_above = _decode_bound(_field(description, "high"), shape, dtype, "inf")
    box = spaces.Box(low, high, shape, dtype.type)
    if dtype.kind == "i":  # Box was given the integers that stand for infinity, and cannot know that they do
        box.bounded_below, box.bounded_above = bounded_below, bounded_above
    return box


def _decode_bound(bound: Json, shape: list[int], dtype: np.dtype, unbounded: str) -> tuple[np.ndarray, np.ndarray]:
    numbers = bound if isinstance(bound, list) else [bound]
    allowed = {"f": (int, float), "b": (bool,)}.get(dtype.kind, (int,))
    infinity: float = math.inf if unbounded == "inf" else -math.inf
    if dtype.kind == "i":
        infinity = np.iinfo(dtype).max if unbounded == "inf" else np.iinfo(dtype).min
    values: list[float] = []
    for number in numbers:
        if type(number) not in allowed and not (number in ("inf", "-inf") and dtype.kind in "fi"):
            raise ValueError(f"{number!r:.80} is not a bound of type {dtype}")
        values.append((infinity if number == unbounded else float(number)) if isinstance(number, str) else number)
    flags = np.array([number != unbounded for number in numbers])
    array = np.array(values, dtype=dtype)
    if isinstance(bound, list):
        return array.reshape(shape), flags.reshape(shape)
    return np.full(shape, array[0]), np.full(shape, flags[0])


def _decode_discrete(description: dict[str, Json], where: str) -> spaces.Discrete:
    n, start, dtype = _field(description, "n"), _field(description, "start"), _dtype(description)
    if type(n) is not int or type(start) is not int:
        raise ValueError(f"n={n!r:.80}, start={start!r:.80}: integers expected")
    if dtype.kind not in "iu":
        raise ValueError(f"dtype={dtype.name!r}: an integer dtype expected")
    if dtype == np.int64:
        return spaces.Discrete(n, start=start)
    return spaces.Discrete(n, start=start, dtype=dtype.type)  # gymnasium before 1.2.3 has no such argument


def _decode_multi_discrete(description: dict[str, Json], where: str) -> spaces.MultiDiscrete:
    nvec, start = (_integers(_field(description, name), name) for name in ("nvec", "start"))
    return spaces.MultiDiscrete(nvec, dtype=_dtype(description).type, start=start)


def _decode_multi_binary(description: dict[str, Json], where: str) -> spaces.MultiBinary:
    n = _integers(_field(description, "n"), "n")
    if n.min() < 1:
        raise ValueError(f"n={n.tolist()!r:.80}: positive sizes expected")
    return spaces.MultiBinary(n.tolist())


def _integers(values: Json, name: str) -> np.ndarray:
    array = np.array(values)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name}={values!r:.80}: integers expected")
    return array


_DECODERS = {
    "Box": _decode_box,
    "Discrete": _decode_discrete,
    "MultiDiscrete": _decode_multi_discrete,
    "MultiBinary": _decode_multi_binary,
    "Dict": _decode_dict,
}


def _n_elements(description: Json) -> int:
    """Elements of all Boxes in a description, before it is known to be valid."""
    if not isinstance(description, dict):
        return 0
    if isinstance(description.get("spaces"), dict):
        return sum(_n_elements(item) for item in description["spaces"].values())
    shape = description.get("shape")
    return math.prod(shape) if _is_shape(shape) else 0  # type: ignore[arg-type]
