"""The parts ``train``, ``vgs`` and ``learn``: whole agents, which take turns at learning."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import torch as th
from stable_baselines3 import PPO

from sb3_vgs_ppo.errors import CompileFallbackWarning
from sb3_vgs_ppo.optim import AdaptiveUPGD
from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.runs.benchmark_agent import Reading, TimedAgent, Turn, make_agent
from sb3_vgs_ppo.runs.benchmark_line import Budget, Line, Progress, line_of_readings, take_turns
from sb3_vgs_ppo.runs.benchmark_peer import SBX_REMEDY, Peer
from sb3_vgs_ppo.scaling import KNOWN_VERSIONS

ROLLOUT_STEPS = 2048  # n_steps * n_envs, SB3's default
BATCH_SIZE = 64
N_EPOCHS = 10
ROLLOUTS = 2  # per turn

SB3 = "SB3 PPO, Adam"
SBX = "sbx PPO"
DEFAULT = "quantile head, AdaptiveUPGD, VGS 3.0"
COMPILED = f"{DEFAULT}, compile=True"

TRAIN_BUDGETS = {DEFAULT: Budget(0.65), COMPILED: Budget(0.40)}
VGS_BUDGET = Budget(0.06)
LEARN_BUDGETS = {SB3: Budget(1.6, "≥"), SBX: Budget(1.1, "≥")}
LEARN_TASK = ("HalfCheetah-v5", 8)
"""Environment and number of environments for which the budgets of ``learn()`` are stated."""

Measured: TypeAlias = Mapping[str, Sequence[Turn]]
"""By contender, its turns."""


class Task(NamedTuple):
    """
    :param env_id: registered environment with vector observations
    :param n_envs: environments stepped in one process; must divide ``rollout_steps``
    :param rollout_steps: steps of a rollout, all environments together
    :param batch_size: steps of a minibatch; must divide ``rollout_steps``
    """

    env_id: str
    n_envs: int
    rollout_steps: int = ROLLOUT_STEPS
    batch_size: int = BATCH_SIZE

    @property
    def minibatches(self) -> int:
        """Minibatches of one ``train()``."""
        return N_EPOCHS * (self.rollout_steps // self.batch_size)

    def check(self) -> None:
        """:raises ValueError: the environments do not divide a rollout"""
        if self.n_envs < 1 or self.rollout_steps % self.n_envs:
            raise ValueError(
                f"n_envs={self.n_envs} does not divide {self.rollout_steps}; remedy: a power of two, e.g. 8"
            )


@dataclass(frozen=True)
class Contender:
    """One agent to be timed; ``policy_kwargs`` and the rest go to its constructor."""

    name: str
    algorithm: type[PPO]
    policy_kwargs: dict[str, Any] = field(default_factory=dict)
    algorithm_kwargs: dict[str, Any] = field(default_factory=dict)

    def agent(self, task: Task, watch_scaler: bool = False) -> TimedAgent:
        """:return: the agent, which has not learned anything"""
        arguments = {"policy_kwargs": self.policy_kwargs, "device": "cpu", **self.algorithm_kwargs}
        return make_agent(self.algorithm, **agent_settings(task, **arguments), watch_scaler=watch_scaler)


def contenders() -> list[Contender]:
    """SB3's PPO first; then ours from SB3's own configuration to the default, one part added at a time."""
    adam = {"optimizer_class": th.optim.Adam}
    upgd = {"optimizer_class": AdaptiveUPGD}
    off: dict[str, Any] = {"vgs_version": None}
    return [
        Contender(SB3, PPO),
        Contender("scalar head, Adam", DistributionalPPO, {"value_head": "scalar", **adam}, off),
        Contender("quantile head, Adam", DistributionalPPO, {"value_head": "quantile", **adam}, off),
        Contender("quantile head, AdaptiveUPGD", DistributionalPPO, {"value_head": "quantile", **upgd}, off),
        Contender(DEFAULT, DistributionalPPO, {}, {"vgs_version": "3.0"}),
        Contender("categorical head, AdaptiveUPGD, VGS 3.0", DistributionalPPO, {"value_head": "categorical"}),
    ]


def compiled_contender() -> Contender:
    """:return: the default with a compiled update"""
    return Contender(COMPILED, DistributionalPPO, {}, {"vgs_version": "3.0", "compile": True})


def why_not_compiled(task: Task) -> str | None:
    """:return: why updates are not compiled on this machine, None if they are; what was compiled serves others too"""
    with closing(compiled_contender().agent(task)) as agent, warnings.catch_warnings():
        warnings.simplefilter("error", CompileFallbackWarning)
        try:
            agent.turn(1)
        except CompileFallbackWarning as warning:
            return str(warning)
    return None


def agent_settings(task: Task, **arguments: Any) -> dict[str, Any]:
    """
    :param arguments: of the agent's constructor, besides those that all have in common
    :return: arguments of :func:`~sb3_vgs_ppo.runs.benchmark_agent.make_agent`, but for the algorithm
    """
    return {
        "env_id": task.env_id,
        "n_envs": task.n_envs,
        "rollout_steps": task.rollout_steps,
        "arguments": {"batch_size": task.batch_size, "n_epochs": N_EPOCHS, "seed": 0, **arguments},
    }


def sbx_peer(python: str, task: Task) -> Peer:
    """:return: sbx's PPO with the settings of the others, under a Python that has it"""
    return Peer(python, {"module": "sbx", "algorithm": "PPO", **agent_settings(task)}, SBX_REMEDY)


def measure_agents(
    task: Task,
    agents: Sequence[Contender],
    repetitions: int,
    progress: Progress,
    sbx_python: str | None = None,
    watch_scaler: bool = False,
    rollouts: int = ROLLOUTS,
) -> dict[str, list[Turn]]:
    """
    Let agents take turns at learning.

    :param repetitions: measured rounds
    :param progress: called with a line per round
    :param sbx_python: Python of an environment that has sbx, whose PPO then takes part; None for no sbx
    :param watch_scaler: time the agents' VGS too; all must have one
    :param rollouts: of one turn
    :return: by contender, its turns
    :raises ValueError: counts that cannot be used
    :raises UserInputError: sbx does not run
    """
    task.check()
    th.set_num_threads(1)
    with ExitStack() as stack:
        learners: dict[str, TimedAgent | Peer] = {}
        if sbx_python is not None:
            learners[SBX] = stack.enter_context(sbx_peer(sbx_python, task))
        for agent in agents:
            learners[agent.name] = stack.enter_context(closing(agent.agent(task, watch_scaler)))
        turns = {name: _bound(learner.turn, rollouts) for name, learner in learners.items()}
        return take_turns(turns, repetitions, progress)


def _bound(turn: Callable[[int], Turn], rollouts: int) -> Callable[[], Turn]:
    return lambda: turn(rollouts)


def train_lines(measured: Measured, task: Task, rollouts: int = ROLLOUTS) -> list[Line]:
    """:return: milliseconds per minibatch of ``train()``, every agent beside SB3's"""
    n_minibatches = rollouts * task.minibatches
    milliseconds = {name: [_per(turn.train, n_minibatches, 1e3) for turn in turns] for name, turns in measured.items()}
    return [
        line_of_readings(
            "train",
            (name, readings),
            (SB3, milliseconds[SB3]),
            "ms/minibatch",
            TRAIN_BUDGETS.get(name),
            "wall" if name == SBX else "cpu",
        )
        for name, readings in milliseconds.items()
    ]


def vgs_lines(measured: Measured, task: Task, rollouts: int = ROLLOUTS) -> list[Line]:
    """:return: milliseconds per minibatch of each scaler, beside those of the minibatch that it is part of"""
    n_minibatches = rollouts * task.minibatches
    lines = []
    for name, turns in measured.items():
        scaler = [_per(turn.scaler, n_minibatches, 1e3) for turn in turns]
        train = [_per(turn.train, n_minibatches, 1e3) for turn in turns]
        lines.append(line_of_readings("vgs", (name, scaler), ("its minibatch", train), "ms/minibatch", VGS_BUDGET))
    return lines


def learn_lines(measured: Measured, task: Task, rollouts: int = ROLLOUTS) -> list[Line]:
    """:return: steps per second of ``learn()``: the default agent beside the peers"""
    steps = rollouts * task.rollout_steps
    speeds = {
        name: [Reading(steps / turn.learn.wall, steps / turn.learn.cpu) for turn in turns]
        for name, turns in measured.items()
    }
    stated = (task.env_id, task.n_envs) == LEARN_TASK
    return [
        line_of_readings(
            "learn",
            (DEFAULT, speeds[DEFAULT]),
            (peer, speeds[peer]),
            "steps/s",
            budget if stated else None,
            "wall" if peer == SBX else "cpu",
        )
        for peer, budget in LEARN_BUDGETS.items()
        if peer in speeds
    ]


def scaler_contenders() -> list[Contender]:
    """:return: the default agent with every version of VGS"""
    return [Contender(f"VGS {version}", DistributionalPPO, {}, {"vgs_version": version}) for version in KNOWN_VERSIONS]


def _per(seconds: Reading, count: int, scale: float) -> Reading:
    return Reading(scale * seconds.wall / count, scale * seconds.cpu / count)
