"""Predicted against realised returns after a training: ``calibration.csv`` and ``calibration.png``.

The critic predicts what the stochastic policy will earn, so it is that policy which plays here, unlike in evaluations.
As these, the episodes depend on the agent, the run's seed and their own number alone, and leave no trace in training.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch as th
from stable_baselines3.common.vec_env import VecEnv

from sb3_vgs_ppo.distributional import Coverage, RealisedReturns, ValueDistribution, discounted_returns
from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.runs.environments import make_evaluation_env

EPISODES = 20
STEPS = 5_000
"""The first of the two to be reached ends the play: the intervals rest on episodes, the cost on steps."""

COLUMNS = ("kind", "level", "coverage", "low", "high", "states", "episodes")
_BATCH = 512
"""Observations that are predicted at once."""

Observation: TypeAlias = np.ndarray | dict[str, np.ndarray]


def play_for_calibration(
    model: DistributionalPPO,
    env_id: str,
    n_envs: int,
    seed: int,
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    phase: int = 0,
) -> RealisedReturns:
    """
    Let the stochastic policy play, and compare every state's return with its prediction.

    Rewards are scaled as in training, where ``VecNormalize`` scales them. An episode that is cut off, by a time limit
    or by our own limit of steps, goes on in a draw from the distribution that is predicted for its last state: where
    predictions are right, so is the distribution of these returns. (Its mean, with which training bootstraps, would
    make them too narrow; without those episodes, many tasks had none.)

    :param model: agent with a distributional critic and its training environment, whose statistics are used and not
        updated
    :param n_envs: most environments to play in at a time
    :param seed: seeds environments, actions and draws
    :param env_kwargs: arguments of the environment
    :param phase: phase of a continual environment
    :return: states in the order of play, those of unfinished episodes included
    """
    training_env = model.get_env()
    if training_env is None:
        raise ValueError("the model has no environment; remedy: model.set_env(env)")
    n_envs = min(n_envs, EPISODES)
    env = make_evaluation_env(env_id, n_envs, seed, training_env, env_kwargs=env_kwargs, phase=phase)
    generator = np.random.default_rng(seed)
    try:
        with th.random.fork_rng([model.device] if model.device.type == "cuda" else []):
            th.manual_seed(seed)
            return _play(model, env, generator)
    finally:
        env.close()


def write_calibration(path: Path, table: Sequence[Coverage], realised: RealisedReturns) -> None:
    """
    :param path: ``calibration.csv``, one row per level
    :param table: the coverage of ``realised``
    """
    sizes = [len(realised.returns), realised.n_episodes]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([*row, *sizes] for row in table)


def _play(model: DistributionalPPO, env: VecEnv, generator: np.random.Generator) -> RealisedReturns:
    normalizer = model.get_vec_normalize_env()
    predictor = _Predictor(model, env.num_envs)
    # As in SB3's evaluate_policy: environments with short episodes must not give more than their share of them
    quota = (EPISODES + np.arange(env.num_envs)) // env.num_envs
    finished = np.zeros(env.num_envs, np.int64)
    rewards, ends, after, number = [], [], [], []
    observation: Observation = env.reset()  # type: ignore[assignment]  # SB3 knows tuples too, which no policy takes
    for step in range(max(STEPS // env.num_envs, 1)):
        if model.use_sde and (step == 0 or (model.sde_sample_freq > 0 and step % model.sde_sample_freq == 0)):
            model.policy.reset_noise(env.num_envs)
        predictor.add(observation)
        actions, _ = model.predict(observation, deterministic=False)
        observation, reward, done, infos = env.step(actions)  # type: ignore[assignment]
        rewards.append(reward if normalizer is None else normalizer.normalize_reward(reward))
        ends.append(done)
        after.append(np.zeros(env.num_envs))
        number.append(finished.copy())
        for i in np.flatnonzero(done):
            if infos[i].get("TimeLimit.truncated"):
                after[-1][i] = _draw(model, infos[i]["terminal_observation"], generator)
        finished += done
        if (finished >= quota).all():
            break
    for i in np.flatnonzero(~ends[-1]):
        after[-1][i] = _draw(model, _of_env(observation, i), generator)
    ends[-1] = np.ones(env.num_envs, bool)
    returns = discounted_returns(np.array(rewards, np.float64), np.array(ends), np.array(after), model.gamma)
    episodes = np.array(number) * env.num_envs + np.arange(env.num_envs)
    within_quota = np.array(number) < quota
    return RealisedReturns(predictor.all()[within_quota], returns[within_quota], episodes[within_quota])


class _Predictor:
    """Collects observations and predicts them in batches, without keeping more than one batch of them."""

    def __init__(self, model: DistributionalPPO, n_envs: int) -> None:
        self._model = model
        self._n_envs = n_envs
        self._waiting: list[Observation] = []
        self._predicted: list[ValueDistribution] = []

    def add(self, observation: Observation) -> None:
        """:param observation: of all environments"""
        self._waiting.append(observation)
        if len(self._waiting) * self._n_envs >= _BATCH:
            self._predict()

    def all(self) -> ValueDistribution:
        """:return: distributions for everything that was added, batch shape (steps, n_envs)"""
        if self._waiting:
            self._predict()
        return ValueDistribution.concatenate(self._predicted)

    def _predict(self) -> None:
        batch = _concatenate(self._waiting)
        self._predicted.append(self._model.value_distribution(batch).reshape(len(self._waiting), self._n_envs))
        self._waiting = []


def _concatenate(observations: Sequence[Observation]) -> Observation:
    first = observations[0]
    if isinstance(first, dict):
        return {name: np.concatenate([part[name] for part in observations]) for name in first}
    return np.concatenate(observations)  # type: ignore[arg-type]


def _of_env(observation: Observation, index: int) -> Observation:
    if isinstance(observation, dict):
        return {name: values[index] for name, values in observation.items()}
    return np.asarray(observation[index])


def _draw(model: DistributionalPPO, observation: Observation, generator: np.random.Generator) -> float:
    return float(model.value_distribution(observation).quantile(generator.random()))
