"""A search is the same whatever interrupts it; most of these tests make results up instead of training."""

from __future__ import annotations

import json
import shutil
import sys
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd
import pytest

from sb3_vgs_ppo.errors import StudyError, UserInputError
from sb3_vgs_ppo.runs.cells import CellTask
from sb3_vgs_ppo.runs.folder import RunState
from sb3_vgs_ppo.runs.search import JOURNAL, SearchResult, check_search, run_search
from sb3_vgs_ppo.runs.study_display import StudyDisplay
from sb3_vgs_ppo.studies.search import Search, make_search
from sb3_vgs_ppo.studies.store import StudyStore, lock_folder

pytest.importorskip("optuna", reason="optuna is not installed: pip install 'sb3-vgs-ppo[search]'")

ENV = "ContinualCartPole-v0"
VALUES: dict[str, Any] = {
    "env_id": ENV,
    "total_timesteps": 400,
    "seeds": [3, 5],
    "n_trials": 14,  # the first ten are drawn evenly, whatever was found before
    "batch_size": 3,
    "options": {"n_envs": 2, "env_kwargs": {"phase_steps": 100}},
    "families": [
        {
            "name": "wide",
            "base": "sb3-ppo",
            "space": {
                "algo_kwargs.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
                "algo_kwargs.n_epochs": {"choices": [1, 2]},
            },
        },
        {"name": "few", "base": "continual", "space": {"algo_kwargs.ent_coef": {"choices": [0.0, 0.01]}}},
    ],
}


class MadeUp:
    """An engine that makes up a return per cell: best at a learning rate of 0.001, worse for larger seeds."""

    lost: tuple[type[BaseException], ...] = ()

    def __init__(self, capacity: int = 1, stop_after: int | None = None) -> None:
        self.n_workers = capacity
        self.stop_after = stop_after
        self.trained: list[str] = []

    def __enter__(self) -> MadeUp:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def capacity(self) -> int:
        return self.n_workers

    def stop(self) -> None: ...

    def submit(self, task: CellTask) -> Future[RunState]:
        if self.stop_after is not None and len(self.trained) == self.stop_after:
            raise KeyboardInterrupt
        self.trained.append(f"{task.cell.variant}/{task.cell.seed}")
        rate = task.config.algo_kwargs.get("learning_rate", 3e-4)
        value = 100.0 - abs(rate - 1e-3) * 1e4 - task.cell.seed - 100 * task.config.algo_kwargs.get("ent_coef", 0.0)
        folder = Path(task.config.run_dir or "")
        (folder / "monitor").mkdir(parents=True)
        rows = f"{-1.0},100,0\n{-1.0},100,0\n{value},100,0\n{value + 2},100,0\n"  # late phases: value + 1
        (folder / "monitor" / "0.monitor.csv").write_text("#{}\nr,l,t\n" + rows)
        (folder / "config.json").write_text(json.dumps({"options": {}, "versions": {}, "git": None}))
        summary = {"final_mean_reward": 0.0, "steps_per_second": 1.0}
        status = {"state": "finished", "num_timesteps": 400, "cause": None, "summary": summary}
        (folder / "status.json").write_text(json.dumps(status))
        future: Future[RunState] = Future()
        future.set_result("finished")
        return future


def search(out: Path, engine: MadeUp | None = None, **values: Any) -> SearchResult:
    return run_search(make_search({**VALUES, **values}), out, lambda: engine or MadeUp(), StudyDisplay)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a search that was not interrupted."""
    out = tmp_path_factory.mktemp("search") / "whole"
    search(out)
    return out


def trials_of(out: Path) -> str:
    return (out / "trials.csv").read_text()


def test_every_family_has_its_trials_with_the_scores_of_their_cells(whole: Path) -> None:
    table = pd.read_csv(whole / "trials.csv")
    assert table.groupby("family", sort=False).size().to_dict() == {"wide": 14, "few": 14}
    table = table[table["family"] == "wide"]
    rates = table["algo_kwargs.learning_rate"]
    assert rates.between(1e-4, 1e-2).all()
    assert rates.nunique() == 14
    expected = 101.0 - (rates - 1e-3).abs() * 1e4
    assert table["seed_3"].tolist() == pytest.approx((expected - 3).tolist())
    assert table["mean"].tolist() == pytest.approx((expected - 4).tolist())


def test_equal_trials_are_trained_once(tmp_path: Path) -> None:
    engine = MadeUp()
    result = search(tmp_path / "out", engine)
    few = [trial for trial in result.trials if trial.family == "few"]
    assert len(few) == 14
    names = {trial.variant.name for trial in few}
    assert len(names) == 2  # two choices
    assert sorted(engine.trained) == sorted(set(engine.trained))
    assert len(engine.trained) == 2 * (14 + 2)
    study = StudyStore.open(tmp_path / "out" / "study").study
    assert {variant.name for variant in study.variants} == {trial.variant.name for trial in result.trials}


@pytest.mark.parametrize("stop_after", [0, 5, 11, 27])
def test_an_interrupted_search_goes_on_as_if_it_had_not_been(stop_after: int, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first, second = MadeUp(stop_after=stop_after), MadeUp()
    with pytest.raises(KeyboardInterrupt):
        search(out, first)
    search(out, second)
    assert trials_of(out) == trials_of(whole)
    assert (out / "best.yaml").read_text() == (whole / "best.yaml").read_text()
    assert set(first.trained) & set(second.trained) == set()  # nothing is trained twice


@pytest.mark.parametrize("share", [0.0, 0.35, 0.65, 0.97])
def test_a_journal_that_was_cut_off_anywhere(share: float, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out, ignore=shutil.ignore_patterns("study", "trials.csv"))
    journal = (whole / JOURNAL).read_bytes()
    (out / JOURNAL).write_bytes(journal[: int(share * len(journal))])  # in the middle of a line
    (out / f"{JOURNAL}.lock").symlink_to("gone")
    search(out)
    assert trials_of(out) == trials_of(whole)


def test_a_trial_that_was_killed_while_it_was_chosen(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out, ignore=shutil.ignore_patterns("study", "trials.csv"))
    lines = (whole / JOURNAL).read_text().splitlines(keepends=True)
    first_of_two = max(i for i, line in enumerate(lines) if '"algo_kwargs.learning_rate"' in line)
    (out / JOURNAL).write_text("".join(lines[: first_of_two + 1]))
    search(out)
    assert trials_of(out) == trials_of(whole)


def test_trials_do_not_depend_on_the_number_of_workers(whole: Path, tmp_path: Path) -> None:
    search(tmp_path / "out", MadeUp(capacity=5))
    assert trials_of(tmp_path / "out") == trials_of(whole)


def test_later_rounds_come_nearer_to_what_earlier_ones_found(whole: Path) -> None:
    table = pd.read_csv(whole / "trials.csv")
    wide = table[table["family"] == "wide"]
    assert wide["mean"].iloc[12:].min() > wide["mean"].iloc[:12].median()  # known from four rounds


def test_the_seed_of_the_sampler_matters(whole: Path, tmp_path: Path) -> None:
    search(tmp_path / "other", sampler_seed=1)
    assert trials_of(tmp_path / "other") != trials_of(whole)


def test_more_trials_later(tmp_path: Path) -> None:
    engine = MadeUp()
    search(tmp_path / "out", n_trials=4)
    result = search(tmp_path / "out", engine, n_trials=6)
    assert len(result.trials) == 12
    assert [name for name in engine.trained if name.startswith("wide-0004")]
    assert not [name for name in engine.trained if name.startswith(("wide-0000", "wide-0001", "wide-0002"))]
    with pytest.raises(StudyError, match=r"holds a search of another definition: n_trials: 6 -> 5; remedy: another"):
        search(tmp_path / "out", n_trials=5)
    with pytest.raises(StudyError, match=r"definition: seeds: \[3, 5\] -> \[3\]; remedy"):
        search(tmp_path / "out", seeds=[3], n_trials=6)


def test_a_trial_without_a_score_has_no_value(tmp_path: Path) -> None:
    engine = MadeUp()
    make_up = engine.submit

    def without_episodes(task: CellTask) -> Future[RunState]:
        future = make_up(task)
        (Path(task.config.run_dir or "") / "monitor" / "0.monitor.csv").write_text("#{}\nr,l,t\n")
        return future

    engine.submit = without_episodes  # type: ignore[method-assign]
    for _ in range(2):  # a second call finds them finished
        assert len(search(tmp_path / "out", engine, n_trials=2).trials) == 4
    assert pd.read_csv(tmp_path / "out" / "trials.csv")["mean"].isna().all()


def test_a_cell_that_fails_stops_the_search(tmp_path: Path) -> None:
    engine = MadeUp()

    def fail(task: CellTask) -> Future[RunState]:
        future: Future[RunState] = Future()
        future.set_exception(OSError("no space left"))
        return future

    engine.submit = fail  # type: ignore[method-assign]
    with pytest.raises(StudyError, match=r"\d+ cells failed; the same command tries them again\. .* no space left"):
        search(tmp_path / "out", engine)


def test_folders_that_cannot_be_used(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(StudyError, match=r"full is not empty and no search; remedy: another --out"):
        search(tmp_path / "full")
    assert [entry.name for entry in (tmp_path / "full").iterdir()] == ["thesis.tex"]
    with lock_folder(whole), pytest.raises(StudyError, match=r"whole is run by another process; remedy: wait"):
        search(whole)


def with_space(**space: Any) -> Search:
    return make_search({**VALUES, "families": [{"name": "wide", "base": "sb3-ppo", "space": space}]})


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"n_env": {"choices": [1, 2]}}, "family 'wide': .* unknown key 'n_env'; did you mean 'n_envs'?"),
        (
            {"algo_kwargs.learning_rat": {"low": 0.1, "high": 1}},
            r"family 'wide': --algo-kwargs: algo_kwargs has no 'learning_rat'; did you mean 'learning_rate'\?",
        ),
        ({"optimizer": {"choices": ["adam", "sgd"]}}, r"family 'wide': .* optimizer: 'sgd'; "),
        (
            {"on_change": {"choices": ["none", "restart-hed"]}},
            "family 'wide': on_change 'restart-hed': 'restart-hed' is no response; did you mean",
        ),
        ({"change_kwargs.alpha": {"low": 0.1, "high": 0.2}}, "family 'wide': change_kwargs 'alpha': on_change 'none'"),
        ({"seed": {"choices": [1, 2]}}, "family 'wide': variant 'wide-0000': seed cannot be among the options"),
    ],
)
def test_options_are_checked_at_their_extremes(space: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        check_search(with_space(**space))


def test_a_search_that_can_be_run_and_one_without_optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    check_search(make_search(VALUES))
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserInputError, match=r"a search needs Optuna; remedy: pip install 'sb3-vgs-ppo\[search\]'"):
        check_search(make_search(VALUES))
