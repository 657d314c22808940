"""Rollouts whose critic learns from distributions: ``value_target="distribution"``.

SB3's buffer keeps one λ-return per state; those here keep the λ-mixture of n-step distributions
(:mod:`sb3_vgs_ppo.distributional.lambda_mixture`) besides, as the value head encodes it. Rewards, ends, γ and λ are
those of the λ-return, which is therefore its mean.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.type_aliases import TensorDict
from stable_baselines3.common.vec_env import VecNormalize

from sb3_vgs_ppo.distributional import (
    N_ATOMS,
    CategoricalHead,
    ValueDistribution,
    lambda_mixtures,
    rollout_distributions,
)
from sb3_vgs_ppo.errors import UserInputError

if TYPE_CHECKING:
    from sb3_vgs_ppo.ppo.policies import DistributionalActorCriticPolicy

SAMPLE, DISTRIBUTION = "sample", "distribution"
_BATCH = 128
"""States whose distributions are encoded at once: a categorical head needs 50 kB for each meanwhile."""


def check_value_target(value_target: str, value_head: str) -> None:
    """
    :param value_target: ``"sample"`` or ``"distribution"``
    :param value_head: name of the critic's head
    :raises UserInputError: it is neither, or the critic has no use for a distribution
    """
    if value_target not in (SAMPLE, DISTRIBUTION):
        raise UserInputError(f"value_target={value_target!r}; remedy: 'sample' or 'distribution'")
    if value_target == DISTRIBUTION and value_head == "scalar":
        raise UserInputError(
            "value_target='distribution' needs a critic that predicts one, and value_head='scalar' predicts the mean; "
            "remedy: value_head 'quantile' or 'categorical', or value_target='sample'"
        )


class DistributionSamples(NamedTuple):
    """SB3's ``RolloutBufferSamples``, and ``value_targets`` (batch, k) in the form of the head's predictions."""

    observations: th.Tensor | TensorDict
    actions: th.Tensor
    old_values: th.Tensor
    old_log_prob: th.Tensor
    advantages: th.Tensor
    returns: th.Tensor
    value_targets: th.Tensor


class DistributionRolloutBuffer(RolloutBuffer):
    """SB3's buffer with distributions as targets, (buffer_size, n_envs, k) float32; arguments as there."""

    value_targets: npt.NDArray[np.float32]
    value_target_clipped: float | None = None
    """Share of the distributions' atoms outside the support of a categorical head; None for other heads."""

    def reset(self) -> None:
        """Forget the rollout."""
        super().reset()
        self._cut_off: dict[tuple[int, int], Any] = {}

    def note_cut_off(self, dones: npt.NDArray[np.bool_], infos: Sequence[dict[str, Any]]) -> None:
        """
        Keep the last observations of episodes that a time limit cuts off with the step that is about to be added.

        :param dones: whether an episode ends, (n_envs,)
        :param infos: of the step; SB3's condition for bootstrapping
        """
        for env in np.flatnonzero(dones):
            last = infos[env].get("terminal_observation")
            if last is not None and infos[env].get("TimeLimit.truncated", False):
                self._cut_off[self.pos, int(env)] = last

    def compute_value_targets(
        self, policy: DistributionalActorCriticPolicy, last_observation: Any, dones: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float32]:
        """
        :param policy: that collected this rollout, which is full and not yet read
        :param last_observation: after the last step, of all environments
        :param dones: whether the last step ended an episode, (n_envs,)
        :return: the targets before the head encodes them: atoms of equal probability, (buffer_size, n_envs, m)
        """
        predicted = [distribution for _, distribution in rollout_distributions(self, policy)]
        last = policy.value_distribution(last_observation).reshape(1, self.n_envs)
        following = ValueDistribution.concatenate([*predicted, last])[1:]
        # SB3 has added γ V(s) of the last state s of an episode cut off to its reward: the rest has mean 0
        after = {place: policy.value_distribution(state).with_mean(0.0) for place, state in self._cut_off.items()}
        head = policy.value_net
        mixtures = lambda_mixtures(
            self.rewards,
            np.concatenate((self.episode_starts[1:], [dones])).astype(bool),
            following.with_mean(following.mean),
            after,
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
            n_atoms=max(N_ATOMS, len(head.bias)),
        )
        if isinstance(head, CategoricalHead):
            self.value_target_clipped = head.support.clipped(mixtures.flatten()).float().mean().item()
        with th.no_grad():
            encoded = [head.encode(part.to(head.bias.device)) for part in mixtures.flatten(0, 1).split(_BATCH)]
        self.value_targets = th.cat(encoded).reshape(self.buffer_size, self.n_envs, -1).cpu().numpy()
        return mixtures.numpy()

    def get(self, batch_size: int | None = None) -> Generator[Any, None, None]:
        """
        :param batch_size: samples per minibatch, all of them by default
        :return: :class:`DistributionSamples` in SB3's random order
        """
        if not self.generator_ready:
            self.value_targets = self.swap_and_flatten(self.value_targets)
        yield from super().get(batch_size)

    def _get_samples(self, batch_inds: npt.NDArray[np.int64], env: VecNormalize | None = None) -> Any:
        return DistributionSamples(
            *super()._get_samples(batch_inds, env), value_targets=self.to_torch(self.value_targets[batch_inds])
        )


class DistributionDictRolloutBuffer(DistributionRolloutBuffer, DictRolloutBuffer):
    """The same for Dict observations."""


def distribution_buffer_class(given: type[RolloutBuffer] | None, observed: spaces.Space[Any]) -> type[RolloutBuffer]:
    """
    :param given: what the user asked for; SB3's own classes are None's meaning
    :param observed: observation space
    :return: the class that keeps distributions
    :raises UserInputError: a class of the user's own
    """
    if given not in (None, RolloutBuffer, DictRolloutBuffer):
        raise UserInputError(
            f"rollout_buffer_class={given.__name__} keeps no distributions, which value_target='distribution' needs; "
            "remedy: leave it out, or value_target='sample'"
        )
    return DistributionDictRolloutBuffer if isinstance(observed, spaces.Dict) else DistributionRolloutBuffer
