"""Whole files from every kind of source: what they give, what the report says of it, and what is refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from helpers import assert_equal_nested
from sb3_vgs_ppo import DistributionalPPO, inspect_checkpoint, load_checkpoint, migrate_checkpoint
from sb3_vgs_ppo.checkpoint import dump_tensors, load_tensors, read_archive, read_checkpoint, write_archive
from sb3_vgs_ppo.checkpoint.vec_normalize import VEC_NORMALIZE
from sb3_vgs_ppo.errors import CheckpointError, UserInputError, VGSMigrationWarning
from sb3_vgs_ppo.optim import AdaptiveUPGD
from sb3_vgs_ppo.scaling import VarianceGradientScaler

GOLDEN = Path(__file__).parents[1] / "fixtures" / "legacy"
CHECKPOINTS = {
    "vgs_1_0_scalar": "1.0",
    "vgs_2_0_quantile": "2.0",
    "vgs_3_0_categorical": "3.0",
    "vgs_3_1_quantile": "3.1",
}
STATES = {"state_vgs_1_0": "1.0", "state_vgs_2_0": "2.0", "state_vgs_3_0": "3.0", "state_vgs_3_1": "3.1"}
SMALL: dict[str, Any] = {"n_steps": 32, "batch_size": 16, "n_epochs": 2, "seed": 3, "device": "cpu"}

Golden = Callable[[str], dict[str, Any]]
Rewrite = Callable[[Path, dict[str, bytes]], None]


def expect_warning(from_version: str, to_version: str) -> Any:
    """One warning where the measure changes (a warning that nobody expects is an error, see pyproject.toml)."""
    if from_version == to_version:
        return pytest.MonkeyPatch.context()
    spatial = from_version in ("1.0", "2.0")
    critical = "CRITICAL FIX" if spatial and to_version in ("3.0", "3.1", "4.0") else "of version"
    return pytest.warns(VGSMigrationWarning, match=critical)


class TestCheckpoints:
    @pytest.mark.parametrize("to_version", ["1.0", "2.0", "3.0", "3.1", "4.0"])
    @pytest.mark.parametrize("name", CHECKPOINTS)
    def test_policy_and_optimizer_are_bit_identical(
        self, name: str, to_version: str, golden: Golden, tmp_path: Path
    ) -> None:
        source, before = GOLDEN / f"{name}.zip", (GOLDEN / f"{name}.zip").read_bytes()
        with expect_warning(CHECKPOINTS[name], to_version) as caught:
            report = migrate_checkpoint(source, tmp_path / "new", to_version=to_version)
        assert (report.kind, report.from_version, report.to_version) == ("checkpoint", CHECKPOINTS[name], to_version)
        assert source.read_bytes() == before
        new, expected = read_checkpoint(tmp_path / "new.zip"), golden(name)
        for part in ("policy", "policy.optimizer"):
            assert_equal_nested(new.state_dict(part), expected[part], part)
        old_arguments = read_checkpoint(source).manifest.arguments
        # With the defaults that old agents had
        later_arguments = {"risk_measure": "mean", "value_target": "sample", "compile": False}
        assert new.manifest.arguments == {**later_arguments, **old_arguments, "vgs_version": to_version}
        self.check_scaler(new.state_dict("vgs"), expected["vgs"], CHECKPOINTS[name], to_version)
        if CHECKPOINTS[name] != to_version:
            assert len([w for w in caught if w.category is VGSMigrationWarning]) == 1
        model = load_checkpoint(tmp_path / "new.zip", "CartPole-v1")
        with th.no_grad():
            logits = model.policy.get_distribution(expected["observations"]).distribution.logits
            values = model.policy.predict_values(expected["observations"])
        assert th.allclose(logits, expected["logits"], atol=1e-5)
        assert th.allclose(values, expected["values"], rtol=1e-4, atol=1e-4)
        assert model.learn(64, reset_num_timesteps=False).num_timesteps > expected["num_timesteps"]

    @staticmethod
    def check_scaler(new: dict[str, Any], old: dict[str, Any], from_version: str, to_version: str) -> None:
        assert new["vgs_version"] == to_version
        settings = ("enabled", "beta", "alpha", "eps", "warmup_steps", "min_scaling_factor", "variance_cap")
        for key in (*settings, "grad_mean_ema", "grad_var_ema", "grad_norm_ema", "grad_max_ema"):
            assert new[key] == old[key], key
        if from_version == to_version:
            assert new["step_count"] == old["step_count"] == 60
            for key in old.keys() & {"param_grad_mean_ema", "param_grad_sq_ema"}:
                assert th.equal(new[key], old[key])
        else:
            assert new["step_count"] == 0
            assert to_version == "1.0" or not new["param_ema_weight"].any()

    def test_sb3_and_load_read_the_result(self, tmp_path: Path) -> None:
        with pytest.warns(VGSMigrationWarning):
            migrate_checkpoint(GOLDEN / "vgs_2_0_quantile.zip", tmp_path / "new.zip")
        loaded = DistributionalPPO.load(tmp_path / "new.zip")
        assert_equal_nested(loaded.get_parameters(), load_checkpoint(tmp_path / "new.zip").get_parameters())

    def test_the_report_says_what_happened(self, tmp_path: Path) -> None:
        with pytest.warns(VGSMigrationWarning):
            report = migrate_checkpoint(GOLDEN / "vgs_2_0_quantile.zip", tmp_path / "new.zip").to_dict()
        assert report["kept"][0] == "policy: 8 of 8 tensors, bit for bit"
        assert report["kept"][1] == "optimizer AdaptiveUPGD: state of 8 of 8 tensors, bit for bit"
        assert "learning_rate" in report["kept"][2]
        assert report["kept"][3] == "progress: 960 environment steps, 10 updates"
        assert report["converted"] == ("VGS 2.0 to 3.0: settings and the global figures",)
        assert "VGS: statistics of 60 observations, and its warm-up" in report["reset"]
        assert any(note.startswith("retrain") for note in report["todo"])
        assert (report["source"], report["target"]) == (
            str(GOLDEN / "vgs_2_0_quantile.zip"),
            str(tmp_path / "new.zip"),
        )
        json.dumps(report)

    def test_vgs_stays_off(self, tmp_path: Path) -> None:
        DistributionalPPO("MlpPolicy", "CartPole-v1", vgs_version=None, **SMALL).save(tmp_path / "old")
        report = migrate_checkpoint(tmp_path / "old.zip", tmp_path / "new.zip")
        assert "VGS: off" in report.kept
        assert load_checkpoint(tmp_path / "new.zip").vgs is None

    def test_normalization_travels_along_and_unknown_members_do_not(self, rewrite: Rewrite, tmp_path: Path) -> None:
        env = VecNormalize(make_vec_env("Pendulum-v1", n_envs=2))
        DistributionalPPO("MlpPolicy", env, **SMALL).learn(64).save(tmp_path / "old")
        content = dict(read_archive(tmp_path / "old.zip").members)
        rewrite(tmp_path / "old.zip", {**content, "notes.json": b"{}", "env.pkl": pickle.dumps(3)})
        report = migrate_checkpoint(tmp_path / "old.zip", tmp_path / "new.zip")
        assert "member env.pkl: left out, neither tensors nor JSON" in report.reset
        new = read_archive(tmp_path / "new.zip").members
        assert (new[VEC_NORMALIZE], new["notes.json"]) == (content[VEC_NORMALIZE], b"{}")
        fresh = VecNormalize(make_vec_env("Pendulum-v1", n_envs=2))
        load_checkpoint(tmp_path / "new.zip", fresh)
        assert np.array_equal(fresh.obs_rms.mean, env.obs_rms.mean)

    def test_a_function_is_refused_or_trusted(self, tmp_path: Path) -> None:
        model = DistributionalPPO("MlpPolicy", "CartPole-v1", learning_rate=lambda left: 1e-2 * left, **SMALL)
        model.save(tmp_path / "old")
        with pytest.raises(CheckpointError, match=r"arguments\.learning_rate: <function"):
            migrate_checkpoint(tmp_path / "old.zip", tmp_path / "new.zip")
        assert not (tmp_path / "new.zip").exists()
        migrate_checkpoint(tmp_path / "old.zip", tmp_path / "new.zip", trust_pickle=True)
        assert load_checkpoint(tmp_path / "new.zip", trust_pickle=True).lr_schedule(0.5) == 5e-3


class TestWithoutManifest:
    def test_a_legacy_zip_becomes_a_checkpoint(self, golden: Golden, tmp_path: Path) -> None:
        source, expected = GOLDEN / "no_manifest_2_0.zip", golden("no_manifest_2_0")
        with pytest.warns(VGSMigrationWarning, match="CRITICAL FIX"):
            report = migrate_checkpoint(source, tmp_path / "new.zip", env_id="CartPole-v1")
        assert (report.kind, report.from_version, report.to_version) == ("sb3-with-vgs", "2.0", "3.0")
        new = read_checkpoint(tmp_path / "new.zip")
        for part in ("policy", "policy.optimizer"):
            assert_equal_nested(new.state_dict(part), expected[part], part)
        assert new.state_dict("vgs")["alpha"] == 0.5
        assert new.manifest.policy_kwargs == {"net_arch": [8], "n_quantiles": 5}
        assert inspect_checkpoint(tmp_path / "new.zip").value_head == "quantile"

    def test_the_state_of_a_scaler_beside_sb3s_own_policy(self, golden: Golden, tmp_path: Path) -> None:
        content = dict(read_archive(GOLDEN / "sb3_ppo.zip").members)
        state = (GOLDEN / "state_vgs_1_0.pt").read_bytes()
        write_archive(tmp_path / "old.zip", {**content, "vgs.pth": state})
        report = migrate_checkpoint(tmp_path / "old.zip", tmp_path / "new.zip", to_version="1.0", env_id="CartPole-v1")
        assert (report.kind, report.from_version) == ("sb3-with-vgs", "1.0")
        new = read_checkpoint(tmp_path / "new.zip")
        assert_equal_nested(new.state_dict("policy"), golden("sb3_ppo")["policy"])
        assert new.state_dict("vgs")["grad_var_ema"] == golden("vgs_1_0_scalar")["vgs"]["grad_var_ema"]
        assert new.state_dict("vgs")["step_count"] == 60

    @pytest.mark.parametrize("name", ["no_manifest_2_0", "sb3_ppo"])
    def test_without_environment_it_says_what_to_do(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=rf"{name}\.zip: manifest\.json: missing.*--env-id.*--trust-pickle"):
            migrate_checkpoint(GOLDEN / f"{name}.zip", tmp_path / "new.zip")
        assert list(tmp_path.iterdir()) == []

    def test_trusted_it_needs_no_environment(self, golden: Golden, tmp_path: Path) -> None:
        migrate_checkpoint(GOLDEN / "sb3_ppo.zip", tmp_path / "new.zip", trust_pickle=True)
        assert_equal_nested(read_checkpoint(tmp_path / "new.zip").state_dict("policy"), golden("sb3_ppo")["policy"])


class TestBareStates:
    @pytest.mark.parametrize("to_version", ["1.0", "2.0", "3.0", "3.1", "4.0"])
    @pytest.mark.parametrize("name", STATES)
    def test_they_become_bare_states(self, name: str, to_version: str, golden: Golden, tmp_path: Path) -> None:
        source, target = GOLDEN / f"{name}.pt", tmp_path / "new.pth"
        with expect_warning(STATES[name], to_version):
            report = migrate_checkpoint(source, target, to_version=to_version)
        assert report.kind == "vgs-state"
        new = load_tensors(target.read_bytes(), "new.pth", "new.pth")
        model = next(model for model, version in CHECKPOINTS.items() if version == STATES[name])
        old = golden(model)["vgs"]
        assert new["vgs_version"] == to_version
        assert (new["beta"], new["grad_norm_ema"]) == (old["beta"], old["grad_norm_ema"])
        assert new["step_count"] == (60 if STATES[name] == to_version else 0)
        parameters = [th.zeros(tensor.shape) for tensor in golden(model)["policy"].values()]
        scaler = VarianceGradientScaler(parameters, version=to_version)
        scaler.load_state_dict(new)  # without a warning
        assert scaler.state_dict()["step_count"] == new["step_count"]

    @pytest.mark.parametrize("argument", ["env_id", "value_head", "optimizer"])
    def test_what_has_no_meaning_is_refused(self, argument: str, tmp_path: Path) -> None:
        with pytest.raises(UserInputError, match=f"{argument}='x' has no meaning for .*state_vgs_3_0"):
            migrate_checkpoint(GOLDEN / "state_vgs_3_0.pt", tmp_path / "new.pt", **{argument: "x"})

    def test_another_state_dict_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "weights.pt").write_bytes(dump_tensors({"weight": th.zeros(2)}))
        with pytest.raises(CheckpointError, match=r"weights\.pt: VGS state: not a VGS state"):
            migrate_checkpoint(tmp_path / "weights.pt", tmp_path / "new.pt")


class TestPlainSb3:
    @pytest.mark.parametrize("head", [None, "scalar", "quantile"])
    @pytest.mark.parametrize("name", ["mlp", "gsde", "gaussian", "cnn", "dict"])
    def test_actions_stay_and_the_mean_is_the_old_value(
        self, name: str, head: Any, plain: dict[str, Any], tmp_path: Path
    ) -> None:
        agent = plain[name]
        migrate_checkpoint(agent.path, tmp_path / "new", env_id=agent.env_id, value_head=head)
        new, obs = load_checkpoint(tmp_path / "new.zip"), agent.observations()
        with th.no_grad():
            old_policy, policy = agent.model.policy, new.policy
            actions = old_policy.get_distribution(obs).mode()
            assert th.equal(policy.get_distribution(obs).mode(), actions)
            log_probs = [
                p.get_distribution(obs).log_prob(actions + 1 * (name == "gaussian")) for p in (old_policy, policy)
            ]
            assert th.equal(*log_probs)
            old_values, values = old_policy.predict_values(obs), policy.predict_values(obs)
        assert values.shape == (8, 1)
        assert old_values.std() > 1e-3  # different observations, so that a constant would not pass
        if head == "quantile":
            assert policy.predict_value_distribution(obs).shape == (8, 32)
            assert th.allclose(values, old_values, rtol=1e-6, atol=1e-6)
        else:
            assert th.equal(values, old_values)

    def test_the_optimizer_goes_on_exactly(self, plain: dict[str, Any], tmp_path: Path) -> None:
        agent = plain["gaussian"]
        migrate_checkpoint(agent.path, tmp_path / "new", env_id=agent.env_id)
        models = [
            load_checkpoint(
                tmp_path / "new.zip", overrides={"vgs_version": None}, env=make_vec_env("Pendulum-v1", seed=4)
            ),
            PPO.load(agent.path, env=make_vec_env("Pendulum-v1", seed=4)),
        ]
        for model in models:
            model.set_random_seed(5)
            model.learn(64, reset_num_timesteps=False)
        assert_equal_nested(models[0].get_parameters(), models[1].get_parameters())

    def test_the_state_of_the_new_head_starts_afresh(self, plain: dict[str, Any], tmp_path: Path) -> None:
        agent = plain["mlp"]
        report = migrate_checkpoint(agent.path, tmp_path / "new", env_id=agent.env_id, value_head="quantile")
        new, old = load_checkpoint(tmp_path / "new.zip"), agent.model.policy.optimizer.state_dict()["state"]
        state = new.policy.optimizer.state_dict()["state"]
        assert state.keys() == set(range(6))  # of 8 tensors
        assert_equal_nested(state, {key: old[key] for key in range(6)})
        assert "optimizer Adam: state of 6 of 8 tensors, bit for bit" in report.kept
        assert "policy: 6 of 8 tensors, bit for bit (not value_net.weight, value_net.bias)" in report.kept
        assert any("same mean" in note for note in report.converted)
        assert new.vgs is not None
        assert (new.vgs.version, new.vgs.state_dict()["step_count"]) == ("3.0", 0)

    def test_adaptive_upgd_takes_over_adams_moments(self, plain: dict[str, Any], tmp_path: Path) -> None:
        agent = plain["mlp"]
        report = migrate_checkpoint(agent.path, tmp_path / "new", env_id=agent.env_id, optimizer="adaptive-upgd")
        model = load_checkpoint(tmp_path / "new.zip", "CartPole-v1")
        assert type(model.policy.optimizer) is AdaptiveUPGD
        old = agent.model.policy.optimizer.state_dict()
        new = model.policy.optimizer.state_dict()
        for key, entry in old["state"].items():
            assert th.equal(new["state"][key]["exp_avg"], entry["exp_avg"])
            assert th.equal(new["state"][key]["exp_avg_sq"], entry["exp_avg_sq"])
            assert new["state"][key]["step"] == entry["step"] > 0
            assert not new["state"][key]["avg_utility"].any()
        assert {name: new["param_groups"][0][name] for name in ("lr", "betas", "eps")} == {
            name: old["param_groups"][0][name] for name in ("lr", "betas", "eps")
        }
        assert "optimizer: Adam to AdaptiveUPGD, with its moments" in report.converted
        assert any("average utility" in note for note in report.reset)
        model.learn(64, reset_num_timesteps=False)

    def test_a_weight_decay_that_ends_is_named(self, tmp_path: Path) -> None:
        kwargs = {"optimizer_class": th.optim.AdamW, "optimizer_kwargs": {"weight_decay": 0.03}}
        PPO("MlpPolicy", "CartPole-v1", policy_kwargs=kwargs, **SMALL).save(tmp_path / "old")
        report = migrate_checkpoint(tmp_path / "old.zip", tmp_path / "a", env_id="CartPole-v1", optimizer="adam")
        assert "weight decay: 0.03 of AdamW, 0.0 from now on" in report.reset
        assert load_checkpoint(tmp_path / "a.zip").policy.optimizer.param_groups[0]["weight_decay"] == 0.0
        report = migrate_checkpoint(tmp_path / "a.zip", tmp_path / "b", optimizer="adaptive-upgd")
        assert not any("weight decay" in note for note in report.reset)

    def test_hyperparameters_come_along(self, plain: dict[str, Any], tmp_path: Path) -> None:
        agent = plain["mlp"]
        migrate_checkpoint(agent.path, tmp_path / "new", env_id=agent.env_id)
        new, old = load_checkpoint(tmp_path / "new.zip"), agent.model
        names = (
            "n_steps batch_size n_epochs gamma gae_lambda ent_coef vf_coef max_grad_norm seed num_timesteps _n_updates"
        )
        for name in [*names.split(), "n_envs", "observation_space", "action_space"]:
            assert getattr(new, name) == getattr(old, name), name
        assert [new.clip_range(p) for p in (1.0, 0.5)] == [old.clip_range(p) for p in (1.0, 0.5)] == [0.3, 0.2]

    def test_clipping_of_values_ends_with_a_quantile_head(self, plain: dict[str, Any], tmp_path: Path) -> None:
        agent = plain["gaussian"]
        report = migrate_checkpoint(agent.path, tmp_path / "new", env_id=agent.env_id, value_head="quantile")
        assert "clip_range_vf: None, a quantile head has none" in report.reset
        assert not any("clip_range_vf" in note for note in report.kept)
        assert load_checkpoint(tmp_path / "new.zip").clip_range_vf is None

    @pytest.mark.parametrize(
        ("last", "guess"), [(0.005, "0.005, the optimizer's last, as a constant"), (0.0, "0.0003, the default")]
    )
    def test_what_only_pickle_tells_is_guessed_and_listed(self, last: float, guess: str, tmp_path: Path) -> None:
        model = PPO("MlpPolicy", "CartPole-v1", learning_rate=lambda left: last + 1e-2 * left, clip_range=abs, **SMALL)
        model.learn(64).save(tmp_path / "old")
        report = migrate_checkpoint(tmp_path / "old.zip", tmp_path / "new.zip", env_id="CartPole-v1")
        assert {note.partition(";")[0] for note in report.reset} >= {
            f"learning_rate: {guess}",
            "clip_range: 0.2, the default",
        }
        assert load_checkpoint(tmp_path / "new.zip").learning_rate == (last or 3e-4)
        assert any("VecNormalize" in note for note in report.todo)

    def test_back_to_a_scalar_head(self, plain: dict[str, Any], tmp_path: Path) -> None:
        agent = plain["dict"]
        migrate_checkpoint(agent.path, tmp_path / "new", env_id=agent.env_id, value_head="quantile")
        load_checkpoint(tmp_path / "new.zip", make_vec_env(agent.env_id)).learn(64).save(tmp_path / "trained")
        report = migrate_checkpoint(tmp_path / "trained.zip", tmp_path / "back", value_head="scalar", optimizer="adam")
        trained, back = load_checkpoint(tmp_path / "trained.zip"), load_checkpoint(tmp_path / "back.zip")
        with th.no_grad():
            values = [model.policy.predict_values(agent.observations()) for model in (trained, back)]
        assert th.allclose(*values, rtol=1e-5, atol=1e-5)
        assert back.policy.value_net.weight.shape[0] == 1
        assert back.vgs is not None
        assert back.vgs.state_dict()["step_count"] == 0
        assert "VGS: statistics, which were of the old head too" in report.reset
