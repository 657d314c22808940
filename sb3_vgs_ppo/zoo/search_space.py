"""
What the zoo's ``-optimize`` searches for ``dppo``: its own ranges for PPO, and critic, optimizer and VGS version.

A *sampler* draws from a trial and returns arguments of the algorithm; a *converter* makes the same arguments from the
parameters of a stored trial, so that ``--trial-id`` trains what was found.
"""

from __future__ import annotations

from typing import Any

import optuna
from rl_zoo3.hyperparams_opt import convert_onpolicy_params, sample_ppo_params

from sb3_vgs_ppo.runs.algorithm import OPTIMIZERS

VALUE_HEADS = ("quantile", "categorical", "scalar")
SEARCHED_OPTIMIZERS = ("adaptive-upgd", "adam")
"""Those whose learning rates have Adam's size, which is what the zoo's range for PPO covers."""
VGS_VERSIONS = ("off", "3.0", "4.0")
"""The versions that measure noise over time; ``"off"`` for none."""
_OURS = ("value_head", "optimizer", "vgs_version")


def sample_dppo_params(
    trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]
) -> dict[str, Any]:
    """
    :param trial: where the values are drawn
    :param n_actions: as the zoo passes it
    :param n_envs: as the zoo passes it
    :param additional_args: as the zoo passes it
    :return: arguments of ``DistributionalPPO``
    """
    arguments = sample_ppo_params(trial, n_actions, n_envs, additional_args)
    return _with_ours(
        arguments,
        trial.suggest_categorical("value_head", VALUE_HEADS),
        trial.suggest_categorical("optimizer", SEARCHED_OPTIMIZERS),
        trial.suggest_categorical("vgs_version", VGS_VERSIONS),
    )


def convert_dppo_params(sampled_params: dict[str, Any]) -> dict[str, Any]:
    """
    :param sampled_params: parameters of a trial, as Optuna stores them; not changed
    :return: arguments of ``DistributionalPPO``
    """
    of_ppo = {name: value for name, value in sampled_params.items() if name not in _OURS}
    return _with_ours(convert_onpolicy_params(of_ppo), *(sampled_params[name] for name in _OURS))


def _with_ours(arguments: dict[str, Any], value_head: str, optimizer: str, vgs_version: str) -> dict[str, Any]:
    ours = {"value_head": value_head, "optimizer_class": OPTIMIZERS[optimizer]}  # type: ignore[index]
    return {
        **arguments,
        "policy_kwargs": {**arguments["policy_kwargs"], **ours},
        "vgs_version": None if vgs_version == "off" else vgs_version,
    }
