"""The two halves of ``torch.nn.utils.clip_grad_norm_``, bit for bit, without its sorting of tensors by device."""

from __future__ import annotations

import torch as th


def total_norm(gradients: list[th.Tensor]) -> th.Tensor:
    """
    :param gradients: on one device
    :return: 2-norm of all elements together, 0-d
    """
    norm: th.Tensor = th.linalg.vector_norm(th.stack(th._foreach_norm(gradients)))
    return norm


def clip_by_norm_(gradients: list[th.Tensor], norm: th.Tensor, max_norm: float) -> None:
    """
    Scale gradients down, in place, to a norm of at most ``max_norm``.

    :param gradients: on one device
    :param norm: their :func:`total_norm`, finite
    :param max_norm: upper bound
    """
    th._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp_(max=1.0))
