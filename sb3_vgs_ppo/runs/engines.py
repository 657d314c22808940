"""Where a study's cells are trained: what an engine must do, and the one for this machine.

Every cell is a run of its own whose numbers depend on its options alone, so that all engines give the same.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from types import TracebackType
from typing import Protocol

from sb3_vgs_ppo.runs.cells import CellTask, run_cell
from sb3_vgs_ppo.runs.folder import RunState
from sb3_vgs_ppo.runs.signals import StopRequest

_POLL_SECONDS = 0.5


class Engine(Protocol):
    """
    Trains cells side by side. Used as a context manager around a study.

    :cvar lost: errors of a future whose worker or machine is gone; its cell may be submitted again
    """

    lost: tuple[type[BaseException], ...]

    def __enter__(self) -> Engine: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def capacity(self) -> int:
        """:return: cells that can be trained at a time; it may change while a study runs"""

    def submit(self, task: CellTask) -> Future[RunState]:
        """:return: how the cell ends, see :func:`sb3_vgs_ppo.runs.cells.run_cell`"""

    def stop(self) -> None:
        """Ask the running cells to end after their update, with a checkpoint."""


class LocalEngine:
    """
    A pool of processes on this machine.

    A worker that dies takes the pool's others with it; all of them are replaced when the next cell is submitted, and
    the cells go on from their checkpoints.

    :param n_workers: processes
    """

    lost: tuple[type[BaseException], ...] = (BrokenProcessPool,)

    def __init__(self, n_workers: int) -> None:
        self.n_workers = n_workers
        self._context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        self._stop = self._context.Event()
        self._pool = self._new_pool()

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._pool.shutdown(wait=kind is None, cancel_futures=True)

    def capacity(self) -> int:
        return self.n_workers

    def submit(self, task: CellTask) -> Future[RunState]:
        try:
            return self._pool.submit(run_cell, task)
        except BrokenProcessPool:
            self._pool = self._new_pool()
            return self._pool.submit(run_cell, task)

    def stop(self) -> None:
        self._stop.set()

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self.n_workers, self._context, _start_worker, (self._stop,))


def _start_worker(stop: Event) -> None:
    """Listen to the study's process alone: the terminal's Ctrl-C goes to the whole group, and would come twice."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # between cells; an idle worker's end would break the whole pool
    threading.Thread(target=_watch, args=(stop,), daemon=True).start()


def _watch(stop: Event) -> None:
    """Stop the worker's cell when asked to, and the worker at once when the study's process is gone."""
    study = multiprocessing.parent_process()
    assert study is not None
    asked: object = None
    while study.is_alive():
        listening = signal.getsignal(signal.SIGINT)
        if stop.is_set() and isinstance(listening, StopRequest) and listening is not asked:
            asked = listening  # a second signal would stop the cell at once
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(_POLL_SECONDS)
    os._exit(1)  # as a kill: the cell's last checkpoint is whole
