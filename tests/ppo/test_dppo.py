"""DistributionalPPO: arguments, heads, order of the update, divergence, saving and loading."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from helpers import assert_equal_nested
from sb3_vgs_ppo.checkpoint import inspect_checkpoint, read_checkpoint
from sb3_vgs_ppo.checkpoint.vec_normalize import VEC_NORMALIZE, load_vec_normalize_state
from sb3_vgs_ppo.errors import TrainingDiverged, VGSMigrationWarning
from sb3_vgs_ppo.optim import UPGD, AdaptiveUPGD
from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.ppo.gradients import Gradients

HEADS: dict[str, dict[str, Any]] = {
    "scalar": {"value_head": "scalar"},
    "quantile": {"value_head": "quantile"},
    "categorical": {"value_head": "categorical"},
    "categorical-none": {"value_head": "categorical", "value_transform": "none", "v_min": -10.0, "v_max": 100.0},
}
VERSIONS = [None, "1.0", "2.0", "3.0", "3.1", "4.0"]


def small_model(env: Any = "CartPole-v1", policy: Any = "MlpPolicy", **kwargs: Any) -> DistributionalPPO:
    settings: dict[str, Any] = {"n_steps": 64, "batch_size": 32, "n_epochs": 2, "seed": 3, "device": "cpu"}
    return DistributionalPPO(policy, env, **{**settings, **kwargs})


class SpacesEnv(gym.Env[Any, Any]):
    """Random observations and rewards for any pair of spaces; episodes of ten steps."""

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        self.observation_space = observation_space
        self.action_space = action_space
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self._steps += 1
        return self.observation_space.sample(), float(self.np_random.normal()), self._steps == 10, False, {}


BOX = spaces.Box(-1.0, 1.0, (5,), np.float32)


class TestSignature:
    def test_sb3_arguments_come_first_in_sb3_order_with_sb3_defaults(self) -> None:
        ours = list(inspect.signature(DistributionalPPO.__init__).parameters.values())
        theirs = list(inspect.signature(PPO.__init__).parameters.values())
        shared = zip(ours, theirs, strict=False)
        assert all((a.name, a.default, a.kind) == (b.name, b.default, b.kind) for a, b in shared)
        assert [(p.name, p.default) for p in ours[len(theirs) :]] == [
            ("vgs_version", "3.0"),
            ("vgs_kwargs", None),
            ("vgs_placement", "before_clip"),
            ("max_nonfinite_updates", 10),
            ("risk_measure", "mean"),
            ("value_target", "sample"),
            ("compile", False),
        ]
        assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in ours[len(theirs) :])

    def test_defaults_are_quantile_adaptive_upgd_and_vgs_3(self) -> None:
        model = small_model()
        assert model.policy.value_net.weight.shape == (32, 64)
        assert type(model.policy.optimizer) is AdaptiveUPGD
        assert model.vgs is not None
        assert model.vgs.version == "3.0"

    def test_adam_without_kwargs_gets_sb3s_eps(self) -> None:
        model = small_model(policy_kwargs={"optimizer_class": th.optim.Adam})
        assert model.policy.optimizer.defaults["eps"] == 1e-5


class TestErrors:
    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"vgs_version": "9.9"}, r"9\.9"),
            ({"vgs_placement": "inside"}, "'inside'.*before_clip"),
            ({"max_nonfinite_updates": 0}, "max_nonfinite_updates=0"),
            ({"vgs_version": None, "vgs_kwargs": {"alpha": 0.5}}, "no effect with vgs_version=None"),
            ({"vgs_kwargs": {"version": "2.0"}}, "remedy: vgs_version"),
            ({"vgs_kwargs": {"beta": 1.5}}, r"1\.5"),
            ({"vgs_kwargs": {"aplha": 1.0}}, "aplha.*alpha"),
            ({"max_nonfinite_updates": 2.5}, r"max_nonfinite_updates=2\.5"),
            ({"policy": ActorCriticPolicy}, "ActorCriticPolicy has no value head"),
            ({"clip_range_vf": 0.2}, r"clip_range_vf=0\.2.*value_head='scalar'"),
            ({"policy_kwargs": {"optimizer_kwargs": {"lr": 0.1}}}, r"lr=0\.1.*learning_rate"),
            ({"policy_kwargs": {"value_head": "gaussian"}}, "gaussian"),
            ({"policy_kwargs": {"value_head": "scalar", "n_quantiles": 8}}, "n_quantiles"),
            ({"policy_kwargs": {"value_head": "quantile", "v_min": -1.0}}, "v_min"),
            ({"policy_kwargs": {"n_quantiles": 0}}, "0"),
        ],
    )
    def test_bad_arguments_name_the_value(self, kwargs: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            small_model(**kwargs)

    def test_clip_range_vf_works_with_the_scalar_head(self) -> None:
        model = small_model(clip_range_vf=0.2, policy_kwargs={"value_head": "scalar"}).learn(64)
        assert model.logger.name_to_value["train/clip_range_vf"] == 0.2


class TestSpacesAndPolicies:
    @pytest.mark.parametrize("head", HEADS)
    @pytest.mark.parametrize(
        "action_space",
        [
            spaces.Discrete(3),
            spaces.Box(-2.0, 2.0, (2,), np.float32),
            spaces.MultiDiscrete([3, 2]),
            spaces.MultiBinary(3),
        ],
        ids=lambda space: type(space).__name__,
    )
    def test_every_action_space_learns_and_predicts(self, head: str, action_space: spaces.Space[Any]) -> None:
        model = small_model(SpacesEnv(BOX, action_space), policy_kwargs=HEADS[head])
        before = {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}
        model.learn(64)
        assert any(not th.equal(before[name], tensor) for name, tensor in model.policy.state_dict().items())
        action, _ = model.predict(BOX.sample(), deterministic=True)
        assert action_space.contains(action.item() if isinstance(action_space, spaces.Discrete) else action)

    @pytest.mark.parametrize("head", HEADS)
    def test_images_through_nature_cnn(self, head: str) -> None:
        env = FakeImageEnv(screen_height=40, screen_width=40, n_channels=1, discrete=True)
        extractor = {"features_extractor_kwargs": {"features_dim": 16}}
        model = small_model(env, "CnnPolicy", policy_kwargs={**HEADS[head], **extractor})
        model.learn(64)
        assert type(model.policy.features_extractor).__name__ == "NatureCNN"

    @pytest.mark.parametrize("head", HEADS)
    def test_dict_observations(self, head: str) -> None:
        space = spaces.Dict({"vector": BOX, "choice": spaces.Discrete(3)})
        model = small_model(SpacesEnv(space, spaces.Discrete(2)), "MultiInputPolicy", policy_kwargs=HEADS[head])
        model.learn(64)
        assert type(model.policy.features_extractor).__name__ == "CombinedExtractor"

    @pytest.mark.parametrize("head", HEADS)
    def test_gsde(self, head: str) -> None:
        model = small_model("Pendulum-v1", use_sde=True, sde_sample_freq=8, policy_kwargs=HEADS[head]).learn(64)
        assert model.logger.name_to_value["train/std"] > 0

    @pytest.mark.parametrize("head", HEADS)
    def test_values_are_the_mean_of_the_predicted_distribution(self, head: str) -> None:
        model = small_model(policy_kwargs=HEADS[head]).learn(128)
        obs = th.as_tensor(np.random.default_rng(0).normal(size=(6, 4)), dtype=th.float32)
        values = model.policy.predict_values(obs)
        assert values.shape == (6, 1)
        distribution = model.policy.predict_value_distribution(obs)
        if head.startswith("categorical"):
            atoms, probabilities = distribution
            assert probabilities.shape == (6, 101)
            mean = (atoms.double() * probabilities.double()).sum(dim=1, keepdim=True).float()
        else:
            assert distribution.shape == (6, 32 if head == "quantile" else 1)
            mean = distribution.mean(dim=1, keepdim=True)
        # symexp atoms reach 4.85e8: float32 probabilities of 1e-9 there are worth tenths
        tolerance = 0.05 if head == "categorical" else 1e-5
        assert th.allclose(values, mean, atol=tolerance, rtol=1e-4)

    def test_policy_saves_and_loads_on_its_own(self, tmp_path: Path) -> None:
        policy_kwargs = {"n_quantiles": 7, "share_features_extractor": False}
        model = small_model(policy_kwargs=policy_kwargs)
        model.policy.save(str(tmp_path / "policy.pth"))
        loaded = type(model.policy).load(str(tmp_path / "policy.pth"))
        obs = th.ones(2, 4)
        assert th.equal(loaded.predict_value_distribution(obs), model.policy.predict_value_distribution(obs))


class TestUpdate:
    def test_order_before_clip(self) -> None:
        assert self._order("before_clip") == ["observe", "scale", "clip", "optimizer", "vgs.step"]

    def test_order_after_clip(self) -> None:
        assert self._order("after_clip") == ["observe", "clip", "scale", "optimizer", "vgs.step"]

    @staticmethod
    def _order(placement: str) -> list[str]:
        """The calls of one update, recorded around the real ones."""
        model = small_model(n_steps=32, n_epochs=1, vgs_placement=placement)
        vgs = model.vgs
        assert vgs is not None
        calls: list[str] = []

        def recorded(name: str, function: Any) -> Any:
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                calls.append(name)
                return function(*args, **kwargs)

            return wrapper

        with pytest.MonkeyPatch.context() as patch:
            for method in ("observe", "scale"):
                patch.setattr(vgs, method, recorded(method, getattr(vgs, method)))
            patch.setattr(vgs, "step", recorded("vgs.step", vgs.step))
            patch.setattr(Gradients, "clip_", recorded("clip", Gradients.clip_))
            patch.setattr(model.policy.optimizer, "step", recorded("optimizer", model.policy.optimizer.step))
            model.learn(32)
        return calls

    @pytest.mark.parametrize("placement", ["before_clip", "after_clip"])
    def test_statistics_are_of_the_raw_gradient(self, placement: str) -> None:
        """A clip that always bites must not be seen by the scaler."""
        norms = {}
        for max_grad_norm in (1e-3, 1e3):
            model = small_model(n_epochs=1, n_steps=32, max_grad_norm=max_grad_norm, vgs_placement=placement).learn(32)
            assert model.vgs is not None
            norms[max_grad_norm] = model.vgs.state_dict()["grad_norm_ema"]
        assert norms[1e-3] == norms[1e3] > 1e-2

    def test_alpha_scales_the_update_down_with_sgd(self) -> None:
        """With a factor near zero after warm-up, plain SGD hardly moves."""
        ratios = []
        for alpha in (0.0, 1e6):
            model = small_model(
                policy_kwargs={"optimizer_class": th.optim.SGD},
                vgs_kwargs={"alpha": alpha, "warmup_steps": 4},
                max_grad_norm=1e9,
            )
            model.learn(128)
            ratios.append(model.logger.name_to_value["vgs/update_ratio"])
        assert ratios[1] < 0.01 * ratios[0]

    @pytest.mark.parametrize("version", VERSIONS)
    @pytest.mark.parametrize("optimizer_class", [th.optim.Adam, th.optim.AdamW, UPGD, AdaptiveUPGD])
    def test_every_version_with_every_optimizer(self, version: str | None, optimizer_class: Any) -> None:
        model = small_model(vgs_version=version, policy_kwargs={"optimizer_class": optimizer_class}).learn(128)
        assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())
        assert (model.vgs is None) == (version is None)

    @pytest.mark.parametrize("granularity", ["element", "tensor", "global"])
    @pytest.mark.parametrize("optimizer_class", [th.optim.Adam, AdaptiveUPGD])
    def test_updates_are_scaled_where_the_optimizer_cancels_a_factor(
        self, granularity: str, optimizer_class: Any, tmp_path: Path
    ) -> None:
        """A factor of 0.01 shortens updates as much; α = 0 changes no bit; and a loaded agent does the same."""
        ratios, parameters = [], []
        for alpha, apply_to in ((0.0, "gradient"), (0.0, "update"), (1e6, "update")):
            options = {"alpha": alpha, "granularity": granularity, "apply_to": apply_to, "min_scaling_factor": 0.01}
            model = small_model(
                vgs_version="4.0",
                vgs_kwargs={**options, "warmup_steps": 2},
                policy_kwargs={"optimizer_class": optimizer_class},
            ).learn(128)
            ratios.append(model.logger.name_to_value["vgs/update_ratio"])
            parameters.append(th.nn.utils.parameters_to_vector(model.policy.parameters()).detach())
        assert th.equal(parameters[0], parameters[1])
        assert ratios[2] < 0.2 * ratios[1]  # a few weights have no noise, and go all the way
        model.save(tmp_path / "model.zip")
        loaded = DistributionalPPO.load(tmp_path / "model.zip", device="cpu")
        assert loaded.vgs is not None
        state, expected = loaded.vgs.state_dict(), model.vgs.state_dict()
        assert (state["granularity"], state["apply_to"], state["alpha"]) == (granularity, "update", 1e6)
        assert th.equal(state["element_grad_var_ema"], expected["element_grad_var_ema"])

    def test_logged_keys(self) -> None:
        model = small_model().learn(128)
        logged = model.logger.name_to_value
        vgs = "scaling_factor normalized_variance variance_p10 variance_p50 variance_p90 grad_norm_raw grad_norm_scaled"
        vgs += " clip_fraction update_ratio warmup_active nonfinite step_count"
        expected = {"train/value_std", "train/quantile_crossing", "train/grad_norm", "train/skipped_updates"}
        expected |= {f"vgs/{key}" for key in vgs.split()}
        assert expected <= set(logged)
        assert all(len(key) <= 36 for key in logged)
        assert all(isinstance(value, (int, float, np.number)) for value in logged.values())
        assert logged["vgs/step_count"] == 2 * 2 * 2
        assert 0.0 <= logged["vgs/clip_fraction"] <= 1.0

    def test_update_ratio_is_that_of_the_parameters(self) -> None:
        model = small_model()
        before = th.nn.utils.parameters_to_vector(model.policy.parameters()).detach().clone()
        model.learn(64)
        after = th.nn.utils.parameters_to_vector(model.policy.parameters()).detach()
        expected = float((after - before).norm() / before.norm())
        assert model.logger.name_to_value["vgs/update_ratio"] == pytest.approx(expected, rel=1e-5)


class RewardEnv(SpacesEnv):
    """Rewards that turn to NaN for a while."""

    def __init__(self, bad_steps: range) -> None:
        super().__init__(BOX, spaces.Discrete(2))
        self._total, self._bad_steps = 0, bad_steps

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = super().step(action)
        self._total += 1
        return obs, (float("nan") if self._total in self._bad_steps else reward), terminated, truncated, info


class TestDivergence:
    def test_training_stops_and_names_the_cause(self) -> None:
        model = small_model(RewardEnv(range(65, 10**9)), max_nonfinite_updates=3)
        model.learn(64)
        before = copy.deepcopy(model.policy.state_dict())
        with pytest.raises(TrainingDiverged, match=r"3 updates in a row.*non-finite rewards") as caught:
            model.learn(64, reset_num_timesteps=False)
        assert caught.value.n_updates == 3
        assert caught.value.rollout == ("rewards",)
        assert "value_net.weight" in caught.value.tensors
        assert all(th.equal(before[name], tensor) for name, tensor in model.policy.state_dict().items())

    @pytest.mark.parametrize("value", [float("nan"), 1e38])
    def test_only_the_tensor_at_fault_is_named(self, value: float) -> None:
        """NaN in one element, and finite elements whose norm overflows."""
        model = small_model(max_nonfinite_updates=2)
        model.policy.action_net.weight.register_hook(lambda gradient: gradient.index_fill(1, th.tensor([0, 1]), value))
        with pytest.raises(TrainingDiverged) as caught:
            model.learn(64)
        assert caught.value.tensors == ("action_net.weight",)
        assert caught.value.rollout == ()

    def test_a_short_bad_spell_is_skipped_and_counted(self) -> None:
        model = small_model(RewardEnv(range(1, 65)), max_nonfinite_updates=100)
        model.learn(64)
        assert model.logger.name_to_value["train/skipped_updates"] == 4
        assert model.logger.name_to_value["vgs/nonfinite"] > 0
        assert model.vgs is not None
        assert model.vgs.state_dict()["step_count"] == 0
        model.learn(64, reset_num_timesteps=False)
        assert model.logger.name_to_value["train/skipped_updates"] == 0
        assert model.vgs.state_dict()["step_count"] == 4

    def test_the_count_starts_again_after_a_good_update(self) -> None:
        model = small_model(RewardEnv(range(1, 65)), max_nonfinite_updates=5)
        model.learn(64)  # 4 skipped
        model.learn(64, reset_num_timesteps=False)  # good ones
        assert model._nonfinite_in_a_row == 0


class TestSaveAndLoad:
    @pytest.mark.parametrize("head", HEADS)
    @pytest.mark.parametrize("version", VERSIONS)
    def test_round_trip_continues_alike(self, head: str, version: str | None, tmp_path: Path) -> None:
        model = small_model(policy_kwargs=HEADS[head], vgs_version=version).learn(128)
        model.save(tmp_path / "model")
        loaded = DistributionalPPO.load(tmp_path / "model.zip", env=make_vec_env("CartPole-v1", seed=11))
        assert_equal_nested(loaded.get_parameters(), model.get_parameters())
        model.set_env(make_vec_env("CartPole-v1", seed=11))
        for agent in (model, loaded):
            agent.set_random_seed(5)
            agent.learn(64, reset_num_timesteps=False)
        assert_equal_nested(loaded.get_parameters(), model.get_parameters())

    def test_scaler_holds_the_policys_own_tensors_after_load(self, tmp_path: Path) -> None:
        small_model().save(tmp_path / "model.zip")
        loaded = DistributionalPPO.load(tmp_path / "model.zip")
        assert loaded.vgs is not None
        theirs = list(loaded.policy.parameters())
        assert len(loaded.vgs.parameters) == len(theirs)
        assert all(ours is parameter for ours, parameter in zip(loaded.vgs.parameters, theirs, strict=True))
        optimized = loaded.policy.optimizer.param_groups[0]["params"]
        assert all(ours is parameter for ours, parameter in zip(optimized, theirs, strict=True))

    def test_the_next_factor_of_an_update_is_known_after_load(self, tmp_path: Path) -> None:
        options = {"apply_to": "update", "warmup_steps": 0, "alpha": 1.0}
        model = small_model(vgs_version="4.0", vgs_kwargs=options).learn(64)
        model.save(tmp_path / "model.zip")
        loaded = DistributionalPPO.load(tmp_path / "model.zip")
        assert model.vgs is not None
        assert loaded.vgs is not None
        assert loaded.vgs.get_scaling_factor() == model.vgs.get_scaling_factor() < 1.0

    def test_parameters_carry_policy_optimizer_and_vgs(self) -> None:
        assert set(small_model().get_parameters()) == {"policy", "policy.optimizer", "vgs"}
        assert set(small_model(vgs_version=None).get_parameters()) == {"policy", "policy.optimizer"}

    def test_loading_under_the_fixed_version_warns_once(self, tmp_path: Path) -> None:
        small_model(vgs_version="2.0").learn(64).save(tmp_path / "legacy.zip")
        with pytest.warns(VGSMigrationWarning, match="CRITICAL FIX") as caught:
            loaded = DistributionalPPO.load(tmp_path / "legacy.zip", vgs_version="3.0")
        assert len([w for w in caught if w.category is VGSMigrationWarning]) == 1
        assert loaded.vgs is not None
        assert loaded.vgs.state_dict()["step_count"] == 0

    @pytest.mark.parametrize(("saved", "loaded_as"), [("3.0", None), (None, "3.0")])
    def test_vgs_can_be_switched_when_loading(self, saved: str | None, loaded_as: str | None, tmp_path: Path) -> None:
        model = small_model(vgs_version=saved).learn(64)
        model.save(tmp_path / "model.zip")
        loaded = DistributionalPPO.load(tmp_path / "model.zip", vgs_version=loaded_as)
        assert (loaded.vgs is None) == (loaded_as is None)
        assert_equal_nested(loaded.get_parameters()["policy"], model.get_parameters()["policy"])

    def test_file_describes_the_model_without_pickle(self, tmp_path: Path) -> None:
        env = VecNormalize(make_vec_env("Pendulum-v1", n_envs=2))
        model = small_model(env, gamma=0.9, vgs_version="3.1", policy_kwargs={"n_quantiles": 5}).learn(128)
        model.save(tmp_path / "model")
        checkpoint = read_checkpoint(tmp_path / "model.zip")
        arguments = checkpoint.decode("arguments")
        assert set(arguments) == set(inspect.signature(DistributionalPPO).parameters) - {
            "policy",
            "env",
            "policy_kwargs",
            "_init_setup_model",
        }
        assert (arguments["gamma"], arguments["vgs_version"], arguments["n_steps"]) == (0.9, "3.1", 64)
        assert checkpoint.decode("policy_kwargs") == {"n_quantiles": 5}
        assert checkpoint.space("observation_space") == model.observation_space
        assert_equal_nested(checkpoint.state_dict("vgs"), model.get_parameters()["vgs"])
        summary = inspect_checkpoint(tmp_path / "model.zip")
        assert (summary.num_timesteps, summary.value_head) == (128, "quantile")
        fresh = VecNormalize(make_vec_env("Pendulum-v1", n_envs=2))
        load_vec_normalize_state(fresh, checkpoint.tensors(VEC_NORMALIZE), "model.zip")
        assert np.array_equal(fresh.obs_rms.mean, env.obs_rms.mean)

    def test_a_failed_save_keeps_the_old_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        model = small_model()
        model.save(tmp_path / "model.zip")
        before = (tmp_path / "model.zip").read_bytes()
        model.learn(64)

        def disk_full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", disk_full)
        with pytest.raises(OSError, match="No space left"):
            model.save(tmp_path / "model.zip")
        assert (tmp_path / "model.zip").read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == ["model.zip"]

    def test_a_setting_of_none_stands_for_the_default(self, tmp_path: Path) -> None:
        small_model(vgs_version="4.0", vgs_kwargs={"granularity": None}).save(tmp_path / "model.zip")
        loaded = DistributionalPPO.load(tmp_path / "model.zip")
        assert loaded.vgs is not None
        assert loaded.vgs.state_dict()["granularity"] == "tensor"

    def test_arguments_of_load_win_over_the_file(self, tmp_path: Path) -> None:
        small_model(vgs_kwargs={"alpha": 0.2, "beta": 0.9}).learn(64).save(tmp_path / "model.zip")
        loaded = DistributionalPPO.load(tmp_path / "model.zip", vgs_kwargs={"alpha": 0.7})
        assert loaded.vgs is not None
        assert (loaded.vgs.settings.alpha, loaded.vgs.settings.beta) == (0.7, 0.9)
        assert DistributionalPPO.load(tmp_path / "model.zip", vgs_version=None).vgs is None

    def test_a_partial_set_parameters_leaves_the_scaler_alone(self) -> None:
        model = small_model().learn(64)
        assert model.vgs is not None
        before = model.vgs.state_dict()
        model.set_parameters({"policy": model.policy.state_dict()}, exact_match=False)
        assert before["step_count"] == 4
        assert_equal_nested(model.vgs.state_dict(), before)

    def test_set_parameters_refuses_unknown_names(self) -> None:
        model = small_model()
        parameters = {**model.get_parameters(), "critic": {}}
        with pytest.raises(ValueError, match="critic"):
            model.set_parameters(parameters)


class TestSb3Habits:
    def test_vec_normalize_evaluate_policy_set_env_and_callback(self) -> None:
        env = VecNormalize(make_vec_env("Pendulum-v1", n_envs=2, seed=1))
        steps = []

        def count(locals_: dict[str, Any], _: dict[str, Any]) -> bool:
            steps.append(locals_["self"].num_timesteps)
            return True

        model = small_model(env).learn(256, callback=count)
        assert steps == list(range(2, 257, 2))
        mean, deviation = evaluate_policy(model, make_vec_env("Pendulum-v1", seed=2), n_eval_episodes=2)
        assert -2000 < mean < 0 <= deviation
        model.set_env(DummyVecEnv([lambda: gym.make("Pendulum-v1")] * 2))
        model.learn(128, reset_num_timesteps=False)
        assert model.num_timesteps == 256 + 128

    def test_learn_with_progress_bar(self, capsys: pytest.CaptureFixture[str]) -> None:
        small_model().learn(64, progress_bar=True)
        assert "64/64" in capsys.readouterr().out

    def test_parameter_list_is_not_cached_across_setup(self) -> None:
        model = small_model()
        model._setup_model()
        assert model.vgs is not None
        assert model.vgs.parameters[0] is next(model.policy.parameters())
