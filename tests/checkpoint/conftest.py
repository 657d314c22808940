"""A small checkpoint, and the tools to build hostile ones."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import FloatSchedule, LinearSchedule

from sb3_vgs_ppo.checkpoint import Manifest, dump_tensors, write_checkpoint


@pytest.fixture
def manifest() -> Manifest:
    """Every field with a value that differs from its default."""
    return Manifest.describe(
        algorithm=PPO,
        arguments={"learning_rate": LinearSchedule(1e-3, 0.0, 0.5), "clip_range": FloatSchedule(0.2), "n_steps": 64},
        policy_class=ActorCriticPolicy,
        policy_kwargs={"activation_fn": th.nn.ReLU, "net_arch": {"pi": [3], "vf": [4]}},
        observation_space=spaces.Box(np.array([-1.0, -np.inf]), np.array([1.0, np.inf]), dtype=np.float64),
        action_space=spaces.Discrete(3, start=-1),
        num_timesteps=128,
        attributes={"_n_updates": 20},
        value_head="scalar",
        optimizer_class=th.optim.SGD,
    )


@pytest.fixture
def members() -> dict[str, bytes]:
    """What SB3 writes, in small."""
    return {
        "data": b'{"num_timesteps": 128}',
        "policy.pth": dump_tensors({"action_net.weight": th.arange(6.0).reshape(3, 2), "action_net.bias": th.ones(3)}),
        "policy.optimizer.pth": dump_tensors({"state": {}, "param_groups": [{"lr": 1e-3, "params": [0, 1]}]}),
    }


@pytest.fixture
def checkpoint_bytes(members: dict[str, bytes], manifest: Manifest) -> bytes:
    buffer = io.BytesIO()
    write_checkpoint(buffer, members, manifest)
    return buffer.getvalue()


@pytest.fixture
def make_zip(tmp_path: Path) -> Callable[..., Path]:
    """Write a zip that ``write_archive`` would not write."""

    def make(members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
        path = tmp_path / "hostile.zip"
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return path

    return make


class PickleCode:
    """Pickle instructions of protocol 2, for files that no pickler would write."""

    start, stop, mark = b"\x80\x02", b".", b"("

    @staticmethod
    def name(module: str, name: str) -> bytes:
        return f"c{module}\n{name}\n".encode()

    @staticmethod
    def text(text: str) -> bytes:
        return b"X" + struct.pack("<I", len(text)) + text.encode()

    @staticmethod
    def integer(number: int) -> bytes:
        return b"\x8a\x08" + struct.pack("<q", number)

    @classmethod
    def tensor(cls, stored: int, size: int, stride: int) -> bytes:
        """A float tensor of shape (size,) over a storage of ``stored`` elements in record 0."""
        storage = (
            cls.mark + cls.text("storage") + cls.name("torch", "FloatStorage") + cls.text("0") + cls.text("cpu")
            + cls.integer(stored) + b"tQ"
        )  # fmt: skip
        no_hooks = cls.name("collections", "OrderedDict") + b")R"
        shape = cls.integer(size) + b"\x85" + cls.integer(stride) + b"\x85"
        rebuild = cls.name("torch._utils", "_rebuild_tensor_v2")
        return rebuild + cls.mark + storage + cls.integer(0) + shape + b"\x89" + no_hooks + b"tR"


@pytest.fixture
def pickle_code() -> type[PickleCode]:
    return PickleCode


@pytest.fixture
def torch_file() -> Callable[..., bytes]:
    """A file in torch's format around any pickle."""

    def make(code: bytes, records: Mapping[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            archive.writestr("archive/data.pkl", code)
            archive.writestr("archive/version", "3\n")
            archive.writestr("archive/byteorder", "little")
            for name, content in (records or {}).items():
                archive.writestr(f"archive/data/{name}", content)
        return buffer.getvalue()

    return make
