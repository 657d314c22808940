"""
What is inside a checkpoint, found out without running it.

Four kinds of file are understood: this package's checkpoints, zips of plain Stable-Baselines3, such zips with the VGS
state of a legacy version but no manifest, and bare VGS states that ``torch.save`` wrote.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch as th

from sb3_vgs_ppo.checkpoint.archive import Archive, Limits, read_archive
from sb3_vgs_ppo.checkpoint.checkpoint_file import Checkpoint, open_checkpoint
from sb3_vgs_ppo.checkpoint.encoding import unsupported_fields
from sb3_vgs_ppo.checkpoint.faults import as_checkpoint_error
from sb3_vgs_ppo.checkpoint.json_text import Json
from sb3_vgs_ppo.checkpoint.manifest import MANIFEST
from sb3_vgs_ppo.checkpoint.sb3_zip import DATA, SYSTEM_INFO, PickledEntry, read_sb3_data, read_versions, strip_class
from sb3_vgs_ppo.checkpoint.tensors import is_torch_file, load_tensors
from sb3_vgs_ppo.checkpoint.vgs_state import VGS_MEMBER, VgsSummary, read_vgs_state, summarize_vgs_state
from sb3_vgs_ppo.errors import CheckpointError

Kind: TypeAlias = Literal["checkpoint", "sb3", "sb3-with-vgs", "vgs-state"]

_POLICY_MEMBER = "policy.pth"
_SPACE_ATTRIBUTES = ("low", "high", "n", "nvec", "start", "spaces", "_shape", "dtype")
_MAX_TEXT = 200  # characters


@dataclass(frozen=True)
class CheckpointSummary:
    """
    What a file holds; None or empty where its kind does not say. Texts are free of control characters.

    :param file: path of the file
    :param kind: ``"checkpoint"`` (ours), ``"sb3"``, ``"sb3-with-vgs"`` (legacy, no manifest) or ``"vgs-state"``
    :param members: size in bytes of each member by name
    :param schema: schema of the manifest
    :param versions: versions of the software that wrote the file
    :param algorithm: class of the algorithm
    :param num_timesteps: environment steps collected
    :param policy_class: dotted name of the policy's class
    :param value_head: kind of critic
    :param optimizer_class: dotted name of the optimizer's class
    :param observation_space: what the policy sees
    :param action_space: what it answers with
    :param parameters: shape of each of the policy's tensors by name
    :param vgs: version, steps and settings of the scaler
    :param pickles: members with pickles, which only a trusting load would execute, each with what is known of them
    :param unsupported: fields of the manifest to be given when loading, because only pickle could have stored them
    :param digests_verified: whether every member has the SHA-256 that the manifest gives; False without a manifest
    """

    file: str
    kind: Kind
    members: Mapping[str, int]
    schema: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    algorithm: str | None = None
    num_timesteps: int | None = None
    policy_class: str | None = None
    value_head: str | None = None
    optimizer_class: str | None = None
    observation_space: str | None = None
    action_space: str | None = None
    parameters: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    vgs: VgsSummary | None = None
    pickles: Mapping[str, list[str]] = field(default_factory=dict)
    unsupported: list[str] = field(default_factory=list)
    digests_verified: bool = False

    @property
    def n_parameters(self) -> int:
        """Number of elements of all the policy's tensors."""
        return sum(math.prod(shape) for shape in self.parameters.values())

    def to_dict(self) -> dict[str, Any]:
        """
        :return: everything as plain values, for ``--json``
        """
        return {**asdict(self), "n_parameters": self.n_parameters}


def inspect_checkpoint(path: str | os.PathLike[str], limits: Limits | None = None) -> CheckpointSummary:
    """
    Say what is inside a file. Nothing is unpickled or executed, whatever the file holds.

    :param path: checkpoint, zip of SB3, or VGS state (``.zip`` is tried when there is no such file)
    :param limits: how much the file may expand into
    :return: the summary
    :raises CheckpointError: the file is none of these, damaged, from a newer version, or refused as unsafe
    :raises OSError: the file cannot be opened
    """
    archive = read_archive(path, limits)
    with as_checkpoint_error(archive.file):
        return _summarize(archive)


def _summarize(archive: Archive) -> CheckpointSummary:
    sizes = {name: len(content) for name, content in archive.members.items()}
    if is_torch_file(list(sizes)):
        return _summarize_bare_state(archive.file, sizes)
    checkpoint = open_checkpoint(archive) if MANIFEST in sizes else None
    states = {name: load_tensors(archive[name], archive.file, name) for name in sizes if name.endswith((".pth", ".pt"))}
    has_vgs = VGS_MEMBER in states
    shared: dict[str, Any] = {
        "file": archive.file,
        "members": sizes,
        "parameters": _shapes(states, archive.file),
        "vgs": summarize_vgs_state(states[VGS_MEMBER], f"{archive.file}: {VGS_MEMBER}") if has_vgs else None,
        "pickles": _pickles(archive),
    }
    return _summarize_sb3(archive, shared) if checkpoint is None else _summarize_manifest(checkpoint, shared)


def _summarize_bare_state(file: str, sizes: dict[str, int]) -> CheckpointSummary:
    state = read_vgs_state(Path(file).read_bytes(), file, "VGS state")
    return CheckpointSummary(file, "vgs-state", sizes, vgs=summarize_vgs_state(state, file))


def _summarize_manifest(checkpoint: Checkpoint, shared: dict[str, Any]) -> CheckpointSummary:
    manifest = checkpoint.manifest
    return CheckpointSummary(
        kind="checkpoint",
        schema=manifest.schema,
        versions={_text(name): _text(version) for name, version in manifest.versions.items()},
        algorithm=_text(manifest.algorithm),
        num_timesteps=manifest.num_timesteps,
        policy_class=_class_text(manifest.policy_class),
        value_head=_optional_text(manifest.value_head),
        optimizer_class=_class_text(manifest.optimizer_class),
        observation_space=_space_text(checkpoint, "observation_space"),
        action_space=_space_text(checkpoint, "action_space"),
        unsupported=[_text(path) for path in unsupported_fields(vars(manifest))],
        digests_verified=True,
        **shared,
    )


def _summarize_sb3(archive: Archive, shared: dict[str, Any]) -> CheckpointSummary:
    data = read_sb3_data(archive[DATA], archive.file)
    num_timesteps = data.values.get("num_timesteps")
    return CheckpointSummary(
        kind="sb3" if shared["vgs"] is None else "sb3-with-vgs",
        versions=read_versions(archive.members.get(SYSTEM_INFO, b"")),
        num_timesteps=num_timesteps if type(num_timesteps) is int else None,
        policy_class=_pickled_class_text(data.pickled.get("policy_class")),
        optimizer_class=_pickled_optimizer_text(data.pickled.get("policy_kwargs")),
        observation_space=_pickled_space_text(data.pickled.get("observation_space")),
        action_space=_pickled_space_text(data.pickled.get("action_space")),
        **shared,
    )


def _shapes(states: dict[str, Any], file: str) -> dict[str, tuple[int, ...]]:
    policy = states.get(_POLICY_MEMBER)
    if not isinstance(policy, dict):
        raise CheckpointError(f"{file}: {_POLICY_MEMBER}: tensors by name expected, got {type(policy).__name__}")
    return {_text(name): tuple(value.shape) for name, value in policy.items() if isinstance(value, th.Tensor)}


def _pickles(archive: Archive) -> dict[str, list[str]]:
    """Pickles start with the instruction PROTO (0x80) since protocol 2 (Python 2.3)."""
    pickles: dict[str, list[str]] = {}
    for name, content in archive.members.items():
        if name == DATA:
            entries = read_sb3_data(content, archive.file).pickled
            if entries:
                pickles[name] = [_text(f"{key}: {entry.type_name}") for key, entry in entries.items()]
        elif re.match(rb"\x80[\x02-\x05]", content) or name.endswith((".pkl", ".pickle")):
            pickles[name] = []
    return pickles


def _text(value: object) -> str:
    """What a file says may reach a terminal, which obeys control characters."""
    return "".join(character if character.isprintable() else "?" for character in str(value)[:_MAX_TEXT])


def _optional_text(value: object) -> str | None:
    return None if value is None else _text(value)


def _class_text(encoded: Json) -> str | None:
    return None if encoded is None else _text(next(iter(encoded.values()), ""))


def _space_text(checkpoint: Checkpoint, field_name: str) -> str:
    encoded = getattr(checkpoint.manifest, field_name)
    return _text(encoded.get("$unsupported") or checkpoint.space(field_name))


def _pickled_space_text(entry: PickledEntry | None) -> str | None:
    if entry is None:
        return None
    shown = [f"{name.lstrip('_')}={entry.shown[name]}" for name in _SPACE_ATTRIBUTES if entry.shown.get(name)]
    return _text(f"{entry.type_name.rpartition('.')[2]}({', '.join(shown)})")


def _pickled_class_text(entry: PickledEntry | None) -> str | None:
    """SB3 writes a class's methods, which name it."""
    name = None if entry is None else re.match(r"<function (\w+)\.__init__", str(entry.shown.get("__init__")))
    return _text(f"{entry.shown.get('__module__')}.{name[1]}") if entry and name else None


def _pickled_optimizer_text(policy_kwargs: PickledEntry | None) -> str | None:
    shown = policy_kwargs.shown.get("optimizer_class") if policy_kwargs else None
    return None if shown is None else _text(strip_class(str(shown)))
