from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from sb3_vgs_ppo._alarms import Alarm
from sb3_vgs_ppo.errors import StudyError
from sb3_vgs_ppo.studies.definition import Cell
from sb3_vgs_ppo.studies.results import Detection, Estimate, StudyResult, VariantResult
from sb3_vgs_ppo.studies.store import StudyStore
from sb3_vgs_ppo.studies.summary import summarize

MakeStore = Callable[..., StudyStore]
WriteCell = Callable[..., None]

ENV = "CartPole-v1"
CONTINUAL = "ContinualCartPole-v0"
PROGRESS = "time/total_timesteps,vgs/scaling_factor\n500,{0}\n1000,{0}\n"


def steady(reward: float) -> list[list[tuple[float, int]]]:
    """Ten episodes of 100 steps in one environment, each with this return."""
    return [[(reward, 100)] * 10]


def of(result: StudyResult, variant: str, env_id: str = ENV) -> VariantResult:
    environment = next(environment for environment in result.environments if environment.env_id == env_id)
    return next(found for found in environment.variants if found.variant == variant)


@pytest.fixture
def write_steady(write_cell: WriteCell) -> Callable[..., None]:
    def write(store: StudyStore, variant: str, rewards: Sequence[float], env_id: str = ENV, **options: object) -> None:
        for seed, reward in enumerate(rewards):
            write_cell(store, Cell(env_id, variant, seed), steady(reward), **options)

    return write


def test_estimates_over_seeds(make_store: MakeStore, write_steady: WriteCell) -> None:
    store = make_store()
    write_steady(store, "off", [1, 2, 3, 4, 100], evaluation=7.0)
    result = of(summarize(store), "off")
    assert (result.n_seeds, result.n_finished, result.n_diverged) == (5, 5, 0)
    assert result.final == Estimate(3.0, 1.0, 100.0, 5)  # without 1 and 100; five seeds give their range
    assert result.area == Estimate(3.0, 1.0, 100.0, 5)
    assert result.evaluation == Estimate(7.0, 7.0, 7.0, 5)
    assert (result.phases, result.late_phases) == ((), None)
    assert result.steps_per_second == 500.0
    assert result.wall_seconds == 2.0  # 1,000 steps


def test_a_variant_without_a_done_cell_is_shown(make_store: MakeStore, write_steady: WriteCell) -> None:
    store = make_store()
    write_steady(store, "off", [1, 2, 3])
    result = summarize(store)
    assert (result.n_done, result.n_cells) == (3, 10)
    missing = of(result, "on")
    assert (missing.n_finished, missing.final, missing.area, missing.wall_seconds) == (0, None, None, None)
    assert result.environments[0].comparisons == ()


def test_no_cell_is_done(make_store: MakeStore) -> None:
    with pytest.raises(StudyError, match=r"study has no finished cell; remedy: run compare"):
        summarize(make_store())


def test_one_seed_has_estimates_without_intervals(make_store: MakeStore, write_steady: WriteCell) -> None:
    store = make_store(seeds=(0,))
    write_steady(store, "off", [10])
    write_steady(store, "on", [30])
    result = summarize(store)
    assert of(result, "on").final == Estimate(30.0, None, None, 1)
    assert result.environments[0].bands["low"].isna().all()
    comparison = result.environments[0].comparisons[0]
    assert comparison.difference == Estimate(20.0, None, None, 1)
    assert comparison.probability == Estimate(1.0, None, None, 1)
    assert comparison.p_value == 1.0


def test_comparisons_with_the_baseline(make_store: MakeStore, write_steady: WriteCell) -> None:
    store = make_store(["off", "better", "same"])
    write_steady(store, "off", [1, 2, 3, 4, 5])
    write_steady(store, "better", [11, 12, 13, 14, 15])
    write_steady(store, "same", [1.5, 2.5, 3.5, 4.5, 0.5])
    comparisons = summarize(store).environments[0].comparisons
    assert [(one.measure, one.variant) for one in comparisons] == [
        ("final", "better"),
        ("final", "same"),
        ("area", "better"),
        ("area", "same"),
    ]
    better, same = comparisons[:2]
    assert better.difference.value == 10.0
    assert better.difference.low is not None
    assert 6 <= better.difference.low < 10
    assert better.probability.value == 1.0
    assert better.p_value == pytest.approx(2 / 252)
    assert better.p_holm == pytest.approx(2 * 2 / 252)  # two comparisons by this measure, not four
    assert same.difference.value == -0.5
    assert same.probability.value == 0.4  # wins: none, 1, 2, 3 and 4 of 25
    assert same.p_holm == same.p_value


def test_holm_corrects_over_environments(make_store: MakeStore, write_steady: WriteCell) -> None:
    store = make_store(env_ids=(ENV, "Pendulum-v1"))
    for env_id in store.study.env_ids:
        write_steady(store, "off", [1, 2, 3, 4, 5], env_id)
        write_steady(store, "on", [11, 12, 13, 14, 15], env_id)
    for environment in summarize(store).environments:
        assert environment.comparisons[0].p_holm == pytest.approx(2 * 2 / 252)


def test_a_diverged_cell_is_counted_and_its_curve_goes_on(
    make_store: MakeStore, write_steady: WriteCell, write_cell: WriteCell
) -> None:
    store = make_store(seeds=(0, 1, 2))
    write_steady(store, "off", [10, 20], evaluation=9.0)
    # It stops after 200 of 1,000 steps
    write_cell(store, Cell(ENV, "off", 2), [[(60.0, 100), (90.0, 100)]], state="diverged")
    result = summarize(store)
    found = of(result, "off")
    assert (found.n_finished, found.n_diverged) == (2, 1)
    assert found.final == Estimate(35.0, 10.0, 75.0, 3)  # mean of 10, 20 and 75
    assert found.evaluation is not None
    assert found.evaluation.n == 2
    assert found.wall_seconds == 2.0
    last = result.environments[0].bands.iloc[-1]
    assert (last["step"], last["n"], last["value"]) == (1_000, 3, 35.0)


def test_bands_begin_with_the_first_episode(make_store: MakeStore, write_cell: WriteCell) -> None:
    store = make_store(seeds=(0, 1))
    write_cell(store, Cell(ENV, "off", 0), [[(10.0, 100), (20.0, 400)]], PROGRESS.format(0.5))
    write_cell(store, Cell(ENV, "off", 1), [[(30.0, 200)]])
    result = summarize(store)
    bands = result.environments[0].bands
    returns = bands[bands["metric"] == "return"].set_index("step")
    assert returns.index[0] == 100
    assert returns.loc[100, ["n", "value"]].tolist() == [1, 10.0]
    assert math.isnan(returns.loc[100, "low"])
    assert returns.loc[200, ["n", "value", "low", "high"]].tolist() == [2, 20.0, 10.0, 30.0]
    assert returns.loc[500, "value"] == 22.5
    factors = bands[bands["metric"] == "vgs/scaling_factor"]
    assert factors["step"].min() == 500
    assert factors["n"].tolist() == [1] * len(factors)
    assert not result.curves["value"].isna().any()
    assert result.curves.columns.tolist() == ["env_id", "variant", "seed", "step", "metric", "value"]
    assert of(result, "off").diagnostics["vgs/scaling_factor"] == 0.5
    assert of(result, "off").diagnostics["vgs/update_ratio"] is None


def test_threshold(make_store: MakeStore, write_cell: WriteCell) -> None:
    store = make_store(seeds=(0, 1, 2), thresholds={ENV: 50.0})
    for seed, first in enumerate([(60.0, 300), (60.0, 500), (10.0, 100)]):
        write_cell(store, Cell(ENV, "off", seed), [[first]])
        write_cell(store, Cell(ENV, "on", seed), [[first if seed == 0 else (10.0, 100)]])
    result = summarize(store)
    assert (of(result, "off").threshold_step, of(result, "off").n_threshold) == (500.0, 2)
    assert (of(result, "on").threshold_step, of(result, "on").n_threshold) == (None, 1)


def test_phases(make_store: MakeStore, write_cell: WriteCell) -> None:
    store = make_store(
        env_ids=(CONTINUAL,),
        seeds=(0, 1),
        environments={CONTINUAL: {"env_kwargs": {"phase_steps": 200}}},
    )
    # Five phases; the second half are the third to the fifth
    write_cell(store, Cell(CONTINUAL, "off", 0), [[(r, 200) for r in (10.0, 20.0, 30.0, 40.0, 50.0)]])
    # Diverges in the third; no episode ended in the second
    write_cell(store, Cell(CONTINUAL, "off", 1), [[(90.0, 200), (60.0, 350)]], state="diverged")
    result = of(summarize(store), "off", CONTINUAL)
    values = [phase.value for phase in result.phases]
    assert values == [50.0, (20.0 + 90.0) / 2, (30.0 + 60.0) / 2, (40.0 + 75.0) / 2, (50.0 + 75.0) / 2]
    assert result.late_phases is not None
    assert result.late_phases.value == (40.0 + (60.0 + 75.0 + 75.0) / 3) / 2


def test_a_phase_in_which_no_episode_ended(make_store: MakeStore, write_cell: WriteCell) -> None:
    store = make_store(env_ids=(CONTINUAL,), environments={CONTINUAL: {"env_kwargs": {"phase_steps": 250}}})
    write_cell(store, Cell(CONTINUAL, "off", 0), [[(10.0, 250), (20.0, 500), (40.0, 250)]])
    result = of(summarize(store), "off", CONTINUAL)
    assert [phase.n for phase in result.phases] == [1, 0, 1, 1]
    assert math.isnan(result.phases[1].value)
    assert result.late_phases is not None
    assert result.late_phases.value == 30.0


def alarm_at(step: int) -> Alarm:
    return Alarm(step, 20.0, 0.1, 1e-4, ["restart-head", "raise-entropy"])


def test_changes_that_were_noticed(make_store: MakeStore, write_cell: WriteCell) -> None:
    store = make_store(
        env_ids=(CONTINUAL,), seeds=(0, 1), environments={CONTINUAL: {"env_kwargs": {"phase_steps": 200}}}
    )
    write_cell(store, Cell(CONTINUAL, "off", 0), steady(1.0))
    # Four changes; the alarm at 1,010 came after the end of the grid
    write_cell(store, Cell(CONTINUAL, "on", 0), steady(1.0), alarms=[alarm_at(step) for step in (210, 440, 450, 1_010)])
    write_cell(store, Cell(CONTINUAL, "on", 1), steady(1.0), alarms=[alarm_at(660)])
    result = summarize(store)
    assert of(result, "off", CONTINUAL).detection is None
    assert of(result, "on", CONTINUAL).detection == Detection(8, 3, median_delay=40, largest_delay=60, n_other_alarms=1)
    assert result.alarms["step"].tolist() == [210, 440, 450, 660]
    assert result.alarms["seed"].tolist() == [0, 0, 0, 1]
    assert result.alarms["delay"].fillna(-1).tolist() == [10, 40, -1, 60]
    assert set(result.alarms["responses"]) == {"restart-head+raise-entropy"}


def test_areas_over_environments_are_scaled_to_the_range_of_their_cells(
    make_store: MakeStore, write_steady: WriteCell
) -> None:
    store = make_store(env_ids=(ENV, "Pendulum-v1"), seeds=(0, 1))
    write_steady(store, "off", [100, 200])  # 0 and 0.25 of 100 … 500
    write_steady(store, "on", [300, 500])  # 0.5 and 1
    write_steady(store, "off", [-1000, -900], "Pendulum-v1")  # 0 and 0.25 of -1000 … -600
    write_steady(store, "on", [-1000, -600], "Pendulum-v1")  # 0 and 1
    normalized = summarize(store).normalized
    assert normalized["off"].value == pytest.approx(0.125)  # 0, 0, 0.25, 0.25 without the first and the last
    assert normalized["on"].value == pytest.approx(0.75)  # 0, 0.5, 1, 1
    assert normalized["on"].low is not None
    assert normalized["on"].n == 2


def test_areas_are_not_scaled_in_one_environment(make_store: MakeStore, write_steady: WriteCell) -> None:
    store = make_store()
    write_steady(store, "off", [1, 2])
    assert summarize(store).normalized == {}


def test_a_variant_that_misses_an_environment_has_no_place_among_all(
    make_store: MakeStore, write_steady: WriteCell
) -> None:
    store = make_store(env_ids=(ENV, "Pendulum-v1"))
    write_steady(store, "off", [1, 2])
    write_steady(store, "on", [1, 2])
    write_steady(store, "on", [1, 2], "Pendulum-v1")
    assert summarize(store).normalized.keys() == {"on"}


def test_versions_of_all_cells(make_store: MakeStore, write_steady: WriteCell) -> None:
    store = make_store()
    write_steady(store, "off", [1, 2], commit="0123abc")
    write_steady(store, "on", [1, 2], commit="4567def")
    versions = summarize(store).versions
    assert versions == {"torch": ("2.13.0",), "numpy": ("2.2.6",), "commit": ("0123abc", "4567def")}


def test_the_same_study_gives_the_same_numbers(make_store: MakeStore, write_steady: WriteCell) -> None:
    store = make_store(seeds=tuple(range(9)))
    for variant, shift in (("off", 0.0), ("on", 0.5)):
        write_steady(store, variant, list(np.random.default_rng(1).normal(shift, size=9).round(6)))
    first, second = summarize(store), summarize(store)
    assert first.environments[0].variants == second.environments[0].variants
    assert first.environments[0].comparisons == second.environments[0].comparisons


def test_a_part_of_a_study_against_another_baseline(make_store: MakeStore, write_steady: WriteCell) -> None:
    store = make_store(["off", "a", "b", "c"])
    for number, name in enumerate(["off", "a", "b", "c"]):
        write_steady(store, name, [10 * number + seed for seed in range(5)])
    result = summarize(store, variants=["c"], baseline="b")
    assert result.baseline == "b"
    assert [variant.variant for variant in result.environments[0].variants] == ["b", "c"]
    final = [one for one in result.environments[0].comparisons if one.measure == "final"]
    assert [(one.variant, one.baseline, one.difference.value) for one in final] == [("c", "b", 10.0)]
    assert final[0].p_holm == final[0].p_value  # the only comparison there is
    assert set(result.curves.variant) == set(result.environments[0].bands.variant) == {"b", "c"}
    assert (result.n_cells, result.n_done) == (10, 10)
    with pytest.raises(StudyError, match=r"variant 'd' is not in the study; "):
        summarize(store, variants=["d"])
