"""
The zip container of a checkpoint: named members, read without trusting the file and written atomically.

Nothing here knows what the members mean; see ``checkpoint_file`` for that. Paths are treated as Stable-Baselines3 does
in ``save`` and ``load`` (``stable_baselines3.common.save_util.open_path``).
"""

from __future__ import annotations

import errno
import os
import stat
import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import IO, TypeAlias

from stable_baselines3.common.save_util import open_path

from sb3_vgs_ppo._files import atomic_write
from sb3_vgs_ppo.checkpoint.faults import as_checkpoint_error
from sb3_vgs_ppo.errors import CheckpointError

PathOrFile: TypeAlias = str | os.PathLike[str] | BufferedIOBase
"""What SB3's ``save`` and ``load`` take: a path, or an open binary file."""

_ENCRYPTED = 0x1  # flag bit 0 of a member, .ZIP file format specification 4.4.4
_MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """
    How much a file may expand into before it is refused.

    :param max_total_bytes: uncompressed size of all members together; a file that is larger itself may hold as much as
        its own size
    :param max_ratio: uncompressed size over file size. Checkpoints are stored uncompressed (ratio 1), weights that
        somebody compressed reach about 10 and all zeros about 1,000
    :param max_members: number of members; a checkpoint has about ten
    """

    max_total_bytes: int = 4 * 2**30
    max_ratio: int = 200
    max_members: int = 1024


@dataclass(frozen=True)
class Archive:
    """
    A zip file's content.

    :param file: where it came from, for messages
    :param members: uncompressed content by name
    """

    file: str
    members: Mapping[str, bytes]

    def __getitem__(self, name: str) -> bytes:
        """
        :param name: a member's name
        :return: its content
        :raises CheckpointError: there is none of that name
        """
        if name not in self.members:
            raise CheckpointError(
                f"{self.file}: {name}: missing (the file holds {', '.join(self.members) or 'nothing'})"
            )
        return self.members[name]


def read_archive(source: PathOrFile, limits: Limits | None = None) -> Archive:
    """
    Read a zip file from an untrusted source into memory.

    :param source: path (``.zip`` is tried when there is no such file, as in SB3) or open binary file
    :param limits: defaults to :class:`Limits`'s
    :return: all members
    :raises CheckpointError: not a zip file, truncated, damaged, larger than the limits, or with a member that is
        encrypted, a link, there twice, or named so that it could lead out of a folder
    :raises OSError: the file cannot be opened
    """
    source = load_path(source) if isinstance(source, str | os.PathLike) else source
    label = source_label(source)
    with _open(source) as file, as_checkpoint_error(label):
        if not zipfile.is_zipfile(file):
            raise CheckpointError(f"{label}: not a zip file, or a truncated one")
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            check_entries(entries, file_size=file.seek(0, os.SEEK_END), limits=limits or Limits(), file=label)
            return Archive(label, {entry.filename: _read_member(archive, entry, label) for entry in entries})


def write_archive(target: PathOrFile, members: Mapping[str, bytes]) -> Path | None:
    """
    Write members, uncompressed, into a zip file; equal members give equal bytes.

    :param target: path, replaced atomically (``.zip`` is appended when it has no suffix, missing folders are
        created), or open binary file, which gets no such protection
    :param members: content by name
    :return: the path written to, None for an open file
    :raises CheckpointError: a name that :func:`read_archive` would refuse
    :raises OSError: the file cannot be written; what was there before is unchanged
    """
    label = source_label(target)
    for name in members:
        _check_name(name, label)
    if isinstance(target, str | os.PathLike):
        path = save_path(target)
        with atomic_write(path) as file:
            _write_zip(file, members)
        return path
    _write_zip(open_path(target, "w"), members)
    return None


def check_entries(entries: list[zipfile.ZipInfo], file_size: int, limits: Limits, file: str) -> None:
    """
    Refuse a zip file by its table of contents, before anything is decompressed.

    :param entries: the table
    :param file_size: size of the zip file in bytes
    :param limits: what is too much
    :param file: for messages
    :raises CheckpointError: see :func:`read_archive`
    """
    if len(entries) > limits.max_members:
        raise CheckpointError(f"{file}: {len(entries)} members, more than the limit of {limits.max_members}")
    # zipfile cuts a name at its first NUL byte; orig_filename is what the file says.
    for name, count in Counter(entry.orig_filename for entry in entries).items():
        _check_name(name, file)
        if count > 1:
            raise CheckpointError(f"{file}: {name}: there are {count} members of this name")
    for entry in entries:
        _check_kind(entry, file)
    total = sum(entry.file_size for entry in entries)
    if total > max(limits.max_total_bytes, file_size):
        raise CheckpointError(f"{file}: expands to {total} bytes, more than the limit of {limits.max_total_bytes}")
    # Measured on the whole, so that members which share their compressed bytes count as what they expand to.
    if total > max(limits.max_ratio * file_size, _MIB):
        raise CheckpointError(
            f"{file}: {file_size} bytes expand to {total}, more than {limits.max_ratio} times as much: a zip bomb"
        )


def save_path(path: str | os.PathLike[str]) -> Path:
    """
    The path that SB3's ``save`` would write to, with its folder created.

    :param path: what the user gave
    :return: with ``.zip`` if it had no suffix, and ``_2`` if it is a folder
    """
    resolved = Path(path)
    if resolved.suffix == "":
        resolved = Path(f"{resolved}.zip")
    if resolved.is_dir():
        warnings.warn(f"Path '{resolved}' is a folder. Will save instead to {resolved}_2", stacklevel=2)
        return save_path(f"{resolved}_2")
    if not resolved.parent.exists():
        warnings.warn(f"Path '{resolved.parent}' does not exist. Will create it.", stacklevel=2)
        resolved.parent.mkdir(parents=True, exist_ok=True)
    return resolved


def load_path(path: str | os.PathLike[str]) -> Path:
    """
    The file that SB3's ``load`` would read.

    :param path: what the user gave
    :return: the path, with ``.zip`` if only that exists
    :raises FileNotFoundError: neither exists
    """
    for candidate in (Path(path), Path(f"{os.fspath(path)}.zip")):
        if candidate.exists():
            return candidate
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))


def source_label(source: PathOrFile) -> str:
    """
    :param source: path or open file
    :return: how messages call it
    """
    return os.fspath(source) if isinstance(source, str | os.PathLike) else str(getattr(source, "name", "<open file>"))


def _open(source: PathOrFile) -> IO[bytes] | nullcontext[BufferedIOBase]:
    if isinstance(source, str | os.PathLike):
        return open(source, "rb")
    return nullcontext(open_path(source, "r"))  # the caller's file stays open


def _check_name(name: str, file: str) -> None:
    """Refuse what could be taken for a place outside the archive, or hide from whoever reads the name."""
    parts = name.split("/")
    has_drive_letter = name[1:2] == ":"
    if not name.isprintable() or "\\" in name or has_drive_letter or not {"", ".", ".."}.isdisjoint(parts):
        raise CheckpointError(f"{file}: {name!r}: not a plain relative name")


def _check_kind(entry: zipfile.ZipInfo, file: str) -> None:
    if entry.flag_bits & _ENCRYPTED:
        raise CheckpointError(f"{file}: {entry.filename}: encrypted")
    unix_mode = entry.external_attr >> 16
    if stat.S_IFMT(unix_mode) not in (0, stat.S_IFREG):
        raise CheckpointError(f"{file}: {entry.filename}: not a regular file (mode {unix_mode:o})")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise CheckpointError(
            f"{file}: {entry.filename}: compression method {entry.compress_type}; use stored or deflate"
        )


def _read_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, file: str) -> bytes:
    with as_checkpoint_error(f"{file}: {entry.filename}"), archive.open(entry) as stream:
        # With a size, zipfile inflates no further than that: ZipFile.read would inflate all and cut it afterwards. The
        # one more byte, which is never there, makes it compare the checksum of an empty member too.
        content = stream.read(entry.file_size + 1)
        if len(content) != entry.file_size:
            raise CheckpointError(f"{file}: {entry.filename}: {len(content)} bytes instead of {entry.file_size}")
        return content


def _write_zip(file: BufferedIOBase | IO[bytes], members: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name)  # dated 1980: the same members give the same file
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
