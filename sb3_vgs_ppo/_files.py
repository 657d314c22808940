"""Writing a file so that a reader finds the old content or the new one, never a part of it."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_TEMPORARY_SUFFIX = ".vgs-tmp"


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """
    Open a temporary file beside ``path`` that takes its place when the block ends without an exception.

    The file is synced to disk before it is renamed and the folder afterwards, so that this also holds for a power cut.
    A link is followed, and an existing file's permissions are kept, as opening ``path`` for writing would do. A process
    that is killed leaves its temporary file behind; :func:`remove_temporary_files` removes it.

    :param path: file to write; its folder must exist
    :return: the temporary file, binary
    :raises OSError: the file cannot be written (with the subclass and ``errno`` of the cause and ``path`` as its
        ``filename``); ``path`` holds what it held before, and the temporary file is gone
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name[:50]}.{secrets.token_hex(4)}{_TEMPORARY_SUFFIX}")
    try:
        _check_replaceable(target)
        with open(temporary, "xb") as file:
            if target.exists():
                shutil.copymode(target, temporary)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:  # KeyboardInterrupt too must not leave half a file behind
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            reason = f"{error.strerror or error} (not written; what was there before is unchanged)"
            raise OSError(error.errno or 0, reason, str(path)) from error
        raise
    # The new file is in its place: file systems that cannot sync a folder must not turn that into a failure.
    with suppress(OSError):
        _sync_folder(target.parent)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file that a reader never finds half written."""
    with atomic_write(path) as file:
        file.write(json.dumps(value, indent=2).encode() + b"\n")


def remove_temporary_files(folder: str | os.PathLike[str]) -> list[Path]:
    """
    Remove what killed writers left in ``folder``. Call it only while no other process writes there.

    :param folder: folder that :func:`atomic_write` wrote to; folders inside it are not searched
    :return: the files that were removed
    """
    leftovers = sorted(Path(folder).glob(f".*{_TEMPORARY_SUFFIX}"))
    for leftover in leftovers:
        leftover.unlink()
    return leftovers


def _check_replaceable(target: Path) -> None:
    """Renaming would replace a device, or a file that its owner made read-only, without a word."""
    if not target.exists():
        return
    if not target.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(target))
    if not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "the file is read-only", str(target))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
