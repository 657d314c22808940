"""SB3's ``data`` member: plain values are read, pickles are only named."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.save_util import data_to_json
from stable_baselines3.common.utils import FloatSchedule, get_system_info

from sb3_vgs_ppo.checkpoint import read_sb3_data
from sb3_vgs_ppo.checkpoint.sb3_zip import read_versions, strip_class
from sb3_vgs_ppo.errors import CheckpointError


def test_what_sb3_writes() -> None:
    attributes = {
        "num_timesteps": 128,
        "policy_kwargs": {"net_arch": [64, 64]},
        "seed": None,
        "best": float("-inf"),
        "clip_range": FloatSchedule(0.2),
        "_last_obs": np.zeros((1, 4)),
        "action_space": spaces.Discrete(3),
    }
    data = read_sb3_data(data_to_json(attributes).encode(), "model.zip")
    assert data.values == {key: attributes[key] for key in ("num_timesteps", "policy_kwargs", "seed", "best")}
    assert {name: entry.type_name for name, entry in data.pickled.items()} == {
        "clip_range": "stable_baselines3.common.utils.FloatSchedule",
        "_last_obs": "numpy.ndarray",
        "action_space": "gymnasium.spaces.discrete.Discrete",
    }
    assert data.pickled["clip_range"].shown == {"value_schedule": "ConstantSchedule(val=0.2)"}


@pytest.mark.parametrize("pickle", ["not base64", 3, None, base64.b64encode(b"cos\nsystem\n.").decode()])
def test_a_pickle_is_not_even_decoded(pickle: object) -> None:
    data = read_sb3_data(json.dumps({"policy_class": {":serialized:": pickle}}).encode(), "model.zip")
    assert data.values == {}
    assert data.pickled["policy_class"].type_name == "unknown"
    assert data.pickled["policy_class"].shown == {}


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"null"])
def test_bad_json_is_refused(content: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"^model\.zip: data: "):
        read_sb3_data(content, "model.zip")


def test_versions_are_those_of_the_system_info() -> None:
    info, text = get_system_info(print_info=False)
    versions = read_versions(text.encode())
    assert versions["python"] == info["Python"]
    assert versions["stable-baselines3"] == info["Stable-Baselines3"]
    assert versions["torch"] == info["PyTorch"]
    assert read_versions(b"\xff nothing here") == {}


def test_type_names() -> None:
    assert strip_class("<class 'a.b.C'>") == "a.b.C"
    assert strip_class("something else") == "something else"
