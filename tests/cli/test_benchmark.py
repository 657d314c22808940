"""``benchmark``: its table, its JSON, and errors of one line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sb3_vgs_ppo.cli.main import main
from sb3_vgs_ppo.runs import benchmark
from sb3_vgs_ppo.runs.benchmark import Timing

TIMINGS = [Timing("SB3 PPO, Adam", (2.0, 4.0), (1000.0, 500.0)), Timing("ours", (1.0, 3.0), (3000.0, 1000.0))]


@pytest.fixture
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(*_: Any, **__: Any) -> list[Timing]:
        return TIMINGS

    monkeypatch.setattr(benchmark, "measure", measure)


@pytest.mark.usefixtures("_measured")
def test_table_shows_medians_and_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--repetitions", "2"]) == 0
    ours = next(line for line in capsys.readouterr().out.splitlines() if "ours" in line)
    # 1/2 and 3/4 of the minibatch time; 3 and 2 times the steps
    assert "0.62 (0.50–0.75)" in ours
    assert "2.50 (2.00–3.00)" in ours


@pytest.mark.usefixtures("_measured")
def test_json_holds_every_timing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[1] == {
        "name": "ours",
        "minibatch_ms": [1.0, 3.0],
        "steps_per_second": [3000.0, 1000.0],
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n-envs", "3"], "n_envs=3"),
        (["--env-id", "CartPoleX-v1"], "CartPoleX"),
        (["--repetitions", "0"], "=0"),
        (["--env-id", "nomodule:Env-v0"], "nomodule"),
    ],
)
def test_bad_options_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", *arguments]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert message in errors[0]
