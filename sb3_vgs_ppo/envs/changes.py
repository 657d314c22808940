"""What a new phase does to an environment: to its observations, its actions or its physics.

The task of phase k follows from ``(task_seed, k)`` alone, whatever was visited before; phase 0 is the plain task.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from sb3_vgs_ppo.envs.physics import physics_of
from sb3_vgs_ppo.errors import UserInputError


class Change:
    """
    Base of all changes, which changes nothing.

    :param env: environment to be changed
    :raises UserInputError: the environment has not the observations, actions or physics that this change needs
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self.observation_space: spaces.Space[Any] = env.observation_space
        """Observations of all phases."""

    def enter(self, task_seed: int, phase: int) -> None:
        """
        :param task_seed: seed of all tasks
        :param phase: number of the task; 0 is the plain one
        """

    def observation(self, observation: Any) -> Any:
        """:return: what the agent sees"""
        return observation

    def action(self, action: Any) -> Any:
        """:return: what the environment does when the agent chooses ``action``"""
        return action


class ObservationRotation(Change):
    """
    Observations are multiplied by a random orthogonal matrix: rotated, and in half of the phases also mirrored.

    All of the information stays, and none of the inputs keeps its meaning.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        space = _vector_space(env.observation_space, "observation_rotation")
        if space.dtype is None or space.dtype.kind != "f":
            raise UserInputError(
                f"observation_rotation: {space} has whole numbers; remedy: observation_permutation, which keeps them"
            )
        self.observation_space: spaces.Box = spaces.Box(-np.inf, np.inf, space.shape, space.dtype.type)
        self._matrix: npt.NDArray[np.float64] | None = None

    def enter(self, task_seed: int, phase: int) -> None:
        size = self.observation_space.shape[0]
        self._matrix = orthogonal_matrix(phase_generator(task_seed, phase), size) if phase else None

    def observation(self, observation: Any) -> Any:
        return observation if self._matrix is None else (self._matrix @ observation).astype(observation.dtype)


class ObservationPermutation(Change):
    """The entries of observations change their places."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        space = _vector_space(env.observation_space, "observation_permutation")
        # Every entry may come to stand in every place
        self.observation_space: spaces.Box = spaces.Box(
            space.low.min(),
            space.high.max(),
            space.shape,
            space.dtype.type,
        )
        self._plain = np.arange(space.shape[0])
        self._order: npt.NDArray[Any] = self._plain

    def enter(self, task_seed: int, phase: int) -> None:
        self._order = _unlike_the_last(task_seed, phase, self._plain, lambda random: random.permutation(self._plain))

    def observation(self, observation: Any) -> Any:
        return observation[self._order]


class ActionPermutation(Change):
    """
    Discrete actions swap their effects. Of continuous ones the dimensions do, and some also their direction; for this
    all need the same bounds, ``low == -high``.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        space = env.action_space
        if isinstance(space, spaces.Discrete) and space.n > 1:
            self._start = space.start
            self._plain = np.stack([np.arange(space.n), np.ones(int(space.n), int)])
        elif isinstance(space, spaces.Box) and len(space.shape) == 1 and _is_one_symmetric_range(space):
            self._start = None
            self._plain = np.stack([np.arange(space.shape[0]), np.ones(space.shape[0], int)])
        else:
            raise UserInputError(
                f"action_permutation: {space} has no actions that can be swapped; remedy: Discrete with two or more, "
                "or a vector Box whose entries all lie between the same -high and high"
            )
        self._order, self._signs = self._plain

    def enter(self, task_seed: int, phase: int) -> None:
        self._order, self._signs = _unlike_the_last(task_seed, phase, self._plain, self._draw)

    def action(self, action: Any) -> Any:
        if self._start is not None:
            return self._start + self._order[action - self._start]
        return (action[self._order] * self._signs).astype(action.dtype)

    def _draw(self, random: np.random.Generator) -> npt.NDArray[Any]:
        order, signs = self._plain
        if self._start is None:
            signs = random.choice([-1, 1], size=signs.shape)
        return np.stack([random.permutation(order), signs])


class PhysicsChange(Change):
    """
    Quantities of the physics are multiplied by factors, log-uniform in the ranges of
    :data:`~sb3_vgs_ppo.envs.physics.PHYSICS`.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self._physics = physics_of(env)

    def enter(self, task_seed: int, phase: int) -> None:
        random = phase_generator(task_seed, phase)
        for name, (low, high) in self._physics.ranges.items():
            factor = float(np.exp(random.uniform(np.log(low), np.log(high)))) if phase else 1.0
            self._physics.scale(name, factor)


CHANGES: dict[str, type[Change]] = {
    "observation_rotation": ObservationRotation,
    "observation_permutation": ObservationPermutation,
    "action_permutation": ActionPermutation,
    "physics": PhysicsChange,
}


def phase_generator(task_seed: int, phase: int) -> np.random.Generator:
    """:return: generator from which the task of a phase is drawn"""
    return np.random.default_rng(np.random.SeedSequence(task_seed, spawn_key=(phase,)))


def orthogonal_matrix(random: np.random.Generator, size: int) -> npt.NDArray[np.float64]:
    """
    :return: orthogonal matrix of shape ``(size, size)``, uniform over all of them (Haar measure). The signs of R's
        diagonal make QR unique, without which it would not be uniform (Mezzadri 2007, arXiv:math-ph/0609050)
    """
    q, r = np.linalg.qr(random.standard_normal((size, size)))
    matrix: npt.NDArray[np.float64] = q * np.sign(np.diag(r))
    return matrix


def _unlike_the_last(
    task_seed: int, phase: int, plain: npt.NDArray[Any], draw: Callable[[np.random.Generator], npt.NDArray[Any]]
) -> npt.NDArray[Any]:
    """
    There are few permutations of few things, and a phase like the one before would be no change.

    :return: the task of a phase, drawn until it differs from that of the phase before
    """
    task = plain
    for number in range(1, phase + 1):
        random = phase_generator(task_seed, number)
        previous = task
        while np.array_equal(task, previous):
            task = draw(random)
    return task


def _vector_space(space: spaces.Space[Any], change: str) -> spaces.Box:
    """:raises UserInputError: observations are no vectors of two or more numbers"""
    if isinstance(space, spaces.Box) and len(space.shape) == 1 and space.shape[0] > 1:
        return space
    raise UserInputError(
        f"{change}: observations {space} are no vector of two or more numbers; remedy: gymnasium's FlattenObservation"
    )


def _is_one_symmetric_range(space: spaces.Box) -> bool:
    return bool(np.all(space.high == space.high[0]) and np.all(space.low == -space.high[0]))
