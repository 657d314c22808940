"""A wrapper that changes an environment's task every so many steps."""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from sb3_vgs_ppo.envs.changes import CHANGES
from sb3_vgs_ppo.errors import UserInputError


class ContinualEnv(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """
    Changes the task every ``phase_steps`` steps, in the middle of an episode too.

    The task of phase k follows from ``(task_seed, k)`` alone, and phase 0 is the plain task. The step that completes a
    phase is made in it and returns an observation of the next one. ``info["phase"]`` is the phase of the observation.

    :param env: environment; TimeLimit may stand on either side
    :param change: what changes, one of :data:`~sb3_vgs_ppo.envs.changes.CHANGES`
    :param phase_steps: steps of this environment in one phase; None: the task changes by :meth:`set_phase` alone
    :param task_seed: seed of the tasks, to be the same in all environments of a vector environment; None: the seed of
        the first reset, or a random one if that has none
    :raises UserInputError: a value out of range, or a change that this environment does not allow
    """

    def __init__(
        self, env: gym.Env[Any, Any], change: str, phase_steps: int | None, task_seed: int | None = None
    ) -> None:
        RecordConstructorArgs.__init__(self, change=change, phase_steps=phase_steps, task_seed=task_seed)
        super().__init__(env)
        if change not in CHANGES:
            raise UserInputError(f"change {change!r} is not known; remedy: {', '.join(CHANGES)}")
        if phase_steps is not None and not _is_whole(phase_steps, least=1):
            raise UserInputError(
                f"phase_steps {phase_steps!r} is no positive whole number; remedy: one such as 40000, or null (None in "
                "Python) for a task that stays"
            )
        if task_seed is not None and not _is_whole(task_seed, least=0):
            raise UserInputError(f"task_seed {task_seed!r} is no whole number from 0; remedy: one such as 0")
        self.phase_steps = phase_steps
        self.task_seed: int | None = task_seed if task_seed is None else int(task_seed)
        self.phase: int = 0
        self.steps_in_phase: int = 0
        self._change = CHANGES[change](env)
        self.observation_space = self._change.observation_space

    def set_phase(self, phase: int) -> None:
        """
        Go to the beginning of a phase.

        :param phase: number of the phase
        :raises UserInputError: it is no whole number, or negative
        """
        if not _is_whole(phase, least=0):
            raise UserInputError(f"phase {phase!r} is no whole number from 0; remedy: 0 for the plain task")
        self.set_state({**self.get_state(), "phase": int(phase), "steps_in_phase": 0})

    def get_state(self) -> dict[str, int | None]:
        """:return: all that decides the tasks to come, for :meth:`set_state`"""
        return {"task_seed": self.task_seed, "phase": self.phase, "steps_in_phase": self.steps_in_phase}

    def set_state(self, state: dict[str, Any]) -> None:
        """
        :param state: what :meth:`get_state` returned for an environment that was made in the same way
        """
        self.task_seed = state["task_seed"]
        self.phase = state["phase"]
        self.steps_in_phase = state["steps_in_phase"]
        if self.task_seed is not None:  # else the first reset tells it
            self._change.enter(self.task_seed, self.phase)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if self.task_seed is None:
            task_seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
            self.set_state({**self.get_state(), "task_seed": task_seed})
        observation, info = self.env.reset(seed=seed, options=options)
        return self._change.observation(observation), {**info, "phase": self.phase}

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(self._change.action(action))
        self.steps_in_phase += 1
        if self.steps_in_phase == self.phase_steps:
            self.set_phase(self.phase + 1)
        return self._change.observation(observation), reward, terminated, truncated, {**info, "phase": self.phase}


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= least)
