"""From options to a model: names become classes, and unknown arguments are refused before anything is built."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import gcd
from typing import Any

import torch as th
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from sb3_vgs_ppo._hints import did_you_mean
from sb3_vgs_ppo.change import make_change_callback
from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.optim import UPGD, AdaptiveUPGD
from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.runs.config import VGS_OFF, OptimizerName, TrainConfig
from sb3_vgs_ppo.runs.environments import policy_alias
from sb3_vgs_ppo.scaling import VarianceGradientScaler

ROLLOUT_STEPS = 2048
"""Steps of a rollout over all environments: SB3's default of 2048 is meant for one environment."""

OPTIMIZERS: dict[OptimizerName, type[th.optim.Optimizer]] = {
    "adam": th.optim.Adam,
    "adamw": th.optim.AdamW,
    "upgd": UPGD,
    "adaptive-upgd": AdaptiveUPGD,
}
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}

_NEEDS_PYTHON = "takes a Python object; remedy: build DistributionalPPO in Python"
_SET_ELSEWHERE = {
    "policy": "follows from the environment's observations",
    "env": "is an option of its own; remedy: --env-id",
    "seed": "is an option of its own; remedy: --seed",
    "device": "is an option of its own; remedy: --device",
    "verbose": "is an option of its own; remedy: --verbose",
    "tensorboard_log": "is the run folder; remedy: --run-dir",
    "vgs_version": "is an option of its own; remedy: --vgs-version",
    "risk_measure": "is an option of its own; remedy: --risk-measure",
    "value_target": "is an option of its own; remedy: --value-target",
    "compile": "is an option of its own; remedy: --compile",
    "rollout_buffer_class": _NEEDS_PYTHON,
    "rollout_buffer_kwargs": _NEEDS_PYTHON,
    "value_head": "is an option of its own; remedy: --value-head",
    "optimizer_class": "is an option of its own; remedy: --optimizer",
    "features_extractor_class": _NEEDS_PYTHON,
    "lr": "would be overwritten by the schedule; remedy: learning_rate",
}
"""Arguments that options set, or that JSON cannot express, with what to do instead."""


def resolve(config: TrainConfig) -> TrainConfig:
    """
    :return: the options with everything decided that was left open but the folder: ``n_steps`` and the device
    :raises UserInputError: an argument in ``algo_kwargs`` that nothing takes
    """
    _check_arguments(config)
    algo_kwargs = {"n_steps": _default_n_steps(config), **config.algo_kwargs}
    return replace(config, algo_kwargs=algo_kwargs, device=str(get_device(config.device)))


def gamma_of(config: TrainConfig) -> float:
    """:return: the discount that the algorithm will use"""
    return float(config.algo_kwargs.get("gamma", _default_of("gamma")))


def build_model(config: TrainConfig, env: VecEnv) -> DistributionalPPO:
    """
    :param config: resolved options
    :param env: training environment
    :raises UserInputError: the algorithm, its policy, its optimizer or a response to changes refuses an argument
    """
    algo_kwargs = dict(config.algo_kwargs)
    policy_kwargs = dict(algo_kwargs.pop("policy_kwargs", {}))
    if "activation_fn" in policy_kwargs:
        policy_kwargs["activation_fn"] = _activation(policy_kwargs["activation_fn"])
    policy_kwargs.update(value_head=config.value_head, optimizer_class=OPTIMIZERS[config.optimizer])
    try:
        model = DistributionalPPO(
            policy_alias(env.observation_space),
            env,
            policy_kwargs=policy_kwargs,
            vgs_version=None if config.vgs_version == VGS_OFF else config.vgs_version,
            risk_measure=config.risk_measure,
            value_target=config.value_target,
            compile=config.compile,
            seed=config.seed,
            device=config.device,
            verbose=config.verbose,
            **algo_kwargs,
        )
    except (AssertionError, TypeError, ValueError, NotImplementedError) as error:  # SB3 asserts on user input
        raise UserInputError(f"DistributionalPPO refuses {config.env_id} with {algo_kwargs}: {error}") from error
    if (change := make_change_callback(config.on_change, config.change_kwargs)) is not None:
        change.check(model)
    return model


def _default_n_steps(config: TrainConfig) -> int:
    """Steps per environment for a rollout near :data:`ROLLOUT_STEPS` that divides into whole minibatches."""
    batch_size = config.algo_kwargs.get("batch_size", _default_of("batch_size"))
    if not isinstance(batch_size, int) or batch_size < 1:
        raise UserInputError(f"--algo-kwargs: batch_size {batch_size!r} is not a positive whole number")
    whole_minibatches = batch_size // gcd(batch_size, config.n_envs)
    return max(ROLLOUT_STEPS // config.n_envs // whole_minibatches, 1) * whole_minibatches


def _default_of(argument: str) -> Any:
    return inspect.signature(DistributionalPPO).parameters[argument].default


def _activation(name: Any) -> type[nn.Module]:
    if name not in ACTIVATIONS:
        raise UserInputError(f"--algo-kwargs: activation_fn {name!r}; {did_you_mean(str(name), ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _check_arguments(config: TrainConfig) -> None:
    """Refuse unknown names on every level of ``algo_kwargs``, and tell the level that a misplaced one belongs to."""
    algo_kwargs = config.algo_kwargs
    policy_kwargs = _mapping(algo_kwargs, "policy_kwargs")
    given = {
        "algo_kwargs": algo_kwargs,
        "policy_kwargs": policy_kwargs,
        "optimizer_kwargs": _mapping(policy_kwargs, "optimizer_kwargs"),
        "vgs_kwargs": _mapping(algo_kwargs, "vgs_kwargs"),
    }
    known = {
        "algo_kwargs": _arguments(DistributionalPPO),
        # use_sde is the algorithm's to pass on
        "policy_kwargs": _arguments(DistributionalPPO.policy_aliases["MlpPolicy"]) - {"use_sde"},
        "optimizer_kwargs": _arguments(OPTIMIZERS[config.optimizer]),
        "vgs_kwargs": _arguments(VarianceGradientScaler),
    }
    for level, arguments in given.items():
        for name in arguments:
            if name in _SET_ELSEWHERE:
                raise UserInputError(f"--algo-kwargs: {name!r} {_SET_ELSEWHERE[name]}")
            if name not in known[level]:
                right = next((other for other, names in known.items() if name in names), None)
                hint = f"it belongs in {right}" if right else did_you_mean(name, known[level])
                raise UserInputError(f"--algo-kwargs: {level} has no {name!r}; {hint}")
    if "activation_fn" in policy_kwargs:
        _activation(policy_kwargs["activation_fn"])


def _mapping(arguments: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = arguments.get(name) or {}
    if not isinstance(value, Mapping):
        raise UserInputError(f"--algo-kwargs: {name} {value!r} is not a mapping")
    return value


def _arguments(target: Callable[..., Any]) -> set[str]:
    """:return: names of the arguments that may stand in a configuration"""
    positional = {"params", "parameters", "observation_space", "action_space", "lr_schedule", "version", "logger"}
    names = set(inspect.signature(target).parameters) - positional - set(_SET_ELSEWHERE)
    return {name for name in names if not name.startswith("_")}
