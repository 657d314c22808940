from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from comparison import assert_same_run, scalars, tables
from sb3_vgs_ppo import _files
from sb3_vgs_ppo.errors import CheckpointError, RunFolderError, UserInputError
from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.runs import calibration, training
from sb3_vgs_ppo.runs.checkpointing import list_checkpoints
from sb3_vgs_ppo.runs.config import TrainConfig
from sb3_vgs_ppo.runs.folder import RunFolder, existing_run_folder
from sb3_vgs_ppo.runs.progress import Display
from sb3_vgs_ppo.runs.resume_state import read_resume_state
from sb3_vgs_ppo.runs.resuming import resume
from sb3_vgs_ppo.runs.training import train

ROLLOUT = 40
CONFIG = TrainConfig(
    total_timesteps=6 * ROLLOUT,
    n_envs=1,
    checkpoint_every=2 * ROLLOUT,
    keep_checkpoints=5,
    eval_every=2 * ROLLOUT,
    eval_episodes=2,
    algo_kwargs={"batch_size": 20, "n_epochs": 2, "policy_kwargs": {"net_arch": [8]}},
)
"""Six rollouts; checkpoints and evaluations after every second."""


IMAGES = "toy_envs:ToyMatchingImage-v0"
SCALED_UPDATES = {"vgs_kwargs": {"apply_to": "update", "warmup_steps": 0}}
SMALL_CNN = {"policy_kwargs": {"features_extractor_kwargs": {"features_dim": 8}, "net_arch": [8]}}


class Killed(BaseException):
    """Stands for the end of a process where a signal would end the test."""


class KilledAt(Display):
    """Ends the training in the middle of a rollout, and remembers what it was told."""

    def __init__(self, step: float = np.inf) -> None:
        self.at = step
        self.messages: list[str] = []

    def step(self, num_timesteps: int) -> None:
        if num_timesteps >= self.at:
            raise Killed

    def message(self, text: str) -> None:
        self.messages.append(text)


def _leave_out_what_takes_long(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(training, "FINAL_EVALUATION_EPISODES", 2)
    patch.setattr(training, "draw_curve", lambda *arguments: None)
    patch.setattr(training, "draw_calibration", lambda *arguments: None)
    patch.setattr(calibration, "STEPS", 40)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    _leave_out_what_takes_long(monkeypatch)


def configure(folder: Path, **changes: Any) -> TrainConfig:
    """:return: options in which a rollout has 40 steps per environment"""
    config = replace(CONFIG, run_dir=str(folder), **changes)
    steps = {name: getattr(config, name) * config.n_envs for name in ("total_timesteps", "checkpoint_every")}
    return replace(
        config,
        **steps,
        eval_every=config.eval_every * config.n_envs,
        algo_kwargs={"n_steps": ROLLOUT, **CONFIG.algo_kwargs, **config.algo_kwargs},
    )


def train_until(config: TrainConfig, step: float) -> None:
    with pytest.raises(Killed):
        train(config, display=KilledAt(step))


@pytest.mark.parametrize(
    ("env_id", "n_envs", "value_head", "optimizer", "vgs_version", "changes"),
    [
        ("CartPole-v1", 1, "quantile", "adaptive-upgd", "3.0", {}),
        ("CartPole-v1", 4, "scalar", "adam", "off", {"algo_kwargs": {"target_kl": 0.001}}),
        ("CartPole-v1", 4, "categorical", "adamw", "1.0", {}),
        ("Pendulum-v1", 1, "quantile", "adaptive-upgd", "3.0", {"value_target": "distribution"}),
        ("Pendulum-v1", 1, "quantile", "upgd", "2.0", {"normalize": True}),
        ("Pendulum-v1", 4, "scalar", "adaptive-upgd", "3.1", {"normalize": True}),
        ("Pendulum-v1", 4, "quantile", "adam", "4.0", {"algo_kwargs": SCALED_UPDATES}),
        (
            "Pendulum-v1",
            2,
            "quantile",
            "adaptive-upgd",
            "3.0",
            {"algo_kwargs": {"use_sde": True, "sde_sample_freq": 7}},
        ),
        ("LunarLander-v3", 1, "categorical", "adam", "3.0", {"normalize": True}),
        ("LunarLander-v3", 4, "quantile", "upgd", "off", {"normalize": True}),
        ("Hopper-v5", 1, "scalar", "adam", "2.0", {"normalize": True}),
        ("Hopper-v5", 4, "quantile", "adaptive-upgd", "3.0", {"normalize": True}),
        ("BipedalWalker-v3", 2, "quantile", "adaptive-upgd", "3.1", {}),
        ("LunarLander-v3", 2, "quantile", "adam", "3.0", {"vec_env": "subproc", "frame_stack": 3, "normalize": True}),
        ("Pendulum-v1", 2, "scalar", "adam", "off", {"vec_env": "subproc", "normalize": True}),
        (IMAGES, 2, "quantile", "adam", "off", {"frame_stack": 2, "algo_kwargs": SMALL_CNN}),
        pytest.param(
            *("ALE/Breakout-v5", 2, "quantile", "adaptive-upgd", "3.0"),
            {"frame_stack": 4, "algo_kwargs": SMALL_CNN, "env_kwargs": {"max_num_frames_per_episode": 200}},
            marks=pytest.mark.slow,
        ),
    ],
)
@pytest.mark.usefixtures("toy_envs")
def test_a_resumed_run_equals_one_that_was_never_interrupted(
    env_id: str, n_envs: int, value_head: Any, optimizer: Any, vgs_version: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    options = {"env_id": env_id, "n_envs": n_envs, "value_head": value_head, "optimizer": optimizer}
    options |= {"vgs_version": vgs_version, **changes}
    train(configure(tmp_path / "whole", **options))
    config = configure(tmp_path / "killed", **options)
    train_until(config, 4.5 * ROLLOUT * n_envs)
    with pytest.raises(Killed):
        resume(tmp_path / "killed", display=KilledAt(5.9 * ROLLOUT * n_envs))
    resume(tmp_path / "killed")
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize(
    ("env_id", "change", "n_envs", "normalize"),
    [
        ("ContinualCartPole-v0", "observation_rotation", 2, False),
        ("ContinualCartPole-v0", "physics", 2, True),
        ("ContinualLunarLander-v0", "action_permutation", 2, True),
        ("ContinualLunarLander-v0", "physics", 1, False),
        ("ContinualHopper-v0", "physics", 2, True),
    ],
)
def test_a_run_that_is_resumed_over_a_change_of_task_equals_one_that_was_never_interrupted(
    env_id: str, change: str, n_envs: int, normalize: bool, tmp_path: Path
) -> None:
    """Phases of 110 steps per environment: checkpoints at 80, 160 and 240 lie in the phases 0, 1 and 2."""
    options = {"env_id": env_id, "n_envs": n_envs, "normalize": normalize, "seed": 3}
    options["env_kwargs"] = {"change": change, "phase_steps": 110 * n_envs}
    train(configure(tmp_path / "whole", **options))
    train_until(configure(tmp_path / "killed", **options), 2.9 * ROLLOUT * n_envs)
    with pytest.raises(Killed):
        resume(tmp_path / "killed", display=KilledAt(4.5 * ROLLOUT * n_envs))
    resume(tmp_path / "killed")
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    states = read_resume_state(tmp_path / "killed" / "checkpoints" / f"{160 * n_envs}.zip").environments
    for environment in states:
        assert {"task_seed": 3, "phase": 1, "steps_in_phase": 50} in environment["layers"]


@pytest.mark.parametrize(
    ("optimizer", "on_change"),
    [
        ("adam", "restart-head+raise-entropy"),
        ("adam", "restart-head+raise-learning-rate"),
        ("adaptive-upgd", "shrink-head+raise-noise"),
    ],
)
def test_a_run_that_is_resumed_over_alarms_equals_one_that_was_never_interrupted(
    optimizer: Any, on_change: str, tmp_path: Path
) -> None:
    """A lax test raises alarms every few rollouts; a checkpoint after each of these falls before the response too."""
    options: dict[str, Any] = {"total_timesteps": 12 * ROLLOUT, "checkpoint_every": ROLLOUT, "keep_checkpoints": 12}
    options |= {"env_id": "Pendulum-v1", "optimizer": optimizer, "seed": 2, "eval_every": 12 * ROLLOUT}
    options["on_change"] = on_change
    options["change_kwargs"] = {"alpha": 0.45, "min_history": 2, "window": 4, "rollouts": 3}
    train(configure(tmp_path / "whole", **options))
    alarms = [json.loads(line)["step"] for line in (tmp_path / "whole" / "changes.jsonl").read_text().splitlines()]
    assert len(alarms) >= 2
    train_until(configure(tmp_path / "killed", **options), alarms[0] + 0.5 * ROLLOUT)
    with pytest.raises(Killed):
        resume(tmp_path / "killed", display=KilledAt(alarms[1] + 1.5 * ROLLOUT))
    for alarm in alarms[:2]:
        state = read_resume_state(tmp_path / "killed" / "checkpoints" / f"{alarm}.zip").change
        assert state is not None
        assert state["is_pending"] is True
    (tmp_path / "killed" / "checkpoints" / f"{alarms[1] + ROLLOUT}.zip").unlink()  # back to before the response
    resume(tmp_path / "killed")
    changes = [(tmp_path / name / "changes.jsonl").read_text() for name in ("whole", "killed")]
    assert changes[0] == changes[1]
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """:return: a run that was never interrupted"""
    path = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        _leave_out_what_takes_long(patch)
        train(configure(path))
    return path


def run_in_child(run: Callable[[], object]) -> int:
    """:return: exit status of a forked process, minus the signal that killed it"""
    child = os.fork()
    if child == 0:
        try:
            run()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_in(monkeypatch: pytest.MonkeyPatch, place: tuple[Any, str], call: int) -> None:
    """Let a process kill itself in the n-th call of a function, before anything of it is done."""
    owner, name = place
    original = getattr(owner, name)
    calls = iter(range(1, 10**9))

    def function(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, function)


PLACES = {
    "rollout": (DistributionalPPO, "_update_info_buffer"),
    "update": (DistributionalPPO, "_apply_gradients"),
    "save, before the file is on disk": (_files.os, "fsync"),
    "save, before the file takes its place": (_files.os, "replace"),
    "save, before old ones are removed": (training, "is_due"),
}
CALLS = {"rollout": 240, "update": 24, "save, before the file is on disk": 40}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("place", PLACES)
def test_kill_9_at_any_moment(
    place: str, seed: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three seeded random moments in each place: in one run, and in another and its resumption."""
    random = np.random.default_rng([seed, list(PLACES).index(place)])
    folder = tmp_path / "run"
    run: Callable[[], object] = lambda: train(configure(folder))  # noqa: E731
    for _ in range(1 + seed):
        with monkeypatch.context() as patch:
            kill_in(patch, PLACES[place], int(random.integers(1, CALLS.get(place, 12))))
            assert run_in_child(run) in (0, -signal.SIGKILL)
        if not (folder / "config.json").exists():
            shutil.rmtree(folder)  # nothing was begun
            run = lambda: train(configure(folder))  # noqa: E731
        else:
            run = lambda: resume(folder)  # noqa: E731
    run()
    assert_same_run(whole, folder)


def test_a_run_without_checkpoint_starts_again_in_its_folder(whole: Path, tmp_path: Path) -> None:
    train_until(configure(tmp_path / "run"), 1.5 * ROLLOUT)
    (tmp_path / "run" / "checkpoints").mkdir()
    (tmp_path / "run" / "checkpoints" / ".80.zip.0123.vgs-tmp").write_bytes(b"half a checkpoint")
    display = KilledAt()
    resume(tmp_path / "run", display=display)
    assert display.messages[0] == "Resuming from step 0: no checkpoint was saved yet"
    assert_same_run(whole, tmp_path / "run")


def test_a_damaged_checkpoint_is_passed_over(whole: Path, tmp_path: Path) -> None:
    train_until(configure(tmp_path / "run"), 4.5 * ROLLOUT)
    newest = tmp_path / "run" / "checkpoints" / "160.zip"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    display = KilledAt()
    resume(tmp_path / "run", display=display)
    assert display.messages[0].startswith(f"Checkpoint 160.zip cannot be used: {newest}: ")
    assert display.messages[1] == f"Resuming from {newest.with_name('80.zip')}"
    newest.with_suffix(".zip.unusable").unlink()
    assert_same_run(whole, tmp_path / "run")


def test_without_a_whole_checkpoint_there_is_an_error(tmp_path: Path) -> None:
    train_until(configure(tmp_path / "run"), 4.5 * ROLLOUT)
    for path in list_checkpoints(tmp_path / "run" / "checkpoints"):
        path.write_bytes(path.read_bytes()[:1000])
    before = tables(tmp_path / "run")
    with pytest.raises(CheckpointError, match="none of its 2 checkpoints can be used"):
        resume(tmp_path / "run")
    assert tables(tmp_path / "run") == before


@pytest.mark.parametrize("name", ["evaluations.csv", "monitor/0.monitor.csv", "progress.csv"])
def test_a_table_that_is_too_short_is_noticed(name: str, tmp_path: Path) -> None:
    train_until(configure(tmp_path / "run"), 4.5 * ROLLOUT)
    (tmp_path / "run" / name).write_text("")
    with pytest.raises(CheckpointError, match=f"{name}: 0 (bytes|rows), but the checkpoint was written after "):
        resume(tmp_path / "run")


def test_event_files_may_be_deleted(tmp_path: Path) -> None:
    train_until(configure(tmp_path / "run"), 4.5 * ROLLOUT)
    for path in (tmp_path / "run").glob("events.*"):
        path.unlink()
    resume(tmp_path / "run")
    assert [step for step, _ in scalars(tmp_path / "run")["train/loss"]] == [200, 240]


def test_a_finished_run_is_left_alone(whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert resume(whole) is None
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_a_finished_run_goes_on_to_a_larger_total(tmp_path: Path) -> None:
    """Twice three rollouts equal six: nothing in these options is scheduled, and CartPole's episodes go on."""
    whole = configure(tmp_path / "whole", checkpoint_every=3 * ROLLOUT)
    train(whole)
    train(replace(whole, run_dir=str(tmp_path / "twice"), total_timesteps=3 * ROLLOUT))
    with pytest.raises(UserInputError, match="--total-timesteps 120: the run has 120 steps; remedy: a larger number"):
        resume(tmp_path / "twice", 120)
    resume(tmp_path / "twice", 6 * ROLLOUT, command=["resume", "twice"])
    for name in ("whole", "twice"):
        (tmp_path / name / "checkpoints" / "120.zip").unlink()  # where the schedule was another one
    assert_same_run(tmp_path / "whole", tmp_path / "twice")
    record = json.loads((tmp_path / "twice" / "config.json").read_text())
    assert record["options"]["total_timesteps"] == 240
    assert [(each["command"], each["from_step"]) for each in record["resumptions"]] == [(["resume", "twice"], 120)]


def test_a_signal_saves_what_resume_continues(whole: Path, tmp_path: Path) -> None:
    """CartPole's environments are snapshots, so that a checkpoint between those that were planned changes nothing."""

    class Stopped(Display):
        def step(self, num_timesteps: int) -> None:
            if num_timesteps == 90:
                os.kill(os.getpid(), signal.SIGTERM)

    result = train(configure(tmp_path / "run"), display=Stopped())
    assert result.checkpoint.name == "120.zip"
    resume(tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "120.zip").unlink()
    assert_same_run(whole, tmp_path / "run")


def test_a_folder_in_use_is_refused(whole: Path) -> None:
    with existing_run_folder(whole), pytest.raises(RunFolderError, match="is in use by another live process"):
        resume(whole)


def test_what_is_not_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is not a run folder"):
        resume(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_the_old_checkpoint(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(model: DistributionalPPO, path: Path, **kwargs: Any) -> None:
        if path.name == "160.zip":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(model, path, **kwargs)

    save = DistributionalPPO.save
    with monkeypatch.context() as patch:
        patch.setattr(DistributionalPPO, "save", full)
        with pytest.raises(RunFolderError, match=r"No space left on device.*; newest checkpoint: .*80.zip; remedy: "):
            train(configure(tmp_path / "run"))
    status = RunFolder(tmp_path / "run").read_status()
    assert (status.state, "No space left" in str(status.cause)) == ("interrupted", True)
    resume(tmp_path / "run")
    assert_same_run(whole, tmp_path / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(whole: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    copy.chmod(0o555)
    with pytest.raises(RunFolderError, match="cannot be written"):
        resume(copy)
    copy.chmod(0o755)


class TestDevice:
    @pytest.fixture
    def from_gpu(self, tmp_path: Path) -> Path:
        """:return: run of a machine with a GPU, which was stopped and then copied to one that has none"""
        folder = tmp_path / "killed"
        train_until(configure(folder), 4.5 * ROLLOUT)
        record = json.loads((folder / "config.json").read_text())
        record["options"]["device"] = "cuda"
        (folder / "config.json").write_text(json.dumps(record))
        return folder

    @pytest.fixture(autouse=True)
    def _no_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    def test_a_run_of_another_device_asks_for_one_that_is_there(self, from_gpu: Path, tmp_path: Path) -> None:
        with pytest.raises(UserInputError, match="--device 'cuda': torch sees no CUDA device here; remedy: cpu or"):
            resume(from_gpu)
        with pytest.raises(UserInputError, match="--device 'gpu' is not a device; remedy: auto, cpu"):
            resume(from_gpu, device="gpu")
        train(configure(tmp_path / "whole"))
        resume(from_gpu, device="auto")
        assert json.loads((from_gpu / "config.json").read_text())["options"]["device"] == "cpu"
        assert tables(from_gpu) == tables(tmp_path / "whole")
