"""The fast implementation of a step: a few large kernels over all tensors at once.

It must agree with ``single_tensor.py``, which is the one to read first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from operator import attrgetter, is_
from typing import Any

import numpy as np
import torch as th
from torch import Tensor

from sb3_vgs_ppo._flat import addresses, flat_view, pack, split_like
from sb3_vgs_ppo.optim.options import UtilityNormalization
from sb3_vgs_ppo.optim.tensor_batch import TensorBatch, global_range

_grad = attrgetter("grad")

KEPT_BYTES = 2**23
"""Copies of an optimizer's weights and gradients are kept from step to step if they need no more than this in all."""


def unsupported_type(params: Iterable[Tensor]) -> type | None:
    """Find a tensor subclass, whose own operators flat tensors would bypass.

    :return: the first such type, or None
    """
    return next((type(param) for param in params if type(param) not in (Tensor, th.nn.Parameter)), None)


class _Flat:
    """Tensors as one flat tensor: a view where they lie back to back, else a copy.

    :param tensors: of one dtype
    :param dtype: of the flat tensor
    """

    def __init__(self, tensors: list[Tensor], dtype: th.dtype) -> None:
        view = flat_view(tensors) if tensors[0].dtype == dtype else None
        self.is_view: bool = view is not None
        if view is None:
            view = th.cat([tensor.detach().reshape(-1) for tensor in tensors]).to(dtype)
            self._pieces = split_like(view, tensors)
        self.flat: Tensor = view

    def read(self, tensors: list[Tensor]) -> None:
        """Copy tensors of the same shapes, unless they are shown."""
        if not self.is_view:
            th._foreach_copy_(self._pieces, tensors)

    def write(self, tensors: list[Tensor]) -> None:
        """Let tensors of the same shapes have what was computed."""
        if self.is_view:
            # Autograd refuses a backward pass through weights that have changed, but does not see writing to a buffer
            th.autograd.graph.increment_version(tensors)
        else:
            th._foreach_copy_(tensors, self._pieces)


class FlatBatch:
    """A batch whose weights, gradients and states are one flat tensor each, in the dtype of the state.

    Where tensors lie back to back these are views. Otherwise they are copies, which every step takes anew; but the
    states, which belong to the optimizer, are moved so that they are views.

    :param batch: tensors with their states and gradients; the latter are taken from it
    :param names: of the state tensors
    """

    def __init__(self, batch: TensorBatch, names: Sequence[str]) -> None:
        self.batch = batch
        self._names = names
        compiling = th.compiler.is_compiling()
        for name in () if compiling else names:
            if flat_view(batch.state(name)) is None:
                for state, packed in zip(batch.states, pack(batch.state(name)), strict=True):
                    state[name] = packed
        self._grads, self._weights = _Flat(batch.grads, batch.dtype), _Flat(batch.params, batch.dtype)
        self._states = {name: _Flat(batch.state(name), batch.dtype) for name in names}
        self.grads: Tensor = self._grads.flat
        self.weights: Tensor = self._weights.flat
        self.states: dict[str, Tensor] = {name: state.flat for name, state in self._states.items()}
        # A state that has another dtype than its parameter, which was changed, is a copy too
        self.can_go_on: bool = not compiling and all(state.is_view for state in self._states.values())
        """Whether :meth:`take_up` may succeed."""
        if self.can_go_on:
            self._addresses = addresses(batch.params) + addresses(self._state_tensors())
            self._grad_addresses = addresses(batch.grads)
        batch.grads = []  # they are the user's, who may have new ones in the next step

    @property
    def copied_bytes(self) -> int:
        """Memory of the copies of weights and gradients; views need none."""
        return sum(flat.flat.nbytes for flat in (self._weights, self._grads) if not flat.is_view)

    def _state_tensors(self) -> list[Tensor]:
        return [state[name] for state in self.batch.states for name in self._names]

    def take_up(self, group: Mapping[str, Any], states: Mapping[Tensor, Any]) -> bool:
        """
        Go on with the next step of the same tensors.

        :param group: a parameter group
        :param states: state of each parameter
        :return: False if these are not all tensors of the group at one step, where they are now, with their present
            states; then it must not be used
        """
        params = group["params"]
        grads = list(map(_grad, params))
        same = (
            self.can_go_on
            and group is self.batch.options
            and len(params) == len(self.batch.params)
            and all(grad is not None and grad.layout is th.strided for grad in grads)
            and all(map(is_, map(states.get, params), self.batch.states))
            and len({state.get("step") for state in self.batch.states}) == 1
            and all(self.batch.states)
            and addresses(params) + addresses(self._state_tensors()) == self._addresses
            and (not self._grads.is_view or addresses(grads) == self._grad_addresses)
        )
        if same:
            self._grads.read(grads)
            self._weights.read(params)
        return same

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """Weights, gradients and states on a CPU, over the same memory, under the names ``weights``, ``grads`` and
        those of the states."""
        tensors = {"weights": self.weights, "grads": self.grads, **self.states}
        return {name: tensor.detach().numpy() for name, tensor in tensors.items()}

    def write_back(self) -> None:
        """Put what was computed on copies where it belongs, rounded to the dtype there; views are there already."""
        self._weights.write(self.batch.params)
        for name, state in self._states.items():
            if not state.is_view:
                state.write(self.batch.state(name))


def kept(flats: list[FlatBatch]) -> list[FlatBatch]:
    """:return: what the next step may go on with: all of them, or none where that is not possible or takes memory"""
    copied_bytes = sum(flat.copied_bytes for flat in flats)
    return flats if copied_bytes <= KEPT_BYTES and all(flat.can_go_on for flat in flats) else []


def flat_step(
    flats: Sequence[FlatBatch],
    *,
    adaptive: bool,
    utility_normalization: UtilityNormalization,
    generator: th.Generator | None,
) -> None:
    """Do what ``single_tensor_step`` does, with the same parameters and the same draws of noise."""
    utilities, ranges = [], []
    for flat in flats:
        utility, utility_range = _update_utility(flat, corrected_range=utility_normalization != "official")
        utilities.append(utility)
        ranges.append(utility_range)

    low, high = global_range(ranges)

    for flat, utility in zip(flats, utilities, strict=True):
        options, weights = flat.batch.options, flat.weights
        plasticity = _plasticity(utility, low, high, utility_normalization)
        update = _noisy_direction(flat, adaptive, flat.batch.draw_noise(generator))
        lr = options["lr"]
        weights.mul_(1.0 - lr * options["weight_decay"])
        weights.addcmul_(update, plasticity, value=-2.0 * lr)
        flat.write_back()


def _update_utility(flat: FlatBatch, *, corrected_range: bool) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Advance the utility.

    :return: a corrected copy, and the minimum and maximum of the corrected or uncorrected one
    """
    options, utility = flat.batch.options, flat.states["avg_utility"]
    beta = options["beta_utility"]
    descent = -1.0 if options["maximize"] else 1.0
    utility.mul_(beta).addcmul_(flat.grads, flat.weights, value=descent * (beta - 1.0))
    corrected = utility / flat.batch.bias_correction(beta)
    return corrected, th.aminmax(corrected if corrected_range else utility)


def _plasticity(utility: Tensor, low: Tensor, high: Tensor, utility_normalization: UtilityNormalization) -> Tensor:
    """``1 − s`` of every element, as ``sigmoid`` of the negated argument of s; consumes ``utility``.

    A degenerate range is divided by infinity, which sends every quotient to the 0 that the formulas ask for.
    """
    low, high = low.to(utility), high.to(utility)
    if utility_normalization == "minmax":
        # A range of 0 is divided into nothing but zeros, so any divisor will do, and asks for a gate of sigmoid(0).
        span = high - low
        utility.sub_(low).div_(span.clamp_min(smallest_positive(span.dtype)))
        # The clamp of the formula only guards against rounding, which the sigmoid does not mind.
        return th.add(span.sign(), utility, alpha=-2.0).sigmoid_()
    if utility_normalization == "max":
        # Division by infinity sends every quotient to the 0 that the formula asks for.
        high = th.where(high > 0, high, th.inf)
    return utility.div_(high).neg_().sigmoid_()


def smallest_positive(dtype: th.dtype) -> float:
    """:return: the smallest number above 0"""
    info = th.finfo(dtype)
    return info.tiny * info.eps  # a subnormal number


def _noisy_direction(flat: FlatBatch, adaptive: bool, noise: Tensor | None) -> Tensor:
    """``d + ξ``; consumes the noise."""
    options = flat.batch.options
    direction = -flat.grads if options["maximize"] else flat.grads
    if adaptive:
        exp_avg, denominator, scale = _adam_quotient(flat, direction)
        if noise is not None and options["noise"] == "absolute":
            return noise.addcdiv_(exp_avg, denominator, value=scale)
        direction = (exp_avg / denominator).mul_(scale)
    if noise is None:
        return direction
    if options["noise"] == "relative":
        params = flat.batch.params
        th._foreach_mul_(split_like(noise, params), _root_mean_squares(split_like(direction, params)))
    return noise.add_(direction)


def _adam_quotient(flat: FlatBatch, grads: Tensor) -> tuple[Tensor, Tensor, float]:
    """Advance both averages of Adam, and write its direction with the bias corrections c1 and c2 as one scalar.

    ``(m / c1) / (√(v / c2) + eps) = m / (√v + eps·√c2) · √c2 / c1``

    :return: numerator, denominator and scalar
    """
    beta1, beta2 = flat.batch.options["betas"]
    exp_avg, exp_avg_sq = flat.states["exp_avg"], flat.states["exp_avg_sq"]
    exp_avg.lerp_(grads, 1.0 - beta1)
    exp_avg_sq.mul_(beta2).addcmul_(grads, grads, value=1.0 - beta2)
    root2 = flat.batch.bias_correction(beta2) ** 0.5
    denominator = exp_avg_sq.sqrt().add_(flat.batch.options["eps"] * root2)
    return exp_avg, denominator, root2 / flat.batch.bias_correction(beta1)


def _root_mean_squares(updates: list[Tensor]) -> list[Tensor]:
    norms = th._foreach_norm(updates)
    return list(th._foreach_div(norms, [update.numel() ** 0.5 for update in updates]))
