"""``benchmark``: its tables, its JSON, its figure, and errors of one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sb3_vgs_ppo.cli.main import main
from sb3_vgs_ppo.runs import benchmark
from sb3_vgs_ppo.runs.benchmark import Benchmark
from sb3_vgs_ppo.runs.benchmark_growth import Sweep
from sb3_vgs_ppo.runs.benchmark_line import Budget, Line

LINES = (
    Line("train", "ours", "SB3 PPO", 1.5, "ms/minibatch", (0.5, 0.75), (0.75, 1.0), Budget(0.65)),
    Line("learn", "ours", "SB3 PPO", 3105.0, "steps/s", (1.5, 1.25, 1.0), (), Budget(1.6, "≥")),
    Line("memory", "ours", "SB3 PPO", 312.0, "MiB", (1.03,)),
)
SWEEP = Sweep("tensors", "ms per step", (1, 1000), {"AdamW": ((1.0, 3.0), (4.0, 4.0)), "ours": ((0.5,), (0.25,))})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Positional arguments of the measurement, which is replaced."""
    arguments: list[Any] = []

    def run_benchmark(*positional: Any, **_: Any) -> Benchmark:
        arguments.extend(positional)
        return Benchmark(LINES, (SWEEP,))

    monkeypatch.setattr(benchmark, "run_benchmark", run_benchmark)
    return arguments


def test_table_shows_ratios_budgets_and_verdicts(asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--repetitions", "2"]) == 0
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "train ours 1.5 ms/minibatch SB3 PPO 0.62 (0.50–0.75) 0.88 (0.75–1.00) ≤ 0.65 met" in rows
    assert "learn ours 3105 steps/s SB3 PPO 1.25 (1.00–1.50) ≥ 1.6 MISSED" in rows
    assert "memory ours 312 MiB SB3 PPO 1.03 (1.03–1.03)" in rows
    assert "tensors AdamW ours" in rows
    assert "1,000 4 0.25" in rows
    assert asked[0] == ("train", "optimizer", "vgs", "learn", "memory", "growth")
    assert asked[2] == 2


def test_json_holds_everything(asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--part", "learn", "--n-envs", "4", "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert (written["env_id"], written["n_envs"], written["repetitions"]) == ("CartPole-v1", 4, 7)
    assert written["lines"][1] == {
        "part": "learn",
        "what": "ours",
        "against": "SB3 PPO",
        "value": 3105.0,
        "unit": "steps/s",
        "ratios": [1.5, 1.25, 1.0],
        "wall_ratios": [],
        "budget": "≥ 1.6",
        "met": False,
    }
    assert written["lines"][2]["budget"] is None
    assert written["growth"][0]["times"]["AdamW"] == [[1.0, 3.0], [4.0, 4.0]]
    assert asked[0] == ("learn",)


@pytest.mark.usefixtures("asked")
def test_figure_of_growth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--part", "growth", "--out", str(tmp_path / "figures")]) == 0
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"growth.png", "growth.svg"}
    assert f"Figure: {tmp_path / 'figures' / 'growth.svg'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n-envs", "3"], "n_envs=3"),
        (["--env-id", "CartPoleX-v1"], "CartPoleX"),
        (["--repetitions", "0"], "=0"),
        (["--env-id", "nomodule:Env-v0"], "nomodule"),
        (["--part", "speed"], "speed"),
        (["--part", "train", "--out", "figures"], "--out has no effect on --part train; remedy: --part growth or all"),
        (["--against", "sbx"], "remedy: python -m venv"),
        (["--part", "learn", "--against", "sbx", "--sbx-python", "nowhere/python"], "'nowhere/python': No such file"),
    ],
)
def test_bad_options_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", *arguments]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert message in errors[0]
