"""A study's cells on a Ray cluster (extra ``ray``).

A worker trains in the study's own folder where its machine sees it (a shared file system), and so goes on from what a
lost machine left there. Elsewhere it trains in a folder of its own, and the whole run folder comes back at the end.
"""

from __future__ import annotations

import io
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from sb3_vgs_ppo.checkpoint.manifest import installed_versions
from sb3_vgs_ppo.errors import StudyError
from sb3_vgs_ppo.runs.cells import CellTask, run_cell
from sb3_vgs_ppo.runs.folder import RunFolder, RunState

_MARKER = ".ray-"
_TCP_SECONDS = 5.0
_CONNECT_SECONDS = 30.0  # two or three are enough on an idle machine

_ORPHAN_SECONDS = 120.0
"""A machine that is lost to the cluster may still train for as long as it does not notice, and network file systems
keep a lost machine's locks for up to 90 s (the lease of NFSv4)."""

_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
_TRIAL = f"""
import sys, ray
try:
    ray.init(address=sys.argv[1], **{_QUIET!r})
except Exception as error:
    sys.exit(" ".join(str(error).split()))
"""


@dataclass(frozen=True)
class _RemoteTask:
    """
    :param marker: a file in the study's folder, which a machine that shares the folder sees
    :param token: what is in it, and in no other such file
    :param parent: content of the checkpoint that is trained on
    :param begun: what an earlier attempt left: its run folder as a tar file
    :param versions: of the software on the study's machine
    """

    task: CellTask
    marker: Path
    token: str
    parent: bytes | None
    begun: bytes | None
    versions: dict[str, str]


class RayEngine:
    """
    Connects to a cluster, until it has been used as a context manager.

    :param address: ``host:port`` of the cluster's head, ``ray://host:port`` of its client server, or ``auto`` for the
        one that this machine belongs to
    :param folder: folder of the study; a file in it tells a worker whether its machine shares the folder
    :param max_cells: most cells at a time, by default one per CPU of the cluster
    :raises StudyError: Ray is not installed, the cluster cannot be reached, or this process is connected to one already
    """

    def __init__(self, address: str, folder: Path, max_cells: int | None = None) -> None:
        self._ray = _connect(address)
        exceptions = self._ray.exceptions
        self.lost: tuple[type[BaseException], ...] = (
            exceptions.WorkerCrashedError,
            exceptions.OutOfMemoryError,
            exceptions.NodeDiedError,
            exceptions.ObjectLostError,  # the machine of a result that was not fetched yet
        )
        self._token = secrets.token_hex(16)
        self._marker = folder.resolve() / f"{_MARKER}{self._token}"
        self._max_cells = max_cells
        self._running: list[Any] = []
        # Ray's own thread, which says that a cell has ended, must not wait for disks
        self._delivery = ThreadPoolExecutor(1)
        # A lost cell comes back to the study, which counts its attempts and shows them
        self._run = self._ray.remote(num_cpus=1, max_retries=0)(_run_remote)

    def __enter__(self) -> RayEngine:
        for left in self._marker.parent.glob(f"{_MARKER}*"):  # by a study that was killed
            left.unlink()
        self._marker.write_text(self._token, encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self._ray.shutdown()
        self._delivery.shutdown()
        self._marker.unlink(missing_ok=True)

    def capacity(self) -> int:
        cpus = int(self._ray.cluster_resources().get("CPU", 0))
        return cpus if self._max_cells is None else min(cpus, self._max_cells)

    def submit(self, task: CellTask) -> Future[RunState]:
        folder = Path(task.config.run_dir or "").resolve()  # a worker has another working folder
        parent = task.parent.resolve() if task.parent else None
        task = replace(task, config=replace(task.config, run_dir=str(folder)), parent=parent)
        begun = folder.exists() and not RunFolder(folder).is_in_use()  # by a worker that does not know that it is lost
        remote = _RemoteTask(
            task,
            self._marker,
            self._token,
            parent=parent.read_bytes() if parent else None,
            begun=_pack(folder) if begun else None,
            versions=installed_versions(),
        )
        num_gpus = int(task.config.device.startswith("cuda"))
        reference = self._run.options(num_gpus=num_gpus).remote(remote)
        self._running.append(reference)
        result: Future[RunState] = Future()
        reference.future().add_done_callback(
            lambda done: self._delivery.submit(self._deliver, folder, reference, done, result)
        )
        return result

    def stop(self) -> None:
        for reference in tuple(self._running):
            self._ray.cancel(reference)  # interrupts a worker as Ctrl-C does, and its result still comes

    def _deliver(self, folder: Path, reference: Any, done: Future[Any], result: Future[RunState]) -> None:
        """Bring a cell's folder to the study, then say how it ended."""
        self._running.remove(reference)
        try:
            state, archive = done.result()
            if archive is not None:
                _replace(folder, archive)
            result.set_result(state)
        except self._ray.exceptions.TaskCancelledError:  # before its training could listen to signals
            result.set_result("interrupted")
        except Exception as error:
            result.set_exception(getattr(error, "cause", None) or error)


def _connect(address: str) -> Any:
    """
    :return: the module ``ray``, connected
    :raises StudyError: see :class:`RayEngine`
    """
    # What Ray tells of lost machines goes over the progress bar, and the study tells it too; read at import
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    try:
        import ray
    except ImportError:
        raise StudyError("--engine ray needs Ray; remedy: pip install 'sb3-vgs-ppo[ray]'") from None
    if ray.is_initialized():
        raise StudyError("this process is connected to a Ray cluster already; remedy: ray.shutdown() before")
    reason = _why_unreachable(address)
    if reason:
        remedy = "remedy: start one with 'ray start --head', and give --address host:port"
        raise StudyError(f"--address {address!r}: no Ray cluster can be reached ({reason}); {remedy}")
    ray.init(address=address, **_QUIET)
    return ray


def _why_unreachable(address: str) -> str | None:
    """
    Let another process connect first: to an address without a cluster Ray tries for many minutes, and cannot be
    interrupted.

    :return: None if it was able to
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_TCP_SECONDS).close()
        command = [sys.executable, "-c", _TRIAL, address]
        trial = subprocess.run(command, capture_output=True, text=True, timeout=_CONNECT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"no answer within {_CONNECT_SECONDS:g} seconds"
    except (OSError, ValueError) as error:
        return str(error)
    return None if trial.returncode == 0 else (trial.stderr.splitlines() or ["Ray gave up"])[-1]


def _run_remote(remote: _RemoteTask) -> tuple[RunState, bytes | None]:
    """
    Train a cell on a machine of the cluster.

    :return: how it ended, and its run folder as a tar file where the study's folder is not shared
    :raises StudyError: this machine has other software than the study's
    """
    _check_versions(remote.versions)
    if _shares_folder(remote):
        _wait_for_orphan(RunFolder(Path(remote.task.config.run_dir or "")))
        return run_cell(remote.task), None
    with tempfile.TemporaryDirectory(prefix="sb3-vgs-ppo-") as scratch:
        folder = Path(scratch, "run")
        if remote.begun is not None:
            _unpack(remote.begun, folder)
        parent_copy = None
        if remote.task.parent is not None and remote.parent is not None:
            parent_copy = Path(scratch, remote.task.parent.name)
            parent_copy.write_bytes(remote.parent)
        config = replace(remote.task.config, run_dir=str(folder))
        state = run_cell(replace(remote.task, config=config), parent_copy)
        return state, _pack(folder)


def _check_versions(expected: dict[str, str]) -> None:
    for name, version in installed_versions().items():
        if version != expected[name]:
            raise StudyError(
                f"{socket.gethostname()} has {name} {version}, the study's machine {expected[name]}; "
                "remedy: the same versions on all machines"
            )


def _shares_folder(remote: _RemoteTask) -> bool:
    try:
        return remote.marker.read_text(encoding="utf-8") == remote.token
    except OSError:
        return False


def _wait_for_orphan(folder: RunFolder) -> None:
    """Wait until a worker that Ray has lost has noticed it too."""
    end = time.monotonic() + _ORPHAN_SECONDS
    while folder.is_in_use() and time.monotonic() < end:
        time.sleep(1.0)


def _pack(folder: Path) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.add(folder, arcname=".")
    return content.getvalue()


def _unpack(content: bytes, folder: Path) -> None:
    folder.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(folder, filter="data")


def _replace(folder: Path, content: bytes) -> None:
    """Put a run folder into its place in one step: a study that is killed meanwhile finds it whole or not at all."""
    arriving = folder.with_name(f"{folder.name}.arriving")
    for old in (arriving, folder):
        if old.exists():
            shutil.rmtree(old)
    _unpack(content, arriving)
    arriving.rename(folder)
