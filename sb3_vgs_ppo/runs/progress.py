"""What a user sees while a run trains: a bar on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import math
import time
from datetime import timedelta
from types import TracebackType
from typing import ClassVar, TextIO, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task
from rich.table import Column
from rich.text import Text

_REFRESH_SECONDS = 0.1

Shown = TypeVar("Shown", bound="BarOnTerminal")


class Display:
    """
    Shows nothing; the base of what does. Used as a context manager around the training.

    :cvar shows_bar: whether other output on a terminal would tear it
    """

    shows_bar: ClassVar[bool] = False

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""

    def start(self, total_timesteps: int, num_timesteps: int = 0) -> None:
        """
        :param total_timesteps: environment steps that will have been trained at the end
        :param num_timesteps: those that are done before
        """

    def step(self, num_timesteps: int) -> None:
        """
        Called after every step of the environments, so cheap.

        :param num_timesteps: environment steps so far
        """

    def update(self, num_timesteps: int, mean_return: float, vgs_factor: float | None) -> None:
        """
        Called after every update of the networks.

        :param num_timesteps: environment steps so far
        :param mean_return: mean return of the last episodes, NaN before the first has ended
        :param vgs_factor: mean factor that the Variance Gradient Scaler applied, None where it is off
        """

    def message(self, text: str) -> None:
        """:param text: a line worth keeping"""


class LineWriter:
    """
    Writes messages and nothing else: fit for a pipe or a log file.

    :param stream: where to write
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def message(self, text: str) -> None:
        """:param text: a line worth keeping"""
        self._stream.write(text + "\n")
        self._stream.flush()


class BarOnTerminal:
    """
    Keeps a bar below the messages, which scroll by above it.

    :param stream: a terminal
    :param columns: of the bar
    """

    def __init__(self, stream: TextIO, *columns: ProgressColumn) -> None:
        # Standard output stays what it is, so that it can be redirected to a file
        self._progress = Progress(*columns, console=Console(file=stream), redirect_stdout=False, expand=True)

    def __enter__(self: Shown) -> Shown:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def message(self, text: str) -> None:
        """:param text: a line worth keeping"""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)


class PlainLines(LineWriter, Display):
    """Messages only."""


class ProgressBar(BarOnTerminal, Display):
    """
    A bar with steps per second, time left, mean return and VGS factor.

    :param stream: a terminal
    """

    shows_bar = True

    def __init__(self, stream: TextIO) -> None:
        super().__init__(
            stream,
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            _Speed(table_column=Column(no_wrap=True)),
            _Learning(table_column=Column(no_wrap=True)),
        )
        self._task = self._progress.add_task(
            "", total=None, visible=False, mean_return=math.nan, vgs_factor=None, start_step=0
        )
        self._next_refresh = 0.0

    def start(self, total_timesteps: int, num_timesteps: int = 0) -> None:
        self._progress.reset(self._task, total=total_timesteps, completed=num_timesteps, visible=True)
        self._progress.update(self._task, start_step=num_timesteps)

    def step(self, num_timesteps: int) -> None:
        now = time.monotonic()
        if now >= self._next_refresh:
            self._next_refresh = now + _REFRESH_SECONDS
            self._progress.update(self._task, completed=num_timesteps)

    def update(self, num_timesteps: int, mean_return: float, vgs_factor: float | None) -> None:
        self._progress.update(
            self._task, completed=num_timesteps, mean_return=mean_return, vgs_factor=vgs_factor, refresh=True
        )


class _Speed(ProgressColumn):
    """
    Steps done and to do, steps per second and time left.

    The speed is that since the start: over a few seconds it would swing between collecting rollouts and updating.
    """

    def render(self, task: Task) -> Text:
        total = task.total or 0.0
        speed = (task.completed - task.fields["start_step"]) / task.elapsed if task.elapsed else 0.0
        left = timedelta(seconds=round((total - task.completed) / speed)) if speed else "–"
        return Text(f"{task.completed:,.0f}/{total:,.0f}, {speed:,.0f} steps/s, ETA {left},")


class _Learning(ProgressColumn):
    """Mean return and VGS factor."""

    def render(self, task: Task) -> Text:
        mean_return, vgs_factor = task.fields["mean_return"], task.fields["vgs_factor"]
        shown = "–" if math.isnan(mean_return) else f"{mean_return:.1f}"
        return Text(f"return {shown}" + ("" if vgs_factor is None else f", VGS {vgs_factor:.2f}"))


def make_display(progress: bool, out: TextIO, terminal: TextIO) -> Display:
    """
    :param progress: whether a bar is wanted
    :param out: where plain lines go
    :param terminal: where a bar goes if this is a terminal
    """
    return ProgressBar(terminal) if progress and terminal.isatty() else PlainLines(out)
