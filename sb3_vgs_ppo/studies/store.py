"""The folder of a study: one manifest, and per cell a run folder with a completion mark that is written last.

A cell counts once its mark is there, and only then. So a study can be killed at any moment and started again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args
from urllib.parse import quote

from sb3_vgs_ppo._alarms import ALARMS_FILE
from sb3_vgs_ppo._files import write_json
from sb3_vgs_ppo.errors import StudyError
from sb3_vgs_ppo.studies.coverage import CALIBRATION_FILE
from sb3_vgs_ppo.studies.definition import Cell, Study
from sb3_vgs_ppo.studies.study_file import make_study

SCHEMA = 1
MANIFEST = "study.json"
MARK = "done.json"
LOCK = ".lock"
RESULT_FILES = (
    *("config.json", "status.json", "progress.csv", "evaluations.csv", "monitor/*.monitor.csv"),
    *(ALARMS_FILE, CALIBRATION_FILE),
)
"""What statistics are computed from; the mark holds their digests. Checkpoints are not among them: they may go."""

EndState: TypeAlias = Literal["finished", "diverged"]

_RESTORE = "remedy: put the file back as it was"


@dataclass(frozen=True)
class Completion:
    """
    What the mark of a cell says.

    :param state: how its training ended; a diverged cell is done too, and counted as diverged
    :param num_timesteps: environment steps trained
    :param first_step: environment steps of the agent that it was continued from, 0 if it started from scratch
    :param cause: why it diverged
    :param steps_per_second: of its training, None if it diverged
    :param final_return: mean return of the final evaluation, None if it diverged
    :param digests: SHA-256 of its result files by name
    """

    state: EndState
    num_timesteps: int
    first_step: int
    cause: str | None
    steps_per_second: float | None
    final_return: float | None
    digests: Mapping[str, str]


class StudyStore:
    """
    Names and marks of a study's cells.

    :param path: folder of the study
    :param study: its definition
    """

    def __init__(self, path: Path, study: Study) -> None:
        self.path = path
        self.study = study

    @classmethod
    def open(cls, path: Path) -> StudyStore:
        """
        :param path: folder of a study
        :raises StudyError: it is none, or its manifest cannot be read
        """
        file = path / MANIFEST
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
            schema, study = manifest["schema"], manifest["study"]
        except (FileNotFoundError, NotADirectoryError):
            raise StudyError(
                f"{path} is not a study: it has no {MANIFEST}; remedy: a folder that compare wrote"
            ) from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StudyError(f"{file} cannot be read: {type(error).__name__}: {error}; {_RESTORE}") from None
        if schema != SCHEMA:
            raise StudyError(f"{file} has schema {schema!r}, this version reads {SCHEMA}; remedy: the version it is of")
        try:
            return cls(path, make_study(study))
        except (StudyError, AttributeError, TypeError) as error:  # somebody has edited it
            raise StudyError(f"{file} cannot be read: {error}; {_RESTORE}") from None

    @classmethod
    def create_or_open(cls, path: Path, study: Study, *, extend: bool = False) -> StudyStore:
        """
        :param path: new or empty folder, or the folder of the same study
        :param study: definition
        :param extend: accept a definition that leaves all cells of the folder as they are, and may add some
        :raises StudyError: the folder holds something else or another study, or cannot be written
        """
        study = make_study(study.to_mapping())  # as the manifest gives it back, with lists for tuples
        if (path / MANIFEST).exists():
            old = cls.open(path).study
            if old == study:
                return cls(path, old)
            changes = differences(old.to_mapping(), study.to_mapping()) or ["variants: the order"]
            keeps_cells = _keeps_cells(old, study)
            if not (extend and keeps_cells):
                remedy = "another --out, or --extend: no cell changes" if keeps_cells else "another --out"
                raise StudyError(f"{path} holds a study of another definition: {'; '.join(changes)}; remedy: {remedy}")
        elif path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise StudyError(f"{path} is not empty and no study; remedy: another --out")
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_json(path / MANIFEST, {"schema": SCHEMA, "study": study.to_mapping()})
        except OSError as error:
            raise StudyError(f"{path} cannot be written: {error.strerror}; remedy: another --out") from None
        return cls(path, study)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """
        Keep other processes from running the same study until the block ends.

        :raises StudyError: another one runs it, or the folder cannot be written
        """
        with lock_folder(self.path):
            yield

    def folder(self, cell: Cell) -> Path:
        """:return: run folder of a cell"""
        environment = quote(cell.env_id, safe="")  # ALE/Pong-v5 and module:Env-v0, and no two to one folder
        return self.path / "cells" / environment / cell.variant / f"seed-{cell.seed}"

    def is_done(self, cell: Cell) -> bool:
        """:return: whether the cell has its mark"""
        return (self.folder(cell) / MARK).is_file()

    def completion(self, cell: Cell) -> Completion | None:
        """
        :return: what the cell's mark says; None while it has none
        :raises StudyError: the mark cannot be read or is another cell's, or a result file is not what it was when the
            mark was written
        """
        folder = self.folder(cell)
        if not self.is_done(cell):
            return None
        remedy = f"remedy: remove {folder}, and compare trains the cell again"
        try:
            mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
            owner, completion = Cell(**mark["cell"]), Completion(**mark["completion"])
            wanted = dict(completion.digests)
            found = _digests(folder)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StudyError(f"{cell}: {folder / MARK} cannot be read: {type(error).__name__}; {remedy}") from None
        if owner != cell:
            raise StudyError(f"{cell}: {folder} is that of another cell, {owner}; {remedy}")
        if CALIBRATION_FILE not in wanted:  # a mark of the time before statistics were computed from it
            found.pop(CALIBRATION_FILE, None)
        for name in sorted(found.keys() | wanted.keys()):
            if found.get(name) != wanted.get(name):
                fault = "is missing" if name not in found else "was changed after the cell was done"
                raise StudyError(f"{cell}: {folder / name} {fault}; {remedy}")
        return completion

    def mark_done(self, cell: Cell, first_step: int = 0) -> Completion:
        """
        Write a cell's mark from its run folder, which must be finished or diverged. The mark is on the disk no sooner
        than the results that it vouches for.

        :param first_step: environment steps of the agent that it was continued from
        :return: what the mark says
        :raises StudyError: the run has not ended, or its status cannot be read
        """
        folder = self.folder(cell)
        try:
            status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StudyError(f"{cell}: {folder / 'status.json'} cannot be read: {type(error).__name__}") from None
        if status["state"] not in get_args(EndState):
            raise StudyError(f"{cell} is {status['state']}, not done; remedy: compare trains it on")
        summary = status["summary"] or {}
        completion = Completion(
            state=status["state"],
            num_timesteps=status["num_timesteps"],
            first_step=first_step,
            cause=status["cause"],
            steps_per_second=summary.get("steps_per_second"),
            final_return=summary.get("final_mean_reward"),
            digests=_digests(folder, sync=True),
        )
        write_json(folder / MARK, {"schema": SCHEMA, "cell": asdict(cell), "completion": asdict(completion)})
        return completion


@contextmanager
def lock_folder(path: Path) -> Iterator[None]:
    """
    Hold the folder of a study or a search until the block ends.

    :raises StudyError: another process holds it, or it cannot be written
    """
    try:
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StudyError(f"{path} cannot be written: {error.strerror}; remedy: make it writable") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StudyError(f"{path} is run by another process; remedy: wait until it ends") from None
        yield
    finally:
        os.close(descriptor)  # which frees the lock, as the end of the process would


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """:return: one text per place where two values of JSON's kinds differ, as ``seeds: [0, 1] -> [0, 1, 2]``"""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = [*old, *(name for name in new if name not in old)]
        return [
            text
            for name in names
            for text in differences(old.get(name), new.get(name), f"{where}.{name}".removeprefix("."))
        ]
    if where == "variants":
        old, new = ({variant["name"]: variant for variant in variants} for variants in (old, new))
        return differences(old, new, where)
    return [] if old == new else [f"{where}: {json.dumps(old)} -> {json.dumps(new)}"]


def _keeps_cells(old: Study, new: Study) -> bool:
    """:return: whether all cells of the old study are in the new one, with the same options"""
    cells = set(new.cells())
    return all(
        cell in cells and new.train_options(cell) == old.train_options(cell) and new.parent(cell) == old.parent(cell)
        for cell in old.cells()
    )


def _digests(folder: Path, sync: bool = False) -> dict[str, str]:
    """
    :param sync: wait until the files are on the disk
    :return: SHA-256 of the result files by name
    """
    digests: dict[str, str] = {}
    for path in sorted(path for pattern in RESULT_FILES for path in folder.glob(pattern)):
        with path.open("rb") as file:
            if sync:
                os.fsync(file.fileno())
            digests[path.relative_to(folder).as_posix()] = hashlib.sha256(file.read()).hexdigest()
    return digests
