"""What a scaler can watch, checked where it enters."""

from __future__ import annotations

from collections.abc import Iterable

import torch as th

from sb3_vgs_ppo.errors import UserInputError


def checked_parameters(parameters: Iterable[th.Tensor]) -> tuple[th.Tensor, ...]:
    """
    :return: the parameters, none of which the scaler would misread
    :raises UserInputError: none, duplicates, several devices, or numbers that are not real floating point
    :raises TypeError: not an iterable of tensors
    """
    if isinstance(parameters, th.Tensor):
        raise TypeError("parameters must be an iterable of tensors, got a single tensor; remedy: [tensor]")
    tensors = tuple(parameters)
    for position, tensor in enumerate(tensors):
        if not isinstance(tensor, th.Tensor):
            raise TypeError(f"parameters must be tensors, got {type(tensor).__name__} at position {position}")
        if not tensor.is_floating_point():
            raise UserInputError(f"parameters must be real floating point, got {tensor.dtype} at position {position}")
    if not tensors:
        raise UserInputError("parameters are empty, got []; remedy: pass module.parameters() of a module that has some")
    if duplicates := len(tensors) - len({id(tensor) for tensor in tensors}):
        raise UserInputError(f"parameters contain {duplicates} duplicates; each tensor would be scaled repeatedly")
    if len(devices := {str(tensor.device) for tensor in tensors}) > 1:
        raise UserInputError(
            f"parameters lie on several devices ({', '.join(sorted(devices))}); remedy: one scaler per device"
        )
    return tensors
