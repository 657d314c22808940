from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sb3_vgs_ppo.change.options import NONE, REPORT, RESPONSES
from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.presets import PRESETS
from sb3_vgs_ppo.runs.config import TrainConfig
from sb3_vgs_ppo.runs.config_file import config_from_mapping, read_config_file


def write(folder: Path, text: str, name: str = "run.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_yaml_scalars_mean_what_they_look_like(tmp_path: Path) -> None:
    config = read_config_file(
        write(
            tmp_path,
            """
            env_id: Hopper-v5
            total_timesteps: 1e6
            vgs_version: 3.1
            normalize: true
            run_dir: null
            algo_kwargs: {learning_rate: 3e-4, clip_range: .1, gamma: 1., policy_kwargs: {net_arch: [64, 32]}}
            """,
        )
    )
    assert config == TrainConfig(
        env_id="Hopper-v5",
        total_timesteps=1_000_000,
        vgs_version="3.1",
        normalize=True,
        algo_kwargs={
            "learning_rate": 0.0003,
            "clip_range": 0.1,
            "gamma": 1.0,
            "policy_kwargs": {"net_arch": [64, 32]},
        },
    )


def test_off_is_a_word_in_yaml(tmp_path: Path) -> None:
    assert read_config_file(write(tmp_path, "vgs_version: off")).vgs_version == "off"


def test_the_record_of_a_run_is_read_as_its_options(tmp_path: Path) -> None:
    config = TrainConfig(env_id="Pendulum-v1", env_kwargs={"g": 5.0}, seed=3, algo_kwargs={"gamma": 0.9})
    record = {"schema": 1, "options": config.to_mapping(), "command": ["x"], "versions": {}}
    assert read_config_file(write(tmp_path, json.dumps(record), "config.json")) == config


def test_a_record_from_before_an_option_has_its_default(tmp_path: Path) -> None:
    options = TrainConfig(env_id="Pendulum-v1").to_mapping()
    del options["env_kwargs"]
    assert read_config_file(write(tmp_path, json.dumps({"options": options}), "config.json")).env_kwargs == {}


def test_options_survive_json_but_for_the_folder() -> None:
    config = TrainConfig(n_envs=3, optimizer="upgd", run_dir="runs/x", algo_kwargs={"vgs_kwargs": {"alpha": 0.5}})
    mapping = json.loads(json.dumps(config.to_mapping()))
    assert "run_dir" not in mapping
    assert config_from_mapping({**mapping, "run_dir": "runs/x"}, "test") == config


PRESET = {"optimizer": "adam", "algo_kwargs": {"learning_rate": 1e-3, "policy_kwargs": {"n_quantiles": 32}}}


def test_a_preset_lies_below_what_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "tuned", PRESET)
    file = write(tmp_path, "preset: tuned\nvgs_version: off\nalgo_kwargs: {policy_kwargs: {net_arch: [8]}}")
    config = read_config_file(file)
    assert (config.preset, config.optimizer, config.vgs_version, config.n_envs) == ("tuned", "adam", "off", 8)
    assert config.algo_kwargs == {"learning_rate": 1e-3, "policy_kwargs": {"n_quantiles": 32, "net_arch": [8]}}
    assert config_from_mapping({"preset": "tuned", "optimizer": "upgd"}, "test").optimizer == "upgd"
    assert config_from_mapping({"preset": None}, "test") == TrainConfig()
    assert PRESET["algo_kwargs"] == {"learning_rate": 1e-3, "policy_kwargs": {"n_quantiles": 32}}
    other = read_config_file(file, preset="continual")
    assert (other.preset, other.on_change, other.algo_kwargs) == (
        "continual",
        "restart-head+reset-optimizer+raise-learning-rate",
        {"policy_kwargs": {"net_arch": [8]}},
    )


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("on_change", [NONE, REPORT, *RESPONSES])
def test_every_answer_can_be_put_over_a_preset(preset: str, on_change: str) -> None:
    assert config_from_mapping({"preset": preset, "on_change": on_change}, "test").on_change == on_change


def test_a_record_needs_no_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "tuned", PRESET)
    config = config_from_mapping({"preset": "tuned"}, "test")
    record = {"options": config.to_mapping(), "preset": "tuned"}
    monkeypatch.delitem(PRESETS, "tuned")
    again = read_config_file(write(tmp_path, json.dumps(record), "config.json"))
    assert again == replace(config, preset=None)


def test_an_unknown_preset() -> None:
    with pytest.raises(UserInputError, match=r"^preset 'tund' is not known; remedy: continual$"):
        config_from_mapping({"preset": "tund"}, "test")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n_env: 3", r"run.yaml: unknown key 'n_env'; did you mean 'n_envs'\?"),
        ("1: 3", r"unknown key 1; known: algo_kwargs, change_kwargs, checkpoint_every"),
        ("n_envs: 2.5", r"n_envs: 2.5 is not a whole number"),
        ("n_envs: true", r"n_envs: True is not a whole number"),
        ("env_id: true", r"env_id: True is not a text"),
        ("env_id: null", r"env_id: None is not a text"),
        ("normalize: 1", r"normalize: 1 is not true or false"),
        ("normalize: no", r"normalize: 'no' is not true or false"),
        ("algo_kwargs: [1]", r"algo_kwargs: \[1\] is not a mapping"),
        ("optimizer: adamv", r"optimizer: 'adamv'; did you mean 'adam'\?"),
        ("optimizer: [adam]", r"optimizer: \['adam'\]"),
        ("- n_envs", r"holds no options; write lines such as 'env_id: CartPole-v1'"),
        ("", r"holds no options"),
        ("n_envs: [", r"is neither YAML nor JSON"),
        ("env_id: !!python/object/apply:os.getcwd []", r"is neither YAML nor JSON: could not determine a constructor"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        read_config_file(write(tmp_path, text))


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match=r"--config .*nowhere.yaml cannot be read: No such file"):
        read_config_file(tmp_path / "nowhere.yaml")
    with pytest.raises(UserInputError, match=r"cannot be read: Is a directory"):
        read_config_file(tmp_path)
    (tmp_path / "image.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserInputError, match=r"is neither YAML nor JSON"):
        read_config_file(tmp_path / "image.yaml")
    with pytest.raises(UserInputError, match=r"is neither YAML nor JSON: Expecting value"):
        read_config_file(write(tmp_path, "n_envs: 3", "run.json"))
