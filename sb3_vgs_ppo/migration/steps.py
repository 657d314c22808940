"""
The steps of a migration. Each is a pure function from a blueprint to the next one, with notes for the report; what it
does to tensors is a pure function on state dicts.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import torch as th

from sb3_vgs_ppo._types import StateDict, ValueHeadName
from sb3_vgs_ppo.checkpoint.vgs_state import FIRST_VERSION
from sb3_vgs_ppo.distributional import QuantileHead
from sb3_vgs_ppo.migration.optimizer_state import (
    convert_optimizer,
    forget_last,
    has_moments,
    shared_options,
    weight_decays,
)
from sb3_vgs_ppo.migration.report import Notes
from sb3_vgs_ppo.migration.value_head import HEAD_TENSORS, convert_value_head
from sb3_vgs_ppo.optim import AdaptiveUPGD
from sb3_vgs_ppo.ppo.blueprint import Blueprint
from sb3_vgs_ppo.ppo.policies import DistributionalActorCriticPolicy
from sb3_vgs_ppo.scaling.elements_spatial import GLOBAL_FIGURES
from sb3_vgs_ppo.scaling.state import (
    APPLICATION,
    SETTINGS,
    empty_statistics,
    migrate_state,
    migration_message,
    parse_state,
)
from sb3_vgs_ppo.scaling.versions import MEASURES

OptimizerName: TypeAlias = Literal["adam", "adaptive-upgd"]
Step: TypeAlias = Callable[[Blueprint], tuple[Blueprint, Notes]]

OPTIMIZERS: dict[OptimizerName, type[th.optim.Optimizer]] = {"adam": th.optim.Adam, "adaptive-upgd": AdaptiveUPGD}
_HEAD_OPTIONS = ("n_quantiles", "huber_kappa")
_POLICY_DEFAULTS = {
    name: parameter.default for name, parameter in inspect.signature(DistributionalActorCriticPolicy).parameters.items()
}
_N_QUANTILES: int = inspect.signature(QuantileHead).parameters["n_quantiles"].default


def change_value_head(target: ValueHeadName) -> Step:
    """
    :param target: kind of head wanted
    :return: the step. It raises :class:`UserInputError` where a head can only be fitted
    """

    def step(blueprint: Blueprint) -> tuple[Blueprint, Notes]:
        source = _policy_argument(blueprint, "value_head")
        if source == target:
            return blueprint, Notes()
        policy = convert_value_head(blueprint.states["policy"], source, target, _N_QUANTILES)
        optimizer = forget_last(blueprint.states["policy.optimizer"], len(HEAD_TENSORS))
        kwargs = {name: value for name, value in blueprint.policy_kwargs.items() if name not in _HEAD_OPTIONS}
        changed = replace(
            blueprint,
            policy_kwargs={**kwargs, "value_head": target},
            states={**blueprint.states, "policy": policy, "policy.optimizer": optimizer},
        )
        notes = Notes(
            converted=(f"value head: {source} to {target}, with the same mean",),
            reset=("optimizer's state of the value head: another loss has gradients of another size",),
            todo=("train on before reading the spread of values: it starts at 0",) if target == "quantile" else (),
        )
        changed, of_scaler = _restart_scaler(changed)
        changed, of_clipping = _drop_value_clipping(changed) if target == "quantile" else (changed, Notes())
        return changed, notes + of_scaler + of_clipping

    return step


def change_optimizer(name: OptimizerName) -> Step:
    """
    :param name: optimizer wanted
    :return: the step
    """
    target = OPTIMIZERS[name]

    def step(blueprint: Blueprint) -> tuple[Blueprint, Notes]:
        source = _policy_argument(blueprint, "optimizer_class")
        if source is target:
            return blueprint, Notes()
        state = blueprint.states["policy.optimizer"]
        mapped = f"optimizer: {source.__name__} to {target.__name__}"
        notes = Notes(converted=(f"{mapped}, with its moments",))
        if target is AdaptiveUPGD:
            notes += Notes(reset=("average utility of every weight, on which the gate depends: it starts at 0",))
        if not has_moments(state):
            notes = Notes(reset=(f"{mapped}, which starts afresh: {source.__name__} has no such moments",))
        converted = convert_optimizer(state, target)
        old_decay, new_decay = weight_decays(state, converted)
        if old_decay:
            notes += Notes(reset=(f"weight decay: {old_decay} of {source.__name__}, {new_decay} from now on",))
        kwargs = {
            **blueprint.policy_kwargs,
            "optimizer_class": target,
            "optimizer_kwargs": shared_options(state) or None,
        }
        states = {**blueprint.states, "policy.optimizer": converted}
        return replace(blueprint, policy_kwargs=kwargs, states=states), notes

    return step


def change_vgs_version(to_version: str, *, switch_on: bool) -> Step:
    """
    :param to_version: a known version
    :param switch_on: let an agent that had no scaler have one
    :return: the step
    """

    def step(blueprint: Blueprint) -> tuple[Blueprint, Notes]:
        from_version = blueprint.arguments.get("vgs_version")
        if from_version is None and not switch_on:
            return blueprint, Notes(kept=("VGS: off",))
        changed = replace(blueprint, arguments={**blueprint.arguments, "vgs_version": to_version})
        if "vgs" not in blueprint.states:
            return changed, Notes(reset=(f"VGS {to_version}: starts with its warm-up",))
        state, notes = migrate_vgs_state(blueprint.states["vgs"], to_version)
        return replace(changed, states={**blueprint.states, "vgs": state}), notes

    return step


def migrate_vgs_state(state: StateDict, to_version: str) -> tuple[StateDict, Notes]:
    """
    :param state: state of a scaler of any known version; not changed
    :param to_version: a known version
    :return: state of that version
    :raises CheckpointError: a field that is missing or does not fit
    """
    parsed = parse_state(state)
    from_version, n_steps = parsed["vgs_version"], parsed["step_count"]
    migrated = migrate_state(parsed, to_version)
    if migrated is parsed:
        return parsed, Notes(kept=(f"VGS {to_version}: settings and statistics of {n_steps:,} observations",))
    retrain = MEASURES[to_version].over_time and not MEASURES[from_version].over_time
    return migrated, Notes(
        converted=(f"VGS {from_version} to {to_version}: settings and the global figures",),
        reset=(f"VGS: statistics of {n_steps:,} observations, and its warm-up",),
        todo=("retrain: the agent learned from gradients scaled by the wrong variance",) if retrain else (),
        warnings=(migration_message(str(state.get("vgs_version", FIRST_VERSION)), from_version, to_version),),
    )


def _policy_argument(blueprint: Blueprint, name: str) -> Any:
    return blueprint.policy_kwargs.get(name, _POLICY_DEFAULTS[name])


def _restart_scaler(blueprint: Blueprint) -> tuple[Blueprint, Notes]:
    """A scaler's statistics are of the very tensors that it watched, so a new head ends them."""
    if "vgs" not in blueprint.states:
        return blueprint, Notes()
    parsed = parse_state(blueprint.states["vgs"])
    kept = ("vgs_version", *SETTINGS, *APPLICATION, *GLOBAL_FIGURES)
    state = empty_statistics(parsed["vgs_version"]) | {name: parsed[name] for name in kept if name in parsed}
    states = {**blueprint.states, "vgs": {**state, "step_count": 0}}
    return replace(blueprint, states=states), Notes(reset=("VGS: statistics, which were of the old head too",))


def _drop_value_clipping(blueprint: Blueprint) -> tuple[Blueprint, Notes]:
    if blueprint.arguments.get("clip_range_vf") is None:
        return blueprint, Notes()
    arguments = {**blueprint.arguments, "clip_range_vf": None}
    return replace(blueprint, arguments=arguments), Notes(reset=("clip_range_vf: None, a quantile head has none",))
