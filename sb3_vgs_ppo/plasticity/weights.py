"""How large weights are, and how many of them the gates of UPGD hold or release altogether."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn


def weight_norm(parameters: Iterable[Tensor]) -> float:
    """
    :param parameters: weights and biases of a part of a network
    :return: Euclidean norm of all of them together
    """
    return nn.utils.get_total_norm(parameters).item()


def saturated_gate_fraction(gates: Tensor, margin: float = 0.01) -> float:
    """
    Fraction of weights that UPGD freezes, or leaves without protection (Elsayed & Mahmood 2024): gates within
    ``margin`` of 1 or 0.

    With ``utility_normalization="minmax"`` it is 0, since gates then lie between sigmoid(−1) and sigmoid(1).

    :param gates: in [0, 1], shape (weights,)
    :return: fraction in [0, 1]
    """
    return ((gates < margin) | (gates > 1.0 - margin)).double().mean().item()
