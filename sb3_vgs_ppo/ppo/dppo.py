"""Proximal Policy Optimization with a distributional critic and the Variance Gradient Scaler.

The clipped objective is that of Schulman et al. 2017 (arXiv:1707.06347) as Stable-Baselines3 implements it. With
``value_head="scalar"``, ``torch.optim.Adam`` and ``vgs_version=None`` the parameters equal those of SB3's ``PPO``
bit for bit; a test keeps it so. Specification: section "DistributionalPPO".
"""

from __future__ import annotations

import io
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule, TensorDict
from stable_baselines3.common.vec_env import VecEnv

from sb3_vgs_ppo._flat import pack_parameters
from sb3_vgs_ppo._types import ValueTarget, VgsPlacement
from sb3_vgs_ppo.checkpoint import save_model_archive
from sb3_vgs_ppo.distributional import ValueDistribution
from sb3_vgs_ppo.errors import TrainingDiverged, UserInputError
from sb3_vgs_ppo.optim.adam_twin import joint_steps
from sb3_vgs_ppo.ppo.arguments import check_arguments, check_critic
from sb3_vgs_ppo.ppo.compiled import CompiledUpdate
from sb3_vgs_ppo.ppo.distribution_targets import (
    DISTRIBUTION,
    DistributionRolloutBuffer,
    distribution_buffer_class,
)
from sb3_vgs_ppo.ppo.gradients import Gradients, PackedGradients
from sb3_vgs_ppo.ppo.minibatch_log import MinibatchLog
from sb3_vgs_ppo.ppo.minibatches import Minibatch, minibatches, value_targets
from sb3_vgs_ppo.ppo.mlp_loss import MlpLoss
from sb3_vgs_ppo.ppo.mlp_networks import overridden
from sb3_vgs_ppo.ppo.persistence import describe, environment_members
from sb3_vgs_ppo.ppo.policies import CnnPolicy, DistributionalActorCriticPolicy, MlpPolicy, MultiInputPolicy
from sb3_vgs_ppo.ppo.risk import apply_risk_measure, prepare_critic
from sb3_vgs_ppo.ppo.surrogate import clipped_surrogate, normalized
from sb3_vgs_ppo.ppo.update_record import flat_parameters, nonfinite_arrays, nonfinite_gradients, record_update
from sb3_vgs_ppo.scaling import VarianceGradientScaler

SelfDistributionalPPO = TypeVar("SelfDistributionalPPO", bound="DistributionalPPO")

Evaluation: TypeAlias = Callable[[Minibatch, MinibatchLog], tuple[th.Tensor, Callable[[], None]]]
"""From a minibatch to its 0-d loss and a function that puts the gradient into ``.grad`` of the policy's parameters."""

Step: TypeAlias = Callable[[], object]
"""Takes the optimizer's step."""


class DistributionalPPO(PPO):
    """
    PPO whose critic predicts the distribution of returns.

    Arguments before ``vgs_version`` are SB3's, in SB3's order, with SB3's defaults and meaning; see
    :class:`stable_baselines3.PPO`. The value head and the optimizer are chosen through ``policy_kwargs``, see
    :class:`sb3_vgs_ppo.ppo.policies.DistributionalActorCriticPolicy`.

    :param clip_range_vf: only with ``value_head="scalar"``: a clipped mean says nothing about the spread, which could
        grow without bound
    :param vgs_version: measure of the Variance Gradient Scaler (``"3.0"`` by default), or None to switch it off.
        ``model.vgs`` is the scaler, or None
    :param vgs_kwargs: further keyword arguments of
        :class:`sb3_vgs_ppo.scaling.VarianceGradientScaler`, e.g. ``dict(alpha=0.5)``
    :param vgs_placement: scale gradients before or after they are clipped to ``max_grad_norm``. The statistics are of
        the raw gradient either way. Clipping after scaling undoes the scaling wherever the scaled norm still exceeds
        ``max_grad_norm`` (``vgs/clip_fraction`` says how often). Without a scaler, or with one that scales updates
        (``vgs_kwargs=dict(apply_to="update")``), it has nothing to place
    :param max_nonfinite_updates: number of updates in a row that are skipped because their loss or gradient norm is not
        finite before :class:`sb3_vgs_ppo.errors.TrainingDiverged` is raised
    :param risk_measure: what the actor maximises: ``"mean"``, the mean return, or ``"cvar:α"`` with 0 < α < 1, the mean
        of the worst share α of the returns, in every state by the distribution that the critic predicts there; see
        :mod:`sb3_vgs_ppo.ppo.risk`. It needs a distributional critic; that of quantiles then has ``huber_kappa=0``
        by default
    :param value_target: what the critic learns from: ``"sample"``, the λ-return of every state, or ``"distribution"``,
        the λ-mixture of n-step distributions of the return; see :mod:`sb3_vgs_ppo.distributional.lambda_mixture`. It
        needs a distributional critic and no ``rollout_buffer_class``. λ is ``gae_lambda`` either way
    :param compile: let ``torch.compile`` fuse loss and gradient of a minibatch on a CPU. The first update takes up to a
        minute longer. It needs a C++ compiler and what the update without autograd needs (``MlpPolicy``, Box or
        Discrete actions, no gSDE, no ``clip_range_vf``, nothing overridden); otherwise one
        :class:`~sb3_vgs_ppo.errors.CompileFallbackWarning` says why it has no effect. Random numbers are the same, and
        results up to rounding
    :raises UserInputError: (a ValueError) an argument that cannot be used, with its value and the remedy
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }
    policy: DistributionalActorCriticPolicy
    rollout_buffer_class: type[RolloutBuffer] | None

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 3e-4,
        n_steps: int = 2048,
        batch_size: int = 64,
        n_epochs: int = 10,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: float | Schedule = 0.2,
        clip_range_vf: float | Schedule | None = None,
        normalize_advantage: bool = True,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        rollout_buffer_class: type[RolloutBuffer] | None = None,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
        target_kl: float | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
        *,
        vgs_version: str | None = "3.0",
        vgs_kwargs: dict[str, Any] | None = None,
        vgs_placement: VgsPlacement = "before_clip",
        max_nonfinite_updates: int = 10,
        risk_measure: str = "mean",
        value_target: ValueTarget = "sample",
        compile: bool = False,
    ) -> None:
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            batch_size=batch_size,
            n_epochs=n_epochs,
            gamma=gamma,
            gae_lambda=gae_lambda,
            clip_range=clip_range,
            clip_range_vf=clip_range_vf,
            normalize_advantage=normalize_advantage,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            rollout_buffer_class=rollout_buffer_class,
            rollout_buffer_kwargs=rollout_buffer_kwargs,
            target_kl=target_kl,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
        )
        if vgs_kwargs and vgs_version is None:  # here only: ``load(path, vgs_version=None)`` switches VGS off
            raise UserInputError(
                f"vgs_kwargs={vgs_kwargs!r} has no effect with vgs_version=None; remedy: drop one of them"
            )
        self.vgs_version = vgs_version
        self.vgs_kwargs = vgs_kwargs
        self.vgs_placement = vgs_placement
        self.max_nonfinite_updates = max_nonfinite_updates
        self.risk_measure = risk_measure
        self.value_target = value_target
        self.compile = compile
        self._compiled_update = CompiledUpdate()
        self.vgs: VarianceGradientScaler | None = None
        self._nonfinite_in_a_row = 0
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        # Here and not in __init__, because ``load`` sets attributes and then calls this.
        check_arguments(self)
        clip_range_vf = self.clip_range_vf  # as the user gave it; SB3 wraps it
        buffer_class = self.rollout_buffer_class
        if self.value_target == DISTRIBUTION:
            self.rollout_buffer_class = distribution_buffer_class(buffer_class, self.observation_space)
        super()._setup_model()
        if self.value_target == DISTRIBUTION:
            self.rollout_buffer_class = buffer_class  # which files store: the other follows from value_target
        check_critic(self, clip_range_vf)
        prepare_critic(self.risk_measure, self.policy)
        self.vgs = None
        if self.vgs_version is not None:
            self.vgs = VarianceGradientScaler(
                self.policy.parameters(), version=self.vgs_version, **(self.vgs_kwargs or {})
            )
            self.vgs.read_momentum(self.policy.optimizer)

    def value_distribution(self, observation: np.ndarray | dict[str, np.ndarray]) -> ValueDistribution:
        """
        What the critic predicts: the distribution of the discounted return from an observation on, under the current
        stochastic policy. With ``value_target="sample"`` its targets are λ-returns, so with ``gae_lambda`` below 1 it
        is that of rewards over about 1 / (1 − γλ) steps and a mean value from there on, narrower than that of whole
        returns.

        :param observation: one observation or a batch, as for :meth:`predict`. As there, the caller normalizes it where
            the agent was trained behind ``VecNormalize`` (``normalize_obs``); returns are then in units of the
            normalized reward
        :return: the distribution of one observation, or those of a batch, batch shape (batch,)
        :raises UserInputError: the critic is scalar
        """
        return self.policy.value_distribution(observation)

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: np.ndarray | None = None) -> None:
        # Called once per step, before SB3 adds the value of the last state of an episode cut off to the reward
        super()._update_info_buffer(infos, dones)
        if dones is not None and isinstance(self.rollout_buffer, DistributionRolloutBuffer):
            self.rollout_buffer.note_cut_off(dones, infos)

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """SB3's loop with the policy's short way of acting, our targets and advantages; arguments and result alike."""
        with self.policy.acting():
            is_full = super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)
        if is_full:
            outcomes = None
            if isinstance(rollout_buffer, DistributionRolloutBuffer):
                dones: np.ndarray = self._last_episode_starts  # type: ignore[assignment]  # not None after a rollout
                outcomes = rollout_buffer.compute_value_targets(self.policy, self._last_obs, dones)
            apply_risk_measure(self.risk_measure, rollout_buffer, self.policy, outcomes)
        return is_full

    def train(self) -> None:
        """
        Update the policy with the collected rollout: ``n_epochs`` passes over its minibatches.

        :raises TrainingDiverged: ``max_nonfinite_updates`` updates in a row had a non-finite loss or gradient norm
        """
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        parameters = list(self.policy.parameters())
        pack_parameters(parameters)
        log = MinibatchLog()
        parameters_before = flat_parameters(self.policy)
        evaluate, gradients = self._choose_evaluation(parameters)
        with joint_steps(self.policy.optimizer) as step:
            for epoch in range(self.n_epochs):
                log.start_epoch()
                completed = self._train_epoch(evaluate, gradients, step, log)
                self._n_updates += 1
                if not completed:
                    if self.verbose >= 1:
                        self.logger.info(f"Early stopping at step {epoch} due to reaching max kl")
                    break
        record_update(self, log, parameters_before)

    def _choose_evaluation(self, parameters: list[th.nn.Parameter]) -> tuple[Evaluation, Gradients]:
        """
        :param parameters: the policy's
        :return: the hand-derived gradient where it is known to be that of :meth:`_evaluate`, which is slower; and where
            the gradients are to be found
        """
        as_sb3 = self.vgs is None  # otherwise SB3 has nothing to be equal to
        own_loss = overridden(self, DistributionalPPO, ("_evaluate", "_policy_loss", "_value_loss"))
        loss = None if own_loss else MlpLoss.of(self)
        if loss is None:
            if self.compile:
                self._compiled_update.fall_back("the gradient of this policy's loss needs autograd")
            return self._evaluate, Gradients(parameters, as_sb3)
        packed = PackedGradients(parameters, as_sb3)
        loss.differentiate_into(packed)
        if self.compile:
            return self._compiled_update.evaluation(loss, packed), packed
        return loss, packed

    def _train_epoch(self, evaluate: Evaluation, gradients: Gradients, step: Step, log: MinibatchLog) -> bool:
        """One pass over the rollout. :return: False if it was ended by ``target_kl``"""
        for minibatch in minibatches(self.rollout_buffer, self.batch_size):
            loss, backward = evaluate(minibatch, log)
            # As in SB3, with 1.5 times the target
            if self.target_kl is not None and bool(log.last_kl() > 1.5 * self.target_kl):
                log.add(loss=loss)
                return False
            gradients.clear()
            backward()
            self._apply_gradients(loss, gradients, step, log)
        return True

    def _evaluate(self, minibatch: Minibatch, log: MinibatchLog) -> tuple[th.Tensor, Callable[[], None]]:
        """
        The loss of a minibatch, and how its gradient is computed: by autograd.

        :return: 0-d loss, and a function that adds its gradient to ``.grad`` of all parameters
        """
        actions = minibatch.actions
        if isinstance(self.action_space, spaces.Discrete):
            actions = actions.long().flatten()
        predictions, log_prob, entropy = self.policy.evaluate_with_predictions(minibatch.observations, actions)
        policy_loss = self._policy_loss(minibatch, log_prob, log)
        value_loss = self._value_loss(minibatch, predictions, log)
        # Without an analytical entropy, -log_prob of the sampled actions is an unbiased estimate of it
        entropy_loss = -th.mean(-log_prob) if entropy is None else -th.mean(entropy)
        log.add(entropy_loss=entropy_loss)
        loss = policy_loss + self.ent_coef * entropy_loss + self.vf_coef * value_loss
        return loss, loss.backward

    def _policy_loss(self, minibatch: Minibatch, log_prob: th.Tensor, log: MinibatchLog) -> th.Tensor:
        """
        Clipped surrogate objective, negated (Schulman et al. 2017, equation 7).

        :param log_prob: log-probabilities of the minibatch's actions under the current policy, (batch,)
        :return: 0-d loss
        """
        clip_range = self.clip_range(self._current_progress_remaining)  # type: ignore[operator]
        advantages = normalized(minibatch.advantages) if self.normalize_advantage else minibatch.advantages
        log_ratio = log_prob - minibatch.old_log_prob
        policy_loss = clipped_surrogate(log_ratio, advantages, clip_range)
        log.add(policy_gradient_loss=policy_loss)
        log.add_log_ratio(log_ratio)
        return policy_loss

    def _value_loss(self, minibatch: Minibatch, predictions: th.Tensor, log: MinibatchLog) -> th.Tensor:
        """
        The head's loss against the λ-returns, or against the distributions in their place.

        :param predictions: raw predictions of the value head, (batch, k)
        :return: 0-d loss
        """
        log.add_predictions(predictions, minibatch.returns)
        if self.clip_range_vf is not None:
            clip_range_vf = self.clip_range_vf(self._current_progress_remaining)  # type: ignore[operator]
            old_values = minibatch.old_values.unsqueeze(1)
            predictions = old_values + th.clamp(predictions - old_values, -clip_range_vf, clip_range_vf)
        value_loss = self.policy.value_net.loss(predictions, value_targets(minibatch))
        log.add(value_loss=value_loss)
        return value_loss

    def _apply_gradients(self, loss: th.Tensor, gradients: Gradients, step: Step, log: MinibatchLog) -> None:
        """
        Scaling, clipping and the optimizer's step; skipped if anything is not finite.

        :param loss: 0-d loss
        :param gradients: its gradients
        :param step: takes the optimizer's step
        :raises TrainingDiverged: see :meth:`train`
        """
        if self.vgs is not None:
            self.vgs.observe(gradients.flat)
            if self.vgs_placement == "before_clip":
                self.vgs.scale(gradients.flat)
        # ``clip_grad_norm_`` in its two halves: clipping by a norm that is not finite would spoil every gradient
        grad_norm = gradients.norm()
        # The one host read of a minibatch, besides that of ``target_kl``
        finite = math.isfinite(loss.detach() + grad_norm)
        log.add(loss=loss)
        if not finite:
            self._skip_update(log)
            return
        log.add(grad_norm=grad_norm)
        gradients.clip_(grad_norm, self.max_grad_norm)
        if self.vgs is not None and self.vgs_placement == "after_clip":
            self.vgs.scale(gradients.flat)
        self._nonfinite_in_a_row = 0
        if self.vgs is None:
            step()
            return
        with self.vgs.scaling_update(self.policy.optimizer):
            step()
        self.vgs.step()

    def _skip_update(self, log: MinibatchLog) -> None:
        self._nonfinite_in_a_row += 1
        log.skipped += 1
        if self.vgs is not None:
            self.vgs.discard()
        if self._nonfinite_in_a_row >= self.max_nonfinite_updates:
            raise TrainingDiverged(
                nonfinite_gradients(self.policy),
                self._nonfinite_in_a_row,
                self.num_timesteps,
                nonfinite_arrays(self.rollout_buffer),
            )

    def learn(
        self: SelfDistributionalPPO,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "DistributionalPPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfDistributionalPPO:
        """
        Train for ``total_timesteps`` environment steps; arguments as in SB3.

        :raises TrainingDiverged: see :meth:`train`
        """
        return super().learn(
            total_timesteps=total_timesteps,
            callback=callback,
            log_interval=log_interval,
            tb_log_name=tb_log_name,
            reset_num_timesteps=reset_num_timesteps,
            progress_bar=progress_bar,
        )

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        state_dicts, variables = super()._get_torch_save_params()
        return [*state_dicts, *(["vgs"] if self.vgs is not None else [])], variables

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "vgs", "_compiled_update"]

    def set_parameters(
        self,
        load_path_or_dict: str | TensorDict,
        exact_match: bool = True,
        device: th.device | str = "auto",
    ) -> None:
        """
        Load parameters as SB3 does, with the scaler's state among them.

        A scaler state is ignored where VGS is off, and a scaler starts afresh where a whole source has none, so that
        ``load(path, vgs_version=...)`` can switch VGS on and off. Settings in ``vgs_kwargs`` win over the source's.

        :param load_path_or_dict: zip file, or a dictionary as :meth:`get_parameters` returns it
        :param exact_match: refuse missing and unknown names of modules and tensors
        :param device: device on which the tensors are read
        :raises CheckpointError: the scaler's state does not fit
        """
        params: dict[str, Any]
        if isinstance(load_path_or_dict, dict):
            params = {**load_path_or_dict}
        else:
            params = {**load_from_zip_file(load_path_or_dict, device=device, load_data=False)[1]}
        vgs_state = params.pop("vgs", None)
        if self.vgs is not None and isinstance(vgs_state, dict):
            asked_for = {name: value for name, value in (self.vgs_kwargs or {}).items() if value is not None}
            params["vgs"] = {**vgs_state, **asked_for}  # what was asked for wins over the file
        elif self.vgs is not None and (vgs_state is not None or exact_match):
            params["vgs"] = self._fresh_vgs_state() if vgs_state is None else vgs_state
        super().set_parameters(params, exact_match=exact_match, device=device)
        if self.vgs is not None:
            self.vgs.read_momentum(self.policy.optimizer)

    def _fresh_vgs_state(self) -> dict[str, Any]:
        version = self.vgs_version or ""
        return VarianceGradientScaler(self.policy.parameters(), version=version, **(self.vgs_kwargs or {})).state_dict()

    def save(
        self,
        path: str | pathlib.Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
        *,
        extra_members: Mapping[str, bytes] | None = None,
    ) -> None:
        """
        Save SB3's zip with two more members: ``vgs.pth`` and ``manifest.json``; and ``vec_normalize.pt`` with the
        statistics of the environment's ``VecNormalize``, if there is one.

        A path is replaced atomically: a save that is killed leaves the old file whole.

        :param path: path (``.zip`` is appended where there is no suffix) or open binary file
        :param exclude: attributes not to save, besides SB3's
        :param include: attributes to save although SB3 excludes them
        :param extra_members: further content of the file by name, which :meth:`load` ignores
        :raises OSError: the file cannot be written; what was there before is unchanged
        """
        sb3_zip = io.BytesIO()
        super().save(sb3_zip, exclude, include)
        save_model_archive(
            path, sb3_zip.getvalue(), describe(self), {**environment_members(self), **(extra_members or {})}
        )
