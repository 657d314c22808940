"""Training from the command line: what it prints, what it writes, and how it ends."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.env_util import make_vec_env
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers import TOYS
from sb3_vgs_ppo.cli.main import main
from sb3_vgs_ppo.cli.shell import program
from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.runs.evaluation import evaluate, evaluation_seed, read_evaluations
from sb3_vgs_ppo.runs.folder import RunFolder

SMALL_ROLLOUTS = ["--n-envs", "2", "--algo-kwargs", '{"n_steps": 64, "batch_size": 32, "n_epochs": 2}']
SHORT = [
    "--total-timesteps", "500", *SMALL_ROLLOUTS,
    "--eval-every", "250", "--eval-episodes", "3", "--checkpoint-every", "100", "--keep-checkpoints", "2",
]  # fmt: skip
TIME = ("time/fps", "time/time_elapsed")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, str]:
    """:return: folder of a finished run on CartPole-v1, and what it printed"""
    path = tmp_path_factory.mktemp("finished") / "run"
    out = io.StringIO()
    with redirect_stdout(out):
        assert main(["train", *SHORT, "--run-dir", str(path)]) == 0
    return RunFolder(path), out.getvalue()


def progress_of(folder: RunFolder) -> list[dict[str, str]]:
    with (folder.path / "progress.csv").open() as file:
        return list(csv.DictReader(file))


def parameters_of(path: Path) -> th.Tensor:
    return th.nn.utils.parameters_to_vector(DistributionalPPO.load(path).policy.parameters()).detach()


def test_the_folder_holds_what_is_promised(finished: tuple[RunFolder, str]) -> None:
    folder, _ = finished
    names = {str(path.relative_to(folder.path)) for path in folder.path.rglob("*") if path.is_file()}
    events = {name for name in names if name.startswith("events.out.tfevents.")}
    assert len(events) == 1
    assert names - events == {
        ".lock",
        "best_model.zip",
        "calibration.csv",
        "calibration.png",
        "checkpoints/384.zip",
        "checkpoints/512.zip",
        "config.json",
        "curve.png",
        "evaluations.csv",
        "final_model.zip",
        "monitor/0.monitor.csv",
        "monitor/1.monitor.csv",
        "progress.csv",
        "status.json",
    }
    for figure in (folder.curve, folder.calibration_figure):
        assert figure.read_bytes().startswith(b"\x89PNG")


def test_what_is_printed_is_what_is_written(finished: tuple[RunFolder, str]) -> None:
    folder, out = finished
    status = folder.read_status()
    assert (status.state, status.num_timesteps, status.total_timesteps) == ("finished", 512, 500)
    summary = status.summary
    assert summary is not None
    lines = out.splitlines()
    mean, sd = summary["final_mean_reward"], summary["final_std_reward"]
    assert f"Final evaluation: {mean:.2f} ± {sd:.2f} over 20 episodes" in lines
    ended = [row for path in folder.monitor.iterdir() for row in path.read_text().splitlines()[2:]]
    assert summary["training_episodes"] == len(ended)
    assert lines[3].startswith(f"Finished: 512 steps, {len(ended)} episodes, ")
    assert lines[3].endswith(f"{summary['steps_per_second']:,.0f} steps/s")
    assert f"Run folder: {folder.path}" in lines
    assert "  calibration.png: predicted against realised returns" in lines
    assert lines[-1] == f"Next: {program('sb3-vgs-ppo')} inspect {folder.path}"


def test_the_final_evaluation_can_be_repeated(finished: tuple[RunFolder, str]) -> None:
    folder, out = finished
    model = DistributionalPPO.load(folder.final_model, env=make_vec_env("CartPole-v1", 2))
    again = evaluate(model, "CartPole-v1", 2, 20, evaluation_seed(0, 0))
    assert f"Final evaluation: {again}" in out.splitlines()


def test_tensorboard_shows_what_the_table_holds(finished: tuple[RunFolder, str]) -> None:
    folder, _ = finished
    rows = progress_of(folder)
    assert [row["time/total_timesteps"] for row in rows] == ["128", "256", "384", "512"]
    accumulator = EventAccumulator(str(folder.path), size_guidance={"scalars": 0})
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    assert {"rollout/ep_rew_mean", "train/value_loss", "eval/mean_reward", "vgs/scaling_factor"} <= set(tags)
    for tag in tags:
        shown = {event.step: event.value for event in accumulator.Scalars(tag)}
        held = {int(row["time/total_timesteps"]): float(row[tag]) for row in rows if row[tag]}
        assert shown.keys() == held.keys(), tag
        np.testing.assert_allclose(list(shown.values()), list(held.values()), rtol=1e-6, err_msg=tag)


def test_the_table_of_evaluations_agrees_with_the_log(finished: tuple[RunFolder, str]) -> None:
    folder, _ = finished
    logged = {
        int(row["time/total_timesteps"]): (float(row["eval/mean_reward"]), float(row["eval/mean_ep_length"]))
        for row in progress_of(folder)
        if row["eval/mean_reward"]
    }
    evaluations = read_evaluations(folder.evaluations)
    assert logged == {each.step: (each.mean_reward, each.mean_ep_length) for each in evaluations}
    assert [each.step for each in evaluations] == [256, 512]
    assert all(len(each.rewards) == 3 for each in evaluations)


def test_the_record_of_a_run_repeats_it(finished: tuple[RunFolder, str], tmp_path: Path) -> None:
    folder, _ = finished
    again = RunFolder(tmp_path / "again")
    assert main(["train", "--config", str(folder.config), "--run-dir", str(again.path)]) == 0
    assert th.equal(parameters_of(again.final_model), parameters_of(folder.final_model))
    assert again.evaluations.read_text() == folder.evaluations.read_text()
    for ours, theirs in zip(progress_of(again), progress_of(folder), strict=True):
        assert {key: ours[key] for key in ours if key not in TIME} == {
            key: theirs[key] for key in theirs if key not in TIME
        }
    first, second = (json.loads(each.config.read_text()) for each in (folder, again))
    assert first["options"] == second["options"]
    assert second["command"][:3] == ["sb3-vgs-ppo", "train", "--config"]


def test_a_video_is_named_with_its_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(TOYS)
    options = ["--env-id", "toy_envs:ToyMatchingBox-v0", "--record-video", "--run-dir", str(tmp_path / "run")]
    assert main(["train", *SHORT, *options, "--vec-env", "subproc", "--frame-stack", "2"]) == 0
    line = r"^  (video\.\w+): an episode of best_model\.zip \((256|512) steps of training\): 8 steps, return \d\.\d\d$"
    shown = re.search(line, capsys.readouterr().out, re.MULTILINE)
    assert shown is not None
    assert (tmp_path / "run" / shown[1]).is_file()


def test_the_default_folder_is_below_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *SHORT, "--total-timesteps", "1", "--eval-every", "0", "--env-id", "Pendulum-v1"]) == 0
    (path,) = (tmp_path / "runs" / "Pendulum-v1").iterdir()
    assert path.name.startswith("quantile_adaptive-upgd_vgs-3.0_seed0_")
    assert RunFolder(path).read_status().state == "finished"


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (
            ["--env-id", "CartPoel-v1"],
            "--env-id 'CartPoel-v1' is not registered with gymnasium; did you mean 'CartPole-v1'?",
        ),
        (["--n-envs", "0"], "--n-envs 0 is too small; remedy: at least 1"),
        (["--n-envs", "two"], "--n-envs: 'two' is not a whole number; see sb3-vgs-ppo train --help"),
        (["--vgs-version", "4"], "--vgs-version '4' is not known; remedy: off, 1.0, 2.0, 3.0, 3.1, 4.0"),
        (["--optimizer", "sgd"], "invalid choice 'sgd' for argument '--optimizer'."),
        (["--algo-kwargs", '{"gama": 1}'], "--algo-kwargs: algo_kwargs has no 'gama'; did you mean 'gamma'?"),
        (["--env-kwargs", '{"pole": 1}'], "--env-kwargs {'pole': 1}: CartPole-v1 refuses them: "),
        (["--env-id", "ContinualCartPole-v0", "--n-envs", "3"], "--n-envs 3 cannot share phases of 40000 steps"),
        (["--algo-kwargs", '{"batch_size": 1}'], "DistributionalPPO refuses CartPole-v1 with {"),
        (["--config", "nowhere.yaml"], "--config nowhere.yaml cannot be read: No such file or directory"),
        (["--config", "typo.yaml"], "--config typo.yaml: unknown key 'n_env'; did you mean 'n_envs'?"),
        (
            ["--run-dir", "typo.yaml/run"],
            "run folder typo.yaml/run cannot be written: Not a directory; remedy: another",
        ),
        (["--run-dir", "full"], "run folder full is not empty; remedy: another --run-dir, or move the old one away"),
        (["--device", "tpu7"], "--device 'tpu7' is not a device; remedy: auto, cpu, cuda or cuda:<index>"),
        (["--wings"], "no option '--wings'; see sb3-vgs-ppo train --help"),
    ],
)
def test_errors_of_the_user_are_one_line_and_leave_nothing(
    argv: list[str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "typo.yaml").write_text("n_env: 3")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    before = sorted(tmp_path.rglob("*"))
    run_dir = [] if "--run-dir" in argv else ["--run-dir", "new/run"]
    assert main(["train", *run_dir, *argv]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"error: {line}")
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_missing_package_from_a_shell(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['Box2D'] = None; from sb3_vgs_ppo.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    argv = ["train", "--env-id", "LunarLander-v3", "--run-dir", "new/run"]
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == (
        "error: --env-id 'LunarLander-v3': a package is missing; remedy: pip install 'sb3-vgs-ppo[box2d]'\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def endless(tmp_path: Path) -> list[str]:
    """:return: command of a run that only a signal ends"""
    options = ["--total-timesteps", "1e9", *SMALL_ROLLOUTS, "--checkpoint-every", "128", "--eval-every", "0"]
    return [*options, "--run-dir", str(tmp_path / "run")]


def wait_until(condition: object, process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert process.poll() is None, "the process has ended"
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def test_sigterm_saves_and_a_folder_in_use_is_refused(
    endless: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(tmp_path / "run")
    process = subprocess.Popen(
        [sys.executable, "-m", "sb3_vgs_ppo", "train", *endless], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        wait_until(folder.checkpoints.exists, process)
        assert main(["train", "--run-dir", str(folder.path)]) == 2
        assert capsys.readouterr().err.startswith(f"error: run folder {folder.path} is in use by another live process")
        assert main(["inspect", str(folder.path)]) == 0
        assert "state " in capsys.readouterr().out
    finally:
        process.terminate()
    out, err = (stream.decode() for stream in process.communicate(timeout=120))
    assert process.returncode == 128 + signal.SIGTERM
    assert err == "\nStopping after this update. Ctrl-C again stops at once.\n"
    status = folder.read_status()
    assert (status.state, status.cause) == ("interrupted", "stopped by SIGTERM")
    lines = out.splitlines()
    assert lines[0].startswith(
        "Training on CartPole-v1: 1,000,000,000 steps in 2 environments, seed 0, cpu; run folder"
    )
    assert lines[1] == f"Stopped after {status.num_timesteps:,} steps; everything so far is saved."
    assert "\x1b" not in out
    assert lines[-1] == f"Next: {program('sb3-vgs-ppo')} resume {folder.path}"


@pytest.fixture
def on_a_terminal(endless: list[str]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """:return: a run whose controlling terminal is a pseudo-terminal of 100 columns, and our end of it"""
    ours, theirs = pty.openpty()
    code = (
        "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        "from sb3_vgs_ppo.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "train", *endless],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(theirs)
    yield process, ours
    process.kill()
    process.wait()
    os.close(ours)


def read_until(terminal: int, pattern: str) -> str:
    """:return: everything that was printed until a line matches"""
    text = ""
    while not re.search(pattern, text):
        try:
            text += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", os.read(terminal, 4096).decode(errors="replace"))
        except OSError:  # the other end is closed
            break
    assert re.search(pattern, text), text[-2000:]
    return text


def test_a_terminal_shows_a_bar_and_ctrl_c_stops(
    on_a_terminal: tuple[subprocess.Popen[bytes], int], tmp_path: Path
) -> None:
    process, terminal = on_a_terminal
    read_until(terminal, r"\d/1,000,000,000, [\d,]+ steps/s, ETA .*, return \d+\.\d, VGS \d\.\d\d")
    os.write(terminal, b"\x03")
    out = read_until(terminal, r"Next: \S*sb3-vgs-ppo resume .*\n")
    assert process.wait(timeout=120) == 128 + signal.SIGINT
    assert "Stopping after this update. Ctrl-C again stops at once." in out
    status = RunFolder(tmp_path / "run").read_status()
    assert (status.state, status.cause) == ("interrupted", "stopped by SIGINT")
    assert f"Stopped after {status.num_timesteps:,} steps" in out
