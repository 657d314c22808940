"""A killed or failed writer leaves the old file whole."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sb3_vgs_ppo import _files
from sb3_vgs_ppo._files import atomic_write, remove_temporary_files

OLD, NEW = b"old content", b"new content, longer than the old one"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "file.zip"
    path.write_bytes(OLD)
    return path


def write(path: Path, content: bytes = NEW) -> None:
    with atomic_write(path) as file:
        file.write(content)


def raising(error: BaseException) -> Callable[..., Any]:
    def raise_it(*args: object, **kwargs: object) -> None:
        raise error

    return raise_it


def test_replaces_and_leaves_nothing_else(target: Path) -> None:
    write(target)
    assert target.read_bytes() == NEW
    assert os.listdir(target.parent) == ["file.zip"]


def test_the_old_content_is_there_until_the_end(target: Path) -> None:
    with atomic_write(target) as file:
        file.write(NEW)
        file.flush()
        assert target.read_bytes() == OLD


def test_syncs_the_file_before_renaming_and_the_folder_after(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    def fsync(descriptor: int, original: Callable[[int], None] = os.fsync) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        original(descriptor)

    def replace(source: Path, goal: Path, original: Callable[..., None] = os.replace) -> None:
        events.append("rename")
        original(source, goal)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write(target)
    assert events == ["file", "rename", "folder"]


@pytest.mark.parametrize("function", ["replace", "fsync"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_failing_call_keeps_the_old_file(
    target: Path, monkeypatch: pytest.MonkeyPatch, function: str, code: int
) -> None:
    monkeypatch.setattr(os, function, raising(OSError(code, os.strerror(code))))
    with pytest.raises(OSError, match=f"{os.strerror(code)}.*unchanged") as caught:
        write(target)
    assert caught.value.errno == code
    assert caught.value.filename == str(target)
    assert target.read_bytes() == OLD
    assert os.listdir(target.parent) == ["file.zip"]


def test_the_error_keeps_its_subclass(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", raising(OSError(errno.EACCES, "denied")))
    with pytest.raises(PermissionError):
        write(target)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("no"), OSError(errno.ENOSPC, "disk full")])
def test_an_exception_while_writing_keeps_the_old_file(target: Path, error: BaseException) -> None:
    def write_half() -> None:
        with atomic_write(target) as file:
            file.write(NEW)
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert target.read_bytes() == OLD
    assert os.listdir(target.parent) == ["file.zip"]


def test_a_folder_that_cannot_be_synced_is_no_failure(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fsync)
    write(target)
    assert target.read_bytes() == NEW


def test_a_killed_process_leaves_the_old_file_and_a_removable_one(target: Path) -> None:
    program = (  # the module alone, which starts at once: the package would import torch
        "import runpy, sys, time\n"
        "with runpy.run_path(sys.argv[1])['atomic_write'](sys.argv[2]) as file:\n"
        "    file.write(b'half'); file.flush(); print('writing', flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, _files.__file__, str(target)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert target.read_bytes() == OLD
    others = [path for path in target.parent.iterdir() if path != target]
    assert [path.read_bytes() for path in others] == [b"half"]
    assert remove_temporary_files(target.parent) == others
    assert os.listdir(target.parent) == ["file.zip"]


def test_only_temporary_files_are_removed(tmp_path: Path) -> None:
    for name in (".hidden", "a.zip", ".a.zip.tmp", "a.vgs-tmp"):
        (tmp_path / name).touch()
    assert remove_temporary_files(tmp_path) == []


def test_permissions_of_the_old_file_are_kept(target: Path) -> None:
    target.chmod(0o640)
    write(target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_new_file_gets_the_permissions_that_open_gives(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write(tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_link_is_followed(target: Path) -> None:
    link = target.with_name("latest.zip")
    link.symlink_to(target.name)
    write(link)
    assert link.is_symlink()
    assert target.read_bytes() == NEW


def test_a_read_only_file_is_not_replaced(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the superuser may write to any
    with pytest.raises(PermissionError, match="read-only"):
        write(target)
    assert target.read_bytes() == OLD


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="not a regular file"):
        write(pipe)
    assert pipe.is_fifo()


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 125 + ".zip")  # 254 bytes
    write(path)
    assert path.read_bytes() == NEW
