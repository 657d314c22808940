"""Compiled loops against what NumPy and torch compute without them, over a thousand gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch as th

from helpers import without_loops
from sb3_vgs_ppo._flat import flat_view, pack
from sb3_vgs_ppo.scaling import KNOWN_VERSIONS, VarianceGradientScaler

pytest.importorskip("numba", reason="numba is not installed: pip install 'sb3-vgs-ppo[fast]'")

SHAPES = [(3, 4), (), (0,), (7,), (2, 3, 5), (1,)]
CASES: list[tuple[str, dict[str, Any]]] = [
    *((version, {}) for version in KNOWN_VERSIONS),
    ("4.0", {"granularity": "element"}),
    ("4.0", {"granularity": "global", "apply_to": "update"}),
]


def gradients(shapes: list[tuple[int, ...]], n_steps: int) -> Iterator[list[th.Tensor | None]]:
    """Of all magnitudes; some are missing, some are not finite."""
    generator = th.Generator().manual_seed(0)
    for step in range(n_steps):
        scale = 10.0 ** (step % 7 - 3)
        gradient: list[th.Tensor | None] = [
            scale * (0.3 * i + th.randn(shape, generator=generator)) for i, shape in enumerate(shapes)
        ]
        if step % 5 == 0:
            gradient[step % len(shapes)] = None
        bad = gradient[shapes.index((7,))]
        if step % 11 == 0 and bad is not None:
            bad[step % 7] = (th.nan, th.inf, -th.inf)[step % 3]
        yield gradient


class Run:
    """What a scaler does to the same gradients and parameters."""

    def __init__(
        self,
        version: str,
        options: dict[str, Any],
        how: AbstractContextManager[None],
        shapes: list[tuple[int, ...]],
        *,
        flat: bool,
    ) -> None:
        self.parameters = [th.nn.Parameter(th.ones(shape)) for shape in shapes]
        self.scaled: list[th.Tensor] = []
        with how:
            vgs = VarianceGradientScaler(self.parameters, version, beta=0.95, alpha=0.7, warmup_steps=3, **options)
            for gradient in gradients(shapes, 1000):
                given = [g.clone() for g in gradient if g is not None]
                packed = flat_view(pack(given)) if flat and len(given) == len(shapes) else None
                for parameter, g in zip(self.parameters, gradient, strict=True):
                    parameter.grad = None if g is None else g.clone()
                vgs.observe(packed)
                vgs.scale(packed)
                with vgs.scaling_update(th.optim.SGD(self.parameters, lr=0.1)), th.no_grad():
                    for parameter in self.parameters:
                        parameter.add_(0.1)
                vgs.step()
                grads = [p.grad.flatten() for p in self.parameters if p.grad is not None]
                self.scaled.append(th.cat(grads) if packed is None else packed)
            self.state, self.metrics, self.factor = vgs.state_dict(), vgs.pop_metrics(), vgs.get_scaling_factor()
            self.variance = vgs.get_normalized_variance()


@pytest.mark.parametrize(("flat", "with_empty"), [(False, True), (True, True), (True, False)])
@pytest.mark.parametrize(("version", "options"), CASES)
def test_a_thousand_steps_are_alike(version: str, options: dict[str, Any], flat: bool, with_empty: bool) -> None:
    shapes = [shape for shape in SHAPES if with_empty or shape != (0,)]
    loops, operations = (Run(version, options, how, shapes, flat=flat) for how in (nullcontext(), without_loops()))
    per_element = 1e-5 if version == "4.0" else 1e-9  # which keeps float32
    assert loops.variance == pytest.approx(operations.variance, rel=per_element)
    assert loops.factor == pytest.approx(operations.factor, rel=per_element)
    assert loops.factor < 0.99, "it must scale for the agreement to mean anything"
    assert loops.metrics == pytest.approx(operations.metrics, rel=per_element)
    for mine, other in zip(loops.scaled, operations.scaled, strict=True):
        th.testing.assert_close(mine, other, rtol=1e-5, atol=1e-30, equal_nan=True)
    for mine, other in zip(loops.parameters, operations.parameters, strict=True):
        th.testing.assert_close(mine, other)
    for name, value in operations.state.items():
        if isinstance(value, str):
            assert loops.state[name] == value
        else:
            th.testing.assert_close(loops.state[name], value, rtol=per_element, atol=1e-12)
