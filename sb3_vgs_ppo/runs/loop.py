"""SB3's learning loop with a moment between an update and the next rollout.

``model.learn`` offers callbacks while a rollout is collected, but none after the update. Only there is the rollout
buffer spent, no exploration noise pending and the logger filled with the figures of a whole iteration, so that a run
can be evaluated, saved and continued without a trace.
"""

from __future__ import annotations

from collections.abc import Iterator

from stable_baselines3 import PPO
from stable_baselines3.common.type_aliases import MaybeCallback


def iterate(model: PPO, total_timesteps: int, callback: MaybeCallback = None, *, iteration: int = 0) -> Iterator[int]:
    """
    Train as ``model.learn(total_timesteps)`` does, bit for bit, and yield after every update.

    One thing is left to the caller: ``model.dump_logs(iteration)``. SB3 calls it before the update, so that a row of
    its log holds the rollout of one iteration and the losses of the one before, and the last losses are lost.

    :param model: a model with its environment; works for SB3's own ``PPO`` too
    :param total_timesteps: environment steps to train for, rounded up to whole rollouts
    :param callback: called while rollouts are collected, as in SB3
    :param iteration: number of iterations that the model has behind it. It goes on from where it stands, towards the
        same ``total_timesteps``; from 0 it starts with new episodes
    :return: the number of the iteration that has just ended, from 1
    :raises ValueError: the model has no environment
    """
    env = model.get_env()
    if env is None:
        raise ValueError("the model has no environment; remedy: model.set_env(env)")
    goes_on = iteration > 0
    left = total_timesteps - model.num_timesteps if goes_on else total_timesteps
    total_timesteps, callback = model._setup_learn(left, callback, reset_num_timesteps=not goes_on)
    callback.on_training_start(locals(), globals())
    try:
        while model.num_timesteps < total_timesteps:
            if not model.collect_rollouts(env, callback, model.rollout_buffer, n_rollout_steps=model.n_steps):
                break
            iteration += 1
            model._update_current_progress_remaining(model.num_timesteps, total_timesteps)
            model.train()
            yield iteration
    finally:  # also where the caller leaves its loop
        callback.on_training_end()


def is_due(every: int, model: PPO) -> bool:
    """
    :param every: period in environment steps; 0 for never
    :return: whether the rollout that has just ended reached or passed a multiple of the period
    """
    before = model.num_timesteps - model.n_steps * model.n_envs
    return every > 0 and model.num_timesteps // every > before // every
