"""``search``: from a file to trained trials, and how it ends."""

from __future__ import annotations

import signal
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType

import pandas as pd
import pytest

from sb3_vgs_ppo.cli.main import main
from sb3_vgs_ppo.runs.cells import CellTask, run_cell
from sb3_vgs_ppo.runs.folder import RunState

pytest.importorskip("optuna", reason="optuna is not installed: pip install 'sb3-vgs-ppo[search]'")

SEARCH = """
env_id: ContinualCartPole-v0
total_timesteps: 128
seeds: 1
n_trials: 1
batch_size: 1
options:
  n_envs: 2
  env_kwargs: {phase_steps: 64}
  algo_kwargs: {n_steps: 32, batch_size: 32, n_epochs: 1, policy_kwargs: {net_arch: [4]}}
families:
  - name: ours
    base: continual
    space: {change_kwargs.reset: {choices: [head, all]}, algo_kwargs.learning_rate: {low: 1e-4, high: 1e-2, log: true}}
"""


class InThisProcess:
    """Trains where it is asked to. :param stop_at: cell before which a signal arrives, counted from 0"""

    lost: tuple[type[BaseException], ...] = ()

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at
        self.n_cells = 0

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def capacity(self) -> int:
        return 1

    def stop(self) -> None: ...

    def submit(self, task: CellTask) -> Future[RunState]:
        if self.n_cells == self.stop_at:
            signal.raise_signal(signal.SIGINT)
        self.n_cells += 1
        future: Future[RunState] = Future()
        future.set_result(run_cell(task))
        return future


def test_a_search_that_is_stopped_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "search.yaml").write_text(SEARCH)
    engine = InThisProcess(stop_at=0)
    monkeypatch.setattr("sb3_vgs_ppo.runs.engines.LocalEngine", lambda workers: engine)
    argv = ["search", "--search", str(tmp_path / "search.yaml"), "--out", str(tmp_path / "out"), "--no-progress"]
    assert main(argv) == 128 + signal.SIGINT
    out = capsys.readouterr().out
    assert "Trials 1 to 1 of 1 of every family" in out
    assert f"sb3-vgs-ppo search --search {tmp_path}/search.yaml --out {tmp_path}/out" in out
    engine.stop_at = None
    assert main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [
        f"Trials: {tmp_path}/out/trials.csv",
        f"Variants for a study: {tmp_path}/out/best.yaml",
    ]
    table = pd.read_csv(tmp_path / "out" / "trials.csv")
    assert table["variant"].tolist() == ["ours-0000"]
    assert table["mean"].gt(0).all()
    assert any(line.startswith("ours  best ") for line in lines)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--search", "nowhere.yaml"], "search nowhere.yaml cannot be read: No such file or directory"),
        (["--search", "bad.yaml"], "family 'ours': --algo-kwargs: algo_kwargs has no 'learning_rates'; did you mean"),
        (["--search", "good.yaml", "--workers", "0"], "--workers 0 is too small; remedy: at least 1"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(
    argv: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text(SEARCH)
    (tmp_path / "bad.yaml").write_text(SEARCH.replace("learning_rate:", "learning_rates:"))
    assert main(["search", *argv, "--out", "out"]) == 2
    _, err = capsys.readouterr()
    assert err.startswith(f"error: {line}")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()
