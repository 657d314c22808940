"""
``manifest.json``: what a checkpoint holds, in plain JSON, so that a model can be rebuilt from it without unpickling.

Fields that describe Python objects hold the JSON of the modules ``encoding`` and ``spaces``. They are decoded when
needed (:meth:`Checkpoint.decode`), because a value that could not be written must not make the rest unreadable.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import gymnasium as gym
import numpy as np
import stable_baselines3 as sb3
import torch as th
from gymnasium import spaces

from sb3_vgs_ppo import __version__
from sb3_vgs_ppo.checkpoint.encoding import encode, encode_mapping
from sb3_vgs_ppo.checkpoint.json_text import Json, read_json_object
from sb3_vgs_ppo.checkpoint.spaces import encode_space
from sb3_vgs_ppo.errors import CheckpointError

SCHEMA = 1
"""Increased when a reader of the previous number would misunderstand the file; a reader refuses higher numbers."""

MANIFEST = "manifest.json"


def installed_versions() -> dict[str, str]:
    """
    :return: version of Python and of the packages that decide whether a checkpoint fits and goes on bit for bit, by
        distribution name; ``"none"`` for Numba where it is not installed
    """
    return {
        "python": platform.python_version(),
        "sb3-vgs-ppo": __version__,
        "stable-baselines3": sb3.__version__,
        "torch": str(th.__version__),
        "gymnasium": gym.__version__,
        "numpy": np.__version__,
        "numba": metadata.version("numba") if find_spec("numba") else "none",
    }


@dataclass(frozen=True)
class Manifest:
    """
    The fields of ``manifest.json``, as JSON. :meth:`describe` makes one from Python objects.

    :param algorithm: name of the algorithm's class, ``"DistributionalPPO"``
    :param arguments: constructor arguments by name, without policy, environment and ``policy_kwargs``
    :param policy_class: class of the policy
    :param policy_kwargs: arguments of the policy by name
    :param observation_space: what the policy sees
    :param action_space: what it answers with
    :param num_timesteps: environment steps collected
    :param attributes: further attributes of the model by name, neither arguments nor tensors (``_n_updates``, …)
    :param value_head: ``"scalar"``, ``"quantile"`` or ``"categorical"``, for readers who do not build the model
    :param optimizer_class: class of the policy's optimizer, likewise
    :param versions: see :func:`installed_versions`
    :param members: SHA-256 (hexadecimal) of every other member by name
    :param schema: see :data:`SCHEMA`
    """

    algorithm: str
    arguments: dict[str, Json]
    policy_class: Json
    policy_kwargs: dict[str, Json]
    observation_space: Json
    action_space: Json
    num_timesteps: int
    attributes: dict[str, Json] = field(default_factory=dict)
    value_head: str | None = None
    optimizer_class: Json = None
    versions: dict[str, str] = field(default_factory=installed_versions)
    members: dict[str, str] = field(default_factory=dict)
    schema: int = SCHEMA

    @classmethod
    def describe(
        cls,
        *,
        algorithm: type,
        arguments: dict[str, Any],
        policy_class: type,
        policy_kwargs: dict[str, Any],
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        num_timesteps: int,
        attributes: dict[str, Any] | None = None,
        value_head: str | None = None,
        optimizer_class: type | None = None,
    ) -> Manifest:
        """
        Describe a model. Values that have no JSON form are noted as such and never raise.

        The parameters are those of the class, as Python objects.

        :return: a manifest without members, which :func:`sb3_vgs_ppo.checkpoint.write_checkpoint` fills in
        """
        return cls(
            algorithm=algorithm.__name__,
            arguments=encode_mapping(arguments),
            policy_class=encode(policy_class),
            policy_kwargs=encode_mapping(policy_kwargs),
            observation_space=encode_space(observation_space),
            action_space=encode_space(action_space),
            num_timesteps=int(num_timesteps),
            attributes=encode_mapping(attributes or {}),
            value_head=value_head,
            optimizer_class=encode(optimizer_class),
        )

    def to_json(self) -> bytes:
        """
        :return: UTF-8 text, the schema first
        """
        return json.dumps({"schema": self.schema, **vars(self)}, indent=2, allow_nan=False).encode()

    @classmethod
    def from_json(cls, content: bytes, file: str) -> Manifest:
        """
        Read a manifest. Fields that this version does not know are ignored.

        :param content: the member's content
        :param file: the checkpoint, for messages
        :return: the manifest, with its fields' JSON types checked
        :raises CheckpointError: not JSON, a newer schema, or a field that is missing or of the wrong type
        """
        where = f"{file}: {MANIFEST}"
        values = read_json_object(content, where)
        schema = values.get("schema")
        if type(schema) is not int or schema < 1:
            raise CheckpointError(f"{where}: schema: {schema!r:.80}; a positive integer expected")
        if schema > SCHEMA:
            raise CheckpointError(
                f"{where}: schema: {schema} is newer than {SCHEMA}, the newest that this version reads; "
                "upgrade sb3-vgs-ppo to read this file"
            )
        for name, (is_valid, expected) in _CHECKS.items():
            if name not in values:
                raise CheckpointError(f"{where}: {name}: missing; {expected} expected")
            if not is_valid(values[name]):
                raise CheckpointError(f"{where}: {name}: {values[name]!r:.80}; {expected} expected")
        return cls(**{name: values[name] for name in (item.name for item in fields(cls))})


def _is_object(value: Json) -> bool:
    return isinstance(value, dict)


def _are_named(value: Json) -> bool:
    return isinstance(value, dict) and all(name.isidentifier() for name in value)


def _is_name(value: Json) -> bool:
    return isinstance(value, str) and value.isidentifier()


def _are_texts(value: Json) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _are_digests(value: Json) -> bool:
    return _are_texts(value) and all(re.fullmatch("[0-9a-f]{64}", digest) for digest in value.values())


_CHECKS: dict[str, tuple[Callable[[Json], bool], str]] = {
    "algorithm": (_is_name, "the name of a class"),
    "arguments": (_are_named, "an object of named values"),
    "policy_class": (_is_object, "an object"),
    "policy_kwargs": (_are_named, "an object of named values"),
    "observation_space": (_is_object, "an object"),
    "action_space": (_is_object, "an object"),
    "num_timesteps": (lambda value: type(value) is int and value >= 0, "an integer of at least 0"),
    "attributes": (_are_named, "an object of named values"),
    "value_head": (lambda value: value is None or isinstance(value, str), "a text or null"),
    "optimizer_class": (lambda value: value is None or isinstance(value, dict), "an object or null"),
    "versions": (_are_texts, "an object of texts"),
    "members": (_are_digests, "an object of SHA-256 digests in hexadecimal"),
}
