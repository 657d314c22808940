"""
A checkpoint: SB3's zip of a model with ``manifest.json``, which describes the model and pins every other member.

SB3 reads such a file as its own: it loads each ``*.pth`` member as the state dict of an attribute and ignores the rest.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gymnasium import spaces

from sb3_vgs_ppo.checkpoint.archive import Archive, Limits, PathOrFile, read_archive, write_archive
from sb3_vgs_ppo.checkpoint.encoding import decode
from sb3_vgs_ppo.checkpoint.manifest import MANIFEST, Manifest
from sb3_vgs_ppo.checkpoint.spaces import decode_space
from sb3_vgs_ppo.checkpoint.tensors import load_tensors
from sb3_vgs_ppo.errors import CheckpointError

STATE_DICT_SUFFIX = ".pth"


@dataclass(frozen=True)
class Checkpoint:
    """
    A checkpoint's content, with digests verified and nothing unpickled.

    :param archive: every member but the manifest
    :param manifest: description of the model
    """

    archive: Archive
    manifest: Manifest

    def state_dict(self, name: str) -> Any:
        """
        :param name: a model's attribute as SB3's ``get_parameters`` names it: ``"policy"``, ``"policy.optimizer"``, …
        :return: its tensors and plain values, on the CPU
        :raises CheckpointError: there is none of that name, or it is damaged
        """
        return self.tensors(name + STATE_DICT_SUFFIX)

    def tensors(self, member: str) -> Any:
        """
        :param member: full name of a member that :func:`dump_tensors` wrote
        :return: its tensors and plain values, on the CPU
        :raises CheckpointError: there is none of that name, or it is damaged
        """
        return load_tensors(self.archive[member], self.archive.file, member)

    def decode(self, field: str, without: Collection[str] = ()) -> Any:
        """
        :param field: field of the manifest: ``arguments``, ``policy_class``, ``policy_kwargs``, ``attributes``, …
        :param without: names to leave out, because the caller gives their values
        :return: its Python value
        :raises CheckpointError: it holds something that could not be stored without pickle, or is damaged
        """
        encoded = getattr(self.manifest, field)
        if without:
            encoded = {name: value for name, value in encoded.items() if name not in without}
        return decode(encoded, f"{self.archive.file}: {MANIFEST}: {field}", argument=field)

    def space(self, field: str) -> spaces.Space[Any]:
        """
        :param field: ``observation_space`` or ``action_space``
        :return: the space
        :raises CheckpointError: it could not be stored without pickle, or its description is damaged
        """
        return decode_space(getattr(self.manifest, field), f"{self.archive.file}: {MANIFEST}: {field}")


def read_checkpoint(source: PathOrFile, limits: Limits | None = None) -> Checkpoint:
    """
    Read a checkpoint from an untrusted source.

    :param source: path (``.zip`` is tried when there is no such file) or open binary file
    :param limits: how much the file may expand into
    :return: manifest and members
    :raises CheckpointError: see :func:`read_archive` and :func:`open_checkpoint`
    :raises OSError: the file cannot be opened
    """
    return open_checkpoint(read_archive(source, limits))


def open_checkpoint(archive: Archive) -> Checkpoint:
    """
    Interpret an archive that was read already.

    :param archive: every member
    :return: manifest and members
    :raises CheckpointError: no manifest, a damaged or newer one, or members that are not those which it lists
    """
    if MANIFEST not in archive.members:
        raise CheckpointError(
            f"{archive.file}: {MANIFEST}: missing. Without it a model can only be rebuilt by unpickling, which runs "
            "whatever code the file holds; give --env-id, so that the spaces come from the environment, or "
            "--trust-pickle if you trust the file's author"
        )
    manifest = Manifest.from_json(archive[MANIFEST], archive.file)
    members = {name: content for name, content in archive.members.items() if name != MANIFEST}
    _verify(members, manifest, archive.file)
    return Checkpoint(Archive(archive.file, members), manifest)


def write_checkpoint(target: PathOrFile, members: Mapping[str, bytes], manifest: Manifest) -> Path | None:
    """
    Write a checkpoint; a path is replaced atomically.

    :param target: path or open binary file, as SB3's ``save`` takes it
    :param members: content by name; a manifest among them is replaced
    :param manifest: description of the model; its ``members`` are computed here
    :return: the path written to, None for an open file
    :raises CheckpointError: a member's name is not a plain relative one
    :raises OSError: the file cannot be written; what was there before is unchanged
    """
    others = {name: content for name, content in members.items() if name != MANIFEST}
    manifest = replace(manifest, members={name: _digest(content) for name, content in others.items()})
    return write_archive(target, {MANIFEST: manifest.to_json(), **others})


def save_model_archive(
    target: PathOrFile,
    sb3_zip: bytes,
    manifest: Manifest,
    extra_members: Mapping[str, bytes] | None = None,
) -> Path | None:
    """
    Turn what SB3's ``save`` wrote into a checkpoint. An algorithm calls this in its own ``save``.

    :param target: path or open binary file that the user gave
    :param sb3_zip: the zip that SB3's ``save`` wrote into a ``BytesIO``
    :param manifest: description of the model
    :param extra_members: further content by name, such as random generator states
    :return: the path written to, None for an open file
    :raises ValueError: an extra member that SB3 would load as a state dict of the model, or that is there already
    :raises OSError: the file cannot be written; what was there before is unchanged
    """
    members = dict(read_archive(io.BytesIO(sb3_zip)).members)
    for name, content in (extra_members or {}).items():
        if name.endswith(STATE_DICT_SUFFIX):
            raise ValueError(f"extra member {name!r}: SB3 loads every *.pth as a state dict of the model; name it *.pt")
        if name in members or name == MANIFEST:
            raise ValueError(f"extra member {name!r} is there already; choose another name")
        members[name] = content
    return write_checkpoint(target, members, manifest)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _verify(members: Mapping[str, bytes], manifest: Manifest, file: str) -> None:
    if missing := manifest.members.keys() - members.keys():
        raise CheckpointError(f"{file}: {', '.join(sorted(missing))}: missing, though the manifest lists it")
    for name, content in members.items():
        if name not in manifest.members:
            raise CheckpointError(f"{file}: {name}: not listed in the manifest")
        if _digest(content) != manifest.members[name]:
            raise CheckpointError(f"{file}: {name}: its SHA-256 is not the one in the manifest; the file is damaged")
