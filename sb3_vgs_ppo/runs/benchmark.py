"""Speed beside SB3's PPO, measured side by side in one process.

Absolute times of shared machines mean nothing, so contenders take turns within every repetition and are reported as
ratios to SB3's, repetition by repetition. Specification: "Performance budgets".
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

from sb3_vgs_ppo.optim import AdaptiveUPGD
from sb3_vgs_ppo.ppo import DistributionalPPO

ROLLOUT_STEPS = 2048  # n_steps * n_envs, SB3's default
BATCH_SIZE = 64
N_EPOCHS = 10


@dataclass(frozen=True)
class Contender:
    """One agent to be timed; ``policy_kwargs`` and the rest go to its constructor."""

    name: str
    algorithm: type[PPO]
    policy_kwargs: dict[str, Any]
    algorithm_kwargs: dict[str, Any]


@dataclass(frozen=True)
class Timing:
    """
    Timings of one contender over all repetitions.

    :param minibatch_ms: milliseconds per minibatch inside ``train()``, one number per repetition
    :param steps_per_second: environment steps per second of ``learn()``, one number per repetition
    """

    name: str
    minibatch_ms: tuple[float, ...]
    steps_per_second: tuple[float, ...]


def contenders() -> list[Contender]:
    """SB3's PPO first; then ours from SB3's own configuration to the default, one part added at a time."""
    adam = {"optimizer_class": th.optim.Adam}
    upgd = {"optimizer_class": AdaptiveUPGD}
    off: dict[str, Any] = {"vgs_version": None}
    return [
        Contender("SB3 PPO, Adam", PPO, {}, {}),
        Contender("scalar head, Adam", DistributionalPPO, {"value_head": "scalar", **adam}, off),
        Contender("quantile head, Adam", DistributionalPPO, {"value_head": "quantile", **adam}, off),
        Contender("quantile head, AdaptiveUPGD", DistributionalPPO, {"value_head": "quantile", **upgd}, off),
        Contender("quantile head, AdaptiveUPGD, VGS 3.0", DistributionalPPO, {}, {"vgs_version": "3.0"}),
        Contender("categorical head, AdaptiveUPGD, VGS 3.0", DistributionalPPO, {"value_head": "categorical"}, {}),
    ]


class _TimedTraining:
    """An agent whose ``train()`` is timed while it learns."""

    def __init__(self, contender: Contender, env_id: str, n_envs: int) -> None:
        self.name = contender.name
        self.model = contender.algorithm(
            "MlpPolicy",
            make_vec_env(env_id, n_envs=n_envs, seed=0),
            n_steps=ROLLOUT_STEPS // n_envs,
            batch_size=BATCH_SIZE,
            n_epochs=N_EPOCHS,
            policy_kwargs=contender.policy_kwargs,
            device="cpu",
            seed=0,
            **contender.algorithm_kwargs,
        )
        self.minibatch_ms: list[float] = []
        self.steps_per_second: list[float] = []
        self._train: Callable[[], None] = self.model.train
        self.model.train = self._timed_train  # type: ignore[method-assign]
        self._train_seconds = 0.0

    def _timed_train(self) -> None:
        start = time.perf_counter()
        self._train()
        self._train_seconds += time.perf_counter() - start

    def repeat(self, rollouts: int) -> None:
        """Learn for some rollouts and note both speeds."""
        self._train_seconds = 0.0
        start = time.perf_counter()
        self.model.learn(rollouts * ROLLOUT_STEPS, reset_num_timesteps=False)
        elapsed = time.perf_counter() - start
        minibatches = rollouts * N_EPOCHS * (ROLLOUT_STEPS // BATCH_SIZE)
        self.minibatch_ms.append(1e3 * self._train_seconds / minibatches)
        self.steps_per_second.append(rollouts * ROLLOUT_STEPS / elapsed)


def measure(
    env_id: str,
    n_envs: int,
    repetitions: int,
    rollouts: int = 2,
    agents: Sequence[Contender] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Timing]:
    """
    Time every contender in turn, ``repetitions`` times over, after one repetition that is thrown away.

    :param env_id: registered environment with vector observations
    :param n_envs: environments stepped in one process; must divide 2,048
    :param repetitions: measured rounds
    :param rollouts: rollouts of 2,048 steps per round and contender
    :param agents: contenders, :func:`contenders` by default; the first is the reference of the ratios
    :param progress: called with a line per round
    :return: one :class:`Timing` per contender, in order
    :raises ValueError: counts that cannot be used
    """
    if repetitions < 1:
        raise ValueError(f"repetitions={repetitions}; remedy: at least 1")
    if n_envs < 1 or ROLLOUT_STEPS % n_envs:
        raise ValueError(f"n_envs={n_envs} does not divide {ROLLOUT_STEPS}; remedy: a power of two, e.g. 8")
    th.set_num_threads(1)
    trainings = [_TimedTraining(contender, env_id, n_envs) for contender in agents or contenders()]
    for round_ in range(repetitions + 1):
        for training in trainings:
            training.repeat(rollouts)
        progress(f"round {round_} of {repetitions}" + (" (warm-up, not counted)" if round_ == 0 else ""))
    return [
        Timing(training.name, tuple(training.minibatch_ms[1:]), tuple(training.steps_per_second[1:]))
        for training in trainings
    ]


def ratio(values: Sequence[float], reference: Sequence[float]) -> tuple[float, float, float]:
    """
    Ratio to the reference, repetition by repetition, which cancels what slowed both down.

    :return: median, smallest and largest ratio
    :raises ValueError: different numbers of repetitions
    """
    ratios = [value / base for value, base in zip(values, reference, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)
