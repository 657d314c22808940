"""load_checkpoint: the model that DistributionalPPO.load gives, from files that nobody vouches for."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from helpers import assert_equal_nested
from sb3_vgs_ppo import load_checkpoint
from sb3_vgs_ppo.checkpoint import load_tensors
from sb3_vgs_ppo.errors import CheckpointError, UserInputError, VGSMigrationWarning
from sb3_vgs_ppo.ppo import DistributionalPPO, MlpPolicy
from sb3_vgs_ppo.ppo.blueprint import ARGUMENTS, ATTRIBUTES
from sb3_vgs_ppo.ppo.persistence import describe

GOLDEN = Path(__file__).parents[1] / "fixtures" / "legacy"
SMALL: dict[str, Any] = {"n_steps": 32, "batch_size": 16, "n_epochs": 2, "seed": 3, "device": "cpu"}
NET: dict[str, Any] = {"net_arch": [8]}
EnvOf = Callable[[str], VecEnv]


class TestLikeLoad:
    @pytest.mark.parametrize("name", ["quantile", "scalar", "categorical", "adam", "cnn", "dict"])
    def test_same_model_that_learns_on_alike(self, name: str, agents: dict[str, Path], env_of: EnvOf) -> None:
        models = [load(agents[name], env_of(name)) for load in (DistributionalPPO.load, load_checkpoint)]
        expected, loaded = models
        assert_equal_nested(loaded.get_parameters(), expected.get_parameters())
        assert describe(loaded).to_json() == describe(expected).to_json()
        assert vars(loaded).keys() == vars(expected).keys()
        for progress in (1.0, 0.6, 0.0):
            assert loaded.lr_schedule(progress) == expected.lr_schedule(progress)
            assert loaded.clip_range(progress) == expected.clip_range(progress)
        for model in models:
            model.set_random_seed(5)
            model.learn(64, reset_num_timesteps=False)
        assert_equal_nested(loaded.get_parameters(), expected.get_parameters())
        assert loaded.num_timesteps == expected.num_timesteps == 128

    def test_the_same_random_numbers_are_drawn(self, agents: dict[str, Path]) -> None:
        states = []
        for load in (DistributionalPPO.load, load_checkpoint):
            load(agents["categorical"])
            states.append((th.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()))  # noqa: NPY002
        assert states[0] == states[1]

    def test_without_an_environment_it_predicts(self, agents: dict[str, Path]) -> None:
        loaded, expected = load_checkpoint(agents["adam"]), DistributionalPPO.load(agents["adam"])
        obs = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
        assert np.array_equal(loaded.predict(obs, deterministic=True)[0], expected.predict(obs, deterministic=True)[0])
        assert (loaded.n_envs, loaded.env) == (2, None)

    def test_scaler_and_optimizer_hold_the_policys_own_tensors(self, agents: dict[str, Path]) -> None:
        model = load_checkpoint(agents["quantile"])
        theirs = list(model.policy.parameters())
        assert model.vgs is not None
        for tensors in (model.vgs.parameters, model.policy.optimizer.param_groups[0]["params"]):
            assert [id(tensor) for tensor in tensors] == [id(tensor) for tensor in theirs]

    def test_an_environment_by_its_id_and_an_open_file(self, agents: dict[str, Path]) -> None:
        with agents["quantile"].open("rb") as file:
            model = load_checkpoint(file, "CartPole-v1")
        assert model.learn(32, reset_num_timesteps=False).num_timesteps == 96

    def test_what_is_restored_is_what_is_stored(self, agents: dict[str, Path]) -> None:
        manifest = describe(load_checkpoint(agents["quantile"]))
        assert manifest.arguments.keys() == {*ARGUMENTS, "device"}
        assert {*manifest.attributes, "num_timesteps"} == set(ATTRIBUTES)

    @pytest.mark.parametrize("name", ["vgs_1_0_scalar", "vgs_2_0_quantile", "vgs_3_0_categorical", "vgs_3_1_quantile"])
    def test_golden_files_load_for_ever(self, name: str) -> None:
        expected = load_tensors((GOLDEN / "expected.pt").read_bytes(), "expected.pt", "expected.pt")[name]
        with warnings.catch_warnings():
            warnings.simplefilter("error", VGSMigrationWarning)
            model = load_checkpoint(GOLDEN / f"{name}.zip", "CartPole-v1")
        check_golden(model, expected)
        model.learn(64, reset_num_timesteps=False)

    def test_a_golden_file_without_manifest_loads_for_ever(self) -> None:
        expected = load_tensors((GOLDEN / "expected.pt").read_bytes(), "expected.pt", "expected.pt")
        check_golden(load_checkpoint(GOLDEN / "no_manifest_2_0.zip", "CartPole-v1"), expected["no_manifest_2_0"])
        check_golden(load_checkpoint(GOLDEN / "sb3_ppo.zip", "CartPole-v1"), expected["sb3_ppo"])


def check_golden(model: DistributionalPPO, expected: dict[str, Any]) -> None:
    parameters = model.get_parameters()
    for name in ("policy", "policy.optimizer"):
        assert_equal_nested(parameters[name], expected[name], name)
    if expected["vgs"] is None:
        assert model.vgs is None
    else:
        kept = expected["vgs"].keys() - {"vgs_version"}
        assert_equal_nested({key: parameters["vgs"][key] for key in kept}, {key: expected["vgs"][key] for key in kept})
    with th.no_grad():
        logits = model.policy.get_distribution(expected["observations"]).distribution.logits
        values = model.policy.predict_values(expected["observations"])
    assert th.allclose(logits, expected["logits"], atol=1e-5)
    assert th.allclose(values, expected["values"], rtol=1e-4, atol=1e-4)
    assert (model.num_timesteps, model._n_updates) == (expected["num_timesteps"], expected["n_updates"])


class TestEnvironment:
    def test_normalization_is_put_back(self, tmp_path: Path) -> None:
        env = VecNormalize(make_vec_env("Pendulum-v1"), clip_obs=5.0)
        DistributionalPPO("MlpPolicy", env, **SMALL).learn(64).save(tmp_path / "model")
        fresh = VecNormalize(make_vec_env("Pendulum-v1"))
        model = load_checkpoint(tmp_path / "model", fresh)
        assert np.array_equal(fresh.obs_rms.mean, env.obs_rms.mean)
        assert np.array_equal(fresh.ret_rms.var, env.ret_rms.var)
        assert fresh.clip_obs == 5.0
        assert model.get_vec_normalize_env() is fresh

    def test_an_environment_without_normalization_is_refused(self, tmp_path: Path) -> None:
        env = VecNormalize(make_vec_env("Pendulum-v1"))
        DistributionalPPO("MlpPolicy", env, **SMALL).save(tmp_path / "model")
        with pytest.raises(CheckpointError, match=r"model\.zip: vec_normalize\.pt: .* VecNormalize\(env\)"):
            load_checkpoint(tmp_path / "model.zip", make_vec_env("Pendulum-v1"))

    def test_other_spaces_are_refused(self, agents: dict[str, Path]) -> None:
        with pytest.raises(
            CheckpointError, match=r"quantile\.zip: manifest\.json: observation_space: Box.*not that of"
        ):
            load_checkpoint(agents["quantile"], "Pendulum-v1")

    def test_spaces_that_only_pickle_could_store_come_from_the_environment(self, tmp_path: Path) -> None:
        class Box(spaces.Box):
            """A user's own."""

        env = make_vec_env("Pendulum-v1")
        env.observation_space = Box(-8.0, 8.0, (3,))
        DistributionalPPO("MlpPolicy", env, **SMALL).save(tmp_path / "model")
        with pytest.raises(CheckpointError, match=r"observation_space: Box.*without pickle"):
            load_checkpoint(tmp_path / "model")
        assert load_checkpoint(tmp_path / "model", env).observation_space is env.observation_space


class SquarePolicy(MlpPolicy):
    """A user's own, which no file may name."""


class TestOverrides:
    @pytest.fixture
    def with_function(self, tmp_path: Path) -> Path:
        model = DistributionalPPO("MlpPolicy", "CartPole-v1", learning_rate=lambda left: 1e-2 * left, **SMALL)
        model.save(tmp_path / "model.zip")
        return tmp_path / "model.zip"

    def test_a_function_has_to_be_given(self, with_function: Path) -> None:
        with pytest.raises(CheckpointError, match=r"arguments\.learning_rate: <function .*give it when loading"):
            load_checkpoint(with_function)
        model = load_checkpoint(with_function, overrides={"learning_rate": lambda left: 2e-2 * left})
        assert model.lr_schedule(0.5) == 1e-2

    def test_or_the_pickle_to_be_trusted(self, with_function: Path) -> None:
        model = load_checkpoint(with_function, trust_pickle=True)
        assert model.lr_schedule(0.5) == 5e-3
        assert load_checkpoint(with_function, trust_pickle=True, overrides={"learning_rate": 0.5}).learning_rate == 0.5

    def test_a_users_policy(self, tmp_path: Path) -> None:
        DistributionalPPO(SquarePolicy, "CartPole-v1", **SMALL).save(tmp_path / "model")
        with pytest.raises(CheckpointError, match=r"policy_class: .*SquarePolicy"):
            load_checkpoint(tmp_path / "model")
        for arguments in ({"overrides": {"policy": SquarePolicy}}, {"trust_pickle": True}):
            assert load_checkpoint(tmp_path / "model", **arguments).policy.__class__.__name__ == "SquarePolicy"

    def test_single_policy_kwargs(self, agents: dict[str, Path]) -> None:
        model = load_checkpoint(agents["quantile"], overrides={"policy_kwargs": {"huber_kappa": 2.0}, "gamma": 0.5})
        assert model.policy_kwargs == {**NET, "n_quantiles": 4, "huber_kappa": 2.0}
        assert (model.policy.value_net.huber_kappa, model.gamma) == (2.0, 0.5)

    def test_another_vgs_version_warns(self, agents: dict[str, Path]) -> None:
        with pytest.warns(VGSMigrationWarning, match="CRITICAL FIX"):
            model = load_checkpoint(agents["scalar"], overrides={"vgs_version": "3.0"})
        assert model.vgs is not None
        assert model.vgs.state_dict()["step_count"] == 0

    @pytest.mark.parametrize("name", ["gama", "device", "env", "_init_setup_model"])
    def test_unknown_names_are_refused(self, name: str, agents: dict[str, Path]) -> None:
        with pytest.raises(UserInputError, match=f"overrides: '{name}'"):
            load_checkpoint(agents["quantile"], overrides={name: 1})


class TestSb3Zip:
    def test_it_equals_sb3s_model_and_learns_on_alike(self, sb3_zip: Path) -> None:
        ours, theirs = (
            load_checkpoint(sb3_zip, make_vec_env("Pendulum-v1")),
            PPO.load(sb3_zip, make_vec_env("Pendulum-v1")),
        )
        assert ours.vgs is None
        for model in (ours, theirs):
            model.set_random_seed(5)
            model.learn(128, reset_num_timesteps=False)
        assert_equal_nested(ours.get_parameters(), theirs.get_parameters())
        assert ours.num_timesteps == 192
        assert ours.clip_range(0.75) == theirs.clip_range(0.75) == pytest.approx(0.2)

    def test_without_environment_it_says_what_to_do(self, sb3_zip: Path) -> None:
        with pytest.raises(CheckpointError, match=r"ppo\.zip: manifest\.json: missing.*--env-id.*--trust-pickle"):
            load_checkpoint(sb3_zip)

    def test_trusted_it_needs_no_environment(self, sb3_zip: Path) -> None:
        model = load_checkpoint(sb3_zip, trust_pickle=True)
        assert_equal_nested(model.get_parameters(), PPO.load(sb3_zip).get_parameters())
        assert model.policy_kwargs["activation_fn"] is th.nn.ReLU

    def test_what_only_pickle_tells_is_named(self, tmp_path: Path) -> None:
        model = PPO("MlpPolicy", "CartPole-v1", learning_rate=lambda left: 1e-2 * left, **SMALL)
        model.save(tmp_path / "model")
        with pytest.raises(CheckpointError, match=r"model\.zip: data: learning_rate: known to unpicklers only"):
            load_checkpoint(tmp_path / "model", "CartPole-v1")
        overrides = {"learning_rate": 0.5}
        assert load_checkpoint(tmp_path / "model", "CartPole-v1", overrides=overrides).learning_rate == 0.5
        assert load_checkpoint(tmp_path / "model", trust_pickle=True).lr_schedule(0.5) == 5e-3

    def test_another_environment_is_refused(self, sb3_zip: Path) -> None:
        with pytest.raises(CheckpointError, match=r"policy\.pth: action_net"):
            load_checkpoint(sb3_zip, "CartPole-v1")

    def test_another_algorithm_is_refused(self, tmp_path: Path) -> None:
        A2C("MlpPolicy", "CartPole-v1").save(tmp_path / "a2c")
        with pytest.raises(CheckpointError, match=r"a2c\.zip: data: not a PPO"):
            load_checkpoint(tmp_path / "a2c", "CartPole-v1")

    def test_a_users_policy_is_refused(self, tmp_path: Path) -> None:
        class OwnPolicy(PPO.policy_aliases["MlpPolicy"]):  # type: ignore[misc]
            """Whatever it does with the tensors."""

        PPO(OwnPolicy, "CartPole-v1", **SMALL).save(tmp_path / "own")
        with pytest.raises(CheckpointError, match=r"own\.zip: data: policy_class: of '.*test_loading'"):
            load_checkpoint(tmp_path / "own", "CartPole-v1")

    def test_a_bare_state_is_no_model(self) -> None:
        with pytest.raises(CheckpointError, match=r"state_vgs_2_0\.pt: a bare state dict"):
            load_checkpoint(GOLDEN / "state_vgs_2_0.pt")
