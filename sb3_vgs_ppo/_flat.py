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
    return list(map(th.Tensor.data_ptr, tensors))


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

    :param parameters: leaves of the graph; left where they are unless all are contiguous, of one device and dtype
    """
    alike = len({(p.device, p.dtype) for p in parameters}) == 1 and all(p.is_contiguous() for p in parameters)
    if alike and flat_view(parameters) is None:
        for parameter, data in zip(parameters, pack(parameters), strict=True):
            parameter.data = data
