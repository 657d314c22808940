"""What ``inspect_checkpoint`` says, and that looking runs nothing."""

from __future__ import annotations

import base64
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch as th
from stable_baselines3 import PPO

from helpers import Payload
from sb3_vgs_ppo.checkpoint import (
    MANIFEST,
    Manifest,
    dump_tensors,
    inspect_checkpoint,
    read_archive,
    read_sb3_data,
    write_archive,
    write_checkpoint,
)
from sb3_vgs_ppo.checkpoint.vgs_state import VgsSummary
from sb3_vgs_ppo.errors import CheckpointError

VGS_2 = {
    "vgs_version": "2.0",
    "enabled": True,
    "beta": 0.99,
    "alpha": 0.1,
    "eps": 1e-8,
    "warmup_steps": 100,
    "step_count": 250,
    "grad_mean_ema": 0.1,
    "grad_var_ema": 0.2,
    "grad_norm_ema": 1.0,
    "grad_max_ema": 3.0,
    "param_grad_mean_ema": th.ones(12),
    "param_grad_sq_ema": th.ones(12),
    "param_numel": th.ones(12),
}
VGS_1 = {"enabled": False, "beta": 0.9, "step_count": 7, "grad_mean_ema": None}
SETTINGS_2 = {"enabled": True, "beta": 0.99, "alpha": 0.1, "eps": 1e-8, "warmup_steps": 100}


@pytest.fixture(scope="module")
def sb3_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    policy_kwargs = {"optimizer_class": th.optim.SGD, "net_arch": [8]}
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32, n_epochs=1, policy_kwargs=policy_kwargs)
    path = tmp_path_factory.mktemp("sb3") / "sb3.zip"
    model.learn(32).save(path)
    return path


def with_members(source: Path, target: Path, members: dict[str, bytes]) -> Path:
    write_archive(target, {**read_archive(source).members, **members})
    return target


def test_a_checkpoint(tmp_path: Path, members: dict[str, bytes], manifest: Manifest) -> None:
    members |= {"vgs.pth": dump_tensors(VGS_2), "env.pkl": pickle.dumps(1), "rng.pt": dump_tensors([1])}
    write_checkpoint(tmp_path / "model", members, manifest)
    summary = inspect_checkpoint(tmp_path / "model")
    assert summary.file == str(tmp_path / "model.zip")
    assert summary.kind == "checkpoint"
    assert summary.schema == 1
    assert summary.versions == manifest.versions
    assert summary.algorithm == "PPO"
    assert summary.num_timesteps == 128
    assert summary.policy_class == "stable_baselines3.common.policies.ActorCriticPolicy"
    assert summary.value_head == "scalar"
    assert summary.optimizer_class == "torch.optim.sgd.SGD"
    assert summary.observation_space == "Box([ -1. -inf], [ 1. inf], (2,), float64)"
    assert summary.action_space == "Discrete(3, start=-1)"
    assert summary.parameters == {"action_net.weight": (3, 2), "action_net.bias": (3,)}
    assert summary.n_parameters == 9
    assert summary.vgs == VgsSummary("2.0", 250, 12, SETTINGS_2)
    assert summary.members == {name: len(content) for name, content in read_archive(summary.file).members.items()}
    assert summary.pickles == {"env.pkl": []}
    assert summary.unsupported == []
    assert summary.digests_verified


def test_plain_sb3(sb3_path: Path) -> None:
    summary = inspect_checkpoint(sb3_path)
    assert summary.kind == "sb3"
    assert summary.schema is None
    assert summary.versions["torch"] == th.__version__
    assert summary.num_timesteps == 32
    assert summary.policy_class == "stable_baselines3.common.policies.ActorCriticPolicy"
    assert summary.optimizer_class == "torch.optim.sgd.SGD"
    assert summary.observation_space is not None
    assert summary.observation_space.startswith("Box(low=[-4.8 ")
    assert summary.observation_space.endswith("shape=[4], dtype=float32)")
    assert summary.action_space == "Discrete(n=2, start=0, dtype=int64)"
    # 4 → 8 tanh, once for the policy and once for the value, then 2 logits and 1 value
    assert summary.n_parameters == 2 * (4 * 8 + 8) + (8 * 2 + 2) + (8 + 1)
    assert summary.vgs is None
    assert "action_space: gymnasium.spaces.discrete.Discrete" in summary.pickles["data"]
    assert not summary.digests_verified


def test_sb3_with_a_legacy_scaler(sb3_path: Path, tmp_path: Path) -> None:
    summary = inspect_checkpoint(with_members(sb3_path, tmp_path / "old.zip", {"vgs.pth": dump_tensors(VGS_1)}))
    assert summary.kind == "sb3-with-vgs"
    assert summary.vgs == VgsSummary("1.0", 7, None, {"enabled": False, "beta": 0.9})


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_a_bare_scaler_state(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"vgs{suffix}"
    th.save(VGS_2, path)
    summary = inspect_checkpoint(path)
    assert summary.kind == "vgs-state"
    assert summary.vgs == VgsSummary("2.0", 250, 12, SETTINGS_2)
    assert summary.n_parameters == 0


@pytest.mark.parametrize("state", [{"policy": 1}, [1, 2], {"step_count": 3}, {"vgs_version": "3.0"}, th.ones(2)])
def test_another_torch_file_is_refused(tmp_path: Path, state: Any) -> None:
    th.save(state, tmp_path / "file.pt")
    with pytest.raises(CheckpointError, match="not a VGS state"):
        inspect_checkpoint(tmp_path / "file.pt")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(
            ("vgs_version", 2.0),
            ("vgs_version", "3.0\x1b[2J"),
            ("step_count", -1),
            ("step_count", 1.5),
            ("step_count", None),
        ),
        *(("beta", "0.9"), ("beta", float("nan")), ("warmup_steps", th.ones(2)), ("enabled", None)),
    ],
)
def test_a_damaged_scaler_state_names_the_field(tmp_path: Path, field: str, value: Any) -> None:
    th.save({**VGS_2, field: value}, tmp_path / "vgs.pt")
    with pytest.raises(CheckpointError, match=rf"vgs\.pt: {field}: .* expected"):
        inspect_checkpoint(tmp_path / "vgs.pt")


def test_every_summary_is_json(sb3_path: Path, tmp_path: Path, members: dict[str, bytes], manifest: Manifest) -> None:
    write_checkpoint(tmp_path / "ours.zip", members, manifest)
    th.save(VGS_2, tmp_path / "vgs.pt")
    for path in (sb3_path, tmp_path / "ours.zip", tmp_path / "vgs.pt"):
        summary = inspect_checkpoint(path)
        written = json.loads(json.dumps(summary.to_dict(), allow_nan=False))
        assert written["kind"] == summary.kind
        assert written["n_parameters"] == summary.n_parameters


def test_what_only_pickle_could_store_is_listed(tmp_path: Path, members: dict[str, bytes], manifest: Manifest) -> None:
    values = vars(manifest) | {"arguments": {"a": {"$unsupported": "x"}}, "action_space": {"$unsupported": "Text(2)"}}
    write_checkpoint(tmp_path / "model", members, Manifest(**values))
    summary = inspect_checkpoint(tmp_path / "model")
    assert summary.unsupported == ["arguments.a", "action_space"]
    assert summary.action_space == "Text(2)"


def test_control_characters_do_not_reach_a_terminal(
    tmp_path: Path, members: dict[str, bytes], manifest: Manifest
) -> None:
    evil = "\x1b]0;owned\x07"
    members["policy.pth"] = dump_tensors({evil: th.ones(1)})
    members["data"] = json.dumps({evil: {":serialized:": "", ":type:": evil}}).encode()
    values = vars(manifest) | {
        "value_head": evil,
        "optimizer_class": {"$class": evil},
        "versions": {evil: evil},
        "arguments": {"a": {evil: {"$unsupported": evil}}},
        "action_space": {"$unsupported": evil},
    }
    write_checkpoint(tmp_path / "model", members, Manifest(**values))
    assert "\\u001b" not in json.dumps(inspect_checkpoint(tmp_path / "model").to_dict())
    write_archive(tmp_path / "plain", members)
    assert "\\u001b" not in json.dumps(inspect_checkpoint(tmp_path / "plain").to_dict())


# Files of a stranger


def test_payloads_in_data_are_named_and_not_run(sb3_path: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    data = json.loads(read_archive(sb3_path)["data"])
    payload = cloudpickle.dumps(Payload(marker))
    data["policy_class"][":serialized:"] = base64.b64encode(payload).decode()
    path = with_members(sb3_path, tmp_path / "evil.zip", {"data": json.dumps(data).encode()})
    summary = inspect_checkpoint(path)
    assert "policy_class: abc.ABCMeta" in summary.pickles["data"]
    read_sb3_data(read_archive(path)["data"], "evil.zip")
    assert not marker.exists()
    with pytest.raises(Exception):  # noqa: B017, PT011 - SB3 fails somehow, after it ran the payload
        PPO.load(path)
    assert marker.exists()


@pytest.mark.parametrize("name", ["policy.pth", "policy.optimizer.pth", "vgs.pth", "pytorch_variables.pth", "rng.pt"])
@pytest.mark.parametrize("with_manifest", [True, False])
def test_payloads_in_state_dicts_are_refused_and_not_run(
    tmp_path: Path, members: dict[str, bytes], manifest: Manifest, name: str, with_manifest: bool
) -> None:
    marker = tmp_path / "marker"
    buffer = io.BytesIO()
    th.save({"step_count": Payload(marker)}, buffer)
    members[name] = buffer.getvalue()
    path = tmp_path / "evil.zip"
    if with_manifest:
        write_checkpoint(path, members, manifest)
    else:
        write_archive(path, members)
    with pytest.raises(CheckpointError, match=rf"evil\.zip: {name}: refers to .* nothing of it was executed"):
        inspect_checkpoint(path)
    assert not marker.exists()


def test_a_payload_in_a_bare_file_is_refused_and_not_run(tmp_path: Path) -> None:
    th.save(Payload(tmp_path / "marker"), tmp_path / "vgs.pt")
    with pytest.raises(CheckpointError, match=r"vgs\.pt: .*refers to"):
        inspect_checkpoint(tmp_path / "vgs.pt")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, r"policy\.pth: .* got NoneType"),
        ({"readme.txt": b"hello"}, r"policy\.pth: .* got NoneType"),
        ({"policy.pth": dump_tensors({"a": th.ones(1)})}, "data: missing"),
        ({"policy.pth": dump_tensors([th.ones(1)]), "data": b"{}"}, r"policy\.pth: .* got list"),
        ({"policy.pth": dump_tensors({}), "data": b"no json"}, "data: Expecting value"),
        ({"policy.pth": dump_tensors({}), "data": b"{}", "vgs.pth": dump_tensors({})}, r"vgs\.pth: not a VGS state"),
        ({"policy.pth": dump_tensors({}), "data": b"{}", MANIFEST: b"{}"}, r"manifest\.json: schema: None"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_other_zips_are_refused(make_zip: Callable[..., Path], members: dict[str, bytes], message: str) -> None:
    path = make_zip(members)
    with pytest.raises(CheckpointError, match=message) as caught:
        inspect_checkpoint(path)
    assert str(caught.value).startswith(str(path))


def test_a_damaged_checkpoint_is_refused(tmp_path: Path, members: dict[str, bytes], manifest: Manifest) -> None:
    path = write_checkpoint(tmp_path / "model", members, manifest)
    assert path is not None
    changed = with_members(path, tmp_path / "changed.zip", {"data": b'{"num_timesteps": 129}'})
    with pytest.raises(CheckpointError, match="data: its SHA-256"):
        inspect_checkpoint(changed)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        inspect_checkpoint(tmp_path / "absent.zip")
