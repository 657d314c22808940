"""Units that say nothing: dormant ones (Sokar et al. 2023), and the saturated ones of tanh networks.

Source: Sokar, Agarwal, Castro & Evci, "The Dormant Neuron Phenomenon in Deep Reinforcement Learning", ICML 2023.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch as th
from torch import Tensor, nn

from sb3_vgs_ppo.errors import UserInputError

ACTIVATIONS = (
    *(nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ReLU6, nn.CELU, nn.ELU, nn.SELU),
    *(nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Tanh, nn.Sigmoid, nn.Hardtanh, nn.Softsign),
)
"""Modules whose outputs are taken for the units of a hidden layer."""


class HiddenLayer(NamedTuple):
    """
    What the units of a layer answered to a batch.

    :param activation: class of the activation function
    :param outputs: shape (batch, units), or (batch, channels, height, width), where a unit is a channel
    """

    activation: type[nn.Module]
    outputs: Tensor


@contextmanager
def record_hidden_layers(module: nn.Module) -> Iterator[list[HiddenLayer]]:
    """
    Inside the context, keep the outputs of all activation modules in ``module``; no hook stays behind.

    :param module: functions that are called without a module, as ``torch.relu``, are not seen
    :return: layers in the order of their calls; empty until the module is called
    """
    layers: list[HiddenLayer] = []

    def keep(activation: nn.Module, _: Any, outputs: Tensor) -> None:
        layers.append(HiddenLayer(type(activation), outputs.detach()))

    handles = [part.register_forward_hook(keep) for part in module.modules() if isinstance(part, ACTIVATIONS)]
    try:
        yield layers
    finally:
        for handle in handles:
            handle.remove()


def dormant_fraction(layers: Sequence[HiddenLayer], tau: float = 0.025) -> float:
    """
    Fraction of units that hardly answer, of those of all layers together (Sokar et al. 2023, definition 3.1).

    A unit is dormant if its score (eq. 1) is at most tau: its mean |output| over the batch (for a channel also over
    positions), divided by the mean of that over the units of its layer. Where no unit of a layer answers at all, all
    are dormant.

    In tanh networks a dormant unit is one that stays near 0, which is rare. A unit that is stuck near ±1 is lost
    as well, but has the *highest* score: see :func:`tanh_saturation`.

    :param layers: at least one
    :param tau: 0.025 is a threshold of the paper; 0 counts units that never answer
    :return: fraction in [0, 1]
    :raises UserInputError: there is no layer
    """
    if not layers:
        raise UserInputError("no hidden layers; remedy: call the network, with activations that are modules, first")
    scores = th.cat([_dormancy_scores(layer.outputs) for layer in layers])
    return (scores <= tau).double().mean().item()


def _dormancy_scores(outputs: Tensor) -> Tensor:
    """:return: eq. 1 of every unit, (units,)"""
    activity = outputs.abs().transpose(0, 1).flatten(1).mean(1)
    mean = activity.mean()
    return th.where(mean == 0, 0.0, activity / mean)


def tanh_saturation(layers: Sequence[HiddenLayer], threshold: float = 0.99) -> float | None:
    """
    Fraction of the outputs of tanh units, over all units and states, of which the absolute value exceeds a threshold.

    Not from a paper: what the dormancy score does not see. At 0.99 the derivative 1 − tanh² is 0.02, so that hardly any
    gradient passes.

    :param layers: those of other activation functions are left out
    :return: fraction in [0, 1]; None if there is no tanh layer
    """
    outputs = [layer.outputs.flatten() for layer in layers if issubclass(layer.activation, nn.Tanh)]
    return (th.cat(outputs).abs() > threshold).double().mean().item() if outputs else None
