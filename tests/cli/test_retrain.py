"""``retrain`` from the command line: a whole pass, and errors of one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sb3_vgs_ppo.checkpoint import inspect_checkpoint
from sb3_vgs_ppo.cli.main import main

SMALL = '{"n_steps": 64, "n_epochs": 1, "policy_kwargs": {"net_arch": [8]}}'


def test_a_legacy_run_is_retrained_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    legacy = str(tmp_path / "legacy")
    train = ["train", "--vgs-version", "1.0", "--total-timesteps", "128", "--n-envs", "2", "--algo-kwargs", SMALL]
    assert main([*train, "--run-dir", legacy, "--eval-episodes", "1"]) == 0
    capsys.readouterr()
    assert main(["retrain", legacy, "--continue", "--out", str(tmp_path / "study")]) == 0
    out = capsys.readouterr().out
    assert f"Study folder: {tmp_path / 'study'}" in out
    assert "One seed" in out
    assert (tmp_path / "study" / "comparison.png").is_file()
    assert main(["retrain", legacy, "--to-version", "1.0"]) == 2
    assert "VGS 1.0 already" in capsys.readouterr().err


def test_a_migrated_checkpoint_is_resumed_in_a_new_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    legacy = tmp_path / "legacy"
    train = ["train", "--vgs-version", "2.0", "--total-timesteps", "128", "--n-envs", "2", "--algo-kwargs", SMALL]
    assert main([*train, "--run-dir", str(legacy), "--eval-episodes", "1"]) == 0
    migrated = tmp_path / "migrated.zip"
    assert main(["migrate", str(legacy / "final_model.zip"), str(migrated)]) == 0
    assert main(["resume", str(migrated)]) == 2
    assert "--env-id" in capsys.readouterr().err
    run = tmp_path / "new"
    assert main(["resume", str(migrated), "--env-id", "CartPole-v1", "--run-dir", str(run)]) == 0
    record = json.loads((run / "config.json").read_text())
    assert record["parent"] == str(migrated)
    assert record["options"]["vgs_version"] == "3.0"
    assert record["options"]["total_timesteps"] == 128
    summary = inspect_checkpoint(run / "final_model.zip")
    assert summary.num_timesteps == 128
    capsys.readouterr()
    assert main(["inspect", str(run)]) == 0
    shown = capsys.readouterr().out.split()
    assert shown[shown.index("parent") + 1].startswith(str(migrated)[:20])
    assert main(["resume", str(run), "--env-id", "CartPole-v1"]) == 2
    assert "--env-id is for checkpoint files" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is neither a run folder nor a checkpoint"),
        (["nowhere", "--to-versoin", "3.0"], "--to-version"),
        ([], "SOURCE"),
        (["nowhere", "--continue", "--total-timesteps", "abc"], "'abc' is not a whole number"),
    ],
)
def test_bad_options_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["retrain", *arguments]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert message in errors[0]
