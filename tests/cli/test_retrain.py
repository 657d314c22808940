"""``retrain`` from the command line: a whole pass, and errors of one line."""

from __future__ import annotations

from pathlib import Path

import pytest

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
