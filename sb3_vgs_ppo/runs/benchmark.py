"""Speed and memory beside SB3's PPO, measured side by side. Specification: "Performance budgets".

Each part is a module of its own; all say what they found as :class:`~sb3_vgs_ppo.runs.benchmark_line.Line`.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.runs.benchmark_growth import Sweep, growth_lines, measure_growth
from sb3_vgs_ppo.runs.benchmark_line import Line, Progress
from sb3_vgs_ppo.runs.benchmark_memory import memory_lines
from sb3_vgs_ppo.runs.benchmark_peer import SBX_REMEDY
from sb3_vgs_ppo.runs.benchmark_steps import optimizer_lines
from sb3_vgs_ppo.runs.benchmark_train import (
    DEFAULT,
    SB3,
    Contender,
    Task,
    compiled_contender,
    contenders,
    learn_lines,
    measure_agents,
    scaler_contenders,
    train_lines,
    vgs_lines,
    why_not_compiled,
)

Part: TypeAlias = Literal["train", "optimizer", "vgs", "learn", "memory", "growth"]


@dataclass(frozen=True)
class Benchmark:
    """
    :param lines: ratios with their budgets
    :param sweeps: growth, one per axis; empty unless it was asked for
    """

    lines: tuple[Line, ...]
    sweeps: tuple[Sweep, ...]


def check_peer(parts: Collection[Part], against: str | None, sbx_python: str | None) -> None:
    """
    :param against: "sbx" or None
    :param sbx_python: Python of an environment that has sbx
    :raises UserInputError: one without the other, no such program, or no part in which sbx takes part
    """
    if against is None and sbx_python is not None:
        raise UserInputError(f"--sbx-python {sbx_python!r} has no effect without --against sbx; remedy: add it")
    if against is not None and sbx_python is None:
        raise UserInputError(
            f"--against {against} needs --sbx-python, as sbx lives in an environment of its own; {SBX_REMEDY}"
        )
    if against is not None and not {"train", "learn"} & set(parts):
        raise UserInputError(
            f"--against {against} has no effect on --part {' '.join(parts)}; remedy: --part train or learn"
        )
    if sbx_python is not None and shutil.which(sbx_python) is None:
        raise UserInputError(f"--sbx-python {sbx_python!r}: No such file that can be run; {SBX_REMEDY}")


def run_benchmark(
    parts: Collection[Part],
    task: Task,
    repetitions: int,
    sbx_python: str | None = None,
    progress: Progress = lambda _: None,
) -> Benchmark:
    """
    :param parts: what to measure
    :param task: environment and sizes of the agents
    :param repetitions: measured rounds of each part
    :param sbx_python: Python of an environment that has sbx; None to leave sbx out
    :param progress: called with a line per round
    :return: what was found, in the order of :data:`Part`
    :raises ValueError: counts that cannot be used
    :raises UserInputError: an agent in a process of its own does not run
    """
    task.check()
    if repetitions < 1:
        raise ValueError(f"repetitions={repetitions}; remedy: at least 1")

    def said_of(part: str) -> Progress:
        return lambda line: progress(f"{part}: {line}")

    lines: dict[str, list[Line]] = {}
    sweeps: list[Sweep] = []
    if {"train", "learn"} & set(parts):  # the same turns tell both
        agents = [agent for agent in contenders() if "train" in parts or agent.name in (SB3, DEFAULT)]
        if "train" in parts:
            agents += _compiled(task, said_of("train"))
        learned = measure_agents(task, agents, repetitions, said_of("train, learn"), sbx_python)
        lines |= {"train": train_lines(learned, task), "learn": learn_lines(learned, task)}
    if "optimizer" in parts:
        lines["optimizer"] = optimizer_lines(repetitions, said_of("optimizer"))
    if "vgs" in parts:
        scalers = measure_agents(task, scaler_contenders(), repetitions, said_of("vgs"), watch_scaler=True)
        lines["vgs"] = vgs_lines(scalers, task)
    if "memory" in parts:
        lines["memory"] = memory_lines(task, repetitions, said_of("memory"))
    if "growth" in parts:
        sweeps = measure_growth(task, repetitions, said_of("growth"))
        lines["growth"] = growth_lines(sweeps)
    return Benchmark(tuple(line for part in get_args(Part) if part in parts for line in lines[part]), tuple(sweeps))


def _compiled(task: Task, progress: Progress) -> list[Contender]:
    """:return: the agent with compiled updates, if they can be compiled here"""
    reason = why_not_compiled(task)
    if reason is None:
        return [compiled_contender()]
    progress(f"{compiled_contender().name} is left out: {reason}")
    return []
