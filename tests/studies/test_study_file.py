from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sb3_vgs_ppo.errors import StudyError, UserInputError
from sb3_vgs_ppo.studies import study_file
from sb3_vgs_ppo.studies.definition import Study, Variant
from sb3_vgs_ppo.studies.store import StudyStore
from sb3_vgs_ppo.studies.study_file import make_study, read_study_file

SMALLEST: dict[str, Any] = {"env_ids": ["CartPole-v1"], "variants": ["adam"]}


def write(folder: Path, text: str, name: str = "study.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def full_file(folder: Path) -> Path:
    """The example in the module's description."""
    description = study_file.__doc__ or ""
    return write(folder, description.partition(".. code-block:: yaml\n")[2])


def test_a_file_that_uses_everything(tmp_path: Path) -> None:
    study = make_study(read_study_file(full_file(tmp_path)))
    assert [variant.name for variant in study.variants] == [
        "sb3-ppo",
        *(f"adam+vgs-{version}" for version in ("off", "1.0", "2.0", "3.0", "3.1", "4.0")),
        "adam-fast",
        "1.0-to-3.0",
    ]
    assert study.variants[-2:] == (
        Variant("adam-fast", {"optimizer": "adam", "vgs_version": "off", "algo_kwargs": {"learning_rate": 1e-3}}),
        Variant("1.0-to-3.0", {"optimizer": "adam", "vgs_version": "3.0"}, "adam+vgs-1.0", 100_000),
    )
    assert study.env_ids == ("CartPole-v1", "LunarLander-v3")
    assert study.seeds == (0, 1, 2, 3, 4)
    assert study.total_timesteps == 200_000
    assert isinstance(study.total_timesteps, int)
    assert study.steps("LunarLander-v3") == 1_000_000
    assert study.baseline == "sb3-ppo"
    assert study.options == {"n_envs": 8}
    assert study.environments["LunarLander-v3"]["algo_kwargs"] == {"gamma": 0.999}
    assert study.thresholds == {"CartPole-v1": 475}


def test_what_a_study_does_not_say() -> None:
    study = make_study(SMALLEST)
    assert study == Study(("CartPole-v1",), (Variant("adam", {"optimizer": "adam"}),), (0, 1, 2, 3, 4), 60_000, "adam")


def test_seeds_are_a_number_or_a_list() -> None:
    assert make_study({**SMALLEST, "seeds": 2}).seeds == (0, 1)
    assert make_study({**SMALLEST, "seeds": "3"}).seeds == (0, 1, 2)
    assert make_study({**SMALLEST, "seeds": [7, 1e3]}).seeds == (7, 1000)


def test_a_study_survives_json_and_its_manifest_is_a_study_file(tmp_path: Path) -> None:
    study = make_study(read_study_file(full_file(tmp_path)))
    assert make_study(json.loads(json.dumps(study.to_mapping()))) == study
    StudyStore.create_or_open(tmp_path / "out", study)
    assert make_study(read_study_file(tmp_path / "out" / "study.json")) == study


def test_options_are_kept_as_the_manifest_gives_them_back() -> None:
    options = {"algo_kwargs": {"policy_kwargs": {"optimizer_kwargs": {"betas": (0.99, 0.99)}, "x": None, "y": True}}}
    study = make_study({**SMALLEST, "options": options})
    assert study.options == json.loads(json.dumps(options))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 3}, "study: unknown key 'seed'; did you mean 'seeds'?"),
        ({3: 3}, "study: unknown key 3; known: baseline, env_ids, environments"),
        ({"env_ids": []}, "a study without env_ids; remedy: name at least one"),
        ({"variants": None}, "a study without variants; remedy: name at least one"),
        ({"env_ids": "CartPole-v1"}, "env_ids: 'CartPole-v1' is not a list; remedy: [CartPole-v1]"),
        ({"env_ids": [1]}, "env_ids: 1 is not a text; remedy: quotation marks around it"),
        ({"variants": "vgs"}, "variants: 'vgs' is not a list; remedy: [vgs]"),
        ({"variants": ["vgs", 3.0]}, "variants: 3.0 is not a text; remedy: quotation marks around it"),
        ({"variants": ["vsg"]}, "variant 'vsg' is not known; did you mean 'vgs'?"),
        ({"variants": ["vgs", "vgs-3.0"]}, "variants: vgs-3.0 more than once; remedy: each one once"),
        (
            {"variants": ["adam+vgs-off", "vgs-off+adam"]},
            "variants 'adam+vgs-off' and 'vgs-off+adam' are the same; remedy: leave one out",
        ),
        ({"seeds": 0}, "seeds: 0; remedy: the number of seeds, at least 1, or a list of seeds"),
        ({"seeds": True}, "seeds: True is not a whole number"),
        ({"seeds": [0, "x"]}, "seeds: 'x' is not a whole number"),
        ({"total_timesteps": 1.5}, "total_timesteps: 1.5 is not a whole number"),
        ({"baseline": 3.0}, "baseline: 3.0 is not a text; remedy: quotation marks around it"),
        ({"options": ["n_envs"]}, "options: ['n_envs'] is not a mapping"),
        ({"options": {1: 2}}, "options: 1 is not a text; remedy: quotation marks around it"),
        (
            {"options": {"a": {"b": [{1, 2}]}}},
            "options: a: b: {1, 2} is neither a text, a number, true, false, null, a list nor a mapping",
        ),
        ({"options": {"a": float("nan")}}, "options: a: nan is neither a text, a number, true, false, null, a list"),
        ({"environments": {"CartPole-v1": 3}}, "environments: CartPole-v1: 3 is not a mapping"),
        (
            {"environments": {"CartPole-v1": {"total_timesteps": "x"}}},
            "environments: CartPole-v1: total_timesteps: 'x' is not a whole number",
        ),
        ({"thresholds": {"CartPole-v1": True}}, "thresholds: CartPole-v1: True is not a number"),
        ({"thresholds": 475}, "thresholds: 475 is not a mapping"),
    ],
)
def test_values_that_make_no_study(changes: dict[Any, Any], message: str) -> None:
    with pytest.raises(StudyError) as caught:
        make_study({**SMALLEST, **changes})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ({"base": "adam"}, "variants: {'base': 'adam'} has no name; remedy: name: …"),
        ({"name": 3.0}, "variants: name: 3.0 is not a text; remedy: quotation marks around it"),
        ({"name": "x", "option": {}}, "variant 'x': unknown key 'option'; did you mean 'options'?"),
        ({"name": "x", "options": 1}, "variant 'x': options: 1 is not a mapping"),
        ({"name": "x", "base": ["adam"]}, "variant 'x': base: ['adam'] is not a text; remedy: quotation marks around"),
        (
            {"name": "x", "base": "optimizer"},
            "variant 'x': base 'optimizer' stands for 4 variants; remedy: one of them",
        ),
        ({"name": "x", "base": "adm"}, "variant 'adm' is not known; did you mean 'adam'?"),
        ({"name": "x", "continue_from": 1, "from_step": 1}, "variant 'x': continue_from: 1 is not a text"),
        ({"name": "x", "continue_from": "adam", "from_step": "x"}, "variant 'x': from_step: 'x' is not a whole number"),
    ],
)
def test_mappings_that_are_no_variant(variant: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError) as caught:
        make_study({**SMALLEST, "variants": ["adam", variant]})
    assert str(caught.value).startswith(message)


def test_files_that_are_no_study(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match=r"^study .*nowhere.yaml cannot be read: No such file"):
        read_study_file(tmp_path / "nowhere.yaml")
    with pytest.raises(UserInputError, match=r"holds no options; write lines such as 'env_ids: \[CartPole-v1\]'"):
        read_study_file(write(tmp_path, "- CartPole-v1"))
    with pytest.raises(UserInputError, match=r"is neither YAML nor JSON: key 'seeds' stands there twice"):
        read_study_file(write(tmp_path, "seeds: 1\nseeds: 2"))
    with pytest.raises(UserInputError, match=r"is neither YAML nor JSON: could not determine a constructor"):
        read_study_file(write(tmp_path, "seeds: !!python/object/apply:os.getcwd []"))
