"""A finished run of another study is copied where it is the same run, and only there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sb3_vgs_ppo.errors import StudyError
from sb3_vgs_ppo.studies.definition import Cell, Study, Variant
from sb3_vgs_ppo.studies.reuse import reuse_cells
from sb3_vgs_ppo.studies.store import StudyStore

OLD, NEW = Variant("old", {"vgs_version": "1.0"}), Variant("new", {"vgs_version": "3.0"})
STUDY = Study(("CartPole-v1",), (OLD, NEW), (0, 1), 20_000, "old")


def train(store: StudyStore, cell: Cell) -> None:
    folder = store.folder(cell)
    folder.mkdir(parents=True)
    status = {"state": "finished", "num_timesteps": 20_000, "cause": None, "summary": {"final_mean_reward": 7.0}}
    (folder / "config.json").write_text(json.dumps(store.study.train_options(cell)))
    (folder / "status.json").write_text(json.dumps(status))
    (folder / "progress.csv").write_text(f"{cell}\n")
    store.mark_done(cell)


def trained(folder: Path) -> dict[str, Any]:
    options: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return options


@pytest.fixture
def other(tmp_path: Path) -> StudyStore:
    store = StudyStore.create_or_open(tmp_path / "other", STUDY)
    for cell in STUDY.cells():
        if cell != Cell("CartPole-v1", "new", 1):
            train(store, cell)
    return store


def test_the_same_runs_are_copied_under_their_new_names(tmp_path: Path, other: StudyStore) -> None:
    fixed, off = replace(NEW, name="fixed"), Variant("off", {"vgs_version": "off"})
    study = replace(STUDY, variants=(fixed, off), baseline="off")
    store = StudyStore.create_or_open(tmp_path / "study", study)
    taken = Cell("CartPole-v1", "fixed", 0)
    assert reuse_cells(store, other, Study.train_options, trained) == [taken]
    assert [cell for cell in study.cells() if store.is_done(cell)] == [taken]
    completion = store.completion(taken)
    assert completion is not None
    assert completion.final_return == 7.0
    assert (store.folder(taken) / "progress.csv").read_text() == "CartPole-v1 / new / seed 0\n"
    assert reuse_cells(store, other, Study.train_options, trained) == []
    assert other.completion(Cell("CartPole-v1", "new", 0)) is not None


@pytest.mark.parametrize("options", [{"n_envs": 4}, {"algo_kwargs": {"gamma": 0.5}}])
def test_other_options_are_another_run(tmp_path: Path, other: StudyStore, options: dict[str, object]) -> None:
    store = StudyStore.create_or_open(tmp_path / "study", replace(STUDY, options=options))
    assert reuse_cells(store, other, Study.train_options, trained) == []


@pytest.mark.parametrize("options", [{"record_video": True}, {"track": "none"}, {"progress": True}])
def test_options_without_influence_on_numbers_do_not_matter(
    tmp_path: Path, other: StudyStore, options: dict[str, object]
) -> None:
    store = StudyStore.create_or_open(tmp_path / "study", replace(STUDY, options=options))
    assert len(reuse_cells(store, other, Study.train_options, trained)) == 3


@pytest.mark.parametrize(("kept", "taken"), [(3, ["new"]), (100, ["new", "old"])])
def test_runs_whose_checkpoints_are_needed_must_have_kept_them(tmp_path: Path, kept: int, taken: list[str]) -> None:
    seed_0 = replace(STUDY, seeds=(0,), total_timesteps=50_000)
    other = StudyStore.create_or_open(tmp_path / "other", replace(seed_0, options={"keep_checkpoints": kept}))
    for cell in other.study.cells():
        train(other, cell)
    migrated = Variant("migrated", {"vgs_version": "3.0"}, continue_from="old", from_step=10_000)
    store = StudyStore.create_or_open(tmp_path / "study", replace(seed_0, variants=(OLD, NEW, migrated)))
    assert sorted(cell.variant for cell in reuse_cells(store, other, Study.train_options, trained)) == taken


def test_a_damaged_run_is_refused(tmp_path: Path, other: StudyStore) -> None:
    (other.folder(Cell("CartPole-v1", "old", 0)) / "progress.csv").write_text("changed")
    store = StudyStore.create_or_open(tmp_path / "study", STUDY)
    with pytest.raises(StudyError, match=r"progress\.csv was changed after the cell was done"):
        reuse_cells(store, other, Study.train_options, trained)
    assert not store.is_done(Cell("CartPole-v1", "old", 0))
