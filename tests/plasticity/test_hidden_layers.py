"""Dormant and saturated units of networks whose answers are written down."""

from __future__ import annotations

import pytest
import torch as th
from torch import nn

from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.plasticity import HiddenLayer, dormant_fraction, record_hidden_layers, tanh_saturation


def layer(outputs: list[list[float]], activation: type[nn.Module] = nn.ReLU) -> HiddenLayer:
    return HiddenLayer(activation, th.tensor(outputs))


def test_a_unit_is_compared_with_the_mean_of_its_layer() -> None:
    """Mean outputs 0, 0.08, 1.92 and 2: their mean is 1, their sum 4, by which also 0.08 would be dormant."""
    assert dormant_fraction([layer([[0.0, 0.16, 1.92, 4.0], [0.0, 0.0, 1.92, 0.0]])]) == 0.25


def test_a_score_of_tau_is_dormant() -> None:
    outputs = [[0.25, 0.75, 2.0, 1.0]]  # mean 1
    assert dormant_fraction([layer(outputs)], tau=0.25) == 0.25
    assert dormant_fraction([layer(outputs)], tau=0.249) == 0.0


def test_negative_outputs_are_activity() -> None:
    """The first unit's mean is 0, its mean absolute value is not."""
    assert dormant_fraction([layer([[-1.0, 1.0, 0.0], [1.0, 1.0, 0.0]], nn.Tanh)]) == pytest.approx(1 / 3)


def test_layers_count_by_their_units_and_are_compared_within_themselves() -> None:
    """The mean of the layers' fractions would be 5/8; against both layers together, the small one would be dormant."""
    large, dead, small = layer([[100.0, 100.0]]), layer([[0.0, 0.0, 0.0]]), layer([[0.001, 0.001, 0.0]])
    assert dormant_fraction([large, dead, small]) == 4 / 8


def test_a_unit_of_a_convolution_is_a_channel() -> None:
    outputs = th.zeros(2, 4, 2, 2)
    outputs[1, 0, 1, 1] = 1.0  # one answer to one state in one position
    assert dormant_fraction([HiddenLayer(nn.ReLU, outputs)]) == 0.75


def test_saturated_units_are_not_dormant_but_counted_on_their_own() -> None:
    layers = [
        layer([[1.0, -0.995, 0.5, 0.99], [1.0, 0.98, -1.0, 0.2]], nn.Tanh),  # 0.99 is not above the threshold
        layer([[5.0] * 8], nn.ReLU),
    ]
    assert tanh_saturation(layers) == 4 / 8
    assert tanh_saturation(layers, threshold=0.4) == 7 / 8
    assert dormant_fraction(layers) == 0.0
    assert tanh_saturation(layers[1:]) is None


def test_the_layers_of_a_network() -> None:
    """Weights ±1 on x = 2 and 3; the second unit never answers, and the last layer is no hidden one."""
    network = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Sequential(nn.Linear(2, 1), nn.Tanh()), nn.Linear(1, 1))
    with th.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.0)
        network[0].weight.copy_(th.tensor([[1.0], [-1.0]]))
    with record_hidden_layers(network) as layers:
        network(th.tensor([[2.0], [3.0]]))
    assert [found.activation for found in layers] == [nn.ReLU, nn.Tanh]
    assert layers[0].outputs.tolist() == [[2.0, 0.0], [3.0, 0.0]]
    assert layers[1].outputs.tolist() == [[0.0], [0.0]]
    assert dormant_fraction(layers) == pytest.approx(2 / 3)


def test_a_module_that_is_called_twice_is_two_layers() -> None:
    relu = nn.ReLU()
    with record_hidden_layers(nn.Sequential(relu, nn.Linear(3, 2), relu)) as layers:
        relu(th.ones(1, 3))
        relu(th.ones(1, 2))
    assert [found.outputs.shape for found in layers] == [(1, 3), (1, 2)]


def test_no_hook_stays_behind() -> None:
    network = nn.Sequential(nn.Linear(1, 1), nn.Tanh())
    with pytest.raises(RuntimeError, match="shapes"), record_hidden_layers(network) as layers:
        network(th.ones(1, 5))
    assert not any(module._forward_hooks for module in network.modules())
    network(th.ones(1, 1))
    assert layers == []


def test_a_network_without_hidden_layers_has_no_fraction() -> None:
    with pytest.raises(UserInputError, match="no hidden layers; remedy"):
        dormant_fraction([])
