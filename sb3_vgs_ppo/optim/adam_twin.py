"""Steps of torch's Adam and AdamW over many small tensors as if they were one.

On a CPU torch steps tensor by tensor, which for SB3's networks costs far more than the arithmetic. Adam's formulas know
no tensors, only elements: where weights and gradients lie back to back, a second optimizer of the same class takes the
steps, over a few large tensors in the same memory, and returns the same numbers bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from operator import is_
from typing import Any

import torch as th

from sb3_vgs_ppo._flat import flat_view, pack


@contextmanager
def joint_steps(optimizer: th.optim.Optimizer) -> Iterator[Callable[[], Any]]:
    """
    While the context lasts, nobody but what it yields may move the optimizer's tensors, or change its options or state.

    :param optimizer: any; others than Adam and AdamW step as they always do, and so do these with hooks, on a GPU, or
        where ``foreach`` or ``fused`` was chosen
    :yield: takes a step, as ``optimizer.step``. When the context ends, the optimizer's state is as if it had stepped
    """
    if not _steps_tensor_by_tensor(optimizer):
        yield optimizer.step
        return
    steps = _JointSteps(optimizer)
    try:
        yield steps.step
    finally:
        steps.write_counts()


def _steps_tensor_by_tensor(optimizer: th.optim.Optimizer) -> bool:
    """:return: whether it is an Adam or AdamW whose steps are torch's loop over tensors and nothing else"""
    if type(optimizer) not in (th.optim.Adam, th.optim.AdamW) or len(optimizer.param_groups) > 1:
        return False
    is_hooked = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks or "step" in vars(optimizer)
    group = optimizer.param_groups[0]
    has_own_way = any(group[name] for name in ("foreach", "fused", "capturable", "differentiable"))
    tensors = [group["lr"], *group["betas"], *group["params"]]
    on_cpu = all(tensor.is_cpu for tensor in tensors if isinstance(tensor, th.Tensor))
    return not is_hooked and not has_own_way and on_cpu


class _JointSteps:
    """
    :param optimizer: Adam or AdamW with one group
    """

    def __init__(self, optimizer: th.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._twin: th.optim.Optimizer | None = None
        self._gradients: list[th.Tensor | None] = []
        """Those that the twin has."""
        self._runs: list[list[th.Tensor]] = []
        """Parameters by tensor of the twin."""

    def step(self) -> None:
        """Through the twin as soon as there is one: there is no state before the first step of all."""
        gradients = [parameter.grad for parameter in self._optimizer.param_groups[0]["params"]]
        if self._twin is not None and not all(map(is_, gradients, self._gradients)):
            self.write_counts()
            self._twin = None
        if self._twin is None:
            self._twin, self._gradients = self._make_twin(), gradients
        (self._twin or self._optimizer).step()

    def write_counts(self) -> None:
        """Let the optimizer know how many steps were taken; its other states are in the memory of the twin's."""
        if self._twin is None:
            return
        for parameters, flat in zip(self._runs, self._twin.param_groups[0]["params"], strict=True):
            for parameter in parameters:
                self._optimizer.state[parameter]["step"].copy_(self._twin.state[flat]["step"])

    def _make_twin(self) -> th.optim.Optimizer | None:
        """:return: one whose tensors show those of the optimizer, None unless they lie back to back"""
        group, states = self._optimizer.param_groups[0], self._optimizer.state
        if any(parameter.grad is None or not states.get(parameter) for parameter in group["params"]):
            return None
        # Neighbours that took the same number of steps: fewer where the state of a layer was reset
        self._runs = [list(run) for _, run in groupby(group["params"], key=lambda p: float(states[p]["step"]))]
        flats = [_joint(run) for run in self._runs]
        shown = [flat for flat in flats if flat is not None]
        if len(shown) < len(flats):
            return None
        twin = type(self._optimizer)(shown)  # type: ignore[call-arg]  # Adam's and AdamW's arguments have defaults
        twin.param_groups[0].update({name: value for name, value in group.items() if name != "params"})
        for run, flat in zip(self._runs, shown, strict=True):
            twin.state[flat] = _joint_state([states[parameter] for parameter in run])
        return twin


def _joint(parameters: list[th.Tensor]) -> th.nn.Parameter | None:
    """:return: all of them with their gradients, in the same memory; None unless they lie back to back"""
    weights, gradients = flat_view(parameters), flat_view([parameter.grad for parameter in parameters])  # type: ignore[misc]
    if weights is None or gradients is None:
        return None
    flat = th.nn.Parameter(weights)
    flat.grad = gradients
    return flat


def _joint_state(states: list[dict[str, th.Tensor]]) -> dict[str, th.Tensor]:
    """
    :param states: of tensors that took the same number of steps; theirs move into one buffer if they are not there yet
    :return: that of all of them together, in the same memory but for the count
    """
    joint = {"step": states[0]["step"].clone()}
    for name in states[0].keys() - joint.keys():
        tensors = [state[name] for state in states]
        flat = flat_view(tensors)
        if flat is None:
            tensors = pack(tensors)
            for state, tensor in zip(states, tensors, strict=True):
                state[name] = tensor
            flat = flat_view(tensors)
        assert flat is not None  # they were packed
        joint[name] = flat
    return joint
