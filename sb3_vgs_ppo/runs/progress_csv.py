"""``progress.csv``: SB3's table of logged values, in a file that a kill cannot spoil and a resumed run continues.

SB3's own ``CSVOutputFormat`` empties the file when it is opened, and writes it anew in place when a column comes up.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import KVWriter, filter_excluded_keys

from sb3_vgs_ppo._files import atomic_write
from sb3_vgs_ppo.errors import CheckpointError


class ProgressCsv(KVWriter):
    """
    Appends one row per iteration; a row that brings new columns replaces the file atomically.

    :param path: the file, made where it is missing
    :ivar columns: names in the order of the file; new ones are added in alphabetical order
    :ivar n_rows: rows so far
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str]
        self.columns, rows = read_table(path)
        self.n_rows: int = len(rows)
        self._open()

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """
        Append a row.

        :param key_values: logged values by name
        :param key_excluded: formats that do not want a value, by its name
        :param step: not used; SB3's logger gives it
        """
        values = filter_excluded_keys(key_values, key_excluded, "csv")
        new = sorted(values.keys() - set(self.columns))
        if new:
            self._file.close()
            rows = read_table(self.path)[1]
            self.columns = [*self.columns, *new]
            _write_table(self.path, self.columns, ([*row, *[""] * len(new)] for row in rows))
            self._open()
        self._writer.writerow([values.get(name, "") for name in self.columns])
        self._file.flush()
        self.n_rows += 1

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _open(self) -> None:
        self._file = self.path.open("a", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file, lineterminator="\n")


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """:return: names of the columns, and the rows; none of either where there is no file"""
    if not path.exists():
        return [], []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    return (rows[0], rows[1:]) if rows else ([], [])


def cut_table(path: Path, columns: Sequence[str], n_rows: int) -> None:
    """
    Take a table back to what it was: its first rows, without columns that came up later.

    :param path: the table
    :param columns: names that it had
    :param n_rows: rows that it had
    """
    check_table(path, columns, n_rows)
    _write_table(path, columns, (row[: len(columns)] for row in read_table(path)[1][:n_rows]))


def check_table(path: Path, columns: Sequence[str], n_rows: int) -> None:
    """:raises CheckpointError: the table does not begin with these columns, or has fewer rows"""
    header, rows = read_table(path)
    if header[: len(columns)] != list(columns) or len(rows) < n_rows:
        raise CheckpointError(f"{path}: {len(rows)} rows, but the checkpoint was written after {n_rows}")


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if columns:
        writer.writerow(columns)
    writer.writerows(rows)
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())
