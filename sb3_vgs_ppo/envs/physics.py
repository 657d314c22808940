"""Quantities of physics that can be changed while an environment runs.

Classes are found by their full names: importing them would need Box2D and MuJoCo.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym

from sb3_vgs_ppo.errors import UserInputError


class Physics:
    """
    Physics of one environment. The values that it has when this is built count as its own.

    :param env: environment without wrappers
    """

    ranges: ClassVar[Mapping[str, tuple[float, float]]]
    """Smallest and largest factor by quantity."""

    def __init__(self, env: Any) -> None:
        self._env = env

    def scale(self, quantity: str, factor: float) -> None:
        """
        Give a quantity a multiple of the environment's own value, from the next step on.

        :param quantity: one of :attr:`ranges`
        """
        raise NotImplementedError


class CartPolePhysics(Physics):
    """Gravity, 9.8 m/s², and half of the pole's length, 0.5 m; the pole keeps its mass."""

    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {"gravity": (0.5, 2.0), "length": (0.25, 4.0)}

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self._own = {name: getattr(env, name) for name in self.ranges}

    def scale(self, quantity: str, factor: float) -> None:
        setattr(self._env, quantity, self._own[quantity] * factor)
        self._env.polemass_length = self._env.masspole * self._env.length


class LunarLanderPhysics(Physics):
    """Gravity, -10 by default, with the environment's limit of -12 kept; the engines stay as strong as they are."""

    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {"gravity": (0.3, 1.19)}

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self._own_gravity = env.gravity

    def scale(self, quantity: str, factor: float) -> None:
        self._env.gravity = self._own_gravity * factor  # for the worlds of later episodes
        self._env.world.gravity = (0.0, self._env.gravity)  # for that of the present one


class MujocoPhysics(Physics):
    """
    Gravity, and friction of all bodies; the friction of a contact is the larger one of two bodies.

    Friction that changes under a walking robot is the continual task of Dohare et al. (Nature 632, 2024).
    """

    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {"gravity": (0.5, 1.5), "friction": (0.2, 2.0)}

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self._arrays = {"gravity": env.model.opt.gravity, "friction": env.model.geom_friction}
        self._own = {name: array.copy() for name, array in self._arrays.items()}

    def scale(self, quantity: str, factor: float) -> None:
        self._arrays[quantity][...] = self._own[quantity] * factor


PHYSICS: dict[str, type[Physics]] = {
    "gymnasium.envs.classic_control.cartpole.CartPoleEnv": CartPolePhysics,
    "gymnasium.envs.box2d.lunar_lander.LunarLander": LunarLanderPhysics,
    "gymnasium.envs.mujoco.mujoco_env.MujocoEnv": MujocoPhysics,
}
"""By full name of a class of environments, for its subclasses too."""


def physics_of(env: gym.Env[Any, Any]) -> Physics:
    """
    :param env: environment, in wrappers or without
    :raises UserInputError: nothing is known of its physics
    """
    bare = env.unwrapped
    for cls in type(bare).__mro__:
        physics = PHYSICS.get(f"{cls.__module__}.{cls.__qualname__}")
        if physics is not None:
            return physics(bare)
    raise UserInputError(
        f"physics: that of {type(bare).__name__} is not known; remedy: CartPole, LunarLander, one of gymnasium's "
        "MuJoCo environments, or another change"
    )
