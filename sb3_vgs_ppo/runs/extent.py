"""How long the growing files of a run were at a checkpoint, and cutting off what a killed process wrote after it."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from sb3_vgs_ppo._types import StateDict
from sb3_vgs_ppo.errors import CheckpointError
from sb3_vgs_ppo.runs.folder import RunFolder
from sb3_vgs_ppo.runs.progress_csv import ProgressCsv, check_table, cut_table

_EVENTS = "events.out.tfevents."


@dataclass(frozen=True)
class Extent:
    """
    Length of what grows by appending. ``progress.csv`` is counted in rows, because new columns change its beginning.

    :param sizes: bytes by file name, relative to the run folder
    :param columns: columns of ``progress.csv``
    :param n_rows: rows of ``progress.csv``
    """

    sizes: dict[str, int]
    columns: list[str]
    n_rows: int

    @classmethod
    def of_run(cls, folder: RunFolder, progress: ProgressCsv) -> Extent:
        """:return: the length of everything now"""
        return cls({name: path.stat().st_size for name, path in _growing(folder)}, progress.columns, progress.n_rows)

    @classmethod
    def of_nothing(cls) -> Extent:
        """:return: that of a run which has not begun"""
        return cls({}, [], 0)

    @classmethod
    def from_state(cls, state: StateDict) -> Extent:
        """:param state: what :meth:`to_state` returned"""
        return cls(sizes=state["sizes"], columns=state["columns"], n_rows=state["n_rows"])

    def to_state(self) -> StateDict:
        """:return: the fields by name"""
        return asdict(self)

    def check(self, folder: RunFolder) -> None:
        """
        TensorBoard's files may be missing: users delete them, and nothing depends on them.

        :raises CheckpointError: a file is gone or shorter than it was
        """
        for name, size in self.sizes.items():
            path = folder.path / name
            found = path.stat().st_size if path.is_file() else 0
            if found < size and not name.startswith(_EVENTS):
                raise CheckpointError(f"{path}: {found} bytes, but the checkpoint was written after {size}")
        check_table(folder.progress, self.columns, self.n_rows)

    def cut(self, folder: RunFolder) -> None:
        """
        Take all files back to this length; those that did not exist are removed.

        :raises CheckpointError: see :meth:`check`
        """
        self.check(folder)
        for name, path in _growing(folder):
            if name not in self.sizes:
                path.unlink()
            elif path.stat().st_size > self.sizes[name]:
                os.truncate(path, self.sizes[name])
        if self.columns:
            cut_table(folder.progress, self.columns, self.n_rows)
        else:
            folder.progress.unlink(missing_ok=True)


def _growing(folder: RunFolder) -> list[tuple[str, Path]]:
    patterns = (folder.changes.name, folder.evaluations.name, f"{folder.monitor.name}/*.monitor.csv", f"{_EVENTS}*")
    files = [path for pattern in patterns for path in sorted(folder.path.glob(pattern))]
    return [(path.relative_to(folder.path).as_posix(), path) for path in files]
