"""``manifest.json``: what is written, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_vgs_ppo import __version__
from sb3_vgs_ppo.checkpoint import SCHEMA, Manifest
from sb3_vgs_ppo.errors import CheckpointError


def test_round_trip(manifest: Manifest) -> None:
    assert Manifest.from_json(manifest.to_json(), "file") == manifest


def test_the_written_form_stays_as_it_is(manifest: Manifest) -> None:
    written = json.loads(manifest.to_json())
    versions = written.pop("versions")
    assert versions["sb3-vgs-ppo"] == __version__
    assert versions["torch"] == str(th.__version__)
    assert {"python", "stable-baselines3", "gymnasium", "numpy", "numba"} < versions.keys()
    assert written == {
        "schema": 1,
        "algorithm": "PPO",
        "arguments": {
            "learning_rate": {"$schedule": {"linear": [0.001, 0.0, 0.5]}},
            "clip_range": {"$schedule": {"float": {"$schedule": {"constant": 0.2}}}},
            "n_steps": 64,
        },
        "policy_class": {"$class": "stable_baselines3.common.policies.ActorCriticPolicy"},
        "policy_kwargs": {
            "activation_fn": {"$class": "torch.nn.modules.activation.ReLU"},
            "net_arch": {"pi": [3], "vf": [4]},
        },
        "observation_space": {
            "$space": "Box",
            "low": [-1.0, "-inf"],
            "high": [1.0, "inf"],
            "shape": [2],
            "dtype": "float64",
        },
        "action_space": {"$space": "Discrete", "n": 3, "start": -1, "dtype": "int64"},
        "num_timesteps": 128,
        "attributes": {"_n_updates": 20},
        "value_head": "scalar",
        "optimizer_class": {"$class": "torch.optim.sgd.SGD"},
        "members": {},
    }


def test_nothing_that_a_model_holds_makes_writing_fail() -> None:
    class OwnPolicy(ActorCriticPolicy):
        pass

    manifest = Manifest.describe(
        algorithm=PPO,
        arguments={"learning_rate": lambda progress: 1e-3, "max": float("nan")},
        policy_class=OwnPolicy,
        policy_kwargs={"odd": {1: object()}},
        observation_space=spaces.Text(3),
        action_space=spaces.Tuple([spaces.Discrete(2)]),
        num_timesteps=0,
    )
    assert Manifest.from_json(manifest.to_json(), "file") == manifest


def test_fields_of_a_later_release_are_ignored(manifest: Manifest) -> None:
    content = json.dumps({**json.loads(manifest.to_json()), "colour": "blue"}).encode()
    assert Manifest.from_json(content, "file") == manifest


def test_a_newer_schema_is_refused_before_anything_else() -> None:
    with pytest.raises(
        CheckpointError, match=rf"^f: manifest.json: schema: {SCHEMA + 1} is newer than {SCHEMA}.*upgrade"
    ):
        Manifest.from_json(json.dumps({"schema": SCHEMA + 1}).encode(), "f")


@pytest.mark.parametrize("name", [name for name in Manifest.__dataclass_fields__ if name != "schema"])
def test_a_missing_field_is_named(manifest: Manifest, name: str) -> None:
    values = json.loads(manifest.to_json())
    del values[name]
    with pytest.raises(CheckpointError, match=f"^f: manifest.json: {name}: missing; .* expected$"):
        Manifest.from_json(json.dumps(values).encode(), "f")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("schema", "1"), ("schema", 0), ("schema", True), ("schema", None), ("schema", 1.0)),
        *(("algorithm", 1), ("algorithm", "a b"), ("algorithm", "")),
        *(
            (name, value)
            for name in ("arguments", "policy_kwargs", "attributes")
            for value in ([], None, {"$tuple": []})
        ),
        *((name, value) for name in ("policy_class", "observation_space", "action_space") for value in ("PPO", None)),
        *(("num_timesteps", -1), ("num_timesteps", 1.5), ("num_timesteps", True)),
        *(("value_head", 1), ("optimizer_class", "Adam"), ("versions", {"torch": 2}), ("versions", [])),
        *(("members", {"data": "00"}), ("members", {"data": "G" * 64}), ("members", {"data": 1}), ("members", [])),
    ],
)
def test_a_field_of_the_wrong_type_is_named(manifest: Manifest, name: str, value: Any) -> None:
    content = json.dumps({**json.loads(manifest.to_json()), name: value}).encode()
    with pytest.raises(CheckpointError, match=f"^f: manifest.json: {name}: .* expected$"):
        Manifest.from_json(content, "f")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value"),
        (b"[1]", "a JSON object expected, got list"),
        (b"{'schema': 1}", "Expecting property name"),
        (b'{"schema": NaN}', "NaN is not JSON"),
        (b'{"schema": -Infinity}', "-Infinity is not JSON"),
        (b"\xff\xfe", "codec can't decode"),
        (b'{"schema": ' + b"9" * 5000 + b"}", "integer string conversion"),
        (b"[" * 100_000, "recursion"),
        (b" " * (64 * 2**20 + 1), "more than the limit"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_bad_json_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=f"^f: manifest.json: .*{message}"):
        Manifest.from_json(content, "f")
