"""Spaces as JSON: what comes back is the same to every bit that SB3 looks at."""

from __future__ import annotations

import json
from inspect import signature
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sb3_vgs_ppo.checkpoint.encoding import DTYPES, unsupported_fields
from sb3_vgs_ppo.checkpoint.spaces import decode_space, encode_space
from sb3_vgs_ppo.errors import CheckpointError


def through_json(space: spaces.Space[Any]) -> spaces.Space[Any]:
    return decode_space(json.loads(json.dumps(encode_space(space), allow_nan=False)), "file: observation_space")


def assert_same(a: spaces.Space[Any], b: spaces.Space[Any]) -> None:
    """``Box.__eq__`` compares bounds with a tolerance; this compares bits."""
    assert type(a) is type(b)
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    if isinstance(a, spaces.Dict):
        assert isinstance(b, spaces.Dict)
        assert list(a.spaces) == list(b.spaces)
        for key in a.spaces:
            assert_same(a[key], b[key])
    elif isinstance(a, spaces.Box):
        for name in ("low", "high", "bounded_below", "bounded_above"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name, strict=True)
    else:
        assert a == b


@st.composite
def boxes(draw: st.DrawFn) -> spaces.Box:
    dtype = DTYPES[draw(st.sampled_from(sorted(set(DTYPES) - {"bool"})))]
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, max_side=3))
    elements = hnp.from_dtype(dtype, allow_nan=False)
    a, b = (draw(hnp.arrays(dtype, shape, elements=elements)) for _ in range(2))
    low, high = np.minimum(a, b), np.maximum(a, b)
    if dtype.kind == "i" and draw(st.booleans()):
        return spaces.Box(-np.inf, high, shape, dtype.type)
    return spaces.Box(low, high, shape, dtype.type)


if "dtype" in signature(spaces.Discrete).parameters:
    discretes = st.builds(
        lambda n, start, dtype: spaces.Discrete(n, start=start, dtype=DTYPES[dtype].type),
        *(st.integers(1, 100), st.integers(0, 20), st.sampled_from(["int64", "int32", "uint8"])),
    )
else:  # gymnasium before 1.2.3
    discretes = st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 100), st.integers(0, 20))
multi_discretes = hnp.arrays(np.int64, hnp.array_shapes(max_dims=3, max_side=3), elements=st.integers(1, 9)).flatmap(
    lambda nvec: st.builds(
        lambda start, dtype: spaces.MultiDiscrete(nvec, start=start, dtype=DTYPES[dtype].type),
        hnp.arrays(np.int64, nvec.shape, elements=st.integers(-5, 5)),
        st.sampled_from(["int64", "int8"]),
    )
)
multi_binaries = st.one_of(st.integers(1, 9), st.lists(st.integers(1, 4), min_size=1, max_size=3)).map(
    spaces.MultiBinary
)
any_spaces = st.recursive(
    st.one_of(boxes(), discretes, multi_discretes, multi_binaries),
    lambda inner: st.dictionaries(st.text(max_size=5), inner, min_size=1, max_size=3).map(
        lambda items: spaces.Dict(list(items.items()))
    ),
    max_leaves=4,
)


@settings(deadline=None)
@given(any_spaces)
def test_round_trip(space: spaces.Space[Any]) -> None:
    assert_same(through_json(space), space)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-np.inf, np.inf, (3,)),
        spaces.Box(np.array([-1.0, -np.inf]), np.array([np.inf, 2.0]), dtype=np.float64),
        spaces.Box(0, 255, (84, 84, 4), np.uint8),
        spaces.Box(0, 1, (2,), np.bool_),
        spaces.Box(-np.inf, np.inf, (2,), np.int32),
        spaces.Box(np.array([-128.0, -np.inf]), np.array([0.0, 1.0]), dtype=np.int8),
        spaces.Box(np.array([-np.inf, 3.0]), np.array([5.0, np.inf]), dtype=np.int32),
        spaces.Box(np.iinfo(np.int64).min, np.iinfo(np.int64).max, (2,), np.int64),
        spaces.Box(-1.0, 1.0, (), np.float16),
        spaces.Box(0.1, 0.3, (0, 4)),
        spaces.MultiBinary((2, 3)),
        spaces.MultiBinary([4]),
        spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[0, -1], [7, 0]]),
        spaces.Discrete(5, start=-2),
        spaces.Dict({"b": spaces.Discrete(2), "a": spaces.Dict(x=spaces.Box(0, 1, (2,)))}),
        spaces.Dict([("z", spaces.Discrete(2)), ("a", spaces.Discrete(3))]),
    ],
    ids=str,
)
def test_spaces_of_the_field(space: spaces.Space[Any]) -> None:
    assert_same(through_json(space), space)


def test_the_written_form_stays_as_it_is() -> None:
    space = spaces.Dict(
        {
            "image": spaces.Box(0, 255, (2, 2), np.uint8),
            "state": spaces.Box(np.array([-1.5, -np.inf]), np.array([1.5, np.inf]), dtype=np.float64),
            "switches": spaces.MultiBinary((2, 3)),
            "gears": spaces.MultiDiscrete([3, 2], start=[-1, 0]),
            "level": spaces.Discrete(4, start=1),
        }
    )
    assert encode_space(space)["spaces"] == {
        "image": {"$space": "Box", "low": 0, "high": 255, "shape": [2, 2], "dtype": "uint8"},
        "state": {"$space": "Box", "low": [-1.5, "-inf"], "high": [1.5, "inf"], "shape": [2], "dtype": "float64"},
        "switches": {"$space": "MultiBinary", "n": [2, 3]},
        "gears": {"$space": "MultiDiscrete", "nvec": [3, 2], "start": [-1, 0], "dtype": "int64"},
        "level": {"$space": "Discrete", "n": 4, "start": 1, "dtype": "int64"},
    }


class OwnBox(spaces.Box):
    pass


@pytest.mark.parametrize(
    "space",
    [
        spaces.Tuple([spaces.Discrete(2)]),
        spaces.Text(3),
        OwnBox(0, 1, (2,)),
        spaces.Dict(a=spaces.Tuple([spaces.Discrete(2)])),
        spaces.Box(0, 1, (2,), np.dtype(">f4")),  # type: ignore[arg-type]
        spaces.Dict({1: spaces.Discrete(2)}),  # type: ignore[dict-item]
    ],
    ids=str,
)
def test_other_spaces_are_noted_and_refused_when_needed(space: spaces.Space[Any]) -> None:
    encoded = encode_space(space)
    assert unsupported_fields({"observation_space": encoded}) == ["observation_space"]
    with pytest.raises(CheckpointError, match="could not be stored without pickle"):
        decode_space(encoded, "file")


BOX = {"$space": "Box", "low": 0, "high": 1, "shape": [2], "dtype": "float32"}
DISCRETE = {"$space": "Discrete", "n": 4, "start": 1, "dtype": "int64"}


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (3, "does not describe a space"),
        ({}, "does not describe a space"),
        ({"$space": "Tuple", "spaces": []}, "does not describe a space; known are Box, Discrete"),
        ({"$space": ["Box"]}, "does not describe a space"),
        ({**BOX, "dtype": "object"}, "dtype='object'"),
        ({**BOX, "dtype": "V1000000000"}, "dtype='V1000000000'"),
        ({**BOX, "shape": "12"}, "a list of sizes"),
        ({**BOX, "shape": [-1]}, "a list of sizes"),
        ({**BOX, "shape": [True, 10**12]}, "a list of sizes"),
        ({**BOX, "shape": [2.0]}, "a list of sizes"),
        ({**BOX, "low": "0"}, "is not a bound"),
        ({**BOX, "low": [0, "nan"]}, "is not a bound"),
        ({**BOX, "low": None}, "is not a bound"),
        ({**BOX, "low": True}, "is not a bound"),
        ({**BOX, "low": 2}, "less than or equal"),
        ({**BOX, "low": [0, 0, 0]}, "reshape"),
        ({**BOX, "low": []}, "Box: "),
        ({**BOX, "dtype": "uint8", "low": 0.5}, "is not a bound"),
        ({**BOX, "dtype": "uint8", "high": 300}, "uint8"),
        ({**BOX, "dtype": "uint8", "high": "inf"}, "is not a bound"),
        ({**BOX, "dtype": "int8", "low": "inf"}, "Box: "),
        ({key: value for key, value in BOX.items() if key != "high"}, "high is missing"),
        ({**DISCRETE, "n": "4"}, "integers expected"),
        ({**DISCRETE, "n": True}, "integers expected"),
        ({**DISCRETE, "n": 0}, "positive"),
        ({**DISCRETE, "dtype": "float32"}, "integer dtype"),
        ({"$space": "MultiDiscrete", "nvec": [2, 2.5], "start": [0, 0], "dtype": "int64"}, "integers expected"),
        ({"$space": "MultiDiscrete", "nvec": [2, [2]], "start": [0, 0], "dtype": "int64"}, "inhomogeneous"),
        ({"$space": "MultiDiscrete", "nvec": [2, 2], "start": [0], "dtype": "int64"}, "same shape"),
        ({"$space": "MultiBinary", "n": "3"}, "integers expected"),
        ({"$space": "MultiBinary", "n": [0]}, "positive"),
        ({"$space": "Dict", "spaces": [BOX]}, "items"),
        ({"$space": "Dict", "spaces": {"a": {"$space": "Dict", "spaces": {"b": 3}}}}, r"^f\.a\.b: 3 does not"),
    ],
)
def test_damaged_descriptions_are_refused(description: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        decode_space(description, "f")
    assert str(caught.value).startswith("f")


@pytest.mark.parametrize("parts", [1, 3])
def test_a_few_bytes_cannot_ask_for_a_huge_space(parts: int) -> None:
    box = {**BOX, "shape": [2**26 // parts + 1]}
    description = {"$space": "Dict", "spaces": {str(index): box for index in range(parts)}}
    with pytest.raises(CheckpointError, match=f"{parts * (2**26 // parts + 1)} elements, more than the limit"):
        decode_space(description, "f")


def test_deep_nesting_is_refused() -> None:
    description: Any = BOX
    for _ in range(5000):
        description = {"$space": "Dict", "spaces": {"a": description}}
    with pytest.raises(CheckpointError, match=r"^f: .*recursion"):
        decode_space(description, "f")
