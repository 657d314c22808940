"""The part ``growth``: time against the size of everything that can grow, beside SB3's PPO and AdamW."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch as th
from stable_baselines3 import PPO

from sb3_vgs_ppo.optim import AdaptiveUPGD
from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.runs.benchmark_agent import Reading, Turn
from sb3_vgs_ppo.runs.benchmark_line import Budget, Line, Progress, ratios, take_turns
from sb3_vgs_ppo.runs.benchmark_steps import ONE_BUFFER, optimizer_step, scaler_step, turn_of
from sb3_vgs_ppo.runs.benchmark_train import DEFAULT, SB3, Contender, Task, measure_agents

PARAMETERS = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
TENSORS = (1, 3, 10, 30, 100, 300, 1_000)
ENVIRONMENTS = (1, 2, 4, 8, 16, 32, 64)
BATCH_SIZES = (32, 64, 128, 256, 512, 1_024, 2_048, 4_096)
QUANTILES = (1, 4, 16, 64, 256)

N_TENSORS = 10  # where the number of parameters grows
N_ELEMENTS = 100_000  # where the number of tensors grows: 1,000 of them are small
ELEMENTS_PER_TURN = 3_000_000

TENSORS_BUDGET = Budget(3.0)
# Linear, with room for caches that end between the last two sizes; a square would be 10
LINEAR_BUDGET = Budget(1.5)


@dataclass(frozen=True)
class Sweep:
    """
    :param axis: what grows
    :param unit: of the times
    :param values: its sizes, ascending
    :param times: CPU time by contender: per size, one number per repetition. The first contender is the reference
    """

    axis: str
    unit: str
    values: tuple[int, ...]
    times: dict[str, tuple[tuple[float, ...], ...]]

    def medians(self, name: str) -> list[float]:
        """:return: median time of a contender per size"""
        return [statistics.median(times) for times in self.times[name]]


def measure_growth(task: Task, repetitions: int, progress: Progress) -> list[Sweep]:
    """
    :param task: what does not grow
    :param repetitions: measured rounds at each size
    :param progress: called with a line per round
    :return: one sweep per axis
    """
    th.set_num_threads(1)
    return [
        sweep_steps("parameters", PARAMETERS, _shapes_by_elements, repetitions, progress),
        sweep_steps("tensors", TENSORS, _shapes_by_tensors, repetitions, progress),
        *sweep_agents(task, repetitions, progress),
    ]


def _shapes_by_elements(count: int) -> list[tuple[int, ...]]:
    return [(count // N_TENSORS,)] * N_TENSORS


def _shapes_by_tensors(count: int) -> list[tuple[int, ...]]:
    return [(N_ELEMENTS // count,)] * count


def sweep_steps(
    axis: str,
    values: Sequence[int],
    shapes_of: Callable[[int], list[tuple[int, ...]]],
    repetitions: int,
    progress: Progress,
) -> Sweep:
    """
    Steps of optimizers and of VGS 3.0. All sizes take turns too, because they are compared with each other.

    :param axis: what grows
    :param values: its sizes
    :param shapes_of: shapes of the tensors at a size
    """
    turns: dict[tuple[str, int], Callable[[], Reading]] = {}
    for value in values:
        shapes = shapes_of(value)
        steps: Mapping[str, Callable[[], Any]] = {
            "AdamW": optimizer_step(th.optim.AdamW, shapes, foreach=True),
            "AdaptiveUPGD": optimizer_step(AdaptiveUPGD, shapes),
            "AdaptiveUPGD" + ONE_BUFFER: optimizer_step(AdaptiveUPGD, shapes, True),
            "VGS 3.0": scaler_step(shapes),
            "VGS 3.0" + ONE_BUFFER: scaler_step(shapes, True),
        }
        count = min(100, max(1, ELEMENTS_PER_TURN // sum(th.Size(shape).numel() for shape in shapes)))
        turns |= {(name, value): turn_of(step, count) for name, step in steps.items()}
    measured = take_turns(turns, repetitions, _prefixed(progress, axis))
    times = {name: tuple(tuple(reading.cpu for reading in measured[name, value]) for value in values) for name in steps}
    return Sweep(axis, "ms per step", tuple(values), times)


def growing_agents(policy_kwargs: Mapping[str, Any] | None = None) -> list[Contender]:
    """:return: SB3's PPO with Adam and with AdamW, and the default agent with these ``policy_kwargs``"""
    return [
        Contender(SB3, PPO),
        Contender("SB3 PPO, AdamW", PPO, {"optimizer_class": th.optim.AdamW}),
        Contender(DEFAULT, DistributionalPPO, dict(policy_kwargs or {}), {"vgs_version": "3.0"}),
    ]


def sweep_agents(task: Task, repetitions: int, progress: Progress) -> list[Sweep]:
    """:return: whole agents: ``learn()`` against environments, ``train()`` against minibatches and quantiles"""
    measure = partial(_sweep_agents, repetitions=repetitions, progress=progress)
    long = max(BATCH_SIZES)
    return [
        measure(
            "environments",
            "µs of learn() per step",
            {n: (task._replace(n_envs=n), growing_agents()) for n in ENVIRONMENTS},
            lambda turn, sized: 1e6 * turn.learn.cpu / sized.rollout_steps,
        ),
        measure(
            "batch size",
            "ms of train() per minibatch",
            {n: (task._replace(batch_size=n, rollout_steps=long), growing_agents()) for n in BATCH_SIZES},
            _ms_per_minibatch,
        ),
        measure(
            "quantiles",
            "ms of train() per minibatch",
            {n: (task, growing_agents({"n_quantiles": n})) for n in QUANTILES},
            _ms_per_minibatch,
        ),
    ]


def _ms_per_minibatch(turn: Turn, task: Task) -> float:
    return 1e3 * turn.train.cpu / task.minibatches


def _sweep_agents(
    axis: str,
    unit: str,
    sizes: Mapping[int, tuple[Task, list[Contender]]],
    time_of: Callable[[Turn, Task], float],
    repetitions: int,
    progress: Progress,
) -> Sweep:
    times: dict[str, list[tuple[float, ...]]] = {}
    for value, (task, agents) in sizes.items():
        measured = measure_agents(task, agents, repetitions, _prefixed(progress, f"{axis} {value}"), rollouts=1)
        for name, turns in measured.items():
            times.setdefault(name, []).append(tuple(time_of(turn, task) for turn in turns))
    return Sweep(axis, unit, tuple(sizes), {name: tuple(series) for name, series in times.items()})


def _prefixed(progress: Progress, prefix: str) -> Progress:
    return lambda line: progress(f"{prefix}: {line}")


def growth_lines(sweeps: Sequence[Sweep]) -> list[Line]:
    """:return: what the budgets say of parameters and tensors, with AdamW beside it"""
    lines = []
    for sweep in sweeps:
        if sweep.axis == "parameters":
            larger, smaller = sweep.values[-1], sweep.values[-2]
            what, against = f"{larger:,} parameters, per parameter", f"{smaller:,} parameters"
            pair, scale, budget = (-1, -2), smaller / larger, LINEAR_BUDGET
        elif sweep.axis == "tensors":
            what, against = f"{sweep.values[-1]:,} tensors", f"{sweep.values[0]:,} tensor of the same size"
            pair, scale, budget = (-1, 0), 1.0, TENSORS_BUDGET
        else:
            continue
        for name, times in sweep.times.items():
            grown = tuple(scale * ratio for ratio in ratios(times[pair[0]], times[pair[1]]))
            value = sweep.medians(name)[pair[0]]
            judged = None if name == "AdamW" else budget
            lines.append(Line("growth", f"{name}: {what}", against, value, "ms/step", grown, budget=judged))
    return lines
