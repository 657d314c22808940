"""Evaluations during and after training, and their table ``evaluations.csv``.

An evaluation depends on the agent, the run's seed and its own number alone: every one makes its environments anew. So a
run that was killed and resumed repeats it exactly, and it leaves no trace in training.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_vgs_ppo.envs import phase_length, phase_of
from sb3_vgs_ppo.runs.config import TrainConfig
from sb3_vgs_ppo.runs.environments import make_evaluation_env

COLUMNS = ("step", "mean_reward", "std_reward", "mean_ep_length", "episodes", "rewards", "ep_lengths")


@dataclass(frozen=True)
class Evaluation:
    """
    Episodes played by the deterministic policy.

    :param step: environment steps trained before
    :param rewards: sum of each episode's rewards, not normalized
    :param ep_lengths: steps of each episode
    """

    step: int
    rewards: tuple[float, ...]
    ep_lengths: tuple[int, ...]

    @property
    def mean_reward(self) -> float:
        return float(np.mean(self.rewards))

    @property
    def std_reward(self) -> float:
        """Standard deviation over the episodes (divided by n, as SB3's ``evaluate_policy`` does)."""
        return float(np.std(self.rewards))

    @property
    def mean_ep_length(self) -> float:
        return float(np.mean(self.ep_lengths))

    def __str__(self) -> str:
        return f"{self.mean_reward:.2f} ± {self.std_reward:.2f} over {len(self.rewards)} episodes"


def evaluate(
    model: PPO,
    env_id: str,
    n_envs: int,
    n_episodes: int,
    seed: int,
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    phase: int = 0,
) -> Evaluation:
    """
    :param model: agent with its training environment, whose VecNormalize statistics are used and not updated
    :param n_envs: most environments to play in at a time
    :param seed: seeds the environments
    :param env_kwargs: arguments of the environment
    :param phase: phase of a continual environment
    """
    training_env = model.get_env()
    if training_env is None:
        raise ValueError("the model has no environment; remedy: model.set_env(env)")
    env = make_evaluation_env(env_id, min(n_envs, n_episodes), seed, training_env, env_kwargs=env_kwargs, phase=phase)
    try:
        rewards, lengths = evaluate_policy(model, env, n_episodes, deterministic=True, return_episode_rewards=True)
    finally:
        env.close()
    return Evaluation(model.num_timesteps, tuple(map(float, rewards)), tuple(map(int, lengths)))  # type: ignore[arg-type]


def evaluation_phase(config: TrainConfig, num_timesteps: int) -> int:
    """
    :param num_timesteps: environment steps trained
    :return: phase of a continual environment in which the last of them was made. Those beyond ``total_timesteps``,
        which fill the last rollout, do not count: they may be the first of a task that was never to be learnt
    """
    return phase_of(min(num_timesteps, config.total_timesteps), phase_length(config.env_id, config.env_kwargs))


def evaluation_seed(run_seed: int, number: int) -> int:
    """
    :param run_seed: seed of the run
    :param number: number of the evaluation in the run
    :return: a seed that is far from those of the training environments and of other evaluations
    """
    return int(np.random.SeedSequence([run_seed, number]).generate_state(1)[0]) >> 1  # some environments want 31 bits


def append_evaluation(path: Path, evaluation: Evaluation) -> None:
    """Append one row to ``evaluations.csv``; the episodes' returns and lengths are separated by spaces."""
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(COLUMNS)
        writer.writerow(
            [
                evaluation.step,
                evaluation.mean_reward,
                evaluation.std_reward,
                evaluation.mean_ep_length,
                len(evaluation.rewards),
                " ".join(map(repr, evaluation.rewards)),
                " ".join(map(repr, evaluation.ep_lengths)),
            ]
        )


def read_evaluations(path: Path) -> list[Evaluation]:
    """:return: the rows of ``evaluations.csv``, none if there is no such file"""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Evaluation(
                int(row["step"]),
                tuple(map(float, row["rewards"].split())),
                tuple(map(int, row["ep_lengths"].split())),
            )
            for row in csv.DictReader(file)
        ]


def best_evaluation(evaluations: list[Evaluation]) -> Evaluation | None:
    """:return: the first of those with the highest mean reward"""
    return max(evaluations, key=lambda evaluation: evaluation.mean_reward, default=None)
