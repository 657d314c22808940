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
from typing import Any, Literal

from sb3_vgs_ppo._files import write_json
from sb3_vgs_ppo.errors import StudyError
from sb3_vgs_ppo.studies.definition import Cell, Study, study_from_mapping

SCHEMA = 1
MANIFEST = "study.json"
MARK = "done.json"
RESULT_FILES = ("config.json", "status.json", "progress.csv", "evaluations.csv", "monitor/*.monitor.csv")
"""What statistics are computed from; the mark holds their digests. Checkpoints are not among them: they may go."""


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

    state: Literal["finished", "diverged"]
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
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            schema = manifest["schema"]
            if schema != SCHEMA:
                raise StudyError(f"{path / MANIFEST} has schema {schema!r}, this version reads {SCHEMA}")
            return cls(path, study_from_mapping(manifest["study"]))
        except FileNotFoundError:
            raise StudyError(
                f"{path} is not a study: it has no {MANIFEST}; remedy: a folder that compare wrote"
            ) from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            if isinstance(error, StudyError):
                raise
            raise StudyError(f"{path / MANIFEST} cannot be read: {type(error).__name__}: {error}") from None

    @classmethod
    def create_or_open(cls, path: Path, study: Study, *, extend: bool = False) -> StudyStore:
        """
        :param path: new or empty folder, or the folder of the same study
        :param study: definition
        :param extend: accept a definition that adds cells to those of the folder and leaves them as they are
        :raises StudyError: the folder holds something else or another study, or cannot be written
        """
        if (path / MANIFEST).exists():
            old = cls.open(path).study
            changes = differences(old.to_mapping(), study.to_mapping())
            if not changes:
                return cls(path, old)
            if not (extend and _only_adds(old, study)):
                raise StudyError(
                    f"{path} holds a study of another definition: {'; '.join(changes)}; "
                    "remedy: another --out, or --extend where cells are only added"
                )
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

        :raises StudyError: another one runs it
        """
        descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise StudyError(f"{self.path} is run by another process; remedy: wait until it ends") from None
        finally:
            os.close(descriptor)

    def folder(self, cell: Cell) -> Path:
        """:return: run folder of a cell"""
        environment = cell.env_id.replace("/", "_").replace(":", "_")
        return self.path / "cells" / environment / cell.variant / f"seed-{cell.seed}"

    def is_done(self, cell: Cell) -> bool:
        """:return: whether the cell has its mark"""
        return (self.folder(cell) / MARK).is_file()

    def completion(self, cell: Cell) -> Completion | None:
        """
        :return: what the cell's mark says; None while it has none
        :raises StudyError: the mark cannot be read, or a result file is not what it was when the mark was written
        """
        folder = self.folder(cell)
        if not self.is_done(cell):
            return None
        remedy = f"remedy: remove {folder}, and compare trains the cell again"
        try:
            completion = Completion(**json.loads((folder / MARK).read_text(encoding="utf-8"))["completion"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StudyError(f"{folder / MARK} cannot be read: {type(error).__name__}; {remedy}") from None
        found = _digests(folder)
        for name in sorted(found.keys() | completion.digests.keys()):
            if found.get(name) != completion.digests.get(name):
                fault = "is missing" if name not in found else "was changed after the cell was done"
                raise StudyError(f"{folder / name} {fault}; {remedy}")
        return completion

    def mark_done(self, cell: Cell, first_step: int = 0) -> None:
        """
        Write a cell's mark from its run folder, which must be finished or diverged.

        :param first_step: environment steps of the agent that it was continued from
        """
        folder = self.folder(cell)
        status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
        summary = status["summary"] or {}
        completion = Completion(
            state=status["state"],
            num_timesteps=status["num_timesteps"],
            first_step=first_step,
            cause=status["cause"],
            steps_per_second=summary.get("steps_per_second"),
            final_return=summary.get("final_mean_reward"),
            digests=_digests(folder),
        )
        write_json(folder / MARK, {"schema": SCHEMA, "cell": asdict(cell), "completion": asdict(completion)})


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
        by_name = [{variant["name"]: variant for variant in variants} for variants in (old, new)]
        return differences(*by_name, where)
    plain = [json.loads(json.dumps(value)) for value in (old, new)]  # tuples are lists there
    return [] if plain[0] == plain[1] else [f"{where}: {json.dumps(plain[0])} -> {json.dumps(plain[1])}"]


def _only_adds(old: Study, new: Study) -> bool:
    """:return: whether all cells of the old study are in the new one, with the same options"""
    cells = set(new.cells())
    return all(
        cell in cells and new.train_options(cell) == old.train_options(cell) and new.parent(cell) == old.parent(cell)
        for cell in old.cells()
    )


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for pattern in RESULT_FILES for path in folder.glob(pattern))
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
