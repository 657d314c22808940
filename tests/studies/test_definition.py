from __future__ import annotations

import math
from typing import Any

import pytest

from sb3_vgs_ppo.errors import StudyError
from sb3_vgs_ppo.runs.config import TrainConfig
from sb3_vgs_ppo.runs.config_file import config_from_mapping
from sb3_vgs_ppo.studies.definition import DEFAULT_OPTIONS, Cell, Study, Variant

OLD = Variant("old", {"vgs_version": "1.0"})
NEW = Variant("new", {"vgs_version": "3.0"})


def study(**changes: Any) -> Study:
    fields: dict[str, Any] = {
        "env_ids": ("CartPole-v1", "Pendulum-v1"),
        "variants": (OLD, NEW),
        "seeds": (0, 7),
        "total_timesteps": 50_000,
        "baseline": "old",
    }
    return Study(**{**fields, **changes})


def continued(name: str = "continued", version: str = "3.0", source: str = "old", step: int = 20_000) -> Variant:
    return Variant(name, {"vgs_version": version}, continue_from=source, from_step=step)


def test_cells_have_something_of_everything_early() -> None:
    assert list(study().cells()) == [
        Cell("CartPole-v1", "old", 0),
        Cell("CartPole-v1", "new", 0),
        Cell("Pendulum-v1", "old", 0),
        Cell("Pendulum-v1", "new", 0),
        Cell("CartPole-v1", "old", 7),
        Cell("CartPole-v1", "new", 7),
        Cell("Pendulum-v1", "old", 7),
        Cell("Pendulum-v1", "new", 7),
    ]
    assert str(Cell("CartPole-v1", "old", 7)) == "CartPole-v1 / old / seed 7"


def test_a_variants_options_win_over_the_environments_and_those_over_the_studys() -> None:
    variant = Variant("fast", {"algo_kwargs": {"learning_rate": 1e-3}, "n_envs": 1})
    compared = study(
        variants=(OLD, variant),
        options={"n_envs": 4, "eval_every": 500, "algo_kwargs": {"gamma": 0.9, "learning_rate": 1e-5}},
        environments={
            "Pendulum-v1": {"n_envs": 2, "algo_kwargs": {"gamma": 0.95, "n_steps": 64}, "total_timesteps": 90}
        },
    )
    assert compared.train_options(Cell("Pendulum-v1", "fast", 7)) == {
        "env_id": "Pendulum-v1",
        "seed": 7,
        "total_timesteps": 90,
        **DEFAULT_OPTIONS,
        "eval_every": 500,
        "n_envs": 1,
        "algo_kwargs": {"gamma": 0.95, "n_steps": 64, "learning_rate": 1e-3},
    }
    assert compared.train_options(Cell("CartPole-v1", "old", 0)) == {
        "env_id": "CartPole-v1",
        "seed": 0,
        "total_timesteps": 50_000,
        **DEFAULT_OPTIONS,
        "eval_every": 500,
        "n_envs": 4,
        "algo_kwargs": {"gamma": 0.9, "learning_rate": 1e-5},
        "vgs_version": "1.0",
    }


def test_cells_without_options_are_plain_training_runs_without_evaluations() -> None:
    config = config_from_mapping(study().train_options(Cell("CartPole-v1", "new", 7)), "test")
    assert config == TrainConfig(seed=7, total_timesteps=50_000, eval_every=0, progress=False, device="cpu")


def test_phases_follow_the_environments_arguments() -> None:
    compared = study(
        env_ids=("CartPole-v1", "ContinualCartPole-v0"),
        options={"env_kwargs": {"phase_steps": 999}},
        environments={"ContinualCartPole-v0": {"env_kwargs": {"phase_steps": 123}}},
    )
    assert compared.phase_length("ContinualCartPole-v0") == 123
    assert compared.phase_length("CartPole-v1") is None
    assert study(env_ids=("ContinualCartPole-v0",)).phase_length("ContinualCartPole-v0") == 40_000


def test_a_continued_cell_trains_the_rest_from_its_parents_checkpoint() -> None:
    compared = study(variants=(OLD, NEW, continued()))
    cell = Cell("Pendulum-v1", "continued", 7)
    parent = Cell("Pendulum-v1", "old", 7)
    assert compared.parent(cell) == parent
    assert compared.parent(parent) is None
    assert compared.train_options(cell)["total_timesteps"] == 30_000
    assert compared.train_options(cell)["keep_checkpoints"] == 3
    assert compared.train_options(Cell("Pendulum-v1", "new", 7))["keep_checkpoints"] == 3
    kept = compared.train_options(parent)
    assert (kept["total_timesteps"], kept["checkpoint_every"], kept["keep_checkpoints"]) == (50_000, 10_000, 6)


@pytest.mark.parametrize(
    ("given", "kept"), [({}, 6), ({"keep_checkpoints": 50}, 50), ({"checkpoint_every": 4_000}, 14)]
)
def test_a_parent_keeps_all_its_checkpoints(given: dict[str, int], kept: int) -> None:
    compared = study(variants=(OLD, NEW, continued()), options=given)
    assert compared.train_options(Cell("CartPole-v1", "old", 0))["keep_checkpoints"] == kept


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env_ids": ()}, "a study without environments; remedy: name at least one"),
        ({"variants": ()}, "a study without variants; remedy: name at least one"),
        ({"seeds": ()}, "a study without seeds; remedy: name at least one"),
        ({"seeds": (1, 2, 1)}, "seeds: 1 more than once; remedy: each one once"),
        ({"env_ids": ("A", "B", "A", "B")}, "environments: A, B more than once; remedy: each one once"),
        ({"variants": (OLD, Variant("old", {}))}, "variants: old more than once; remedy: each one once"),
        (
            {"variants": (OLD, NEW, Variant("newer", {"vgs_version": "3.0"}))},
            "variants 'new' and 'newer' are the same; remedy: leave one out",
        ),
        ({"baseline": "odl"}, "baseline 'odl' is not among the variants; remedy: one of old, new"),
        ({"total_timesteps": 0}, "total_timesteps of CartPole-v1: 0; remedy: at least 1"),
        (
            {"environments": {"Pendulum-v1": {"total_timesteps": -3}}},
            "total_timesteps of Pendulum-v1: -3; remedy: at least 1",
        ),
        ({"seeds": (0, -1)}, "seeds: -1 is negative; remedy: 0 or more"),
        (
            {"thresholds": {"CartPole-v1": math.inf}},
            "thresholds: CartPole-v1: inf can never be reached; remedy: a finite return",
        ),
        ({"thresholds": {"Cart": 1.0}}, "thresholds: 'Cart' is not in the study; remedy: CartPole-v1, Pendulum-v1"),
        ({"environments": {"Cart": {}}}, "environments: 'Cart' is not in the study; remedy: CartPole-v1, Pendulum-v1"),
        ({"options": {"seed": 1}}, "options: seed cannot be among the options; remedy: seeds of the study"),
        (
            {"options": {"total_timesteps": 1}},
            "options: total_timesteps cannot be among the options; "
            "remedy: total_timesteps of the study, or of an environment",
        ),
        (
            {"environments": {"CartPole-v1": {"env_id": "X"}}},
            "environments: CartPole-v1: env_id cannot be among the options; remedy: env_ids of the study",
        ),
        (
            {"variants": (Variant("old", {"run_dir": "x"}),)},
            "variant 'old': run_dir cannot be among the options; "
            "remedy: leave it out; the study has a folder for every cell",
        ),
        (
            {"variants": (Variant("old", {"env_kwargs": {"g": 1}}),)},
            "variant 'old': env_kwargs cannot be among the options; remedy: options of the study or of an environment: "
            "variants are compared on the same task",
        ),
        (
            {"variants": (Variant("old", {"preset": "continual"}),)},
            "variant 'old': preset cannot be among the options; remedy: its name as a variant, or as the base of one",
        ),
    ],
)
def test_what_is_no_study(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError) as caught:
        study(**changes)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["", "..", ".hidden", "-flag", "a/b", "a b", "a\n", "x" * 101])
def test_names_that_are_no_folders(name: str) -> None:
    with pytest.raises(StudyError, match=r"cannot be a folder's name; remedy: at most 100 letters, digits and \. \+ ="):
        study(variants=(OLD, Variant(name, {})))


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        (Variant("x", {}, continue_from="old"), "continue_from and from_step belong together; remedy: both or none"),
        (Variant("x", {}, from_step=9), "continue_from and from_step belong together; remedy: both or none"),
        (continued(source="odl"), "continue_from 'odl'; remedy: a variant of the study trained from scratch"),
        (continued(source="continued"), "continue_from 'continued'; remedy: a variant of the study trained from scr"),
        (continued("x", source="again"), "continue_from 'again'; remedy: a variant of the study trained from scratch"),
        (
            Variant("x", {"vgs_version": "3.0", "n_envs": 1}, "old", 10),
            "variant 'x' has other options than 'old', whose agents it trains on; remedy: vary vgs_version alone",
        ),
        (continued(step=0), "variant 'continued': from_step 0; remedy: between 0 and 50000, all of CartPole-v1"),
        (continued(step=50_000), "variant 'continued': from_step 50000; remedy: between 0 and 50000, all of CartPole"),
        (continued(step=9_000), "variant 'continued': from_step 9000; remedy: between 0 and 8000, all of Pendulum-v1"),
        (continued(version="off"), "variant 'continued' or 'old' has no VGS, so there is nothing to migrate; remedy:"),
        (continued(source="none"), "variant 'continued' or 'none' has no VGS, so there is nothing to migrate; remedy"),
    ],
)
def test_variants_that_cannot_continue(variant: Variant, message: str) -> None:
    others = (OLD, Variant("none", {"vgs_version": "off"}), continued("again", "3.1", step=7_000))
    with pytest.raises(StudyError) as caught:
        study(
            variants=(*others, variant),
            options={"checkpoint_every": 1_000},
            environments={"Pendulum-v1": {"total_timesteps": 8_000}},
        )
    assert message in str(caught.value)


@pytest.mark.parametrize("every", [0, 15_000, "often"])
def test_an_agent_is_taken_over_at_a_checkpoint(every: object) -> None:
    message = f"from_step 20000 is no multiple of checkpoint_every {every} on Pendulum-v1; remedy"
    with pytest.raises(StudyError, match=message):
        study(variants=(OLD, continued()), environments={"Pendulum-v1": {"checkpoint_every": every}})


def test_a_continual_task_cannot_be_continued() -> None:
    with pytest.raises(StudyError, match=r"'continued' cannot continue on ContinualCartPole-v0, whose phases would st"):
        study(env_ids=("ContinualCartPole-v0",), variants=(OLD, continued()))
