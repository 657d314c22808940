"""Measures of plasticity of an actor-critic policy, logged while any on-policy algorithm of SB3 trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    MultiCategoricalDistribution,
)
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor, nn

from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.optim.base import UtilityOptimizer
from sb3_vgs_ppo.plasticity import (
    HiddenLayer,
    dormant_fraction,
    effective_rank,
    near_certain_fraction,
    out_of_bounds_fraction,
    output_norm,
    record_hidden_layers,
    saturated_gate_fraction,
    tanh_saturation,
    weight_norm,
)


class PlasticityCallback(BaseCallback):
    """
    Logs ``plasticity/...`` (see ``docs/metrics.md``) at the end of rollouts: of the networks that collected the
    rollout, on states of it. What a policy does not have is left out.

    Training is not touched: no random numbers are drawn, no hook stays behind, and nothing is kept that a resumed run
    would lack.

    :param n_states: states, evenly spaced over the rollout (all of a shorter one). It bounds the effective rank; the
        default exceeds the width of SB3's default networks
    :param every: measure in the first of so many rollouts; for algorithms with short rollouts, as A2C
    :raises UserInputError: a number is below 1; when training starts, the algorithm is not on-policy
    """

    def __init__(self, n_states: int = 256, every: int = 1) -> None:
        super().__init__()
        for name, value in (("n_states", n_states), ("every", every)):
            if value < 1:
                raise UserInputError(f"{name} {value} is too small; remedy: at least 1")
        self.n_states = n_states
        self.every = every

    def _init_callback(self) -> None:
        model = self.model
        if not (isinstance(model, OnPolicyAlgorithm) and isinstance(model.policy, ActorCriticPolicy)):
            raise UserInputError(
                f"PlasticityCallback cannot measure {type(model).__name__} with {type(model.policy).__name__}; "
                "remedy: an on-policy algorithm with an ActorCriticPolicy, as PPO or A2C"
            )

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        model = self.model
        assert isinstance(model, OnPolicyAlgorithm)
        rollouts = model.num_timesteps // (model.n_steps * model.n_envs)  # a counter would start anew on resuming
        if (rollouts - 1) % self.every == 0:
            states = sample_states(model.rollout_buffer, self.n_states)
            for name, value in measure_plasticity(model.policy, states).items():
                self.logger.record(f"plasticity/{name}", value)


def sample_states(buffer: RolloutBuffer, n_states: int) -> PyTorchObs:
    """
    :param buffer: full, before its first minibatch
    :param n_states: states to take
    :return: observations, evenly spaced over the episodes of one environment after the other, on the buffer's device
    """
    total = buffer.buffer_size * buffer.n_envs
    # Evenly spaced over steps and then environments, they could all come from one environment.
    envs, steps = np.divmod(np.linspace(0, total - 1, min(n_states, total)).astype(np.int64), buffer.buffer_size)
    if isinstance(buffer.observations, dict):
        return {name: buffer.to_torch(values[steps, envs]) for name, values in buffer.observations.items()}
    return buffer.to_torch(buffer.observations[steps, envs])


@th.no_grad()
def measure_plasticity(policy: ActorCriticPolicy, observations: PyTorchObs) -> dict[str, float]:
    """
    :param policy: as it is afterwards
    :param observations: (states, *observation shape) or a dict of such, on the policy's device
    :return: values by name, without those that the policy does not have or that are not finite
    """
    found = {f"{part}_weight_norm": weight_norm(parameters) for part, parameters in _parts(policy).items()}
    if _networks_are_sb3s(policy):
        with _evaluation_mode(policy):
            actor, critic = _towers(policy, observations)
            for tower, (layers, features) in (("actor", actor), ("critic", critic)):
                found |= {f"{tower}_{name}": value for name, value in _tower_measures(layers, features).items()}
            found |= _action_head_measures(policy, policy.action_net(actor[1]))
    found |= _gate_measures(policy.optimizer)
    return {name: value for name, value in found.items() if isfinite(value)}


_Tower = tuple[list[HiddenLayer], Tensor]
"""Hidden layers of actor or critic, and the features (states, width) that its head gets."""


def _networks_are_sb3s(policy: ActorCriticPolicy) -> bool:
    """:return: whether the policy uses extractor, towers and heads as SB3 does; recurrent policies do not"""
    own = type(policy)
    return (
        own.get_distribution is ActorCriticPolicy.get_distribution
        and own.predict_values is ActorCriticPolicy.predict_values
    )


@contextmanager
def _evaluation_mode(policy: nn.Module) -> Iterator[None]:
    """Without dropout, which draws random numbers, and without an update of the statistics of batch normalization."""
    modes = {module: module.training for module in policy.modules()}
    policy.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _towers(policy: ActorCriticPolicy, observations: PyTorchObs) -> tuple[_Tower, _Tower]:
    """:return: actor and critic; the layers of a shared feature extractor, which is called once, belong to both"""
    extractor = policy.mlp_extractor
    with (
        record_hidden_layers(policy.pi_features_extractor) as pi_layers,
        record_hidden_layers(policy.vf_features_extractor) as vf_layers,
    ):
        features = policy.extract_features(observations)
    pi_features, vf_features = features if isinstance(features, tuple) else (features, features)
    with record_hidden_layers(extractor) as actor_layers:
        latent_pi = extractor.forward_actor(pi_features)
    with record_hidden_layers(extractor) as critic_layers:
        latent_vf = extractor.forward_critic(vf_features)
    return (pi_layers + actor_layers, latent_pi), (vf_layers + critic_layers, latent_vf)


def _tower_measures(layers: list[HiddenLayer], features: Tensor) -> dict[str, float]:
    if not features.isfinite().all():
        return {}
    found: dict[str, float] = {"effective_rank": effective_rank(features)}
    if layers:
        found["dormant_fraction"] = dormant_fraction(layers)
    saturation = tanh_saturation(layers)
    if saturation is not None:
        found["tanh_saturation"] = saturation
    return found


def _action_head_measures(policy: ActorCriticPolicy, outputs: Tensor) -> dict[str, float]:
    """:param outputs: of the action head, (states, outputs)"""
    if not outputs.isfinite().all():
        return {}
    logits = _choices(policy, outputs)
    if logits:
        return {"logit_norm": output_norm(outputs), "action_saturation": near_certain_fraction(logits)}
    found = {"mean_action_norm": output_norm(outputs)}
    space = policy.action_space
    if isinstance(space, spaces.Box) and space.is_bounded() and not policy.squash_output:
        low, high = (th.as_tensor(bound, device=outputs.device).flatten() for bound in (space.low, space.high))
        found["action_saturation"] = out_of_bounds_fraction(outputs, low, high)
    return found


def _choices(policy: ActorCriticPolicy, outputs: Tensor) -> list[Tensor]:
    """:return: logits of each categorical choice, (states, ..., options); none for continuous actions"""
    distribution = policy.action_dist
    if isinstance(distribution, CategoricalDistribution):
        return [outputs]
    if isinstance(distribution, MultiCategoricalDistribution):
        return list(outputs.split(list(distribution.action_dims), dim=1))
    if isinstance(distribution, BernoulliDistribution):
        return [th.stack((th.zeros_like(outputs), outputs), dim=-1)]
    return []


def _parts(policy: ActorCriticPolicy) -> dict[str, list[nn.Parameter]]:
    """:return: parameters of the parts that have any; a feature extractor of its own belongs to its tower"""
    extractor = policy.mlp_extractor
    modules: dict[str, list[nn.Module | None]] = {
        "actor": [getattr(extractor, "policy_net", None)],
        "critic": [getattr(extractor, "value_net", None)],
        "action_head": [policy.action_net],
        "value_head": [policy.value_net],
    }
    if policy.share_features_extractor:
        modules["features"] = [policy.features_extractor]
    else:
        modules["actor"].append(policy.pi_features_extractor)
        modules["critic"].append(policy.vf_features_extractor)
    parameters = {
        part: [parameter for module in found if module is not None for parameter in module.parameters()]
        for part, found in modules.items()
    }
    return {part: found for part, found in parameters.items() if found}


def _gate_measures(optimizer: th.optim.Optimizer) -> dict[str, float]:
    gates = list(optimizer.gates().values()) if isinstance(optimizer, UtilityOptimizer) else []
    if not gates:
        return {}
    flat = th.cat([gate.flatten() for gate in gates])
    return {"gate_saturation": saturated_gate_fraction(flat), "gate_std": flat.std(correction=0).item()}
