"""The Ray engine on a real cluster of several nodes on this machine, of which some are lost."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from comparison import assert_same_run
from helpers import TOYS
from sb3_vgs_ppo.checkpoint.manifest import installed_versions
from sb3_vgs_ppo.errors import StudyError
from sb3_vgs_ppo.runs import ray_engine
from sb3_vgs_ppo.runs.cells import CellTask, cell_task, run_cell
from sb3_vgs_ppo.runs.config import TrainConfig
from sb3_vgs_ppo.runs.folder import RunFolder, new_run_folder, read_json
from sb3_vgs_ppo.runs.ray_engine import RayEngine
from sb3_vgs_ppo.runs.study import StudyProgress, run_study
from sb3_vgs_ppo.runs.study_display import StudyDisplay
from sb3_vgs_ppo.studies.definition import Cell, Study, Variant
from sb3_vgs_ppo.studies.store import StudyStore

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'sb3-vgs-ppo[ray]'")

ENV = "toy_envs:ToyGatedCartPole-v0"
ROLLOUT = 64
STARTED, CONTINUED = "vgs-3.0", "vgs-3.0-to-3.1"


@pytest.fixture(scope="module")
def toys() -> Iterator[pytest.MonkeyPatch]:
    """Makes the environments importable here and on the nodes, which get this process's variables."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOYS)
        patch.setenv("PYTHONPATH", str(TOYS), prepend=os.pathsep)
        yield patch


@pytest.fixture(scope="module")
def scratch(toys: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """:return: where nodes put temporary files"""
    path = tmp_path_factory.mktemp("scratch")
    toys.setenv("TMPDIR", str(path))
    toys.setenv("RAY_TMPDIR", "/tmp")  # a socket's path must be short
    return path


@pytest.fixture(scope="module")
def cluster(scratch: Path) -> Iterator[Cluster]:
    """:return: a head that trains nothing, and two nodes for a cell each"""
    from ray.cluster_utils import Cluster

    fast = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": fast}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """:return: the file that holds every training in the middle of its second rollout"""
    return tmp_path_factory.mktemp("gate") / "closed"


@pytest.fixture(scope="module")
def study(toys: pytest.MonkeyPatch, gate: Path) -> Study:
    """:return: four rollouts with a checkpoint each; the second variant trains on after the first checkpoint"""
    return Study(
        env_ids=(ENV,),
        variants=(
            Variant(STARTED, {"vgs_version": "3.0"}),
            Variant(CONTINUED, {"vgs_version": "3.1"}, continue_from=STARTED, from_step=ROLLOUT),
        ),
        seeds=(0, 1),
        total_timesteps=4 * ROLLOUT,
        baseline=STARTED,
        options={
            "env_kwargs": {"gate": str(gate), "step": ROLLOUT + ROLLOUT // 2},
            "n_envs": 1,
            "eval_every": 2 * ROLLOUT,
            "eval_episodes": 2,
            "checkpoint_every": ROLLOUT,
            "algo_kwargs": {"n_steps": ROLLOUT, "batch_size": 32, "n_epochs": 2, "policy_kwargs": {"net_arch": [8]}},
        },
    )


@pytest.fixture(scope="module")
def plain(study: Study, tmp_path_factory: pytest.TempPathFactory) -> StudyStore:
    """:return: the study's cells, trained here"""
    store = StudyStore.create_or_open(tmp_path_factory.mktemp("plain"), study)
    for cell in sorted(study.cells(), key=lambda cell: study.parent(cell) is not None):
        assert run_cell(cell_task(store, cell)) == "finished"
    return store


class LosesANode(StudyDisplay):
    """
    Once as many trainings as there are nodes have a checkpoint, one node is lost, and another one comes.

    :param checkpoints: finds the checkpoints of running cells
    """

    def __init__(self, cluster: Cluster, gate: Path, checkpoints: Callable[[], list[Path]]) -> None:
        self.cluster = cluster
        self.gate = gate
        self.checkpoints = checkpoints
        self.done: list[Cell] = []
        self.lines: list[str] = []
        gate.touch()

    def update(self, progress: StudyProgress) -> None:
        running = [RunFolder(checkpoint.parents[1]) for checkpoint in self.checkpoints()]
        if self.gate.exists() and len(running) == len(self.cluster.worker_nodes):
            self.cluster.remove_node(next(iter(self.cluster.worker_nodes)), allow_graceful=False)
            wait_for(lambda: not all(folder.is_in_use() for folder in running))  # its training outlives a node a little
            self.gate.unlink()
            self.cluster.add_node(num_cpus=1)

    def cell_done(self, progress: StudyProgress, cell: Cell, store: StudyStore) -> None:
        self.done.append(cell)

    def message(self, text: str) -> None:
        self.lines.append(text)


class SharesNothing(LosesANode):
    """The nodes do not see the study's folder."""

    def start(self, progress: StudyProgress) -> None:
        for marker in self.store.path.glob(".ray-*"):
            marker.unlink()

    def __init__(self, store: StudyStore, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.store = store


def wait_for(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def resumptions(store: StudyStore) -> list[int]:
    """:return: steps from which cells went on"""
    records = [read_json(RunFolder(store.folder(cell)).config) for cell in store.study.cells()]
    return [resumption["from_step"] for record in records for resumption in record.get("resumptions", [])]


def assert_done_once_and_as_plain(store: StudyStore, display: LosesANode, plain: StudyStore) -> None:
    cells = list(store.study.cells())
    assert sorted(display.done) == sorted(cells)
    for cell in cells:
        completion = store.completion(cell)
        assert completion is not None
        assert completion.state == "finished"
        assert_same_run(plain.folder(cell), store.folder(cell))


def test_a_lost_node_costs_what_was_trained_after_the_checkpoint_where_the_folder_is_shared(
    cluster: Cluster, gate: Path, study: Study, plain: StudyStore, tmp_path: Path
) -> None:
    store = StudyStore.create_or_open(tmp_path / "study", study)
    (store.path / ".ray-of-a-killed-study").touch()
    display = LosesANode(cluster, gate, lambda: list(store.path.rglob(f"{ROLLOUT}.zip")))
    progress, _ = run_study(store, RayEngine(cluster.address, store.path), display)
    assert progress.failed == {}
    assert_done_once_and_as_plain(store, display, plain)
    assert resumptions(store) == [ROLLOUT]
    assert not ray.is_initialized()
    assert list(store.path.glob(".ray-*")) == []


@pytest.mark.slow  # another half minute, most of it spent on importing torch
def test_a_lost_node_costs_its_cells_where_the_folder_is_not_shared_and_the_others_come_back_whole(
    cluster: Cluster, gate: Path, study: Study, plain: StudyStore, tmp_path: Path, scratch: Path
) -> None:
    store = StudyStore.create_or_open(tmp_path / "study", study)
    display = SharesNothing(store, cluster, gate, lambda: list(scratch.rglob(f"{ROLLOUT}.zip")))
    progress, _ = run_study(store, RayEngine(cluster.address, store.path), display)
    assert progress.failed == {}
    assert_done_once_and_as_plain(store, display, plain)
    assert resumptions(store) == []
    assert list(store.path.rglob("*.arriving")) == []
    record = read_json(RunFolder(store.folder(Cell(ENV, CONTINUED, 0))).config)
    assert record["parent"] == str(store.folder(Cell(ENV, STARTED, 0)) / "checkpoints" / f"{ROLLOUT}.zip")


class TestEngine:
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayEngine]:
        """:return: an engine whose nodes see nothing of what is here"""
        folder = tmp_path_factory.mktemp("study")
        with RayEngine(cluster.address, folder) as engine:
            for marker in folder.iterdir():
                marker.unlink()
            yield engine

    @pytest.fixture
    def task(self, study: Study, tmp_path: Path) -> CellTask:
        return cell_task(StudyStore.create_or_open(tmp_path / "study", study), Cell(ENV, STARTED, 0))

    def test_capacity_is_one_cell_per_cpu_of_the_nodes(self, engine: RayEngine) -> None:
        assert engine.capacity() == 2

    def test_a_stopped_cell_comes_back_with_its_checkpoint_and_goes_on_elsewhere(
        self, engine: RayEngine, task: CellTask, plain: StudyStore, scratch: Path, gate: Path
    ) -> None:
        before = set(scratch.rglob("*.zip"))
        gate.touch()
        future = engine.submit(task)
        wait_for(lambda: any(path.stem == str(ROLLOUT) for path in set(scratch.rglob("*.zip")) - before))
        engine.stop()
        gate.unlink()
        assert future.result(timeout=60) == "interrupted"
        folder = RunFolder(Path(task.config.run_dir or ""))
        assert folder.read_status().num_timesteps == 2 * ROLLOUT
        assert engine.submit(task).result(timeout=60) == "finished"
        assert [entry["from_step"] for entry in read_json(folder.config)["resumptions"]] == [2 * ROLLOUT]
        assert_same_run(plain.folder(task.cell), folder.path)

    def test_a_node_with_other_versions_trains_nothing(
        self, engine: RayEngine, task: CellTask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ray_engine, "installed_versions", lambda: {**installed_versions(), "torch": "1.0"})
        with pytest.raises(StudyError, match=r"has torch .*, the study's machine 1\.0; remedy: the same"):
            engine.submit(task).result(timeout=60)
        assert not Path(task.config.run_dir or "").exists()

    def test_a_second_connection_is_refused(self, engine: RayEngine, cluster: Cluster, tmp_path: Path) -> None:
        with pytest.raises(StudyError, match=r"connected to a Ray cluster already; remedy: ray\.shutdown\(\)"):
            RayEngine(cluster.address, tmp_path)


class TestUnreachable:
    def test_ray_is_not_installed(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setitem(sys.modules, "ray", None)
        with pytest.raises(StudyError, match=r"--engine ray needs Ray; remedy: pip install 'sb3-vgs-ppo\[ray\]'"):
            RayEngine("auto", tmp_path)

    @pytest.mark.parametrize(
        ("address", "reason"),
        [
            ("127.0.0.1:1", "Connection refused"),
            ("ray://127.0.0.1:1", "Connection refused"),
            ("127.0.0.1:port", "invalid literal for int"),
            ("headnode", "Invalid address format: headnode"),
        ],
    )
    def test_no_cluster_at_the_address(self, address: str, reason: str, tmp_path: Path) -> None:
        with pytest.raises(StudyError) as caught:
            RayEngine(address, tmp_path)
        message = str(caught.value)
        assert f"--address {address!r}: no Ray cluster can be reached (" in message
        assert reason in message
        assert message.endswith("remedy: start one with 'ray start --head', and give --address host:port")
        assert "\n" not in message

    def test_something_else_answers(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(ray_engine, "_CONNECT_SECONDS", 2.0)
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"127.0.0.1:{server.getsockname()[1]}"
            with pytest.raises(StudyError, match=r"\(no answer within 2 seconds\)"):
                RayEngine(address, tmp_path)
            monkeypatch.setenv("RAY_ADDRESS", address)
            with pytest.raises(StudyError, match=r"--address 'auto': .* \(no answer within 2 seconds\)"):
                RayEngine("auto", tmp_path)


def test_a_cell_waits_for_the_worker_that_does_not_know_that_it_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is cut off from the cluster, but not from the shared folder, goes on for a while."""
    monkeypatch.setattr(ray_engine, "run_cell", lambda task: "interrupted" if folder.is_in_use() else "finished")
    (tmp_path / "marker").write_text("token")
    task = CellTask(Cell(ENV, STARTED, 0), TrainConfig(run_dir=str(tmp_path / "run")))
    remote = ray_engine._RemoteTask(task, tmp_path / "marker", "token", None, None, installed_versions())
    with ThreadPoolExecutor(1) as pool:
        with new_run_folder(tmp_path / "run") as folder:
            ending = pool.submit(ray_engine._run_remote, remote)
            assert wait([ending], timeout=0.5).not_done
        assert ending.result(timeout=10) == ("finished", None)
