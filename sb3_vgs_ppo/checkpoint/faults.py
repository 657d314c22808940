"""One way to say what is wrong with a checkpoint: ``file: member: reason``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sb3_vgs_ppo.errors import CheckpointError

_MAX_REASON = 300  # characters: a library's message may quote the file


@contextmanager
def as_checkpoint_error(where: str) -> Iterator[None]:
    """
    Turn every exception of the block into a :class:`CheckpointError`.

    The parsers that run on a stranger's bytes (``zipfile``, ``zlib``, ``json``, ``pickle``, torch) raise a dozen types,
    most of them undocumented, so that a list of them would never be complete.

    :param where: file and member, the start of the message
    :raises CheckpointError: the block raised; one that it raised itself passes unchanged
    """
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{where}: {lines[0][:_MAX_REASON]}") from error
