"""Curves on the page are those of the result, thinned and rounded."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from sb3_vgs_ppo.studies import page_data as module
from sb3_vgs_ppo.studies.page_data import page_data, rounded

from .synthetic import CARTPOLE, CONTINUAL, DIAGNOSTICS, FIVE, SIXTEEN, make_study


def test_series_are_the_bands() -> None:
    study = make_study((CARTPOLE, CONTINUAL), points=24)
    data = page_data(study)
    assert [variant["name"] for variant in data["variants"]] == list(FIVE)
    assert data["bands"] is True
    environment = data["environments"][1]
    assert environment["phases"] == list(range(40_000, 480_000, 40_000))
    assert [metric["name"] for metric in environment["metrics"]] == ["return", *DIAGNOSTICS]
    assert [metric["log"] for metric in environment["metrics"]] == [False, False, True, False, False]
    bands = study.environments[1].bands
    expected = bands[(bands["variant"] == FIVE[2]) & (bands["metric"] == "return")]
    series = environment["metrics"][0]["series"][2]
    assert (series["v"], series["n"]) == (2, 5)
    assert data["grids"][series["x"]] == list(expected["step"])
    for ends, column in (("y", "value"), ("low", "low"), ("high", "high")):
        assert series[ends] == pytest.approx(list(expected[column]), rel=1e-3)
    assert [metric["series"][0]["v"] for metric in environment["metrics"]] == [0, 1, 0, 0, 0]  # the baseline has no VGS
    assert len(data["grids"]) == 2


def test_single_seeds() -> None:
    study = make_study((CARTPOLE,), points=12)
    seeds = page_data(study)["environments"][0]["seeds"]
    assert len(seeds) == 25
    curves = study.curves
    chosen = (curves["variant"] == FIVE[1]) & (curves["seed"] == 3) & (curves["metric"] == "return")
    (series,) = [found for found in seeds if (found["v"], found["seed"]) == (1, 3)]
    assert series["y"] == pytest.approx(list(curves.loc[chosen, "value"]), rel=1e-3)


def test_one_seed_has_no_ends_and_strict_json_can_hold_it() -> None:
    data = page_data(make_study((CARTPOLE,), FIVE[:2], n_seeds=1, points=5))
    assert "low" not in data["environments"][0]["metrics"][0]["series"][0]
    json.dumps(data, allow_nan=False)


def test_many_points_are_thinned_and_the_last_one_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study((CARTPOLE,), FIVE[:2], points=300, metrics=())
    assert {len(grid) for grid in page_data(study)["grids"]} == {200}
    # 2 bands of three numbers and 10 seeds: 16 curves of 50 points
    monkeypatch.setattr(module, "MAX_NUMBERS", 800)
    (grid,) = page_data(study)["grids"]
    assert len(grid) == 50
    assert grid[-1] == 100_000
    assert grid == sorted(grid)


def test_more_than_eight_variants_start_without_bands() -> None:
    assert page_data(make_study((CARTPOLE,), SIXTEEN[:9], points=5, metrics=()))["bands"] is False


def test_an_environment_without_a_finished_cell() -> None:
    study = make_study((CARTPOLE, CONTINUAL), FIVE[:2], points=24, metrics=())
    first, second = study.environments
    empty = replace(second, variants=(), comparisons=(), bands=second.bands[:0])
    data = page_data(
        replace(study, environments=(first, empty), curves=study.curves[study.curves["env_id"] == "CartPole-v1"])
    )
    assert data["environments"][1]["metrics"][0]["series"] == []
    assert data["environments"][1]["seeds"] == []


def test_rounded() -> None:
    assert rounded([1234.56, 0.000123456, 3.0, math.nan, math.inf, -2.0]) == [1235, 0.0001235, 3, None, None, -2]
    assert isinstance(rounded([3.0])[0], int)


def test_alarms_of_the_variants_that_test_for_changes() -> None:
    study = make_study((CARTPOLE, CONTINUAL), FIVE[:3], 2, points=12, metrics=(), tested=FIVE[2:3])
    stationary, continual = (environment["alarms"] for environment in page_data(study)["environments"])
    (found,) = continual
    assert found["v"] == 2
    assert len(found["x"]) == 2 * (1 + 10)
    assert (found["x"][:2], found["seed"][:2], found["delay"][:2]) == ([60_000, 81_024], [0, 0], [None, 1_024])
    assert (found["x"][-1], found["seed"][-1], found["delay"][-1]) == (441_536, 1, 1_536)
    assert set(found["responses"]) == {"restart-head"}
    assert stationary[0]["x"] == [12_500, 12_500]
    json.dumps(continual, allow_nan=False)
