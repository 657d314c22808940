from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from sb3_vgs_ppo.errors import StudyError
from sb3_vgs_ppo.studies.coverage import CALIBRATION_FILE, coverage, read_coverage
from sb3_vgs_ppo.studies.definition import Cell
from sb3_vgs_ppo.studies.results import Coverage, Estimate
from sb3_vgs_ppo.studies.store import MARK, StudyStore
from sb3_vgs_ppo.studies.summary import summarize
from sb3_vgs_ppo.studies.tables import write_tables

MakeStore = Callable[..., StudyStore]
WriteCell = Callable[..., None]
ENV = "CartPole-v1"


def table(below: float, within: float) -> str:
    """A ``calibration.csv`` of two rows."""
    rows = [f"quantile,0.05,{below},0.0,0.1,800,20", f"interval,0.9,{within},0.6,0.8,800,20"]
    return "\n".join(["kind,level,coverage,low,high,states,episodes", *rows, ""])


def test_shares_by_kind_and_level(tmp_path: Path) -> None:
    path = tmp_path / CALIBRATION_FILE
    assert read_coverage(path) is None
    path.write_text(table(0.02, 0.7))
    assert read_coverage(path) == {("quantile", 0.05): 0.02, ("interval", 0.9): 0.7}


def test_seeds_together() -> None:
    cells = [None, {("quantile", 0.5): 0.25, ("interval", 0.9): 1.0}, {("quantile", 0.5): 0.75}]
    found = coverage(cells, lambda values: Estimate(sum(values), None, None, len(values)))
    assert found == (
        Coverage("quantile", 0.5, Estimate(1.0, None, None, 2)),
        Coverage("interval", 0.9, Estimate(1.0, None, None, 1)),
    )
    assert coverage([None], lambda values: None) == ()


@pytest.fixture
def store(make_store: MakeStore, write_cell: WriteCell) -> StudyStore:
    """Two seeds of a variant with a calibration and one of a variant without."""
    store = make_store()
    for seed, (below, within) in enumerate([(0.02, 0.7), (0.06, 0.9)]):
        write_cell(store, Cell(ENV, "on", seed), [[(1.0, 1_000)]], calibration=table(below, within))
    write_cell(store, Cell(ENV, "off", 0), [[(1.0, 1_000)]])
    return store


def test_a_study_shows_the_coverage_of_its_variants(store: StudyStore, tmp_path: Path) -> None:
    result = summarize(store)
    off, on = result.environments[0].variants
    assert off.coverage == ()
    assert [(one.kind, one.level, one.share.n) for one in on.coverage] == [("quantile", 0.05, 2), ("interval", 0.9, 2)]
    assert [one.share.value for one in on.coverage] == pytest.approx([0.04, 0.8])
    write_tables(result, tmp_path)
    rows = pd.read_csv(tmp_path / "table.csv")
    assert rows.loc[1, ["coverage_quantile_0.05", "coverage_interval_0.9"]].tolist() == pytest.approx([0.04, 0.8])
    assert rows.loc[0, ["coverage_quantile_0.05", "coverage_interval_0.9"]].isna().all()


def test_a_calibration_is_a_result_that_must_stay_as_it_was(store: StudyStore) -> None:
    cell = Cell(ENV, "on", 1)
    (store.folder(cell) / CALIBRATION_FILE).write_text(table(0.05, 0.9))
    with pytest.raises(StudyError, match=r"calibration\.csv was changed after the cell was done"):
        store.completion(cell)


def test_marks_from_before_it_was_one_stay_good(store: StudyStore) -> None:
    cell = Cell(ENV, "on", 0)
    mark = json.loads((store.folder(cell) / MARK).read_text())
    del mark["completion"]["digests"][CALIBRATION_FILE]
    (store.folder(cell) / MARK).write_text(json.dumps(mark))
    assert store.completion(cell) is not None
    assert len(summarize(store).environments[0].variants[1].coverage) == 2
