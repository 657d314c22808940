"""A study's cells on a Ray cluster (extra ``ray``).

A worker trains in the study's own folder where its machine sees it (a shared file system), and so goes on from what a
lost machine left there. Elsewhere it trains in a folder of its own, and the whole run folder comes back at the end.
"""

from __future__ import annotations

import io
import secrets
import shutil
import socket
import tarfile
import tempfile
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from sb3_vgs_ppo.errors import StudyError
from sb3_vgs_ppo.runs.cells import CellTask, run_cell
from sb3_vgs_ppo.runs.folder import RunState

_CONNECT_SECONDS = 5.0


@dataclass(frozen=True)
class _RemoteTask:
    """
    :param marker: a file in the study's folder, which a machine that shares the folder sees
    :param token: what is in it, and in no other such file
    :param parent: content of the checkpoint that is trained on
    """

    task: CellTask
    marker: Path
    token: str
    parent: bytes | None


class RayEngine:
    """
    Connects to a cluster for as long as it is used as a context manager.

    :param address: ``host:port`` of the cluster's head, ``ray://host:port`` of its client server, or ``auto`` for the
        one that this machine belongs to
    :param folder: folder of the study; a file in it tells a worker whether its machine shares the folder
    :param max_cells: most cells at a time, by default one per CPU of the cluster
    :raises StudyError: Ray is not installed, or the cluster cannot be reached
    """

    def __init__(self, address: str, folder: Path, max_cells: int | None = None) -> None:
        try:
            import ray
        except ImportError:
            raise StudyError("--engine ray needs Ray; remedy: pip install 'sb3-vgs-ppo[ray]'") from None
        self._ray = ray
        self._token = secrets.token_hex(16)
        self._marker = folder.resolve() / f".ray-{self._token}"
        self._max_cells = max_cells
        self._running: list[Any] = []
        _connect(ray, address)
        self.lost: tuple[type[BaseException], ...] = (ray.exceptions.RaySystemError, *_losses(ray))
        # A lost cell comes back to the study, which counts its attempts and shows them
        self._run = ray.remote(num_cpus=1, max_retries=0)(_run_remote)

    def __enter__(self) -> RayEngine:
        self._marker.write_text(self._token, encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self._ray.shutdown()
        self._marker.unlink(missing_ok=True)

    def capacity(self) -> int:
        cpus = int(self._ray.cluster_resources().get("CPU", 0))
        return cpus if self._max_cells is None else min(cpus, self._max_cells)

    def submit(self, task: CellTask) -> Future[RunState]:
        folder = Path(task.config.run_dir or "").resolve()  # a worker has another working folder
        parent = task.parent.resolve() if task.parent else None
        task = replace(task, config=replace(task.config, run_dir=str(folder)), parent=parent)
        remote = _RemoteTask(task, self._marker, self._token, parent.read_bytes() if parent else None)
        reference = self._run.remote(remote)
        self._running.append(reference)
        result: Future[RunState] = Future()
        reference.future().add_done_callback(lambda done: self._deliver(task, reference, done, result))
        return result

    def stop(self) -> None:
        for reference in self._running:
            self._ray.cancel(reference)  # interrupts the worker as Ctrl-C does

    def _deliver(self, task: CellTask, reference: Any, done: Future[Any], result: Future[RunState]) -> None:
        """Bring a cell's folder to the study, then say how it ended."""
        self._running.remove(reference)
        try:
            state, archive = done.result()
            if archive is not None:
                _unpack(archive, Path(task.config.run_dir or ""))
            result.set_result(state)
        except self._ray.exceptions.TaskCancelledError:
            result.set_result("interrupted")
        except BaseException as error:
            result.set_exception(getattr(error, "cause", None) or error)


def _connect(ray: Any, address: str) -> None:
    """:raises StudyError: there is no cluster at this address"""
    remedy = "remedy: start one with 'ray start --head', and give --address host:port"
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host:  # Ray itself would go on trying for minutes
            socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise StudyError(f"--address {address!r}: no Ray cluster can be reached ({reason}); {remedy}") from None


def _losses(ray: Any) -> tuple[type[BaseException], ...]:
    names = ("WorkerCrashedError", "NodeDiedError", "ObjectLostError", "RayActorError", "OutOfMemoryError")
    return tuple(getattr(ray.exceptions, name) for name in names)


def _run_remote(remote: _RemoteTask) -> tuple[RunState, bytes | None]:
    """
    Train a cell on a machine of the cluster.

    :return: how it ended, and its run folder as a tar file where the study's folder is not shared
    """
    if _shares_folder(remote):
        return run_cell(remote.task), None
    with tempfile.TemporaryDirectory(prefix="sb3-vgs-ppo-") as scratch:
        folder = Path(scratch, "run")
        parent = remote.task.parent
        if parent is not None and remote.parent is not None:
            parent = Path(scratch, parent.name)
            parent.write_bytes(remote.parent)
        state = run_cell(replace(remote.task, config=replace(remote.task.config, run_dir=str(folder)), parent=parent))
        return state, _pack(folder)


def _shares_folder(remote: _RemoteTask) -> bool:
    try:
        return remote.marker.read_text(encoding="utf-8") == remote.token
    except OSError:
        return False


def _pack(folder: Path) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.add(folder, arcname=".")
    return content.getvalue()


def _unpack(content: bytes, folder: Path) -> None:
    """Put a run folder into its place in one step: a study that is killed meanwhile finds it whole or not at all."""
    arriving = folder.with_name(f"{folder.name}.arriving")
    for old in (arriving, folder):
        if old.exists():
            shutil.rmtree(old)
    arriving.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(arriving, filter="data")
    arriving.rename(folder)
