"""What a user sees while a study runs: a bar on a terminal, a line per finished cell everywhere."""

from __future__ import annotations

from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from rich.progress import BarColumn, TextColumn
from rich.table import Column

from sb3_vgs_ppo.runs.progress import BarOnTerminal, LineWriter
from sb3_vgs_ppo.studies.definition import Cell
from sb3_vgs_ppo.studies.store import Completion

if TYPE_CHECKING:
    from sb3_vgs_ppo.runs.study import StudyProgress


class StudyDisplay:
    """Shows nothing; the base of what does. Used as a context manager around a study."""

    def __enter__(self) -> StudyDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""

    def start(self, progress: StudyProgress) -> None:
        """Called once, before the first cell."""
        if progress.done:
            self.message(f"{progress.done} of {len(progress.cells)} cells are done already")

    def update(self, progress: StudyProgress) -> None:
        """Called about once a second."""

    def cell_done(self, progress: StudyProgress, cell: Cell, completion: Completion) -> None:
        """Called when a cell has got its mark."""
        ending = "diverged" if completion.final_return is None else f"final return {completion.final_return:.1f}"
        number = f"[{progress.done}/{len(progress.cells)}]"
        self.message(f"{number} {cell}: {completion.num_timesteps:,} steps, {ending}{_time_left(progress)}")

    def message(self, text: str) -> None:
        """:param text: a line worth keeping"""


class PlainStudyLines(LineWriter, StudyDisplay):
    """Lines only."""


class StudyBar(BarOnTerminal, StudyDisplay):
    """
    A bar over all environment steps, with the number of cells.

    :param stream: a terminal
    """

    def __init__(self, stream: TextIO) -> None:
        columns = (BarColumn(bar_width=None, table_column=Column(ratio=1)), TextColumn("{task.description}"))
        super().__init__(stream, *columns)
        self._task = self._progress.add_task("", total=None)

    def update(self, progress: StudyProgress) -> None:
        counts = f"{progress.done}/{len(progress.cells)} cells done, {len(progress.running)} running"
        if progress.diverged:
            counts += f", {len(progress.diverged)} diverged"
        if progress.failed:
            counts += f", {len(progress.failed)} failed"
        self._progress.update(
            self._task,
            total=progress.steps_total,
            completed=progress.steps_done,
            description=counts + _time_left(progress),
        )


def make_study_display(progress: bool, out: TextIO, terminal: TextIO) -> StudyDisplay:
    """
    :param progress: whether a bar is wanted
    :param out: where plain lines go
    :param terminal: where a bar goes if this is a terminal
    """
    return StudyBar(terminal) if progress and terminal.isatty() else PlainStudyLines(out)


def _time_left(progress: StudyProgress) -> str:
    if progress.seconds_left is None or progress.done == len(progress.cells):
        return ""
    return f", ETA {timedelta(seconds=round(progress.seconds_left))}"
