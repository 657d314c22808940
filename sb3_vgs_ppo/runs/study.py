"""Running a study: every cell that is not done is trained, and marked as done last of all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field

from sb3_vgs_ppo.errors import RunFolderError, VgsPpoError
from sb3_vgs_ppo.runs.cells import CellTask, cell_config, cell_task
from sb3_vgs_ppo.runs.engines import Engine
from sb3_vgs_ppo.runs.folder import RunFolder, RunState
from sb3_vgs_ppo.runs.signals import StopRequest, stop_on_signals
from sb3_vgs_ppo.runs.study_display import StudyDisplay
from sb3_vgs_ppo.runs.training import check_training_env
from sb3_vgs_ppo.studies.definition import Cell, Study
from sb3_vgs_ppo.studies.store import Completion, StudyStore

MAX_ATTEMPTS = 3
"""Attempts at a cell whose workers are lost: one that kills its worker, by its memory say, must not do so for ever."""

_POLL_SECONDS = 1.0


@dataclass
class StudyProgress:
    """
    How far a study is.

    :param cells: all cells
    :param finished: cells done before and now
    :param diverged: likewise, whose training diverged
    :param failed: cells that could not be trained, each with the reason; another call tries them again
    :param running: cells in work
    :param steps_done: environment steps of all cells so far
    :param steps_total: of all cells in the end
    :param seconds_left: estimate, None before there is one
    """

    cells: tuple[Cell, ...]
    finished: set[Cell] = field(default_factory=set)
    diverged: set[Cell] = field(default_factory=set)
    failed: dict[Cell, str] = field(default_factory=dict)
    running: set[Cell] = field(default_factory=set)
    steps_done: int = 0
    steps_total: int = 0
    seconds_left: float | None = None

    @property
    def done(self) -> int:
        """Cells that have their mark."""
        return len(self.finished) + len(self.diverged)


def check_study(study: Study) -> None:
    """
    Check every environment, and the options of every variant in it, before hours of training.

    :raises UserInputError: an environment or option that cannot be used
    """
    for cell in study.cells():
        if cell.seed == study.seeds[0]:
            config = cell_config(study, cell)
            check_training_env(config)


def run_study(
    store: StudyStore, engine: Engine, display: StudyDisplay | None = None
) -> tuple[StudyProgress, int | None]:
    """
    Train all cells that are not done yet. In the main thread, SIGINT and SIGTERM stop the study after the running
    cells' updates.

    :param store: folder of the study, which is locked meanwhile
    :param engine: where cells are trained
    :param display: what the user sees meanwhile; nothing by default
    :return: how far the study is, and the signal that stopped it, if one did
    :raises StudyError: another process runs the study, or a cell that is done is damaged
    :raises KeyboardInterrupt: a second signal
    """
    with store.lock(), stop_on_signals() as stop, engine:
        return _Scheduler(store, engine, display or StudyDisplay(), stop).run(), stop.signal_number


class _Scheduler:
    """Keeps an engine busy with the cells that are not done, parents before the cells that train on from them."""

    def __init__(self, store: StudyStore, engine: Engine, display: StudyDisplay, stop: StopRequest) -> None:
        self.store = store
        self.engine = engine
        self.display = display
        self.stop = stop
        self.waiting: list[Cell] = []
        self.attempts: dict[Cell, int] = {}
        self.tasks: dict[Future[RunState], CellTask] = {}
        self.progress = StudyProgress(tuple(store.study.cells()))
        for cell in self.progress.cells:
            self._count(cell, store.completion(cell))
        self.steps = {cell: int(store.study.train_options(cell)["total_timesteps"]) for cell in self.progress.cells}
        self.trained = {cell: self._steps_so_far(cell) for cell in self.progress.cells}
        self.progress.steps_total = sum(self.steps.values())
        self.progress.steps_done = self.steps_before = sum(self.trained.values())
        self.started = time.monotonic()

    def run(self) -> StudyProgress:
        asked_to_stop = False
        with self.display:
            self.display.start(self.progress)
            while self.tasks or (self.waiting and self.stop.signal_number is None):
                if self.stop.signal_number is None:
                    self._submit()
                elif not asked_to_stop:
                    asked_to_stop = True
                    self.engine.stop()
                if not self.tasks:  # a cluster has no machine at the moment
                    time.sleep(_POLL_SECONDS)
                done, _ = wait(self.tasks, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    self._finish(self.tasks.pop(future), future)
                self._estimate()
                self.display.update(self.progress)
        return self.progress

    def _count(self, cell: Cell, completion: Completion | None) -> None:
        if completion is None:
            self.waiting.append(cell)
        else:
            (self.progress.diverged if completion.state == "diverged" else self.progress.finished).add(cell)

    def _submit(self) -> None:
        for cell in list(self._ready()):
            if len(self.tasks) >= self.engine.capacity():
                return
            self.waiting.remove(cell)
            try:
                task = cell_task(self.store, cell)
                self.tasks[self.engine.submit(task)] = task
            except VgsPpoError as error:
                self._fail(cell, str(error))
            else:
                self.progress.running.add(cell)

    def _ready(self) -> Iterator[Cell]:
        """:return: cells that wait for no other; those whose parent failed or diverged fail here"""
        for cell in list(self.waiting):
            parent = self.store.study.parent(cell)
            if parent is None or parent in self.progress.finished:
                yield cell
            elif parent in self.progress.failed or parent in self.progress.diverged:
                self.waiting.remove(cell)
                self._fail(cell, f"{parent}, whose agent it trains on, has not been trained to its end")

    def _finish(self, task: CellTask, future: Future[RunState]) -> None:
        cell = task.cell
        self.progress.running.discard(cell)
        try:
            if future.result() == "interrupted":
                self.waiting.append(cell)
                return
            completion = self.store.mark_done(cell, task.first_step)
        except self.engine.lost as error:
            self._retry(cell, f"its worker was lost ({type(error).__name__})")
        except Exception as error:  # whatever it is, the other cells go on
            self._fail(cell, f"{type(error).__name__}: {error}")
        else:
            self._count(cell, completion)
            self.trained[cell] = self.steps[cell]
            self.display.cell_done(self.progress, cell, completion)

    def _retry(self, cell: Cell, reason: str) -> None:
        self.attempts[cell] = self.attempts.get(cell, 0) + 1
        if self.attempts[cell] >= MAX_ATTEMPTS:
            self._fail(cell, f"{reason}, {MAX_ATTEMPTS} times")
        else:
            self.waiting.insert(0, cell)
            self.display.message(f"{cell}: {reason}; it goes on from what is saved of it")

    def _fail(self, cell: Cell, reason: str) -> None:
        self.progress.failed[cell] = " ".join(reason.split())
        self.display.message(f"{cell} failed: {self.progress.failed[cell]}")

    def _steps_so_far(self, cell: Cell) -> int:
        """:return: steps of a cell, those of an unfinished one as of its last checkpoint"""
        if cell in self.progress.finished or cell in self.progress.diverged:
            return self.steps[cell]
        try:
            return min(RunFolder(self.store.folder(cell)).read_status().num_timesteps, self.steps[cell])
        except (RunFolderError, TypeError):  # not begun
            return 0

    def _estimate(self) -> None:
        progress = self.progress
        self.trained.update((cell, self._steps_so_far(cell)) for cell in progress.running)
        progress.steps_done = sum(self.trained.values())
        new_steps = progress.steps_done - self.steps_before
        if new_steps > 0:
            seconds = time.monotonic() - self.started
            progress.seconds_left = (progress.steps_total - progress.steps_done) * seconds / new_steps
