from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from sb3_vgs_ppo._alarms import Alarm
from sb3_vgs_ppo.studies.definition import Cell
from sb3_vgs_ppo.studies.results import StudyResult
from sb3_vgs_ppo.studies.store import StudyStore
from sb3_vgs_ppo.studies.summary import summarize
from sb3_vgs_ppo.studies.tables import summary_mapping, write_tables

CONTINUAL = "ContinualCartPole-v0"


@pytest.fixture
def result(make_store: Callable[..., StudyStore], write_cell: Callable[..., None]) -> StudyResult:
    """One cell of two variants, without an episode in the first of two phases."""
    store = make_store(env_ids=(CONTINUAL,), environments={CONTINUAL: {"env_kwargs": {"phase_steps": 500}}})
    write_cell(
        store,
        Cell(CONTINUAL, "off", 0),
        [[(1 / 3, 700)]],
        "time/total_timesteps,vgs/update_ratio\n500,0.25\n",
        evaluation=9.0,
    )
    return summarize(store)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def test_summary_is_strict_json(result: StudyResult, tmp_path: Path) -> None:
    write_tables(result, tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text(), parse_constant=refuse)
    assert summary == summary_mapping(result)
    (environment,) = summary["environments"]
    off, on = environment["variants"]
    assert off["evaluation"] == {"value": 9.0, "low": None, "high": None, "n": 1}
    assert off["phases"][0] == {"value": None, "low": None, "high": None, "n": 0}
    assert on["final"] is None
    assert (summary["schema"], summary["n_cells"], summary["n_done"]) == (1, 10, 1)
    assert "bands" not in environment
    assert "curves" not in summary


def test_tables(result: StudyResult, tmp_path: Path) -> None:
    files = write_tables(result, tmp_path / "new" / "folder")
    assert [path.name for path in files] == [
        "summary.json", "table.csv", "changes.csv", "curves.csv", "curves.parquet",
    ]  # fmt: skip
    table = pd.read_csv(files[1])
    assert table["variant"].tolist() == ["off", "on"]
    assert table.loc[0, ["env_id", "n_finished", "evaluation", "vgs/update_ratio"]].tolist() == [CONTINUAL, 1, 9, 0.25]
    assert table.loc[1, ["final", "final_low"]].isna().all()
    pd.testing.assert_frame_equal(pd.read_parquet(files[4]), result.curves)
    pd.testing.assert_frame_equal(pd.read_csv(files[3]), result.curves, rtol=1e-6)


def test_alarms(make_store: Callable[..., StudyStore], write_cell: Callable[..., None], tmp_path: Path) -> None:
    store = make_store(env_ids=(CONTINUAL,), environments={CONTINUAL: {"env_kwargs": {"phase_steps": 400}}})
    alarms = [Alarm(step, 20.0, 0.1, 1e-4, ["restart-head"]) for step in (300, 500)]
    write_cell(store, Cell(CONTINUAL, "off", 0), [[(1.0, 700)]])
    write_cell(store, Cell(CONTINUAL, "on", 0), [[(1.0, 700)]], alarms=alarms)
    write_tables(summarize(store), tmp_path)
    assert (tmp_path / "changes.csv").read_text().splitlines() == [
        "env_id,variant,seed,step,delay,shortfall,pit,p_value,responses",
        "ContinualCartPole-v0,on,0,300,,20,0.1,0.0001,restart-head",
        "ContinualCartPole-v0,on,0,500,100,20,0.1,0.0001,restart-head",
    ]
    off, on = json.loads((tmp_path / "summary.json").read_text())["environments"][0]["variants"]
    expected = {"n_changes": 2, "n_found": 1, "median_delay": 100.0, "largest_delay": 100, "n_other_alarms": 1}
    assert (off["detection"], on["detection"]) == (None, expected)
    table = pd.read_csv(tmp_path / "table.csv")
    assert table.loc[0, list(expected)].isna().all()
    assert table.loc[1, list(expected)].to_dict() == expected


def test_a_table_is_replaced_as_a_whole(result: StudyResult, tmp_path: Path) -> None:
    write_tables(result, tmp_path)
    before = (tmp_path / "table.csv").read_bytes()
    (tmp_path / "table.csv").write_text("old")
    write_tables(result, tmp_path)
    assert (tmp_path / "table.csv").read_bytes() == before
    assert not list(tmp_path.glob(".*.vgs-tmp"))
