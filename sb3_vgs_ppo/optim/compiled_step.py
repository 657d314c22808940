"""The compiled implementation of a step: ``flat_step.py`` with its operations fused by ``torch.compile``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch as th
from torch import Tensor

from sb3_vgs_ppo._compile import Compiled
from sb3_vgs_ppo.optim.flat_step import FlatBatch, flat_step
from sb3_vgs_ppo.optim.options import UtilityNormalization
from sb3_vgs_ppo.optim.tensor_batch import TensorBatch

_CHANGING = ("params", "lr", "sigma")
"""Options that change while an agent learns, or that the compiled part does not ask for."""


class CompiledStep:
    """Does what :func:`flat_step` does, with the same draws of noise and results that are equal up to rounding.

    Everything that is not one buffer on a CPU, or has noise relative to each tensor, is left to that function.
    """

    def __init__(self) -> None:
        self._compiled = Compiled(_traced_step, "the optimizer's step")

    def __call__(
        self,
        flats: Sequence[FlatBatch],
        *,
        adaptive: bool,
        utility_normalization: UtilityNormalization,
        generator: th.Generator | None,
    ) -> None:
        flat = flats[0]
        options = flat.batch.options
        simple = (
            len(flats) == 1 and flat.is_view and options["noise"] == "absolute" and flat.weights.device.type == "cpu"
        )
        if not simple or self._compiled.failure is not None:
            flat_step(flats, adaptive=adaptive, utility_normalization=utility_normalization, generator=generator)
            return
        self._compiled(
            flat.weights,
            flat.grads,
            flat.states,
            flat.batch.draw_noise(generator),
            # Tensors, because a number would be compiled in, and these change with every step
            th.tensor([options["lr"], *map(flat.batch.bias_correction, _betas(options, adaptive))], dtype=th.float64),
            {name: value for name, value in options.items() if name not in _CHANGING},
            adaptive,
            utility_normalization,
        )


@dataclass
class _TracedBatch(TensorBatch):
    """A batch that was told what changes with every step.

    :param noise: that was drawn, if any
    :param corrections: bias corrections of each β
    """

    noise: Tensor | None = None
    corrections: dict[float, Tensor] = field(default_factory=dict)

    def bias_correction(self, beta: float) -> Tensor:  # type: ignore[override]  # a number elsewhere
        return self.corrections[beta]

    def draw_noise(self, generator: th.Generator | None) -> Tensor | None:
        return self.noise


def _traced_step(
    weights: Tensor,
    grads: Tensor,
    states: dict[str, Tensor],
    noise: Tensor | None,
    numbers: Tensor,
    options: Mapping[str, Any],
    adaptive: bool,
    utility_normalization: UtilityNormalization,
) -> None:
    """:param numbers: the learning rate and the bias corrections of :func:`_betas`"""
    lr, *corrections = numbers.unbind()
    batch = _TracedBatch(
        {**options, "lr": lr},
        [weights],
        [grads],
        [states],
        noise=noise,
        corrections=dict(zip(_betas(options, adaptive), corrections, strict=True)),
    )
    flat_step(
        [FlatBatch(batch, list(states))],
        adaptive=adaptive,
        utility_normalization=utility_normalization,
        generator=None,
    )


def _betas(options: Mapping[str, Any], adaptive: bool) -> tuple[float, ...]:
    return (options["beta_utility"], *(options["betas"] if adaptive else ()))
