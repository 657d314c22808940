"""The Variance Gradient Scaler for every algorithm of SB3 and sb3-contrib that has an optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.scaling import Attachment, VarianceGradientScaler, attach, attachment_of
from sb3_vgs_ppo.scaling.metrics import record


class VGSCallback(BaseCallback):
    """
    Attaches a scaler to each optimizer of a network while ``learn`` runs, and logs what it does::

        model = SAC("MlpPolicy", "Pendulum-v1")
        model.learn(10_000, callback=VGSCallback("4.0"))

    With PPO, A2C, DQN and others that have one optimizer, ``policy.optimizer``, figures are logged under ``vgs/``; with
    SAC, TD3, TQC and others with several under ``vgs_actor/`` and ``vgs_critic/`` (``docs/metrics.md``), each averaged
    since the last row of the log.

    The scalers' state is part of the optimizers', see :func:`~sb3_vgs_ppo.scaling.attach`: ``model.save`` writes it,
    during ``learn`` and after it, and the next ``learn`` with this callback continues it, also after ``load``. Without
    the callback nothing is scaled; but a ``learn`` that ended with an exception has left its scalers attached, so then
    call :meth:`detach`, or ``learn`` with this callback again.

    SB3's PPO, A2C and DQN clip before the scaler sees the gradient; ``max_grad_norm=float("inf")`` switches that off.
    TRPO takes its policy step without its optimizer, so only the value function is scaled.

    :param version: what is measured, see :class:`~sb3_vgs_ppo.scaling.VarianceGradientScaler`; None (the default) is
        that of the state found in the model, or 3.0
    :param vgs_kwargs: further keyword arguments of :class:`~sb3_vgs_ppo.scaling.VarianceGradientScaler`, e.g.
        ``dict(alpha=0.5)``; they win over the settings of a state
    :param optimizers: which to scale, as the model names what it saves, e.g. ``"critic.optimizer"``, or several; by
        default all that belong to a network, so not that of SAC's entropy coefficient
    :raises UserInputError: (a ValueError) when ``learn`` begins: the model has no such optimizer, or a scaler of its
        own (DistributionalPPO), or :func:`~sb3_vgs_ppo.scaling.attach` refuses the arguments
    :raises CheckpointError: when ``learn`` begins: a state in the model does not fit it
    """

    def __init__(
        self,
        version: str | None = None,
        vgs_kwargs: dict[str, Any] | None = None,
        optimizers: str | Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.version = version
        self.vgs_kwargs = vgs_kwargs
        self.optimizers = optimizers
        self.attachments: dict[str, Attachment] = {}
        """By name of the optimizer, of the last ``learn``; ``.vgs`` of each is its scaler."""

    def _init_callback(self) -> None:
        if isinstance(getattr(self.model, "vgs", None), VarianceGradientScaler):
            raise UserInputError(
                f"{type(self.model).__name__} has a scaler already and would be scaled twice; "
                "remedy: vgs_version=None, or no VGSCallback"
            )
        # All callbacks are initialised before the first begins: what is attached now, an earlier training has left
        for optimizer in self._chosen_optimizers().values():
            left_over = attachment_of(optimizer)
            if left_over is not None:
                left_over.detach()

    def _chosen_optimizers(self) -> dict[str, th.optim.Optimizer]:
        found = _saved_optimizers(self.model)
        chosen = [name for name in found if name.endswith(".optimizer")]
        if self.optimizers is not None:
            chosen = [self.optimizers] if isinstance(self.optimizers, str) else list(self.optimizers)
        unknown = [name for name in chosen if name not in found]
        if unknown or not chosen:
            wanted = repr(unknown[0]) if unknown else "of a network"
            known = f"one of {', '.join(found)}" if found else "an algorithm that learns by gradients"
            raise UserInputError(f"{type(self.model).__name__} has no optimizer {wanted}; remedy: {known}")
        return {name: found[name] for name in chosen}

    def _on_training_start(self) -> None:
        self.attachments = {
            name: attach(optimizer, self.version, self.vgs_kwargs)
            for name, optimizer in self._chosen_optimizers().items()
        }

    def _on_step(self) -> bool:
        # Off-policy algorithms write their log where episodes end, and have rollouts of a single step
        if isinstance(self.model, OffPolicyAlgorithm) and any(self.locals["dones"]):
            self._record()
        return True

    def _on_rollout_end(self) -> None:
        if not isinstance(self.model, OffPolicyAlgorithm):
            self._record()

    def _on_training_end(self) -> None:
        self._record()
        self.detach()

    def detach(self) -> None:
        """End scaling. The scalers' states stay with the model."""
        for attachment in self.attachments.values():
            attachment.detach()

    def _record(self) -> None:
        for name, attachment in self.attachments.items():
            record(self.logger, attachment.vgs.pop_metrics(), tag=_log_tag(name))


def _saved_optimizers(model: BaseAlgorithm) -> dict[str, th.optim.Optimizer]:
    """:return: the optimizers that the model saves, and so also the state in them, by the names that it gives them"""
    saved = {name: attrgetter(name)(model) for name in model.get_parameters()}
    return {name: value for name, value in saved.items() if isinstance(value, th.optim.Optimizer)}


def _log_tag(name: str) -> str:
    """:return: ``vgs`` for ``policy.optimizer``, ``vgs_actor`` for ``actor.optimizer``"""
    owner = name.removesuffix("optimizer").rstrip("._")
    return "vgs" if owner == "policy" else f"vgs_{owner}"
