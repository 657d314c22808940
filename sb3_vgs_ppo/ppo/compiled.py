"""The update of ``compile=True``: loss and gradient of a minibatch as one function that ``torch.compile`` fuses."""

from __future__ import annotations

from collections.abc import Callable

import torch as th

from sb3_vgs_ppo._compile import Compiled
from sb3_vgs_ppo.ppo.gradients import PackedGradients
from sb3_vgs_ppo.ppo.minibatch_log import MinibatchLog
from sb3_vgs_ppo.ppo.minibatches import Minibatch
from sb3_vgs_ppo.ppo.mlp_loss import Figures, MlpLoss
from sb3_vgs_ppo.ppo.policy_terms import Coefficients


class CompiledUpdate:
    """
    What is compiled of a model's update. It outlives a ``train()``, since compiling takes longer than that.

    Samples, VGS, clipping, the optimizer's step and every draw of random numbers stay as they are.
    """

    def __init__(self) -> None:
        self._differentiate = Compiled(_differentiate, "the loss")
        self.fall_back: Callable[[str], None] = self._differentiate.fall_back

    def evaluation(
        self, loss: MlpLoss, gradients: PackedGradients
    ) -> Callable[[Minibatch, MinibatchLog], tuple[th.Tensor, Callable[[], None]]]:
        """
        :param loss: of one ``train()`` call
        :param gradients: into which it differentiates
        :return: what evaluates as the loss does, up to rounding, and has the gradient at once; the loss itself where it
            cannot be compiled
        """
        device, coefficients = gradients.flat.device, loss.coefficients.as_tensors()
        if device.type != "cpu":
            self.fall_back(f"the model is on {device}, and updates are compiled on a CPU only")
        if self._differentiate.failure is not None:
            return loss

        def evaluate(minibatch: Minibatch, log: MinibatchLog) -> tuple[th.Tensor, Callable[[], None]]:
            with th.no_grad():
                figures = self._differentiate(loss, minibatch, coefficients, gradients.flat)
            figures.enter(log, minibatch.returns)
            return figures.loss, _nothing

        return evaluate


def _differentiate(loss: MlpLoss, minibatch: Minibatch, coefficients: Coefficients, into: th.Tensor) -> Figures:
    """:param into: overwritten with the gradients of all parameters, one after the other"""
    figures, backward = loss.evaluate(minibatch, coefficients)
    gradients = [th.empty_like(parameter) for parameter in loss.parameters]
    backward(gradients)
    into.copy_(th.cat([gradient.flatten() for gradient in gradients]))
    return figures


def _nothing() -> None:
    """The gradient is there."""
