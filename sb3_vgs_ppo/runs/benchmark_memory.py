"""The part ``memory``: peak of a whole process beside SB3's, and bytes of state per parameter."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import torch as th

from sb3_vgs_ppo.optim import UPGD, AdaptiveUPGD
from sb3_vgs_ppo.runs.benchmark_line import Budget, Line, Progress, ratios
from sb3_vgs_ppo.runs.benchmark_peer import Peer
from sb3_vgs_ppo.runs.benchmark_steps import POLICY_SHAPES, parameters_with_gradients
from sb3_vgs_ppo.runs.benchmark_train import DEFAULT, SB3, Task, agent_settings
from sb3_vgs_ppo.scaling import KNOWN_VERSIONS, VarianceGradientScaler

PROCESSES = 3
"""At most as many fresh processes of each: their peaks hardly differ, and each imports torch."""

# Adam keeps two buffers; one utility buffer more makes three
STATE_BUDGET = Budget(1.5)
# Numbers per tensor only, which do not grow with its size; 4.0 may keep two per element
SCALER_BUDGETS = {"4.0": Budget(2.0)}
OTHER_SCALERS_BUDGET = Budget(0.0)
LARGER = 16


def memory_lines(task: Task, repetitions: int, progress: Progress) -> list[Line]:
    """
    :param repetitions: fresh processes of each agent, at most :data:`PROCESSES`
    :param progress: called with a line per round
    :return: peak memory beside SB3's, then the state of optimizers beside Adam's, and of each VGS beside the
        parameters that it grows with
    :raises UserInputError: an agent does not run
    """
    return [_peak_line(task, min(repetitions, PROCESSES), progress), *_optimizer_lines(), *_scaler_lines()]


def _peak_line(task: Task, repetitions: int, progress: Progress) -> Line:
    peaks: dict[str, list[float]] = {SB3: [], DEFAULT: []}
    for round_ in range(1, repetitions + 1):
        peaks[SB3].append(_peak_mib(task, "stable_baselines3", "PPO"))
        peaks[DEFAULT].append(_peak_mib(task, "sb3_vgs_ppo", "DistributionalPPO"))
        progress(f"process {round_} of {repetitions}")
    return Line("memory", DEFAULT, SB3, max(peaks[DEFAULT]), "MiB at its peak", ratios(peaks[DEFAULT], peaks[SB3]))


def _peak_mib(task: Task, module: str, algorithm: str) -> float:
    settings = {"module": module, "algorithm": algorithm, **agent_settings(task, device="cpu")}
    with Peer(sys.executable, settings, "remedy: see whether it can be imported there") as peer:
        peer.turn(1)
        return peer.peak_kib / 1024


def _optimizer_lines() -> list[Line]:
    adam = optimizer_state_bytes(th.optim.Adam)
    lines = []
    for optimizer in (AdaptiveUPGD, UPGD):
        own = optimizer_state_bytes(optimizer)
        per_parameter = own / count_elements(POLICY_SHAPES)
        what = f"{optimizer.__name__}, state"
        lines.append(Line("memory", what, "Adam", per_parameter, "bytes/parameter", (own / adam,), budget=STATE_BUDGET))
    return lines


def _scaler_lines() -> list[Line]:
    larger = tuple((LARGER * shape[0], *shape[1:]) for shape in POLICY_SHAPES)
    grown = count_elements(larger) - count_elements(POLICY_SHAPES)
    lines = []
    for version in KNOWN_VERSIONS:
        per_parameter = (scaler_state_bytes(version, larger) - scaler_state_bytes(version, POLICY_SHAPES)) / grown
        ratio = per_parameter / th.float32.itemsize
        budget = SCALER_BUDGETS.get(version, OTHER_SCALERS_BUDGET)
        what = f"VGS {version}, state per further parameter"
        lines.append(Line("memory", what, "a parameter", per_parameter, "bytes/parameter", (ratio,), budget=budget))
    return lines


def optimizer_state_bytes(optimizer_class: Any) -> int:
    """:return: bytes of an optimizer's tensors after a step, for the tensors of a policy"""
    optimizer = optimizer_class(parameters_with_gradients(POLICY_SHAPES, one_buffer=False), lr=3e-4)
    optimizer.step()
    return _tensor_bytes(value for state in optimizer.state.values() for value in state.values())


def scaler_state_bytes(version: str, shapes: tuple[tuple[int, ...], ...]) -> int:
    """:return: bytes of a scaler's state after an observation, eight for a number"""
    vgs = VarianceGradientScaler(parameters_with_gradients(shapes, one_buffer=False), version)
    vgs.scale_gradients()
    vgs.step()
    state = vgs.state_dict().values()
    return _tensor_bytes(state) + 8 * sum(isinstance(value, int | float) for value in state)


def count_elements(shapes: Iterable[tuple[int, ...]]) -> int:
    """:return: elements of tensors of these shapes"""
    return sum(th.Size(shape).numel() for shape in shapes)


def _tensor_bytes(values: Iterable[Any]) -> int:
    return sum(value.nbytes for value in values if isinstance(value, th.Tensor))
