"""Python values as JSON: what comes back is equal and of the same type, and nothing else comes back."""

from __future__ import annotations

import enum
import json
import math
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.policies import ActorCriticCnnPolicy
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule

from sb3_vgs_ppo.checkpoint.encoding import DTYPES, decode, encode, encode_mapping, unsupported_fields
from sb3_vgs_ppo.errors import CheckpointError
from sb3_vgs_ppo.optim import AdaptiveUPGD


def through_json(value: Any) -> Any:
    """What a value is after it was written to a file and read back."""
    return decode(json.loads(json.dumps(encode(value), allow_nan=False)), "file: manifest.json: field")


def same(a: Any, b: Any) -> bool:
    """Equality that also compares types, all the way down, and holds for NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, float | np.floating) and np.isnan(a):
        return bool(np.isnan(b))
    return bool(a == b)


def numpy_scalars() -> st.SearchStrategy[np.generic]:
    def of_type(name: str) -> st.SearchStrategy[np.generic]:
        dtype = DTYPES[name]
        if dtype.kind == "f":
            numbers: st.SearchStrategy[Any] = st.floats(width=dtype.itemsize * 8)  # type: ignore[call-overload]
        elif dtype.kind == "b":
            numbers = st.booleans()
        else:
            numbers = st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
        return numbers.map(dtype.type)

    return st.sampled_from(sorted(DTYPES)).flatmap(of_type)


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), numpy_scalars())
keys = st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.sampled_from(["$tuple", "$class", "$", ""]))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.lists(inner, max_size=4).map(tuple), st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=12,
)


@given(values)
def test_round_trip(value: Any) -> None:
    assert same(through_json(value), value)


def test_the_written_form_stays_as_it_is() -> None:
    value = {
        "n_steps": 64,
        "gamma": 0.99,
        "clip_range_vf": None,
        "betas": (0.9, 0.999),
        "max": math.inf,
        "lr": np.float32(0.5),
        "device": th.device("cuda:1"),
        "activation_fn": th.nn.Tanh,
        "schedule": FloatSchedule(LinearSchedule(1.0, 0.0, 0.5)),
        "by_index": {0: "a"},
    }
    assert encode(value) == {
        "n_steps": 64,
        "gamma": 0.99,
        "clip_range_vf": None,
        "betas": {"$tuple": [0.9, 0.999]},
        "max": {"$float": "inf"},
        "lr": {"$numpy": ["float32", 0.5]},
        "device": {"$device": "cuda:1"},
        "activation_fn": {"$class": "torch.nn.modules.activation.Tanh"},
        "schedule": {"$schedule": {"float": {"$schedule": {"linear": [1.0, 0.0, 0.5]}}}},
        "by_index": {"$dict": [[0, "a"]]},
    }


@pytest.mark.parametrize(
    "schedule",
    [
        ConstantSchedule(0.25),
        LinearSchedule(1e-3, 1e-5, 0.75),
        FloatSchedule(0.25),
        FloatSchedule(LinearSchedule(1, 0, 1)),
        ConstantSchedule(np.float32(0.25)),  # type: ignore[arg-type]
    ],
    ids=repr,
)
def test_schedules_come_back_with_their_numbers(schedule: Any) -> None:
    decoded = through_json(schedule)
    assert repr(decoded) == repr(schedule)
    assert [decoded(progress) for progress in (1.0, 0.5, 0.1)] == [schedule(progress) for progress in (1.0, 0.5, 0.1)]


@pytest.mark.parametrize(
    "cls",
    [
        *(th.nn.ReLU, th.nn.Tanh, th.nn.ELU, th.nn.LayerNorm, th.optim.Adam, th.optim.AdamW, th.optim.RMSprop),
        *(AdaptiveUPGD, ActorCriticCnnPolicy, NatureCNN, RolloutBuffer, DictRolloutBuffer),
    ],
)
def test_classes_come_back(cls: type) -> None:
    assert through_json(cls) is cls


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1", "meta"])
def test_devices_come_back(device: str) -> None:
    assert through_json(th.device(device)) == th.device(device)


class Colour(enum.IntEnum):
    RED = 1


class OwnModule(th.nn.Module):
    pass


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


SELF_CONTAINING: list[Any] = []
SELF_CONTAINING.append(SELF_CONTAINING)


@pytest.mark.parametrize(
    "value",
    [
        *(
            lambda progress: 0.1,
            print,
            Colour.RED,
            OwnModule,
            OrderedDict(a=1),
            {1, 2},
            b"bytes",
            np.ones(2),
            th.ones(2),
        ),
        *(np.str_("text"), np.longdouble(1), th.float32, 1j, 10**5000, SELF_CONTAINING, Unprintable(), type),
        FloatSchedule(lambda progress: 0.1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_form_is_noted_and_refused_when_needed(value: Any) -> None:
    encoded = json.loads(json.dumps(encode({"fine": 1, "odd": [value]})))
    (field,) = unsupported_fields(encoded)
    assert field.startswith("odd[0]")
    with pytest.raises(
        CheckpointError, match=r"^f\.odd\[0\].* could not be stored without pickle; give it when loading"
    ):
        decode(encoded, "f")


def test_a_note_holds_no_address() -> None:
    assert encode(OwnModule()) == {"$unsupported": "OwnModule()"}
    assert encode(Unprintable()) == {"$unsupported": f"<{__name__}.Unprintable>"}
    assert "0x" not in encode(lambda: 0)["$unsupported"]


def test_fields_without_form_are_found_in_every_container() -> None:
    encoded = encode_mapping({"a": (1, {2: print}), "b": [print, {"c": print}], "d": 1})
    assert unsupported_fields(encoded) == ["a[1][0][1]", "b[0]", "b[1].c"]


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        ({"$code": "print()"}, "has no form"),
        ({"$tuple": [], "more": 1}, "has no form"),
        ({"$tuple": 3}, "a list expected"),
        ({"$tuple": "ab"}, "a list expected"),
        ({"$float": "1.0"}, "nan, inf or -inf expected"),
        ({"$float": []}, "nan, inf or -inf expected"),
        ({"$numpy": ["int8", 300]}, "int8"),
        ({"$numpy": ["int8", 1.5]}, "a number of that type expected"),
        ({"$numpy": ["object", 1]}, "a number of that type expected"),
        ({"$numpy": ["float32", "1"]}, "a number of that type expected"),
        ({"$numpy": ["bool", 1]}, "a number of that type expected"),
        ({"$numpy": 3}, "unpack"),
        ({"$device": "toaster"}, "toaster"),
        ({"$device": 3}, "name of a device"),
        ({"$dict": [[[1], 2]]}, "unhashable"),
        ({"$dict": [1]}, "unpack"),
        ({"$schedule": {"constant": "0.1"}}, "with numbers expected"),
        ({"$schedule": {"constant": True}}, "with numbers expected"),
        ({"$schedule": {"linear": [1, 0]}}, "end_fraction"),
        ({"$schedule": {"linear": 1}}, "not iterable"),
        ({"$schedule": {"float": 0.1}}, "with numbers expected"),
        ({"$schedule": {"float": {"$schedule": {"float": {"$schedule": {"constant": 1}}}}}}, "with numbers expected"),
        ({"$schedule": {"eval": 0.1}}, "with numbers expected"),
        ({"$schedule": {}}, "unpack"),
        ({"$schedule": 3}, "items"),
        ({"$class": "os.system"}, "is not a class of"),
        ({"$class": 3}, "is not a class of"),
    ],
    ids=str,
)
def test_damaged_forms_are_refused(encoded: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        decode({"a": [encoded]}, "file: field")
    assert str(caught.value).startswith("file: field.a[0]")


def test_deep_nesting_is_refused() -> None:
    encoded: Any = 1
    for _ in range(5000):
        encoded = [encoded]
    with pytest.raises(CheckpointError, match=r"^field: .*recursion"):
        decode(encoded, "field")


def test_the_name_of_an_argument_decides_which_classes_fit() -> None:
    encoded = encode({"kwargs": {"activation_fn": th.optim.Adam}, "other": th.optim.Adam})
    assert decode(encoded["other"], "field") is th.optim.Adam
    with pytest.raises(CheckpointError, match=r"^field\.kwargs\.activation_fn: .* does not derive from Module"):
        decode(encoded, "field")
