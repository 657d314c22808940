"""Cells, the scheduler and the pool of processes: every cell is done exactly once, with the numbers of a plain run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from comparison import assert_same_run
from sb3_vgs_ppo.errors import CheckpointError, StudyError, TrainingDiverged, UserInputError
from sb3_vgs_ppo.runs.cells import CellTask, cell_config, cell_options, cell_task, run_cell, trained_options
from sb3_vgs_ppo.runs.engines import LocalEngine
from sb3_vgs_ppo.runs.folder import RunFolder, RunState, read_json
from sb3_vgs_ppo.runs.study import MAX_ATTEMPTS, StudyProgress, check_study, run_study
from sb3_vgs_ppo.runs.study_display import StudyDisplay
from sb3_vgs_ppo.runs.training import train
from sb3_vgs_ppo.studies.definition import Cell, Study, Variant
from sb3_vgs_ppo.studies.store import StudyStore

ENV = "CartPole-v1"
ROLLOUT = 40
LEGACY, FIXED, MIGRATED = "vgs-1.0", "vgs-3.0", "vgs-1.0-to-3.0"
STUDY = Study(
    env_ids=(ENV,),
    variants=(
        Variant(LEGACY, {"vgs_version": "1.0"}),
        Variant(FIXED, {"vgs_version": "3.0"}),
        Variant(MIGRATED, {"vgs_version": "3.0"}, continue_from=LEGACY, from_step=2 * ROLLOUT),
    ),
    seeds=(0,),
    total_timesteps=6 * ROLLOUT,
    baseline=LEGACY,
    options={
        "n_envs": 1,
        "checkpoint_every": 2 * ROLLOUT,
        "eval_every": 3 * ROLLOUT,
        "eval_episodes": 2,
        "algo_kwargs": {"n_steps": ROLLOUT, "batch_size": 20, "n_epochs": 2, "policy_kwargs": {"net_arch": [8]}},
    },
)


@pytest.fixture
def store(tmp_path: Path) -> StudyStore:
    return StudyStore.create_or_open(tmp_path / "study", STUDY)


@pytest.fixture
def large(tmp_path: Path) -> StudyStore:
    return StudyStore.create_or_open(tmp_path / "large", replace(STUDY, seeds=(0, 1)))


class Lines(StudyDisplay):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.estimates: list[float | None] = []

    def update(self, progress: StudyProgress) -> None:
        self.estimates.append(progress.seconds_left)

    def message(self, text: str) -> None:
        self.lines.append(text)


class ThreadEngine:
    """Trains one cell at a time in this process; ``losses`` says how often the worker of a cell is lost."""

    lost: tuple[type[BaseException], ...] = (BrokenProcessPool,)

    def __init__(self, losses: dict[str, int] | None = None, run: Any = run_cell) -> None:
        self.losses = losses or {}
        self.run = run
        self.submitted: list[Cell] = []
        self.active = 0
        self.most = 0
        self.pool = ThreadPoolExecutor(1)

    def __enter__(self) -> ThreadEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.pool.shutdown()

    def capacity(self) -> int:
        return 2

    def submit(self, task: CellTask) -> Future[RunState]:
        self.submitted.append(task.cell)
        self.active += 1
        self.most = max(self.most, self.active)
        return self.pool.submit(self._work, task)

    def stop(self) -> None:
        raise AssertionError("nobody asked to stop")

    def _work(self, task: CellTask) -> RunState:
        try:
            if self.losses.get(task.cell.variant, 0) > 0:
                self.losses[task.cell.variant] -= 1
                raise BrokenProcessPool
            state: RunState = self.run(task)
            return state
        finally:
            self.active -= 1


def finish(task: CellTask) -> RunState:
    """Stands for a training: leaves what the mark is made of, and a checkpoint for others to go on from."""
    folder = RunFolder(Path(task.config.run_dir or ""))
    folder.checkpoints.mkdir(parents=True)
    (folder.checkpoints / f"{3 * ROLLOUT}.zip").touch()
    folder.status.write_text(
        '{"state": "finished", "num_timesteps": 240, "total_timesteps": 240, "cause": null, '
        '"summary": {"steps_per_second": 1.0, "final_mean_reward": 2.0}}'
    )
    return "finished"


def test_cells_equal_plain_runs_and_a_second_call_trains_nothing(store: StudyStore, tmp_path: Path) -> None:
    progress, signal_number = run_study(store, LocalEngine(2))
    assert signal_number is None
    assert progress.failed == {}
    assert progress.finished == set(STUDY.cells())
    assert progress.steps_done == progress.steps_total == (6 + 6 + 4) * ROLLOUT

    plain = replace(cell_config(STUDY, Cell(ENV, FIXED, 0)), run_dir=str(tmp_path / "plain"))
    train(plain)
    assert_same_run(tmp_path / "plain", store.folder(Cell(ENV, FIXED, 0)))

    migrated = Cell(ENV, MIGRATED, 0)
    completion = store.completion(migrated)
    assert completion is not None
    assert completion.first_step == 2 * ROLLOUT
    assert completion.num_timesteps == 4 * ROLLOUT
    legacy_checkpoint = store.folder(Cell(ENV, LEGACY, 0)) / "checkpoints" / f"{2 * ROLLOUT}.zip"
    assert read_json(store.folder(migrated) / "config.json")["parent"] == str(legacy_checkpoint)

    before = {path: path.stat().st_mtime_ns for path in store.path.rglob("*") if path.is_file()}
    display = Lines()
    progress, _ = run_study(store, ThreadEngine(run=None), display)
    assert progress.done == 3
    assert display.lines == ["3 of 3 cells are done already"]
    assert {path: path.stat().st_mtime_ns for path in store.path.rglob("*") if path.is_file()} == before


def test_parents_come_first_and_the_engine_is_never_overfull(large: StudyStore) -> None:
    def work(task: CellTask) -> RunState:
        time.sleep(0.02)  # long enough for the next cell to be submitted
        return finish(task)

    engine = ThreadEngine(run=work)
    progress, _ = run_study(large, engine)
    assert progress.done == 6
    assert engine.most == 2
    for seed in (0, 1):
        order = [cell.variant for cell in engine.submitted if cell.seed == seed]
        assert order.index(LEGACY) < order.index(MIGRATED)
    assert len(engine.submitted) == len(set(engine.submitted))
    completion = large.completion(Cell(ENV, MIGRATED, 0))
    assert completion is not None
    assert completion.first_step == 3 * ROLLOUT  # the first checkpoint from step 80 on


def test_a_lost_worker_costs_an_attempt_and_no_cell(large: StudyStore) -> None:
    engine, display = ThreadEngine({FIXED: MAX_ATTEMPTS - 1}, finish), Lines()
    progress, _ = run_study(large, engine, display)
    assert progress.done == 6
    assert progress.failed == {}
    assert len(engine.submitted) == 6 + MAX_ATTEMPTS - 1
    assert sum("its worker was lost (BrokenProcessPool)" in line for line in display.lines) == MAX_ATTEMPTS - 1


def test_a_cell_that_keeps_losing_its_worker_fails_alone(large: StudyStore) -> None:
    progress, _ = run_study(large, ThreadEngine({FIXED: 2 * MAX_ATTEMPTS}, finish))
    assert {cell.variant for cell in progress.failed} == {FIXED}
    assert set(progress.failed.values()) == {"its worker was lost (BrokenProcessPool), 3 times"}
    assert progress.done == 4


def test_what_trains_on_from_a_failed_cell_fails_with_it(large: StudyStore) -> None:
    def fail(task: CellTask) -> RunState:
        if task.cell == Cell(ENV, LEGACY, 0):
            raise CheckpointError("the disk\nis bad")
        return finish(task)

    progress, _ = run_study(large, ThreadEngine(run=fail))
    assert progress.failed == {
        Cell(ENV, LEGACY, 0): "CheckpointError: the disk is bad",
        Cell(ENV, MIGRATED, 0): f"{ENV} / {LEGACY} / seed 0, whose agent it trains on, has not been trained to its end",
    }
    assert progress.done == 4


def test_a_diverged_cell_is_done_and_not_trained_again(store: StudyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    task = cell_task(store, Cell(ENV, FIXED, 0))

    def diverge(*_: object, **__: object) -> None:
        raise TrainingDiverged(["weight"], 10, 80)

    with monkeypatch.context() as patch:
        patch.setattr("sb3_vgs_ppo.ppo.DistributionalPPO.train", diverge)
        assert run_cell(task) == "diverged"
    assert run_cell(task) == "diverged"  # although training would work now
    store.mark_done(task.cell)
    completion = store.completion(task.cell)
    assert completion is not None
    assert (completion.state, completion.final_return) == ("diverged", None)
    assert "10 updates in a row" in str(completion.cause)


def test_a_cell_killed_before_its_record_or_first_checkpoint_starts_again(store: StudyStore, tmp_path: Path) -> None:
    task = cell_task(store, Cell(ENV, FIXED, 0))
    folder = Path(task.config.run_dir or "")
    (folder / "monitor").mkdir(parents=True)
    (folder / "monitor" / "0.monitor.csv").write_text("half a li")
    assert run_cell(task) == "finished"

    run_study(store, ThreadEngine(run=run_cell))
    migrated = cell_task(store, Cell(ENV, MIGRATED, 0))
    reference = tmp_path / "reference"
    folder = Path(migrated.config.run_dir or "")
    folder.rename(reference)
    folder.mkdir()
    (folder / "config.json").write_text((reference / "config.json").read_text())
    assert run_cell(migrated) == "finished"
    assert_same_run(reference, folder)


def test_a_missing_checkpoint_of_the_parent_is_named(store: StudyStore) -> None:
    with pytest.raises(StudyError, match=r"vgs-1.0 / seed 0 has no checkpoint after step 80; remedy: remove .*seed-0"):
        cell_task(store, Cell(ENV, MIGRATED, 0))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"env_ids": ("CartPol-v1",)}, "'CartPol-v1' is not registered with gymnasium"),
        ({"options": {**STUDY.options, "n_envz": 2}}, "CartPole-v1, variant vgs-1.0: unknown key 'n_envz'"),
        ({"options": {**STUDY.options, "algo_kwargs": {"gama": 0.9}}}, "algo_kwargs has no 'gama'"),
        ({"variants": (Variant("a", {"vgs_version": "9"}),), "baseline": "a"}, "--vgs-version '9' is not known"),
        ({"options": {**STUDY.options, "n_envs": 0}}, "--n-envs 0 is too small"),
        ({"env_ids": ("ContinualCartPole-v0",), "variants": STUDY.variants[:1], "options": {"n_envs": 7}}, "phase"),
    ],
)
def test_a_study_is_checked_before_it_trains(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserInputError, match=complaint):
        check_study(replace(STUDY, **change))


def test_a_worker_without_a_cell_does_not_break_the_stop_of_the_others(store: StudyStore) -> None:
    short = cell_task(store, Cell(ENV, FIXED, 0))
    long = cell_task(store, Cell(ENV, LEGACY, 0))
    slow = {**long.config.algo_kwargs, "n_epochs": 1_500}  # updates of seconds: time for an idle worker to end
    long = replace(long, config=replace(long.config, total_timesteps=10**8, checkpoint_every=1, algo_kwargs=slow))
    with LocalEngine(2) as engine:
        running = engine.submit(long)
        assert engine.submit(short).result(timeout=120) == "finished"
        while not list((store.folder(long.cell) / "checkpoints").glob("*.zip")):
            time.sleep(0.01)
        engine.stop()
        assert running.result(timeout=120) == "interrupted"
    assert RunFolder(store.folder(long.cell)).read_status().cause == "stopped by SIGINT"


def test_a_killed_worker_is_replaced_and_its_cell_goes_on(store: StudyStore, tmp_path: Path) -> None:
    engine, display = LocalEngine(1), Lines()
    cell = Cell(ENV, LEGACY, 0)

    def kill() -> None:
        checkpoints = store.folder(cell) / "checkpoints"
        while not list(checkpoints.glob("*.zip")):
            time.sleep(0.002)
        for process in list(engine._pool._processes.values()):
            process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    study_of_one = replace(STUDY, variants=STUDY.variants[:1])
    store = StudyStore(store.path, study_of_one)
    progress, _ = run_study(store, engine, display)
    killer.join()
    assert progress.finished == {cell}
    assert any("worker was lost" in line for line in display.lines)
    assert len(read_json(store.folder(cell) / "config.json")["resumptions"]) == 1
    train(replace(cell_config(study_of_one, cell), run_dir=str(tmp_path / "plain")))
    assert_same_run(tmp_path / "plain", store.folder(cell))


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """``compare`` as a process of its own, with a cell that would train for hours."""
    options = '{"n_envs": 1, "checkpoint_every": 512, "algo_kwargs": {"n_steps": 512, "n_epochs": 1}}'
    command = [sys.executable, "-m", "sb3_vgs_ppo", "compare", "--out", str(tmp_path / "study"), "--env-ids", ENV]
    command += [
        "--variants",
        "sb3-ppo",
        "--seeds",
        "1",
        "--total-timesteps",
        "1e8",
        "--options",
        options,
        "--workers",
        "1",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    checkpoints = tmp_path / "study" / "cells" / ENV / "sb3-ppo" / "seed-0" / "checkpoints"
    while not list(checkpoints.glob("*.zip")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    yield process
    process.kill()


def wait_until_free(folder: RunFolder) -> None:
    deadline = time.monotonic() + 30
    while folder.is_in_use():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_study_with_everything_saved(
    running: subprocess.Popen[str], tmp_path: Path, number: signal.Signals
) -> None:
    running.send_signal(number)
    output = running.communicate(timeout=60)[0]
    assert running.returncode == 128 + number
    assert "Stopped with 0 of 1 cells done; everything so far is saved." in output
    assert f"compare --out {tmp_path / 'study'} --workers 1" in output
    status = RunFolder(tmp_path / "study" / "cells" / ENV / "sb3-ppo" / "seed-0").read_status()
    assert (status.state, status.cause) == ("interrupted", "stopped by SIGINT")


def test_workers_end_with_a_study_that_is_killed(running: subprocess.Popen[str], tmp_path: Path) -> None:
    running.kill()
    running.wait()
    wait_until_free(RunFolder(tmp_path / "study" / "cells" / ENV / "sb3-ppo" / "seed-0"))
    assert not StudyStore.open(tmp_path / "study").is_done(Cell(ENV, "sb3-ppo", 0))


def test_an_interrupted_cell_has_no_mark_and_is_taken_up_again(large: StudyStore) -> None:
    interruptions = [Cell(ENV, FIXED, 0)]

    def run(task: CellTask) -> RunState:
        if task.cell in interruptions:
            interruptions.remove(task.cell)
            return "interrupted"
        return finish(task)

    engine = ThreadEngine(run=run)
    progress, _ = run_study(large, engine)
    assert progress.done == 6
    assert engine.submitted.count(Cell(ENV, FIXED, 0)) == 2


def test_defaults_are_among_the_options_that_make_two_cells_the_same_run() -> None:
    plain, explicit = Variant("plain", {}), Variant("explicit", {"value_head": "quantile", "n_envs": 8})
    study = Study((ENV,), (plain, explicit, Variant("other", {"n_envs": 4})), (0,), 1_000, "plain")
    options = [cell_options(study, cell) for cell in study.cells()]
    assert options[0] == options[1] != options[2]


def test_a_run_tells_with_which_options_it_was_trained(tmp_path: Path) -> None:
    study = Study((ENV,), (Variant("plain", {}),), (0,), 1_000, "plain")
    (cell,) = study.cells()
    recorded = cell_options(study, cell)
    del recorded["value_target"]  # of a version that did not have it
    (tmp_path / "config.json").write_text(json.dumps({"schema": 1, "options": recorded}))
    assert trained_options(tmp_path) == cell_options(study, cell)
