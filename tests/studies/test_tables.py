from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

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
    assert [path.name for path in files] == ["summary.json", "table.csv", "curves.csv", "curves.parquet"]
    table = pd.read_csv(files[1])
    assert table["variant"].tolist() == ["off", "on"]
    assert table.loc[0, ["env_id", "n_finished", "evaluation", "vgs/update_ratio"]].tolist() == [CONTINUAL, 1, 9, 0.25]
    assert table.loc[1, ["final", "final_low"]].isna().all()
    pd.testing.assert_frame_equal(pd.read_parquet(files[3]), result.curves)
    pd.testing.assert_frame_equal(pd.read_csv(files[2]), result.curves, rtol=1e-6)


def test_a_table_is_replaced_as_a_whole(result: StudyResult, tmp_path: Path) -> None:
    write_tables(result, tmp_path)
    before = (tmp_path / "table.csv").read_bytes()
    (tmp_path / "table.csv").write_text("old")
    write_tables(result, tmp_path)
    assert (tmp_path / "table.csv").read_bytes() == before
    assert not list(tmp_path.glob(".*.vgs-tmp"))
