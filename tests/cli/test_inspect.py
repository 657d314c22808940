from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from stable_baselines3.common.env_util import make_vec_env

from sb3_vgs_ppo._files import write_json
from sb3_vgs_ppo.cli.main import main
from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.runs.evaluation import Evaluation, append_evaluation
from sb3_vgs_ppo.runs.folder import RunFolder, RunStatus

Inspect = Callable[..., str]


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = DistributionalPPO("MlpPolicy", make_vec_env("CartPole-v1"), n_steps=8, batch_size=8, n_epochs=1, seed=0)
    path = tmp_path_factory.mktemp("model") / "agent.zip"
    model.learn(8)
    model.save(path)
    return path


@pytest.fixture
def run_folder(tmp_path: Path, model_file: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.checkpoints.mkdir(parents=True)
    for step in (8, 16, 100):
        (folder.checkpoints / f"{step}.zip").write_bytes(model_file.read_bytes())
    record = {
        "schema": 1,
        "options": {"env_id": "CartPole-v1", "seed": 3},
        "command": ["sb3-vgs-ppo", "train"],
        "versions": {"torch": "2.13.0"},
        "git": {"commit": "0123abc", "modified": True},
        "parent": None,
    }
    write_json(folder.config, record)
    folder.write_status(RunStatus("finished", 100, 90, summary={"final_mean_reward": 42.5}))
    for step, mean in ((8, 10.0), (16, 30.0), (100, 20.0)):
        append_evaluation(folder.evaluations, Evaluation(step, (mean, mean), (5, 5)))
    return folder


@pytest.fixture
def inspect(capsys: pytest.CaptureFixture[str]) -> Inspect:
    def run(*argv: str) -> str:
        assert main(["inspect", *argv]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return run


def rows(table: str) -> list[str]:
    return [" ".join(line.split()) for line in table.splitlines()]


def test_a_checkpoint(inspect: Inspect, model_file: Path) -> None:
    shown = rows(inspect(str(model_file)))
    assert shown[0].startswith("file ")
    for row in (
        "kind checkpoint",
        "algorithm DistributionalPPO",
        "steps 8",
        "value head quantile",
        "actions Discrete(2)",
        "digests verified",
    ):
        assert row in shown
    assert any(row.startswith("VGS 3.0, 1 observations; ") for row in shown)


def test_a_checkpoint_as_json(inspect: Inspect, model_file: Path) -> None:
    values = json.loads(inspect(str(model_file), "--json"))
    assert values["num_timesteps"] == 8
    assert values["vgs"]["version"] == "3.0"
    assert values["parameters"]["action_net.weight"] == [2, 64]


def test_a_run(inspect: Inspect, run_folder: RunFolder) -> None:
    shown = rows(inspect(str(run_folder.path)))
    for row in (
        "state finished",
        "steps 100 of 90",
        "best evaluation 30.00 ± 0.00 over 2 episodes at step 16",
        "final mean reward 42.5",
        "options env_id: CartPole-v1",
        "seed: 3",
        "command sb3-vgs-ppo train",
        "commit 0123abc, with uncommitted changes",
        "algorithm DistributionalPPO",
    ):
        assert row in shown
    assert any(row.startswith("file ") and row.endswith("100.zip") for row in shown)  # not 16.zip, the last by name


def test_a_run_as_json(inspect: Inspect, run_folder: RunFolder) -> None:
    values = json.loads(inspect(str(run_folder.path), "--json"))
    assert values["options"]["seed"] == 3
    assert values["status"]["state"] == "finished"
    assert values["best_evaluation"]["mean_reward"] == 30.0
    assert values["newest_checkpoint"]["num_timesteps"] == 8


def test_a_run_that_has_just_started_and_was_killed(inspect: Inspect, run_folder: RunFolder) -> None:
    for path in (*run_folder.checkpoints.iterdir(), run_folder.evaluations):
        path.unlink()
    run_folder.write_status(RunStatus("running", 0, 90))
    shown = rows(inspect(str(run_folder.path)))
    assert "state interrupted (the process ended without notice)" in shown
    assert "steps 0 of 90" in shown
    assert not any(row.startswith(("best", "file")) for row in shown)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.zip", "nowhere.zip cannot be read: No such file or directory"),
        ("folder", "folder is not a run folder: it has no config.json"),
        ("text.zip", "text.zip"),
    ],
)
def test_what_cannot_be_inspected(name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.zip").write_text("no zip")
    assert main(["inspect", str(tmp_path / name)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_an_unknown_option_is_named_and_not_what_it_swallowed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--jsom", "agent.zip"]) == 2
    assert capsys.readouterr().err == "error: no option '--jsom'; did you mean '--json'?\n"
