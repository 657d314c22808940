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


class _Norm(NamedTuple):
    """Layer normalization (Ba, Kiros & Hinton 2016) with weights."""

    weight: th.Tensor
    bias: th.Tensor
    eps: float


class _Hidden(NamedTuple):
    """A hidden layer: linear, normalized or not, and an activation."""

    weight: th.Tensor
    bias: th.Tensor
    norm: _Norm | None
    activation: _Activation

    @property
    def parameters(self) -> list[th.Tensor]:
        return [self.weight, self.bias, *(() if self.norm is None else self.norm[:2])]


class _Normalized(NamedTuple):
    """What the gradient of a normalization needs: its inputs, and their means and inverse deviations by sample."""

    inputs: th.Tensor
    mean: th.Tensor
    rstd: th.Tensor


class Trace(NamedTuple):
    """
    What :meth:`Mlp.backward` needs of a forward pass.

    :param inputs: of every layer, those of the output last
    :param normalized: by index of the hidden layer
    """

    inputs: list[th.Tensor]
    normalized: dict[int, _Normalized]


class Mlp:
    """
    Linear layers, normalized or not, with activations between them and a linear output.

    :param hidden: modules of the hidden layers, which :meth:`supports` accepts
    :param output: module that holds ``weight`` (out_features, width) and ``bias`` (out_features,) of the output
    :param predict: the output as a function of the last hidden layer; linear in it with this weight
    """

    def __init__(
        self, hidden: Iterable[nn.Module], output: nn.Linear | ValueHead, predict: Callable[[th.Tensor], th.Tensor]
    ) -> None:
        self._hidden = _hidden_layers(hidden) or []
        self._output = (output.weight, output.bias)
        self._predict = predict

    @staticmethod
    def supports(hidden: Iterable[nn.Module]) -> bool:
        """:return: whether these are linear layers with a bias, each with a known activation behind it, and
        ``nn.LayerNorm`` between the two or not
        """
        return _hidden_layers(hidden) is not None

    @property
    def parameters(self) -> list[th.Tensor]:
        """Weights and biases in the order of :meth:`backward`."""
        return [*(parameter for layer in self._hidden for parameter in layer.parameters), *self._output]

    def forward(self, features: th.Tensor) -> tuple[th.Tensor, Trace]:
        """
        :param features: shape (batch, in_features)
        :return: output, shape (batch, out_features), without a graph; and what :meth:`backward` asks for
        """
        trace = Trace([features], {})
        for index, (weight, bias, norm, activation) in enumerate(self._hidden):
            features = F.linear(features, weight, bias)
            if norm is not None:
                inputs = features
                features, mean, rstd = th.native_layer_norm(inputs, bias.shape, *norm)
                trace.normalized[index] = _Normalized(inputs, mean, rstd)
            features = activation.forward_(features)
            trace.inputs.append(features)
        return self._predict(features), trace

    def backward(self, gradient: th.Tensor, trace: Trace, into: list[th.Tensor]) -> None:
        """
        Gradients of one :meth:`forward`.

        :param gradient: of the loss with respect to its output, shape (batch, out_features)
        :param trace: as it returned it
        :param into: tensors that are overwritten with the gradients of :attr:`parameters`
        """
        free = list(into)
        weight = self._output[0]
        _linear_backward(gradient, trace.inputs[-1], free)
        for index in reversed(range(len(self._hidden))):
            layer = self._hidden[index]
            gradient = layer.activation.backward(gradient.mm(weight), trace.inputs[index + 1])
            if layer.norm is not None:
                gradient = _norm_backward(gradient, layer.norm, trace.normalized[index], free)
            _linear_backward(gradient, trace.inputs[index], free)
            weight = layer.weight


def _linear_backward(gradient: th.Tensor, inputs: th.Tensor, free: list[th.Tensor]) -> None:
    """
    :param gradient: of the outputs, (batch, out_features)
    :param free: tensors to be overwritten; the last two, for weight and bias, are taken
    """
    th.sum(gradient, 0, out=free.pop())
    th.mm(gradient.t(), inputs, out=free.pop())


def _norm_backward(gradient: th.Tensor, norm: _Norm, of: _Normalized, free: list[th.Tensor]) -> th.Tensor:
    """
    :param gradient: of the outputs, (batch, width)
    :param free: as in :func:`_linear_backward`
    :return: gradient of the inputs
    """
    of_inputs: th.Tensor
    of_inputs, of_weight, of_bias = th.ops.aten.native_layer_norm_backward.default(
        gradient, of.inputs, norm.bias.shape, of.mean, of.rstd, norm.weight, norm.bias, [True, True, True]
    )
    free.pop().copy_(of_bias)
    free.pop().copy_(of_weight)
    return of_inputs


def _hidden_layers(modules: Iterable[nn.Module]) -> list[_Hidden] | None:
    """:return: the modules as layers, None where they are something else, see :meth:`Mlp.supports`"""
    remaining = list(modules)[::-1]
    layers = []
    while remaining:
        linear = remaining.pop()
        norm = remaining.pop() if remaining and type(remaining[-1]) is nn.LayerNorm else None
        activation = _ACTIVATIONS.get(type(remaining.pop())) if remaining else None
        if type(linear) is not nn.Linear or linear.bias is None or activation is None:
            return None
        known_norm = None
        if isinstance(norm, nn.LayerNorm):
            if norm.bias is None or norm.normalized_shape != (linear.out_features,):
                return None
            known_norm = _Norm(norm.weight, norm.bias, norm.eps)
        layers.append(_Hidden(linear.weight, linear.bias, known_norm, activation))
    return layers
