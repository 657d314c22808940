"""The part ``optimizer``, and what the other parts need of it: steps of optimizers and of the VGS on tensors alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch as th

from sb3_vgs_ppo._flat import flat_view, pack, pack_parameters
from sb3_vgs_ppo.optim import UPGD, AdaptiveUPGD
from sb3_vgs_ppo.runs.benchmark_agent import Reading, Stopwatch
from sb3_vgs_ppo.runs.benchmark_line import Budget, Line, Progress, line_of_readings, take_turns
from sb3_vgs_ppo.scaling import VarianceGradientScaler

# SB3's MlpPolicy for HalfCheetah-v5: 13 tensors with 11,085 elements
POLICY_SHAPES: tuple[tuple[int, ...], ...] = (
    (6,),
    *((64, 17), (64,), (64, 64), (64,)) * 2,
    *((6, 64), (6,)),
    *((1, 64), (1,)),
)
STEPS = 200  # per turn
ONE_BUFFER = ", one buffer"
ADAM = "Adam(foreach=True)"
FUSED = "Adam(fused=True)"
STEP_BUDGET = Budget(0.6)


def parameters_with_gradients(shapes: Sequence[tuple[int, ...]], one_buffer: bool) -> list[th.nn.Parameter]:
    """
    :param one_buffer: lay the parameters back to back, and their gradients, as ``DistributionalPPO`` does
    :return: normal numbers with normal gradients
    """
    generator = th.Generator().manual_seed(0)
    parameters = [th.nn.Parameter(th.randn(shape, generator=generator)) for shape in shapes]
    gradients = [th.randn(shape, generator=generator) for shape in shapes]
    if one_buffer:
        pack_parameters(parameters)
        gradients = pack(gradients)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    return parameters


def optimizer_step(
    optimizer_class: Callable[..., th.optim.Optimizer],
    shapes: Sequence[tuple[int, ...]],
    one_buffer: bool = False,
    **options: Any,
) -> Callable[[], Any]:
    """:return: the ``step()`` of a new optimizer of new tensors, with options in which its defaults do not differ"""
    return optimizer_class(parameters_with_gradients(shapes, one_buffer), lr=3e-4, **options).step


def scaler_step(shapes: Sequence[tuple[int, ...]], one_buffer: bool = False) -> Callable[[], None]:
    """:return: all that VGS 3.0 does in a minibatch, with new tensors"""
    parameters = parameters_with_gradients(shapes, one_buffer)
    vgs = VarianceGradientScaler(parameters)
    flat = flat_view([parameter.grad for parameter in parameters if parameter.grad is not None]) if one_buffer else None

    def step() -> None:
        vgs.observe(flat)
        vgs.scale(flat)
        vgs.step()

    return step


def turn_of(step: Callable[[], Any], count: int) -> Callable[[], Reading]:
    """:return: what measures the milliseconds of a step, as the mean over ``count`` of them"""

    def turn() -> Reading:
        stopwatch = Stopwatch()
        stopwatch.watch(lambda: [step() for _ in range(count)])()
        return Reading(*(1e3 * seconds / count for seconds in stopwatch.seconds))

    return turn


def optimizer_lines(repetitions: int, progress: Progress) -> list[Line]:
    """
    :param repetitions: measured rounds of 200 steps of each
    :param progress: called with a line per round
    :return: milliseconds per ``step()`` beside Adam's, for the tensors of a policy
    """
    steps = {
        ADAM: optimizer_step(th.optim.Adam, POLICY_SHAPES, foreach=True),
        ADAM + ONE_BUFFER: optimizer_step(th.optim.Adam, POLICY_SHAPES, True, foreach=True),
        FUSED: optimizer_step(th.optim.Adam, POLICY_SHAPES, fused=True),
        "AdaptiveUPGD": optimizer_step(AdaptiveUPGD, POLICY_SHAPES),
        "AdaptiveUPGD" + ONE_BUFFER: optimizer_step(AdaptiveUPGD, POLICY_SHAPES, True),
        "UPGD": optimizer_step(UPGD, POLICY_SHAPES),
        "UPGD" + ONE_BUFFER: optimizer_step(UPGD, POLICY_SHAPES, True),
    }
    th.set_num_threads(1)
    turns = {name: turn_of(step, STEPS) for name, step in steps.items()}
    measured = take_turns(turns, repetitions, progress)
    lines = [
        line_of_readings(
            "optimizer",
            (name, readings),
            (ADAM, measured[ADAM]),
            "ms/step",
            STEP_BUDGET if name.startswith("AdaptiveUPGD") else None,
        )
        for name, readings in measured.items()
        if name != ADAM
    ]
    ours = "AdaptiveUPGD" + ONE_BUFFER
    return [*lines, line_of_readings("optimizer", (ours, measured[ours]), (FUSED, measured[FUSED]), "ms/step")]
