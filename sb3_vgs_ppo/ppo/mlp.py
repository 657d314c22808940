"""A multilayer perceptron whose gradient is derived by hand.

Autograd keeps one node per operation and parameter, which for two networks of 64 x 64 and a batch of 64 costs as much
time as the arithmetic. Every kernel here is the one that autograd would call, in its order, so that gradients are equal
bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_vgs_ppo.distributional import ValueHead


class _Activation(NamedTuple):
    """An elementwise function, in place, and its gradient as a function of (gradient of the output, output)."""

    forward_: Callable[[th.Tensor], th.Tensor]
    backward: Callable[[th.Tensor, th.Tensor], th.Tensor]


def _relu_backward(gradient: th.Tensor, output: th.Tensor) -> th.Tensor:
    result: th.Tensor = th.ops.aten.threshold_backward.default(gradient, output, 0)
    return result


_ACTIVATIONS: dict[type[nn.Module], _Activation] = {
    nn.Tanh: _Activation(th.tanh_, th.ops.aten.tanh_backward.default),
    nn.ReLU: _Activation(th.relu_, _relu_backward),
}


class Mlp:
    """
    Linear layers with activations between them and a linear output.

    :param hidden: modules of the hidden layers, linear ones and activations by turns
    :param output: module that holds ``weight`` (out_features, width) and ``bias`` (out_features,) of the output
    :param predict: the output as a function of the last hidden layer; linear in it with this weight
    """

    def __init__(
        self, hidden: Iterable[nn.Module], output: nn.Linear | ValueHead, predict: Callable[[th.Tensor], th.Tensor]
    ) -> None:
        modules = list(hidden)
        self._layers = [(layer.weight, layer.bias) for layer in modules if isinstance(layer, nn.Linear)]
        self._activations = [_ACTIVATIONS[type(module)] for module in modules[1::2]]
        self._output = (output.weight, output.bias)
        self._predict = predict

    @staticmethod
    def supports(hidden: Iterable[nn.Module]) -> bool:
        """:return: whether these modules are linear layers with a bias and known activations by turns"""
        modules = list(hidden)
        linear, activations = modules[::2], modules[1::2]
        return (
            len(linear) == len(activations)
            and all(type(module) is nn.Linear and module.bias is not None for module in linear)
            and all(type(module) in _ACTIVATIONS for module in activations)
        )

    @property
    def parameters(self) -> list[th.Tensor]:
        """Weights and biases in the order of :meth:`backward`."""
        return [parameter for layer in (*self._layers, self._output) for parameter in layer]

    def forward(self, features: th.Tensor) -> tuple[th.Tensor, list[th.Tensor]]:
        """
        :param features: shape (batch, in_features)
        :return: output, shape (batch, out_features), without a graph; and the input of every layer, which
            :meth:`backward` asks for
        """
        inputs = [features]
        for (weight, bias), activation in zip(self._layers, self._activations, strict=True):
            inputs.append(activation.forward_(F.linear(inputs[-1], weight, bias)))
        return self._predict(inputs[-1]), inputs

    def backward(self, gradient: th.Tensor, inputs: list[th.Tensor], into: list[th.Tensor]) -> None:
        """
        Gradients of one :meth:`forward`.

        :param gradient: of the loss with respect to its output, shape (batch, out_features)
        :param inputs: of the layers, as it returned them
        :param into: tensors that are overwritten with the gradients of :attr:`parameters`
        """
        layers = [*self._layers, self._output]
        for index in reversed(range(len(layers))):
            features = inputs[index]
            th.mm(gradient.t(), features, out=into[2 * index])
            th.sum(gradient, 0, out=into[2 * index + 1])
            if index:
                gradient = self._activations[index - 1].backward(gradient.mm(layers[index][0]), features)
