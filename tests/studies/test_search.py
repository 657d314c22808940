from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sb3_vgs_ppo._values import merged
from sb3_vgs_ppo.errors import StudyError
from sb3_vgs_ppo.presets import PRESETS
from sb3_vgs_ppo.studies.definition import Variant
from sb3_vgs_ppo.studies.search import Choices, Family, Range, Search, first_of_equals, make_search, read_search_file

FAMILY: dict[str, Any] = {
    "name": "ours",
    "base": "continual",
    "options": {"algo_kwargs": {"gamma": 0.9}},
    "space": {
        "algo_kwargs.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "change_kwargs.reset": {"choices": ["head", "all"]},
        "vgs": {"choices": {"none": {"vgs_version": "off"}, "new": {"vgs_version": 4.0, "algo_kwargs": {"a": 1}}}},
    },
}
SEARCH: dict[str, Any] = {
    "env_id": "ContinualCartPole-v0",
    "total_timesteps": "480e3",
    "seeds": [7, 8],
    "n_trials": 6,
    "families": [FAMILY],
}


def changed(**values: Any) -> dict[str, Any]:
    return {**SEARCH, **values}


def with_space(**space: Any) -> dict[str, Any]:
    return changed(families=[{**FAMILY, "space": space}])


def test_a_search_from_its_file() -> None:
    search = make_search(SEARCH)
    family = Family(
        "ours",
        merged(PRESETS["continual"], {"algo_kwargs": {"gamma": 0.9}}),
        (
            Range("algo_kwargs.learning_rate", 1e-4, 1e-2, log=True),
            Choices("change_kwargs.reset", ("head", "all")),
            Choices("vgs", ("none", "new"), FAMILY["space"]["vgs"]["choices"]),
        ),
    )
    assert search == Search("ContinualCartPole-v0", 480_000, (7, 8), (family,), 6)
    assert (search.batch_size, search.sampler_seed, search.objective) == (4, 0, "late_phases")


def test_a_trial_is_a_variant_with_its_values() -> None:
    (family,) = make_search(SEARCH).families
    variant = family.variant(3, {"algo_kwargs.learning_rate": 0.003, "change_kwargs.reset": "all", "vgs": "new"})
    assert variant.name == "ours-0003"
    assert variant.options == merged(
        PRESETS["continual"],
        {
            "algo_kwargs": {"gamma": 0.9, "learning_rate": 0.003, "a": 1},
            "change_kwargs": {"reset": "all"},
            "vgs_version": 4.0,
        },
    )


def test_corners_meet_every_extreme() -> None:
    (family,) = make_search(SEARCH).families
    assert [tuple(values.values()) for values in family.corners()] == [
        (1e-4, "head", "none"),
        (1e-2, "head", "none"),
        (1e-4, "all", "none"),
        (1e-4, "head", "new"),
    ]


def test_equal_options_share_the_first_variant() -> None:
    a, b, c = Variant("a", {"x": 1, "y": 2}), Variant("b", {"x": 1}), Variant("c", {"y": 2, "x": 1})
    assert first_of_equals([a, b, c]) == [a, b, a]


def test_the_study_of_a_search() -> None:
    search = make_search(changed(options={"n_envs": 2}))
    study = search.study([Variant("a", {}), Variant("b", {"seed_free": 1})])
    assert (study.env_ids, study.seeds, study.total_timesteps) == (("ContinualCartPole-v0",), (7, 8), 480_000)
    assert (study.baseline, study.options, len(list(study.cells()))) == ("a", {"n_envs": 2}, 4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (changed(trials=3), "search: unknown key 'trials'; did you mean 'n_trials'?"),
        ({**SEARCH, "families": []}, "a search without families"),
        (changed(families="ours"), "families: 'ours' is not a list"),
        (changed(families=["ours"]), "families: 'ours' is not a mapping"),
        (changed(families=[FAMILY, FAMILY]), "families: ours, ours: one name is there twice"),
        (changed(families=[{**FAMILY, "bases": "adam"}]), "variant 'ours': unknown key 'bases'; did you mean 'base'?"),
        (changed(families=[{**FAMILY, "base": "adamm"}]), "variant 'adamm' is not known"),
        (changed(families=[{"name": "ours"}]), "family 'ours' has no space"),
        (changed(n_trials=0.5), "n_trials: 0.5 is not a whole number"),
        (changed(batch_size=0), "batch_size 0 is too small; remedy: at least 1"),
        (changed(objective="finale"), "objective 'finale' is not known; did you mean 'final'?"),
        (changed(env_id="CartPole-v1"), "objective late_phases: CartPole-v1 has no phase in 480000 steps"),
        (changed(total_timesteps=30_000), "objective late_phases: ContinualCartPole-v0 has no phase in 30000 steps"),
        (with_space(x=3), "family 'ours': x: 3; remedy: {low: …, high: …, log: true} or {choices: […]}"),
        (with_space(x={"low": 1}), "family 'ours': x: {'low': 1}; remedy: {low"),
        (with_space(x={"low": 1, "high": 2, "step": 1}), "family 'ours': x: unknown key 'step'"),
        (with_space(x={"low": 2, "high": 2}), "family 'ours': x: low 2 is not below high 2"),
        (with_space(x={"low": 0, "high": 2, "log": True}), "family 'ours': x: low 0 has no logarithm"),
        (with_space(x={"low": 0, "high": float("inf")}), "family 'ours': x: inf is no finite number"),
        (with_space(x={"low": True, "high": 2}), "family 'ours': x: True is no finite number"),
        (with_space(x={"low": 1, "high": 2, "log": 1}), "family 'ours': x: log 1 is not true or false"),
        (with_space(x={"choices": ["a"]}), "family 'ours': x: choices ['a']; remedy: a list of two or more"),
        (with_space(x={"choices": ["a", "a"]}), "family 'ours': x: choices ['a', 'a']: one is there twice"),
        (with_space(x={"choices": [[1], [2]]}), "family 'ours': x: [1] is no text, number, true or false"),
        (with_space(x={"choices": {"a": {}, "b": 3}}), "family 'ours': x: 'b': 3; remedy: a name in quotation marks"),
    ],
)
def test_what_cannot_be_searched(values: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError) as caught:
        make_search(values)
    assert str(caught.value).startswith(message)


def test_the_search_of_the_repository_can_be_read() -> None:
    search = read_search_file(Path(__file__).parents[2] / "results" / "search" / "search.yaml")
    assert [family.name for family in search.families] == ["ours", "adam", "adam-betas", "adamw"]
    assert not {0, 1, 2, 3, 4} & set(search.seeds)  # studies compare on these
