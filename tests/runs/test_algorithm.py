from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch as th
from stable_baselines3.common.env_util import make_vec_env

from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.optim import UPGD, AdaptiveUPGD
from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.runs.algorithm import ACTIVATIONS, OPTIMIZERS, build_model, gamma_of, resolve
from sb3_vgs_ppo.runs.config import TrainConfig

SMALL = {"n_steps": 8, "batch_size": 8}


def configure(**algo_kwargs: Any) -> TrainConfig:
    return TrainConfig(n_envs=1, algo_kwargs={**SMALL, **algo_kwargs})


@pytest.mark.parametrize(
    ("n_envs", "batch_size", "n_steps"),
    [
        (1, 64, 2048),
        (8, 64, 256),
        (3, 64, 640),  # 682 would leave a minibatch of 62
        (8, 1000, 250),
        (4096, 64, 1),
        (8, 4096, 512),  # the smallest rollout that fills a minibatch
    ],
)
def test_rollouts_are_near_2048_steps_in_whole_minibatches(n_envs: int, batch_size: int, n_steps: int) -> None:
    config = resolve(TrainConfig(n_envs=n_envs, algo_kwargs={"batch_size": batch_size}))
    assert config.algo_kwargs == {"batch_size": batch_size, "n_steps": n_steps}
    assert n_steps * n_envs % batch_size == 0


def test_resolve_keeps_what_is_given_and_decides_the_device() -> None:
    config = resolve(TrainConfig(algo_kwargs={"n_steps": 77}))
    assert config.algo_kwargs["n_steps"] == 77
    assert config.device == ("cuda" if th.cuda.is_available() else "cpu")
    assert gamma_of(config) == 0.99
    assert gamma_of(configure(gamma=0.5)) == 0.5


@pytest.mark.parametrize(
    ("name", "optimizer_class"),
    [("adam", th.optim.Adam), ("adamw", th.optim.AdamW), ("upgd", UPGD), ("adaptive-upgd", AdaptiveUPGD)],
)
def test_options_reach_the_model(name: Any, optimizer_class: type[th.optim.Optimizer]) -> None:
    config = replace(
        configure(
            gamma=0.7,
            vgs_kwargs={"alpha": 0.4},
            policy_kwargs={"net_arch": [5], "activation_fn": "elu", "optimizer_kwargs": {"weight_decay": 0.02}},
        ),
        optimizer=name,
        value_head="categorical",
        vgs_version="3.1",
        risk_measure="cvar:0.5",
        value_target="distribution",
        seed=11,
    )
    model = build_model(config, make_vec_env("CartPole-v1"))
    assert type(model.policy.optimizer) is optimizer_class
    assert model.policy.optimizer.param_groups[0]["weight_decay"] == 0.02
    assert [type(layer).__name__ for layer in model.policy.mlp_extractor.policy_net] == ["Linear", "ELU"]
    assert (model.policy.value_head, model.risk_measure) == ("categorical", "cvar:0.5")
    assert model.value_target == "distribution"
    assert (model.gamma, model.seed, model.n_steps) == (0.7, 11, 8)
    assert model.vgs is not None
    assert model.vgs.version == "3.1"
    assert model.vgs.state_dict()["alpha"] == 0.4


def test_off_means_no_scaler() -> None:
    assert build_model(replace(configure(), vgs_version="off"), make_vec_env("CartPole-v1")).vgs is None


def test_the_configuration_is_not_changed_by_building() -> None:
    config = configure(policy_kwargs={"activation_fn": "relu"})
    build_model(config, make_vec_env("CartPole-v1"))
    assert config.algo_kwargs == {**SMALL, "policy_kwargs": {"activation_fn": "relu"}}


def test_names_stand_for_classes() -> None:
    assert all(issubclass(activation, th.nn.Module) for activation in ACTIVATIONS.values())
    assert all(issubclass(optimizer, th.optim.Optimizer) for optimizer in OPTIMIZERS.values())


@pytest.mark.parametrize(
    ("algo_kwargs", "message"),
    [
        ({"gama": 0.9}, r"algo_kwargs has no 'gama'; did you mean 'gamma'\?"),
        ({"net_arch": [64]}, r"algo_kwargs has no 'net_arch'; it belongs in policy_kwargs"),
        ({"alpha": 0.1}, r"algo_kwargs has no 'alpha'; it belongs in vgs_kwargs"),
        ({"policy_kwargs": {"net_arc": [64]}}, r"policy_kwargs has no 'net_arc'; did you mean 'net_arch'\?"),
        ({"policy_kwargs": {"gamma": 0.9}}, r"policy_kwargs has no 'gamma'; it belongs in algo_kwargs"),
        ({"policy_kwargs": {"value_head": "scalar"}}, r"'value_head' is an option of its own; remedy: --value-head"),
        ({"policy_kwargs": {"optimizer_class": "Adam"}}, r"'optimizer_class' is an option of its own; "),
        ({"policy_kwargs": {"features_extractor_class": "NatureCNN"}}, r"takes a Python object"),
        ({"policy_kwargs": {"optimizer_kwargs": {"lr": 1}}}, r"'lr' would be overwritten .* remedy: learning_rate"),
        ({"policy_kwargs": {"optimizer_kwargs": {"nesterov": 1}}}, r"optimizer_kwargs has no 'nesterov'; known: beta"),
        ({"policy_kwargs": [64]}, r"policy_kwargs \[64\] is not a mapping"),
        ({"policy_kwargs": {"activation_fn": "than"}}, r"activation_fn 'than'; did you mean 'tanh'\?"),
        ({"vgs_kwargs": {"alhpa": 0.1}}, r"vgs_kwargs has no 'alhpa'; did you mean 'alpha'\?"),
        ({"vgs_kwargs": {"version": "1.0"}}, r"vgs_kwargs has no 'version'"),
        ({"policy_kwargs": {"use_sde": True}}, r"policy_kwargs has no 'use_sde'; it belongs in algo_kwargs"),
        ({"seed": 3}, r"'seed' is an option of its own; remedy: --seed"),
        ({"vgs_version": "1.0"}, r"'vgs_version' is an option of its own; remedy: --vgs-version"),
        ({"risk_measure": "mean"}, r"'risk_measure' is an option of its own; remedy: --risk-measure"),
        ({"value_target": "sample"}, r"'value_target' is an option of its own; remedy: --value-target"),
        ({"tensorboard_log": "x"}, r"'tensorboard_log' is the run folder; remedy: --run-dir"),
        ({"_init_setup_model": False}, r"algo_kwargs has no '_init_setup_model'"),
        ({"batch_size": 0}, r"batch_size 0 is not a positive whole number"),
        ({"batch_size": "64"}, r"batch_size '64' is not a positive whole number"),
    ],
)
def test_arguments_that_nothing_takes(algo_kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        resolve(TrainConfig(algo_kwargs=algo_kwargs))


@pytest.mark.parametrize(
    ("algo_kwargs", "message"),
    [
        ({"batch_size": 1}, r"'batch_size': 1.*`batch_size` must be greater than 1"),  # an assertion of SB3's
        ({"n_steps": "many"}, r"'n_steps': 'many'"),
        ({"vgs_placement": "during"}, r"vgs_placement='during'; remedy: 'before_clip'"),
        ({"vgs_kwargs": {"beta": 2.0}}, r"beta"),
        ({"use_sde": True}, r"can only be used with continuous actions"),
        ({"policy_kwargs": {"optimizer_kwargs": {"sigma": -1.0}}}, r"sigma"),
    ],
)
def test_values_that_the_algorithm_refuses(algo_kwargs: dict[str, Any], message: str) -> None:
    config = configure(**algo_kwargs)
    with pytest.raises(UserInputError, match=rf"DistributionalPPO refuses CartPole-v1 with .*{message}"):
        build_model(config, make_vec_env("CartPole-v1"))


@pytest.mark.usefixtures("toy_envs")
@pytest.mark.parametrize(
    ("env_id", "policy"),
    [
        ("ToyImage-v0", "CnnPolicy"),
        ("ToyMixed-v0", "MultiInputPolicy"),
        ("ToyVector-v0", "MlpPolicy"),
        ("ToyDiscrete-v0", "MlpPolicy"),
    ],
)
def test_the_policy_fits_the_observations(env_id: str, policy: str) -> None:
    model = build_model(configure(), make_vec_env(f"toy_envs:{env_id}"))
    assert type(model.policy) is DistributionalPPO.policy_aliases[policy]


@pytest.mark.usefixtures("toy_envs")
def test_an_environment_that_ppo_cannot_act_in() -> None:
    env = make_vec_env("toy_envs:ToyUnboundedActions-v0")
    with pytest.raises(UserInputError, match="finite lower and upper bound"):
        build_model(replace(configure(), env_id="toy_envs:ToyUnboundedActions-v0"), env)


def test_gsde_can_be_chosen() -> None:
    config = resolve(replace(configure(use_sde=True, sde_sample_freq=4), env_id="Pendulum-v1"))
    model = build_model(config, make_vec_env("Pendulum-v1"))
    assert model.use_sde
    assert model.policy.use_sde
    assert model.sde_sample_freq == 4
