from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from sb3_vgs_ppo._alarms import ALARMS_FILE, Alarm
from sb3_vgs_ppo.errors import StudyError
from sb3_vgs_ppo.studies.curves import (
    RETURN,
    Logged,
    last_values,
    phase_returns,
    read_records,
    recent_returns,
    step_grid,
)
from sb3_vgs_ppo.studies.definition import Cell, Variant
from sb3_vgs_ppo.studies.episodes import Episodes
from sb3_vgs_ppo.studies.store import StudyStore

MakeStore = Callable[..., StudyStore]
WriteCell = Callable[..., None]

NAN = math.nan
PROGRESS = (
    "time/total_timesteps,train/approx_kl,train/loss,vgs/scaling_factor\n"
    "100,0.01,7,\n"  # the scaler came into being later
    "200,nan,7,0.5\n"
    "300,0.03,7,0.7\n"
)


def episodes(*pairs: tuple[int, float]) -> Episodes:
    return Episodes(np.array([step for step, _ in pairs]), np.array([reward for _, reward in pairs], dtype=float))


def test_grid_ends_with_the_training() -> None:
    assert step_grid(1_000, n_points=4).tolist() == [250, 500, 750, 1_000]
    assert step_grid(10, n_points=3).tolist() == [3, 7, 10]
    assert step_grid(3).tolist() == [1, 2, 3]
    assert len(step_grid(1_000_000)) == 200


def test_a_return_is_that_of_episodes_that_have_ended() -> None:
    curve = recent_returns(episodes((10, 1.0), (20, 3.0), (41, 8.0)), np.array([9, 10, 20, 40, 41]))
    assert curve.tolist() == pytest.approx([NAN, 1.0, 2.0, 2.0, 4.0], nan_ok=True)


def test_a_return_forgets_all_but_the_last_twenty_episodes() -> None:
    many = episodes(*((step, float(step)) for step in range(1, 31)))
    assert recent_returns(many, np.array([20, 30])).tolist() == [np.mean(range(1, 21)), np.mean(range(11, 31))]


def test_a_logged_value_stays_until_the_next_one() -> None:
    logged = Logged(np.array([100, 200]), np.array([5.0, 7.0]))
    curve = last_values(logged, np.array([99, 100, 199, 200, 900]))
    assert curve.tolist() == pytest.approx([NAN, 5.0, 5.0, 7.0, 7.0], nan_ok=True)


def test_phases_count_the_episodes_that_ended_in_them() -> None:
    ended = episodes((50, 1.0), (100, 3.0), (101, 10.0), (350, 7.0))
    # The episode of step 100 completes the first phase; none ended in the third
    assert phase_returns(ended, 100, 4).tolist() == pytest.approx([2.0, 10.0, NAN, 7.0], nan_ok=True)


def test_phases_take_their_last_twenty_episodes() -> None:
    many = episodes(*((step, float(step)) for step in range(1, 61)))
    assert phase_returns(many, 30, 2).tolist() == [np.mean(range(11, 31)), np.mean(range(41, 61))]


def test_curves_of_a_cell(make_store: MakeStore, write_cell: WriteCell) -> None:
    store = make_store()
    cell = Cell("CartPole-v1", "on", 3)
    write_cell(store, cell, [[(1.0, 50)], [(4.0, 100)]], PROGRESS)
    records = read_records(store)
    assert list(records) == [cell]
    curves = records[cell].curves(np.array([100, 200, 300]))
    assert curves.keys() == {RETURN, "train/approx_kl", "vgs/scaling_factor"}
    assert curves[RETURN].tolist() == [1.0, 2.5, 2.5]
    assert curves["train/approx_kl"].tolist() == [0.01, 0.01, 0.03]  # what is not finite was not logged
    assert curves["vgs/scaling_factor"].tolist() == pytest.approx([NAN, 0.5, 0.7], nan_ok=True)
    assert records[cell].means == pytest.approx({"train/approx_kl": 0.02, "vgs/scaling_factor": 0.6})


def test_a_cell_that_diverged_before_its_first_row(make_store: MakeStore, write_cell: WriteCell) -> None:
    store = make_store()
    cell = Cell("CartPole-v1", "off", 0)
    write_cell(store, cell, [[]], state="diverged")
    curves = read_records(store)[cell].curves(np.array([500, 1_000]))
    assert curves.keys() == {RETURN}
    assert np.isnan(curves[RETURN]).all()


def test_a_continued_cell_has_its_parents_curve_until_then(make_store: MakeStore, write_cell: WriteCell) -> None:
    old, new = Variant("old", {"vgs_version": "1.0"}), Variant("new", {"vgs_version": "3.0"}, "old", from_step=200)
    store = make_store([old, new], options={"checkpoint_every": 100})
    parent, child = Cell("CartPole-v1", "old", 0), Cell("CartPole-v1", "new", 0)
    alarms = [Alarm(200, 1.0, 0.1, 1e-4, []), Alarm(250, 1.0, 0.1, 1e-4, [])]
    write_cell(store, parent, [[(1.0, 100), (3.0, 150)]], PROGRESS, alarms=alarms)  # ends at 100 and 250
    write_cell(
        store,
        child,
        [[(9.0, 30), (11.0, 100)]],  # at 230 and 330 of the agent
        "time/total_timesteps,vgs/scaling_factor\n100,0.9\n200,0.95\n",
        first_step=200,
        alarms=[Alarm(50, 2.0, 0.1, 1e-4, [])],
    )
    record = read_records(store)[child]
    assert record.episodes.steps.tolist() == [100, 230, 330]
    assert record.episodes.rewards.tolist() == [1.0, 9.0, 11.0]
    curves = record.curves(np.array([200, 299, 300, 400]))
    assert curves["vgs/scaling_factor"].tolist() == [0.5, 0.5, 0.9, 0.95]
    assert record.means == pytest.approx({"vgs/scaling_factor": 0.925})  # of its own training
    assert record.alarms == (alarms[0], Alarm(250, 2.0, 0.1, 1e-4, []))


def test_a_continued_cell_whose_parent_is_gone(make_store: MakeStore, write_cell: WriteCell) -> None:
    old, new = Variant("old", {"vgs_version": "1.0"}), Variant("new", {"vgs_version": "3.0"}, "old", from_step=200)
    store = make_store([old, new], options={"checkpoint_every": 100})
    write_cell(store, Cell("CartPole-v1", "new", 0), [[(9.0, 30)]], first_step=200)
    with pytest.raises(StudyError, match=r"new / seed 0 .* old / seed 0, which is not done; remedy: run compare again"):
        read_records(store)


def test_a_corrupted_cell(make_store: MakeStore, write_cell: WriteCell) -> None:
    store = make_store()
    cell = Cell("CartPole-v1", "on", 0)
    write_cell(store, cell, [[(1.0, 50)]], PROGRESS)
    (store.folder(cell) / "progress.csv").write_text(PROGRESS + "400,0.05,7,0.7\n")
    with pytest.raises(StudyError, match=r"progress.csv was changed after the cell was done; remedy"):
        read_records(store)


def test_a_cell_without_an_alarm_is_not_one_without_a_test(make_store: MakeStore, write_cell: WriteCell) -> None:
    store = make_store(seeds=(0,))
    write_cell(store, Cell("CartPole-v1", "off", 0), [[]])
    write_cell(store, Cell("CartPole-v1", "on", 0), [[]], alarms=[])
    assert [record.alarms for record in read_records(store).values()] == [None, ()]


def test_an_alarm_that_came_later_or_makes_no_sense(make_store: MakeStore, write_cell: WriteCell) -> None:
    store = make_store()
    cell = Cell("CartPole-v1", "on", 0)
    write_cell(store, cell, [[(1.0, 50)]], alarms=[])
    path = store.folder(cell) / ALARMS_FILE
    path.write_text('{"steps": 7}')
    with pytest.raises(StudyError, match=r"changes.jsonl was changed after the cell was done; remedy"):
        read_records(store)
    store.mark_done(cell)
    with pytest.raises(StudyError, match=r"seed-0 cannot be read: ValueError: changes.jsonl holds .*; remedy: remove"):
        read_records(store)


def test_a_cell_whose_files_make_no_sense(make_store: MakeStore, write_cell: WriteCell) -> None:
    store = make_store()
    write_cell(store, Cell("CartPole-v1", "on", 0), [[(1.0, 50)]], "train/loss\n7\n")
    with pytest.raises(StudyError, match=r"seed-0 cannot be read: KeyError: 'time/total_timesteps'; remedy: remove"):
        read_records(store)
