"""Reading JSON objects from untrusted bytes."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

from sb3_vgs_ppo.checkpoint.faults import as_checkpoint_error
from sb3_vgs_ppo.errors import CheckpointError

Json: TypeAlias = Any
"""What ``json`` reads and writes: None, bool, int, float, str, and lists and dicts of them."""

_MAX_BYTES = 64 * 2**20
"""Parsed JSON takes up to twenty times its text; a checkpoint has some kilobytes of it, megabytes with image spaces."""


def read_json_object(content: bytes, where: str, strict: bool = True) -> dict[str, Json]:
    """
    :param content: UTF-8 text
    :param where: file and member, for messages
    :param strict: refuse NaN and infinities, which are not JSON but which Python writes
    :return: the parsed object
    :raises CheckpointError: too long, not JSON, nested too deeply, or not an object
    """
    if len(content) > _MAX_BYTES:
        raise CheckpointError(f"{where}: {len(content)} bytes of JSON, more than the limit of {_MAX_BYTES}")
    with as_checkpoint_error(where):
        parsed = json.loads(content.decode("utf-8"), parse_constant=_refuse_constant if strict else None)
    if not isinstance(parsed, dict):
        raise CheckpointError(f"{where}: a JSON object expected, got {type(parsed).__name__}")
    return parsed


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
