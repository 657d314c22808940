"""
Is a blueprint what it claims to be?

Asked before anything is built from it, because a few bytes of a stranger's file can ask for networks and buffers of any
size, and some wrong values would be noticed in the middle of training only.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import get_action_dim

from sb3_vgs_ppo._types import StateDict
from sb3_vgs_ppo.checkpoint.faults import as_checkpoint_error
from sb3_vgs_ppo.errors import CheckpointError
from sb3_vgs_ppo.ppo.blueprint import Blueprint, Spaces
from sb3_vgs_ppo.ppo.policies import (
    CnnPolicy,
    DistributionalActorCriticPolicy,
    MlpPolicy,
    MultiInputPolicy,
    add_layer_norm,
)

_HEAD_ARGUMENTS = {
    name
    for name, parameter in inspect.signature(DistributionalActorCriticPolicy).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
}
_BUILT_LATER = ("value_net.weight", "value_net.bias", "log_std")  # SB3 needs memory for the log_std of gSDE
_BYTES_PER_STEP = 6 * 4  # rewards, returns, values, advantages, log-probabilities, episode starts, each float32


def check_values(blueprint: Blueprint) -> None:
    """
    :param blueprint: description of a model
    :raises CheckpointError: an argument or attribute is not of the type that its name promises
    """
    for name, value in {**blueprint.arguments, **blueprint.attributes}.items():
        is_valid, expected = _CHECKS.get(name, (None, ""))
        if is_valid and not is_valid(value):
            raise CheckpointError(f"{blueprint.where}: {name}: {value!r:.80}; {expected} expected")


def check_rollout_size(blueprint: Blueprint, n_envs: int, max_bytes: int) -> None:
    """
    :param blueprint: description of a model whose values were checked
    :param n_envs: number of environments
    :param max_bytes: what is too much
    :raises CheckpointError: one rollout would take more
    """
    observation, action = blueprint.spaces
    with as_checkpoint_error(blueprint.where):
        parts = observation.spaces.values() if isinstance(observation, spaces.Dict) else [observation]
        step = _BYTES_PER_STEP + sum(math.prod(part.shape or ()) * np.dtype(part.dtype).itemsize for part in parts)
        step += get_action_dim(action) * np.dtype(action.dtype).itemsize
    n_steps = blueprint.arguments.get("n_steps", 0)
    if (size := n_steps * n_envs * step) > max_bytes:
        raise CheckpointError(
            f"{blueprint.where}: n_steps: a rollout of {n_steps} steps in {n_envs} environments takes {size} bytes, "
            f"more than the limit of {max_bytes} (Limits.max_total_bytes)"
        )


def check_policy(blueprint: Blueprint) -> None:
    """
    Compare the tensors that the policy's arguments ask for with those in the file, before memory is taken for them.

    A class that the caller gave is the caller's own and not looked into.

    :param blueprint: description of a model
    :raises CheckpointError: not one of our policies, or other names or shapes
    """
    policy_class, stored = blueprint.policy_class, blueprint.states["policy"]
    where = f"{blueprint.file}: policy.pth"
    if not (isinstance(policy_class, type) and issubclass(policy_class, DistributionalActorCriticPolicy)):
        raise CheckpointError(
            f"{blueprint.where}: policy_class: {policy_class!r:.80} is not a policy of DistributionalPPO"
        )
    if not all(isinstance(name, str) and isinstance(tensor, th.Tensor) for name, tensor in stored.items()):
        raise CheckpointError(f"{where}: tensors by name expected")
    if policy_class not in (MlpPolicy, CnnPolicy, MultiInputPolicy):
        return
    n_outputs = stored["value_net.bias"].numel() if "value_net.bias" in stored else 0
    for name in ("n_quantiles", "n_atoms"):
        if (size := blueprint.policy_kwargs.get(name)) not in (None, n_outputs):
            raise CheckpointError(
                f"{blueprint.where}: {name}: {size!r:.80}, but the value head has {n_outputs} outputs"
            )
    with as_checkpoint_error(f"{blueprint.where}: policy_kwargs"):
        skeleton = _skeleton(policy_class, blueprint.policy_kwargs, blueprint.spaces, max_layers=len(stored))
    # The others are not larger than what is compared: the head by its number of outputs above, gSDE's log_std by the
    # action net.
    compared = {name for name in stored.keys() | skeleton.keys() if name not in _BUILT_LATER}
    compare_shapes(
        {name: tensor for name, tensor in skeleton.items() if name in compared},
        {name: tensor for name, tensor in stored.items() if name in compared},
        where,
    )


def compare_shapes(expected: Mapping[str, th.Tensor], found: Mapping[str, th.Tensor], where: str) -> None:
    """
    :param expected: tensors that policy_kwargs and spaces ask for
    :param found: tensors in the file
    :param where: file and member, for messages
    :raises CheckpointError: names the first that is missing, not asked for, or of another shape
    """
    for name in sorted(expected.keys() | found.keys()):
        shapes = [tuple(tensors[name].shape) if name in tensors else "nothing" for tensors in (found, expected)]
        if shapes[0] != shapes[1]:
            raise CheckpointError(f"{where}: {name:.80}: {shapes[0]}; policy_kwargs and spaces ask for {shapes[1]}")


def check_optimizer_state(policy: DistributionalActorCriticPolicy, state: StateDict, where: str) -> None:
    """
    Let an optimizer with this state take a step on copies: torch itself notices wrong shapes and options only then.

    :param policy: the built policy; unchanged
    :param state: state of its optimizer; unchanged
    :param where: file and member, for messages
    :raises CheckpointError: the state does not fit the optimizer or the parameters
    """
    device = policy.device
    with located(where), th.random.fork_rng([device] if device.type == "cuda" else []):
        parameters = [parameter.detach().clone().requires_grad_() for parameter in policy.parameters()]
        trial = policy.optimizer_class(parameters, lr=0.0, **policy.optimizer_kwargs)  # type: ignore[call-arg]
        trial.load_state_dict(copy.deepcopy(state))
        for parameter in parameters:
            parameter.grad = th.zeros_like(parameter)
        trial.step()


@contextmanager
def located(where: str) -> Iterator[None]:
    """
    Like :func:`as_checkpoint_error`, also for rooms that do not know from which file a state comes.

    :param where: start of the message
    :raises CheckpointError: the block raised
    """
    try:
        with as_checkpoint_error(where):
            yield
    except CheckpointError as error:
        if str(error).startswith(where):
            raise
        raise CheckpointError(f"{where}: {error}") from error


class _Skeleton(ActorCriticPolicy):
    """Tensors with shapes but without memory; SB3 moves networks to the policy's device."""

    def __init__(self, *args: Any, layer_norm: bool, **kwargs: Any) -> None:
        self.layer_norm = layer_norm
        super().__init__(*args, **kwargs)

    def _build_mlp_extractor(self) -> None:
        super()._build_mlp_extractor()
        if self.layer_norm:
            add_layer_norm(self.mlp_extractor)

    @property
    def device(self) -> th.device:
        return th.device("meta")


def _skeleton(
    policy_class: type[DistributionalActorCriticPolicy],
    policy_kwargs: Mapping[str, Any],
    both: Spaces,
    max_layers: int,
) -> StateDict:
    """:return: the tensors of such a policy, without memory"""
    net_arch = policy_kwargs.get("net_arch") or []
    n_layers = sum(map(len, net_arch.values())) if isinstance(net_arch, dict) else len(net_arch)
    if n_layers > max_layers:
        raise ValueError(f"net_arch: {n_layers} layers, but the file holds {max_layers} tensors")
    # How weights are initialised or actions are squashed (which needs gSDE) changes no shape.
    left_out = {*_HEAD_ARGUMENTS, "squash_output", "optimizer_class", "optimizer_kwargs"}
    kwargs: dict[str, Any] = {name: value for name, value in policy_kwargs.items() if name not in left_out}
    kwargs["features_extractor_class"] = (
        kwargs.get("features_extractor_class") or policy_class.default_features_extractor_class
    )
    kwargs["ortho_init"] = False
    kwargs["layer_norm"] = bool(policy_kwargs.get("layer_norm"))
    # SB3 makes an optimizer, whose first one of a process imports this: torch 2.8 fails if that is done on "meta".
    importlib.import_module("torch._dynamo")
    with th.device("meta"):
        # On copies of the spaces: extractors draw a sample, and the model's own draw is to be the first.
        return _Skeleton(*copy.deepcopy(both), lambda _: 0.0, **kwargs).state_dict()


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and 0 <= int(value) < 2**63


def _is_positive(value: Any) -> bool:
    return _is_count(value) and 1 <= value < 2**31


def _is_schedule(value: Any) -> bool:
    return _is_number(value) or callable(value)


def _is_rollout_buffer(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, RolloutBuffer)


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


def _is_instance(*types: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, types)


_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("learning_rate", "clip_range"), (_is_schedule, "a number or a schedule")),
    "clip_range_vf": (_or_none(_is_schedule), "a number, a schedule or None"),
    **dict.fromkeys(
        ("n_steps", "batch_size", "n_epochs", "stats_window_size", "n_envs", "max_nonfinite_updates"),
        (_is_positive, "an integer of at least 1"),
    ),
    **dict.fromkeys(
        ("gamma", "gae_lambda", "ent_coef", "vf_coef", "max_grad_norm", "_current_progress_remaining"),
        (_is_number, "a number"),
    ),
    "target_kl": (_or_none(_is_number), "a number or None"),
    **dict.fromkeys(("normalize_advantage", "use_sde", "compile"), (_is_instance(bool, np.bool_), "true or false")),
    **dict.fromkeys(("sde_sample_freq", "verbose"), (_is_instance(int, np.integer), "an integer")),
    "rollout_buffer_class": (_or_none(_is_rollout_buffer), "a class of rollout buffers or None"),
    **dict.fromkeys(("rollout_buffer_kwargs", "vgs_kwargs"), (_or_none(_is_instance(dict)), "an object or None")),
    **dict.fromkeys(("tensorboard_log", "vgs_version"), (_or_none(_is_instance(str)), "a text or None")),
    **dict.fromkeys(("vgs_placement", "risk_measure", "value_target"), (_is_instance(str), "a text")),
    "seed": (_or_none(_is_count), "an integer of at least 0 or None"),
    **dict.fromkeys(
        ("num_timesteps", "_n_updates", "_episode_num", "_total_timesteps"), (_is_count, "an integer of at least 0")
    ),
}
