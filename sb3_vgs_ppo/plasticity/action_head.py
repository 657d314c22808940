"""How certain of its actions a policy is: outputs of its last layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch as th
from torch import Tensor


def output_norm(outputs: Tensor) -> float:
    """
    Mean over states of the Euclidean norm of the head's outputs (logits, or the means of a Gaussian).

    Logits are taken as the layer gives them, not centred.

    :param outputs: shape (states, outputs)
    """
    return float(th.linalg.vector_norm(outputs, dim=1).mean())


def near_certain_fraction(logits: Sequence[Tensor], threshold: float = 0.99) -> float:
    """
    Fraction of choices in which one option has more than ``threshold`` of the probability: others are hardly ever
    tried, and the gradient of the softmax, p·(1 − p), has all but vanished.

    :param logits: of one or more categorical choices, each of shape (states, ..., options)
    :return: fraction over all states and choices, in [0, 1]
    """
    largest = [choice.softmax(-1).amax(-1).flatten() for choice in logits]
    return (th.cat(largest) > threshold).double().mean().item()


def out_of_bounds_fraction(means: Tensor, low: Tensor, high: Tensor) -> float:
    """
    Fraction of the means of a Gaussian policy, over states and dimensions, that lie outside the bounds to which actions
    are clipped: there at least half of the actions are the same.

    :param means: shape (states, dimensions)
    :param low: smallest action, shape (dimensions,)
    :param high: largest action, shape (dimensions,)
    :return: fraction in [0, 1]
    """
    return ((means < low) | (means > high)).double().mean().item()
