from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import yaml

from sb3_vgs_ppo._values import read_mapping
from sb3_vgs_ppo.studies.definition import Variant
from sb3_vgs_ppo.studies.search import Choices, Family, Range, Search, TrialResult
from sb3_vgs_ppo.studies.search_tables import best_trials, write_search_tables
from sb3_vgs_ppo.studies.study_file import make_study

FAMILIES = (Family("a", {}, (Range("n_envs", 1, 9),)), Family("b", {}, (Choices("optimizer", ("adam", "upgd")),)))
SEARCH = Search("ContinualCartPole-v0", 480_000, (7, 8), FAMILIES, n_trials=12)


def result(family: str, number: int, value: float | str, *scores: float) -> TrialResult:
    path = {"a": "n_envs", "b": "optimizer"}[family]
    options = {path: value, "algo_kwargs": {"learning_rate": 1e-5}, "vgs_version": "off"}
    return TrialResult(family, number, {path: value}, Variant(f"{family}-{number:04d}", options), scores)


RESULTS = [
    result("a", 0, 1.0, 10.0, 30.0),
    result("b", 0, "adam", 5.0, math.nan),
    result("a", 1, 2.0, 30.0, 20.0),
    result("b", 1, "upgd", 1.0, 2.0),
    result("a", 2, 3.0, 25.0, 25.0),
]


def test_the_best_is_the_first_with_the_largest_mean() -> None:
    assert best_trials(RESULTS) == [RESULTS[2], RESULTS[3]]
    assert best_trials(RESULTS[1:2]) == []


def test_files(tmp_path: Path) -> None:
    table, best = write_search_tables(SEARCH, RESULTS, tmp_path)
    rows = pd.read_csv(table)
    assert rows.columns.tolist() == ["family", "trial", "variant", "n_envs", "optimizer", "seed_7", "seed_8", "mean"]
    assert rows["variant"].tolist() == ["a-0000", "a-0001", "a-0002", "b-0000", "b-0001"]
    assert rows["mean"].fillna(-1).tolist() == [20.0, 25.0, 25.0, -1.0, 1.5]
    values = read_mapping(best, "best", example="")
    study = make_study({"env_ids": ["CartPole-v1"], **values})
    assert [(variant.name, variant.options) for variant in study.variants] == [
        ("a", RESULTS[2].variant.options),
        ("b", RESULTS[3].variant.options),
    ]
    head, *rest = best.read_text().splitlines()
    assert head == (
        "# The best trial of each family by late_phases on ContinualCartPole-v0, 480,000 steps, 2 seeds (7 and 8)."
    )
    assert {"  # a-0001, mean 25, of 3 trials", "  # b-0001, mean 1.5, of 2 trials"} <= set(rest)
    assert yaml.safe_load(best.read_text()) == values
