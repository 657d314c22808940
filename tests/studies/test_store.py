from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sb3_vgs_ppo._files import write_json
from sb3_vgs_ppo.errors import StudyError
from sb3_vgs_ppo.studies import store as store_module
from sb3_vgs_ppo.studies.definition import Cell, Study, Variant
from sb3_vgs_ppo.studies.store import Completion, StudyStore, differences

STUDY = Study(
    env_ids=("CartPole-v1",),
    variants=(Variant("adam", {"optimizer": "adam"}), Variant("upgd", {"optimizer": "upgd"})),
    seeds=(0, 1),
    total_timesteps=1000,
    baseline="adam",
)
CELL = Cell("CartPole-v1", "adam", 1)
FINISHED: dict[str, Any] = {
    "state": "finished",
    "num_timesteps": 1024,
    "cause": None,
    "summary": {"steps_per_second": 900.5, "final_mean_reward": 21.0},
}


@pytest.fixture
def store(tmp_path: Path) -> StudyStore:
    return StudyStore.create_or_open(tmp_path / "study", STUDY)


def write_run(store: StudyStore, status: dict[str, Any], cell: Cell = CELL) -> Path:
    """Files of a run, as far as a mark cares for them."""
    folder = store.folder(cell)
    (folder / "monitor").mkdir(parents=True)
    write_json(folder / "status.json", status)
    for name in ("config.json", "progress.csv", "monitor/0.monitor.csv", "monitor/1.monitor.csv"):
        (folder / name).write_text(f"content of {name}")
    return folder


def test_a_study_is_kept_as_it_was_made(store: StudyStore) -> None:
    assert StudyStore.open(store.path).study == STUDY
    assert json.loads((store.path / "study.json").read_text())["schema"] == 1
    before = (store.path / "study.json").stat().st_mtime_ns
    assert StudyStore.create_or_open(store.path, STUDY).study == STUDY
    assert (store.path / "study.json").stat().st_mtime_ns == before


def test_tuples_among_the_options_are_no_change(tmp_path: Path) -> None:
    study = replace(STUDY, options={"algo_kwargs": {"policy_kwargs": {"net_arch": (64, 64)}}})
    store = StudyStore.create_or_open(tmp_path, study)
    assert StudyStore.create_or_open(tmp_path, study).study == store.study
    assert StudyStore.create_or_open(tmp_path, replace(study, seeds=(0, 1, 2)), extend=True).study.seeds == (0, 1, 2)


def test_every_cell_has_a_folder_of_its_own(store: StudyStore) -> None:
    assert store.folder(CELL) == store.path / "cells" / "CartPole-v1" / "adam" / "seed-1"
    env_ids = ["ALE/Pong-v5", "ALE_Pong-v5", "module:Env-v0", "module_Env-v0"]
    folders = [store.folder(replace(CELL, env_id=env_id)) for env_id in env_ids]
    assert len(set(folders)) == 4
    assert {folder.parent.parent.parent for folder in folders} == {store.path / "cells"}


def test_a_finished_cell_is_done_once_it_is_marked(store: StudyStore) -> None:
    folder = write_run(store, FINISHED)
    assert not store.is_done(CELL)
    assert store.completion(CELL) is None
    store.mark_done(CELL, first_step=512)
    assert store.is_done(CELL)
    completion = store.completion(CELL)
    assert completion is not None
    assert completion == Completion("finished", 1024, 512, None, 900.5, 21.0, completion.digests)
    assert list(completion.digests) == [
        "config.json",
        "monitor/0.monitor.csv",
        "monitor/1.monitor.csv",
        "progress.csv",
        "status.json",
    ]
    (folder / "final_model.zip").write_text("no result of the statistics")
    assert store.completion(CELL) == completion
    assert store.completion(replace(CELL, seed=0)) is None


def test_a_diverged_cell_is_done_too(store: StudyStore) -> None:
    write_run(store, {"state": "diverged", "num_timesteps": 300, "cause": "loss not finite", "summary": None})
    store.mark_done(CELL)
    completion = store.completion(CELL)
    assert completion is not None
    assert (completion.state, completion.cause) == ("diverged", "loss not finite")
    assert (completion.steps_per_second, completion.final_return) == (None, None)


@pytest.mark.parametrize("state", ["running", "interrupted"])
def test_a_cell_that_has_not_ended_is_not_marked(store: StudyStore, state: str) -> None:
    write_run(store, {**FINISHED, "state": state})
    with pytest.raises(StudyError, match=rf"^CartPole-v1 / adam / seed 1 is {state}, not done; remedy: compare trains"):
        store.mark_done(CELL)
    with pytest.raises(StudyError, match=r"status.json cannot be read: FileNotFoundError"):
        store.mark_done(replace(CELL, seed=0))
    assert not store.is_done(CELL)


def test_the_mark_comes_last_and_only_after_the_results_are_on_the_disk(
    store: StudyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(store, FINISHED)
    synced: list[str] = []
    at_the_mark: list[list[str]] = []

    def fsync(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)

    def write(path: Path, value: object) -> None:
        at_the_mark.append(sorted(synced))
        write_json(path, value)

    monkeypatch.setattr(store_module.os, "fsync", fsync)
    monkeypatch.setattr(store_module, "write_json", write)
    store.mark_done(CELL)
    results = sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != "done.json")
    assert at_the_mark == [results]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("progress.csv", "other", r"progress\.csv was changed after the cell was done"),
        ("monitor/1.monitor.csv", None, r"monitor/1\.monitor\.csv is missing"),
        ("evaluations.csv", "new", r"evaluations\.csv was changed after the cell was done"),
        ("done.json", "{", r"done\.json cannot be read: JSONDecodeError"),
        ("done.json", "[]", r"done\.json cannot be read: TypeError"),
        ("done.json", '{"schema": 1}', r"done\.json cannot be read: KeyError"),
        ("done.json", '{"cell": {}, "completion": {}}', r"done\.json cannot be read: TypeError"),
    ],
)
def test_a_corrupted_cell_is_named_and_left_as_it_is(
    store: StudyStore, name: str, content: str | None, message: str
) -> None:
    folder = write_run(store, FINISHED)
    store.mark_done(CELL)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    with pytest.raises(StudyError, match=rf"^CartPole-v1 / adam / seed 1: .*{message}; remedy: remove .*seed-1, and"):
        store.completion(CELL)
    assert store.is_done(CELL)


def test_a_copied_cell_is_not_another_one(store: StudyStore) -> None:
    write_run(store, FINISHED)
    store.mark_done(CELL)
    copied = replace(CELL, seed=0)
    store.folder(CELL).rename(store.folder(copied))
    with pytest.raises(StudyError, match=r"^CartPole-v1 / adam / seed 0: .* is that of another cell, .* / seed 1; rem"):
        store.completion(copied)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"seeds": (0, 1, 2)}, "seeds: [0, 1] -> [0, 1, 2]"),
        ({"env_ids": ("CartPole-v1", "Pendulum-v1")}, 'env_ids: ["CartPole-v1"] -> ["CartPole-v1", "Pendulum-v1"]'),
        (
            {"variants": (*STUDY.variants, Variant("plain", {}))},
            'variants.plain: null -> {"name": "plain", "options": {}, "continue_from": null, "from_step": null}',
        ),
        (
            {"baseline": "upgd", "thresholds": {"CartPole-v1": 9}},
            'baseline: "adam" -> "upgd"; thresholds.CartPole-v1: ',
        ),
        ({"variants": STUDY.variants[::-1]}, "variants: the order"),
    ],
)
def test_a_study_may_grow_if_that_is_meant(store: StudyStore, changes: dict[str, Any], difference: str) -> None:
    changed = replace(STUDY, **changes)
    with pytest.raises(StudyError) as caught:
        StudyStore.create_or_open(store.path, changed)
    assert str(caught.value).startswith(f"{store.path} holds a study of another definition: {difference}")
    assert str(caught.value).endswith("; remedy: another --out, or --extend: no cell changes")
    assert StudyStore.open(store.path).study == STUDY
    assert StudyStore.create_or_open(store.path, changed, extend=True).study == changed
    assert StudyStore.open(store.path).study == changed


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"total_timesteps": 2000}, "total_timesteps: 1000 -> 2000"),
        ({"seeds": (1, 2)}, "seeds: [0, 1] -> [1, 2]"),
        ({"options": {"algo_kwargs": {"gamma": 0.9}}}, 'options.algo_kwargs: null -> {"gamma": 0.9}'),
        (
            {"variants": (STUDY.variants[0], Variant("upgd", {"optimizer": "adamw"}))},
            'variants.upgd.options.optimizer: "upgd" -> "adamw"',
        ),
        ({"environments": {"CartPole-v1": {"n_envs": 1}}}, 'environments.CartPole-v1: null -> {"n_envs": 1}'),
    ],
)
@pytest.mark.parametrize("extend", [False, True])
def test_cells_never_change_in_their_folder(
    store: StudyStore, changes: dict[str, Any], difference: str, extend: bool
) -> None:
    with pytest.raises(StudyError) as caught:
        StudyStore.create_or_open(store.path, replace(STUDY, **changes), extend=extend)
    assert str(caught.value) == (
        f"{store.path} holds a study of another definition: {difference}; remedy: another --out"
    )
    assert StudyStore.open(store.path).study == STUDY


def test_a_continuation_needs_checkpoints_that_its_parents_have_not_kept(tmp_path: Path) -> None:
    first, second = Variant("1.0", {"vgs_version": "1.0"}), Variant("2.0", {"vgs_version": "2.0"})
    study = replace(STUDY, variants=(first, second), baseline="1.0", options={"checkpoint_every": 100})
    StudyStore.create_or_open(tmp_path, study)
    grown = replace(study, variants=(first, second, Variant("on", {"vgs_version": "3.0"}, "1.0", 500)))
    with pytest.raises(StudyError, match=r"variants\.on: null -> .*remedy: another --out$"):
        StudyStore.create_or_open(tmp_path, grown, extend=True)


def test_differences_say_where() -> None:
    assert differences({"a": {"b": 1, "c": [1]}}, {"a": {"b": 2, "c": [1]}, "d": "x"}) == [
        "a.b: 1 -> 2",
        'd: null -> "x"',
    ]


def test_folders_that_are_no_study(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "note.txt"):
        with pytest.raises(StudyError, match=r" is not empty and no study; remedy: another --out"):
            StudyStore.create_or_open(path, STUDY)
        with pytest.raises(
            StudyError, match=r" is not a study: it has no study.json; remedy: a folder that compare wr"
        ):
            StudyStore.open(path)
    with pytest.raises(StudyError, match=r"note.txt/study cannot be written: Not a directory; remedy: another --out"):
        StudyStore.create_or_open(tmp_path / "note.txt" / "study", STUDY)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read: JSONDecodeError: Expecting"),
        ("[]", "cannot be read: TypeError"),
        ('{"schema": 1}', "cannot be read: KeyError: 'study'"),
        ('{"schema": 2, "study": {}}', r"has schema 2, this version reads 1; remedy: the version it is of"),
        ('{"schema": 1, "study": {}}', "cannot be read: a study without env_ids"),
        ('{"schema": 1, "study": []}', "cannot be read: "),
        ('{"schema": 1, "study": null}', "cannot be read: "),
        ('{"schema": 1, "study": {"env_ids": 3, "variants": ["vgs"]}}', "cannot be read: env_ids: 3 is not a list"),
    ],
)
def test_a_damaged_manifest(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(StudyError, match=rf"study\.json {message}"):
        StudyStore.open(tmp_path)
    with pytest.raises(StudyError, match=rf"study\.json {message}"):
        StudyStore.create_or_open(tmp_path, STUDY)
    assert (tmp_path / "study.json").read_text() == text


def test_one_process_at_a_time_runs_a_study(store: StudyStore) -> None:
    program = (
        "import fcntl, sys\n"
        "with open(sys.argv[1], 'a') as file:\n"
        "    fcntl.flock(file, fcntl.LOCK_EX); print('locked', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(store.path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(StudyError, match=r" is run by another process; remedy: wait until it ends"), store.lock():
            pass
        other.stdin.close()
        other.wait()
    with store.lock(), pytest.raises(StudyError, match="is run by another process"), store.lock():
        pass
    with pytest.raises(BlockingIOError), store.lock():
        raise BlockingIOError  # of the block, and no word of another process
    with store.lock():
        pass


def test_a_study_whose_folder_is_gone_cannot_be_locked(tmp_path: Path) -> None:
    with (
        pytest.raises(StudyError, match=r"nowhere cannot be written: No such file or directory; remedy: make it writ"),
        StudyStore(tmp_path / "nowhere", STUDY).lock(),
    ):
        pass
