"""Many tensors as one: elementwise work and reductions over a list of small tensors cost as much as over their sum.

A list of tensors that lie back to back in one buffer *is* one flat tensor. Nothing is registered anywhere: whatever
moves a tensor elsewhere (``.to()``, ``copy.deepcopy``, ``load_state_dict`` of an optimizer) is noticed by its address,
and costs a copy until the tensors are packed again. The precedent is ``torch.nn.RNN.flatten_parameters``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch as th


def addresses(tensors: Sequence[th.Tensor]) -> list[int]:
    """:return: where each tensor's memory begins"""
    return [tensor.data_ptr() for tensor in tensors]


def flat_view(tensors: Sequence[th.Tensor]) -> th.Tensor | None:
    """
    :param tensors: at least one
    :return: one 1-d tensor over their memory, in their order; None unless they lie back to back in one buffer
    """
    first = tensors[0].detach()
    if th.compiler.is_compiling() or first.is_meta:
        return None  # there are no addresses
    end = first.data_ptr()
    for tensor in tensors:
        if tensor.data_ptr() != end or tensor.dtype is not first.dtype or not tensor.is_contiguous():
            return None
        end += tensor.nbytes
    buffer = first.untyped_storage()
    if end > buffer.data_ptr() + buffer.nbytes():
        return None  # neighbours by chance, each with a buffer of its own
    return first.as_strided(((end - first.data_ptr()) // first.itemsize,), (1,))


class FlatView:
    """:func:`flat_view` of tensors that mostly stay where they are, such as gradients from one step to the next."""

    def __init__(self) -> None:
        self._addresses: list[int] = []
        self._flat: th.Tensor | None = None

    def of(self, tensors: Sequence[th.Tensor]) -> th.Tensor | None:
        """
        :param tensors: of the same shapes and dtype in every call
        :return: as :func:`flat_view`
        """
        if not tensors or th.compiler.is_compiling() or tensors[0].is_meta:
            return None
        found = addresses(tensors)
        # The view keeps its memory alive, so that another tensor cannot come to lie there.
        if self._flat is None or found != self._addresses:
            self._flat, self._addresses = flat_view(tensors), found
        return self._flat


def split_like(flat: th.Tensor, tensors: Sequence[th.Tensor]) -> list[th.Tensor]:
    """:return: contiguous views into a flat tensor, one per tensor and in its shape"""
    pieces = flat.split([tensor.numel() for tensor in tensors])
    return [piece.view(tensor.shape) for piece, tensor in zip(pieces, tensors, strict=True)]


def pack(tensors: Sequence[th.Tensor], dtype: th.dtype | None = None) -> list[th.Tensor]:
    """
    :param tensors: at least one, on one device
    :param dtype: of the copies; that of the tensors by default
    :return: copies that lie back to back in a new buffer, one per tensor and in its shape
    """
    flat = th.cat([tensor.detach().reshape(-1) for tensor in tensors])
    return split_like(flat if dtype is None else flat.to(dtype), tensors)


def pack_parameters(parameters: Sequence[th.Tensor]) -> None:
    """
    Move the data of parameters into one buffer, unless it is there already. They stay the same objects.

    :param parameters: leaves of the graph, on one device and of one dtype
    """
    if parameters and flat_view(parameters) is None:
        for parameter, data in zip(parameters, pack(parameters), strict=True):
            parameter.data = data
