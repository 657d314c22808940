"""A checkpoint: written from what SB3 saves, read by SB3 and by us, refused when it is not what its manifest says."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.utils import FloatSchedule, LinearSchedule

from sb3_vgs_ppo.checkpoint import (
    MANIFEST,
    Manifest,
    dump_tensors,
    load_tensors,
    read_archive,
    read_checkpoint,
    save_model_archive,
    write_checkpoint,
)
from sb3_vgs_ppo.errors import CheckpointError

GOLDEN = Path(__file__).parents[1] / "fixtures" / "checkpoint_schema_1.zip"


@pytest.fixture
def path(tmp_path: Path, members: dict[str, bytes], manifest: Manifest) -> Path:
    path = write_checkpoint(tmp_path / "model", members, manifest)
    assert path == tmp_path / "model.zip"
    return path


@pytest.fixture(scope="module")
def model() -> PPO:
    return PPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32, n_epochs=1, seed=0).learn(32)


@pytest.fixture
def sb3_zip(model: PPO) -> bytes:
    buffer = io.BytesIO()
    model.save(buffer)
    return buffer.getvalue()


def test_round_trip(path: Path, members: dict[str, bytes], manifest: Manifest) -> None:
    checkpoint = read_checkpoint(path)
    assert checkpoint.archive.members == members
    assert {**vars(checkpoint.manifest), "members": {}} == vars(manifest)


def test_the_manifest_lists_the_digest_of_every_other_member(path: Path, members: dict[str, bytes]) -> None:
    listed = json.loads(read_archive(path)[MANIFEST])["members"]
    assert listed == {name: hashlib.sha256(content).hexdigest() for name, content in members.items()}


def test_what_describes_the_model_is_decoded(path: Path) -> None:
    checkpoint = read_checkpoint(path)
    arguments = checkpoint.decode("arguments")
    assert arguments.pop("n_steps") == 64
    assert [type(schedule) for schedule in arguments.values()] == [LinearSchedule, FloatSchedule]
    assert [schedule(0.75) for schedule in arguments.values()] == [0.0005, 0.2]
    assert checkpoint.decode("policy_class") is ActorCriticPolicy
    assert checkpoint.decode("policy_kwargs") == {"activation_fn": th.nn.ReLU, "net_arch": {"pi": [3], "vf": [4]}}
    assert checkpoint.decode("optimizer_class") is th.optim.SGD
    assert checkpoint.decode("attributes") == {"_n_updates": 20}
    assert checkpoint.space("action_space") == spaces.Discrete(3, start=-1)
    assert checkpoint.state_dict("policy")["action_net.weight"].tolist() == [[0, 1], [2, 3], [4, 5]]


def test_what_was_not_given_is_none(tmp_path: Path, members: dict[str, bytes], manifest: Manifest) -> None:
    write_checkpoint(tmp_path / "model", members, Manifest(**(vars(manifest) | {"optimizer_class": None})))
    assert read_checkpoint(tmp_path / "model").decode("optimizer_class") is None


def test_a_missing_state_dict_is_named(path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.zip: vgs\.pth: missing"):
        read_checkpoint(path).state_dict("vgs")


def test_a_value_without_form_is_refused_only_when_needed(members: dict[str, bytes], tmp_path: Path) -> None:
    manifest = Manifest.describe(
        algorithm=PPO,
        arguments={"learning_rate": lambda progress: 1e-3, "gamma": 0.9},
        policy_class=ActorCriticPolicy,
        policy_kwargs={},
        observation_space=spaces.Discrete(2),
        action_space=spaces.Text(2),
        num_timesteps=0,
    )
    write_checkpoint(tmp_path / "model", members, manifest)
    checkpoint = read_checkpoint(tmp_path / "model")
    with pytest.raises(
        CheckpointError, match=r"model\.zip: manifest\.json: arguments\.learning_rate: <function .*give it"
    ):
        checkpoint.decode("arguments")
    assert checkpoint.decode("arguments", without=["learning_rate"]) == {"gamma": 0.9}
    with pytest.raises(CheckpointError, match=r"model\.zip: manifest\.json: action_space: Text"):
        checkpoint.space("action_space")


def test_a_class_of_the_wrong_kind_is_refused(tmp_path: Path, members: dict[str, bytes], manifest: Manifest) -> None:
    values = {**vars(manifest), "policy_class": {"$class": "torch.nn.modules.activation.Tanh"}}
    write_checkpoint(tmp_path / "model", members, Manifest(**values))
    with pytest.raises(CheckpointError, match=r"policy_class: .* does not derive from BasePolicy"):
        read_checkpoint(tmp_path / "model").decode("policy_class")


# Refusals


def rewrite(path: Path, change: Callable[[dict[str, bytes]], object]) -> str:
    """Change a checkpoint's members behind its manifest's back; return the message with which it is refused."""
    members = dict(read_archive(path).members)
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    return str(caught.value).removeprefix(f"{path}: ")


def test_without_a_manifest_it_says_what_to_do(path: Path) -> None:
    message = rewrite(path, lambda members: members.pop(MANIFEST))
    assert message.startswith("manifest.json: missing. ")
    assert "--env-id" in message
    assert "--trust-pickle" in message


def test_another_content_is_refused(path: Path) -> None:
    message = rewrite(path, lambda members: members.update({"data": b"{}"}))
    assert message == "data: its SHA-256 is not the one in the manifest; the file is damaged"


def test_a_missing_member_is_refused(path: Path) -> None:
    assert (
        rewrite(path, lambda members: members.pop("policy.pth")) == "policy.pth: missing, though the manifest lists it"
    )


def test_an_unlisted_member_is_refused(path: Path) -> None:
    assert rewrite(path, lambda members: members.update({"evil.pth": b""})) == "evil.pth: not listed in the manifest"


def test_a_newer_schema_is_refused(path: Path) -> None:
    message = rewrite(path, lambda members: members.update({MANIFEST: b'{"schema": 99}'}))
    assert message.startswith("manifest.json: schema: 99 is newer than 1")


# Stable-Baselines3's own files


def test_sb3_reads_a_checkpoint_as_its_own(model: PPO, sb3_zip: bytes, manifest: Manifest, tmp_path: Path) -> None:
    extra = {"rng.pt": dump_tensors({"torch": th.get_rng_state()}), "env/0.json": b"{}"}
    path = save_model_archive(tmp_path / "model", sb3_zip, manifest, extra)
    assert path == tmp_path / "model.zip"
    _, parameters, _ = load_from_zip_file(path)
    assert parameters.keys() == {"policy", "policy.optimizer"}
    loaded = PPO.load(path)
    for name, tensor in model.policy.state_dict().items():
        assert th.equal(loaded.policy.state_dict()[name], tensor), name
    assert str(loaded.policy.optimizer.state_dict()) == str(model.policy.optimizer.state_dict())


def test_every_member_of_sb3_is_kept(sb3_zip: bytes, manifest: Manifest) -> None:
    buffer = io.BytesIO()
    assert save_model_archive(buffer, sb3_zip, manifest, {"rng.pt": b"state"}) is None
    with zipfile.ZipFile(io.BytesIO(sb3_zip)) as archive:
        expected = {name: archive.read(name) for name in archive.namelist()}
    assert read_checkpoint(buffer).archive.members == {**expected, "rng.pt": b"state"}


def test_a_state_dict_that_is_no_attribute_is_refused(sb3_zip: bytes, manifest: Manifest) -> None:
    with pytest.raises(ValueError, match=r"'rng\.pth': SB3 loads every \*\.pth .* name it \*\.pt"):
        save_model_archive(io.BytesIO(), sb3_zip, manifest, {"rng.pth": b""})


@pytest.mark.parametrize("name", ["data", MANIFEST])
def test_an_extra_member_replaces_nothing(sb3_zip: bytes, manifest: Manifest, name: str) -> None:
    with pytest.raises(ValueError, match="is there already"):
        save_model_archive(io.BytesIO(), sb3_zip, manifest, {name: b""})


def test_our_reader_finds_what_sb3_wrote(model: PPO, sb3_zip: bytes) -> None:
    archive = read_archive(io.BytesIO(sb3_zip))
    policy: dict[str, Any] = load_tensors(archive["policy.pth"], "model.zip", "policy.pth")
    assert policy.keys() == model.policy.state_dict().keys()
    assert all(th.equal(policy[name], tensor) for name, tensor in model.policy.state_dict().items())


# The format


def test_a_file_of_schema_1_loads_for_ever(manifest: Manifest, members: dict[str, bytes]) -> None:
    checkpoint = read_checkpoint(GOLDEN)
    expected = vars(manifest)
    for field in expected.keys() - {"versions", "members"}:
        assert getattr(checkpoint.manifest, field) == expected[field], field
    assert checkpoint.archive.members.keys() == members.keys()
    assert checkpoint.state_dict("policy")["action_net.weight"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert checkpoint.state_dict("policy.optimizer") == {
        "state": {},
        "param_groups": [{"lr": 1e-3, "params": [0, 1]}],
    }
    assert checkpoint.space("action_space") == spaces.Discrete(3, start=-1)
    assert checkpoint.decode("arguments")["learning_rate"](0.75) == 0.0005
