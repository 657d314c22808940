from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from comparison import assert_same_run
from sb3_vgs_ppo.cli.main import main
from sb3_vgs_ppo.runs.folder import RunFolder
from sb3_vgs_ppo.runs.resuming import resume

ALGO_KWARGS = '{"n_steps": 64, "batch_size": 32, "n_epochs": 4, "policy_kwargs": {"net_arch": [8]}}'
COMMAND = [sys.executable, "-m", "sb3_vgs_ppo"]


def options(folder: Path, env_id: str, total: int, *more: str) -> list[str]:
    """:return: command line of a run with checkpoints after every second rollout of 128 steps"""
    counts = ["--total-timesteps", str(total), "--checkpoint-every", "256", "--keep-checkpoints", "2"]
    evaluations = ["--eval-every", "1024", "--eval-episodes", "2"]
    where = ["--env-id", env_id, "--n-envs", "2", "--run-dir", str(folder)]
    return ["train", *where, *counts, *evaluations, "--algo-kwargs", ALGO_KWARGS, *more]


def run_and_kill(argv: Sequence[str], folder: RunFolder, seconds: float, n_checkpoints: int = 0) -> int:
    """
    :param seconds: time to live after the folder is there, with so many checkpoints in it
    :return: exit code
    """
    process = subprocess.Popen([*COMMAND, *argv], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def is_there() -> bool:
        return folder.config.exists() and len(list(folder.checkpoints.glob("*.zip"))) >= n_checkpoints

    while not is_there() or (not folder.is_in_use() and process.poll() is None):
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        time.sleep(0.01)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    process.communicate()
    return process.returncode


def test_a_process_that_was_killed_is_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(tmp_path / "killed")
    assert run_and_kill(options(folder.path, "CartPole-v1", 1_000_000), folder, 1.0, n_checkpoints=2) == -signal.SIGKILL
    assert folder.read_status().cause == "the process ended without notice"
    reached = int(max((path.stem for path in folder.checkpoints.glob("*.zip")), key=int, default=0))
    total = str(reached + 256)
    assert main(["resume", str(folder.path), "--total-timesteps", total]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == f"Schedules follow {int(total):,} steps from here on, not 1,000,000"
    assert lines[1] == f"Resuming from {folder.checkpoints / str(reached)}.zip"
    assert lines[2].startswith(f"Training on CartPole-v1: {int(total):,} steps in 2 environments")
    assert any(line.startswith(f"Finished: {int(total):,} steps, ") for line in lines)
    assert main(["resume", str(folder.path)]) == 0
    assert capsys.readouterr().out == (
        f"Nothing to do: {folder.path} is finished. To train on: sb3-vgs-ppo resume {folder.path} --total-timesteps N\n"
    )
    assert main(["resume", str(folder.path), "--total-timesteps", "1"]) == 2
    assert capsys.readouterr().err == (
        f"error: --total-timesteps 1: the run has {total} steps; remedy: a larger number\n"
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nowhere"], "nowhere is not a run folder: it has no config.json"),
        ([], "Missing from sb3-vgs-ppo resume: RUN"),
        (["nowhere", "--total-timesteps", "many"], "--total-timesteps: 'many' is not a whole number"),
    ],
)
def test_errors_are_one_line(
    argv: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["resume", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env_id", "more"),
    [
        ("CartPole-v1", []),
        ("Pendulum-v1", ["--normalize"]),
        ("LunarLander-v3", ["--normalize"]),
        ("Hopper-v5", ["--normalize"]),
    ],
)
def test_many_kills_at_random_moments(env_id: str, more: list[str], tmp_path: Path) -> None:
    """Six real processes per environment, killed after a random time; nothing is lost but work since a checkpoint."""
    random = np.random.default_rng([sum(map(ord, env_id))])
    total = 16 * 1024
    assert main(options(tmp_path / "whole", env_id, total, *more)) == 0
    folder = RunFolder(tmp_path / "killed")
    argv: list[Any] = options(folder.path, env_id, total, *more)
    for _ in range(6):
        assert run_and_kill(argv, folder, seconds=float(random.uniform(0.2, 4))) == -signal.SIGKILL
        argv = ["resume", str(folder.path)]
    resume(folder.path)
    assert_same_run(tmp_path / "whole", folder.path)
