"""The folder of a run: its files' names, its state, and the lock that keeps a second process out."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, TypeAlias

from sb3_vgs_ppo._alarms import ALARMS_FILE
from sb3_vgs_ppo._files import remove_temporary_files, write_json
from sb3_vgs_ppo.errors import RunFolderError
from sb3_vgs_ppo.runs.config import TrainConfig

RunState: TypeAlias = Literal["running", "finished", "diverged", "interrupted"]

_LOCK_NAME = ".lock"


@dataclass(frozen=True)
class RunStatus:
    """
    What ``status.json`` says.

    :param num_timesteps: environment steps trained so far
    :param total_timesteps: environment steps asked for
    :param cause: why a run diverged or was interrupted
    :param summary: figures of a finished run
    :param updated: time of writing, ISO 8601, UTC
    """

    state: RunState
    num_timesteps: int
    total_timesteps: int
    cause: str | None = None
    summary: dict[str, Any] | None = None
    updated: str = ""


@dataclass(frozen=True)
class RunFolder:
    """Names of a run's files. Reading needs no lock; only the process that holds the folder writes, see
    :func:`new_run_folder` and :func:`existing_run_folder`."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def monitor(self) -> Path:
        return self.path / "monitor"

    @property
    def progress(self) -> Path:
        return self.path / "progress.csv"

    @property
    def changes(self) -> Path:
        return self.path / ALARMS_FILE

    @property
    def evaluations(self) -> Path:
        return self.path / "evaluations.csv"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tracking(self) -> Path:
        return self.path / "tracking.json"

    @property
    def best_model(self) -> Path:
        return self.path / "best_model.zip"

    @property
    def final_model(self) -> Path:
        return self.path / "final_model.zip"

    @property
    def curve(self) -> Path:
        return self.path / "curve.png"

    @property
    def calibration(self) -> Path:
        return self.path / "calibration.csv"

    @property
    def calibration_figure(self) -> Path:
        return self.path / "calibration.png"

    def write_status(self, status: RunStatus) -> None:
        """Write ``status.json`` with the time of now; a reader finds the old one or the new one."""
        write_json(self.status, {**asdict(status), "updated": datetime.now(timezone.utc).isoformat(timespec="seconds")})

    def read_status(self) -> RunStatus:
        """
        :return: the status; a run whose process is gone without having said so is interrupted
        :raises RunFolderError: there is none, or it cannot be read
        """
        status = RunStatus(**read_json(self.status))
        if status.state == "running" and not self.is_in_use():
            return RunStatus(**{**asdict(status), "state": "interrupted", "cause": "the process ended without notice"})
        return status

    def is_in_use(self) -> bool:
        """:return: True while a live process writes to the folder"""
        lock = self.path / _LOCK_NAME
        if not lock.exists():
            return False
        with lock.open() as file:
            return not _try_to_lock(file.fileno(), fcntl.LOCK_SH)


def default_run_dir(config: TrainConfig) -> Path:
    """:return: a folder name that does not exist yet: environment, what was varied, and the time"""
    environment = re.sub(r"[^\w.-]+", "-", config.env_id)
    settings = f"{config.value_head}_{config.optimizer}_vgs-{config.vgs_version}_seed{config.seed}"
    name = f"{settings}_{datetime.now():%Y%m%d-%H%M%S}"
    path = Path("runs", environment, name)
    numbers = itertools.count(2)
    while path.exists():
        path = path.with_name(f"{name}-{next(numbers)}")
    return path


@contextmanager
def new_run_folder(path: Path) -> Iterator[RunFolder]:
    """
    Create a run folder and keep other processes out of it until the block ends.

    A block that ends with an exception before the folder has its ``config.json`` leaves nothing behind, nor parents.

    :param path: a new or empty folder
    :raises RunFolderError: the folder is not empty, in use by another live process, or cannot be written
    """
    made = _make_folders(path)
    folder = RunFolder(path)
    lock = _lock(folder)
    try:
        yield folder
    except BaseException:
        if not folder.config.exists():
            _discard(path, made)
        raise
    finally:
        os.close(lock)  # which frees the lock, as the end of the process would


@contextmanager
def existing_run_folder(path: Path) -> Iterator[RunFolder]:
    """
    Keep other processes out of a run folder until the block ends, and remove what a killed process left half written.

    :param path: folder of a run
    :raises RunFolderError: the folder is not that of a run, in use by another live process, or cannot be written
    """
    folder = RunFolder(path)
    read_json(folder.config)
    try:
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(None, "no permission")
        lock = os.open(path / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RunFolderError(
            f"run folder {path} cannot be written: {error.strerror}; remedy: make it writable, or copy it"
        ) from None
    try:
        if not _try_to_lock(lock, fcntl.LOCK_EX):
            raise _in_use(folder, "wait until it ends")
        for place in (path, folder.checkpoints):
            remove_temporary_files(place)
        yield folder
    finally:
        os.close(lock)


def read_json(path: Path) -> dict[str, Any]:
    """:raises RunFolderError: there is no such file, or it is not a JSON object"""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunFolderError(f"{path.parent} is not a run folder: it has no {path.name}") from None
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise RunFolderError(f"{path} is not a JSON object")
    return value


def _make_folders(path: Path) -> list[Path]:
    """:return: the folders that did not exist before, innermost first"""
    made: list[Path] = []
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)  # two runs may start in a new folder at the same moment
            made.insert(0, folder)
        if not path.is_dir():
            raise NotADirectoryError(None, "it is a file")
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(None, "no permission")
    except OSError as error:
        _remove_empty(made)
        raise RunFolderError(
            f"run folder {path} cannot be written: {error.strerror}; remedy: another --run-dir"
        ) from None
    return made


def _lock(folder: RunFolder) -> int:
    """
    :return: descriptor that holds the lock
    :raises RunFolderError: the folder is in use, or not empty
    """
    _refuse_content(folder)  # before a file of ours lies in somebody's folder
    lock = os.open(folder.path / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _try_to_lock(lock, fcntl.LOCK_EX):
            raise _in_use(folder)
        _refuse_content(folder)  # another process may have come and gone
    except BaseException:
        os.close(lock)
        raise
    return lock


def _refuse_content(folder: RunFolder) -> None:
    if any(entry.name != _LOCK_NAME for entry in folder.path.iterdir()):
        if folder.is_in_use():
            raise _in_use(folder)
        raise RunFolderError(
            f"run folder {folder.path} is not empty; remedy: another --run-dir, or move the old one away"
        )


def _in_use(folder: RunFolder, remedy: str = "another --run-dir, or wait") -> RunFolderError:
    return RunFolderError(f"run folder {folder.path} is in use by another live process; remedy: {remedy}")


def _try_to_lock(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _discard(path: Path, made: list[Path]) -> None:
    """Empty the folder, and remove it and its parents as far as they are of our making and empty."""
    for entry in path.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    _remove_empty(made)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # another run has meanwhile started beside ours
            folder.rmdir()
