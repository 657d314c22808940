"""Environments with the observations and faults that gymnasium's own do not have."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv

IMAGE = spaces.Box(0, 255, (36, 36, 3), np.uint8)
VECTOR = spaces.Box(-10.0, 10.0, (3,), np.float32)


class Toy(gym.Env[Any, Any]):
    """
    Episodes of eight steps with random observations.

    :param space: observations
    :param fault: ``"nan"`` rewards, ``"crash"`` in the 100th step, or ``"stuck"`` in the first reset
    """

    def __init__(self, space: spaces.Space[Any], fault: str = "") -> None:
        self.observation_space = space
        self.action_space = spaces.Discrete(2)
        self.fault = fault
        self.steps = 0

    def _observe(self) -> Any:
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        return self.observation_space.sample()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if self.fault == "stuck":
            raise RuntimeError("the robot does not get up")
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        if self.fault == "crash" and self.steps == 100:
            raise RuntimeError("the robot fell over")
        reward = float("nan") if self.fault == "nan" else float(action)
        return self._observe(), reward, self.steps % 8 == 0, False, {}


class Wage(gym.Env[Any, Any]):
    """
    A reward of 1 per step and a last one with noise.

    :param length: steps of an episode
    :param noise: standard deviation of what is added to the last reward
    :param cut: the episode is cut off after its last step, and not over
    """

    observation_space = VECTOR
    action_space = spaces.Discrete(2)

    def __init__(self, length: int = 4, noise: float = 0.0, cut: bool = False) -> None:
        self.length, self.noise, self.cut = length, noise, cut

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        is_last = self.steps == self.length
        reward = 1.0 + is_last * self.noise * self.np_random.normal()
        return np.zeros(3, np.float32), reward, is_last and not self.cut, is_last and self.cut, {}


class Matching(gym.Env[Any, Any]):
    """
    Episodes of eight steps, each with a reward of 1 for the action that the observation shows, and a part of it for a
    part of the action. Who is blind to one of the two bits that are shown earns half of what can be earned.

    :param observed: "vector", "image" or "dict"
    :param actions: what the two bits are answered with
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, observed: str, actions: spaces.Space[Any], render_mode: str | None = None) -> None:
        parts = {"first": spaces.Discrete(2), "second": spaces.Box(-1.0, 1.0, (1,), np.float32)}
        self.observation_space = {
            "vector": spaces.Box(-1.0, 1.0, (2,), np.float32),
            "image": spaces.Box(0, 255, (36, 36, 1), np.uint8),
            "dict": spaces.Dict(parts),
        }[observed]
        self.observed = observed
        self.action_space = actions
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        reward = self._reward(action)
        return self._observe(), reward, self.steps == 8, False, {}

    def render(self) -> np.ndarray:
        return np.repeat(self._image(), 3, axis=2)

    def _reward(self, action: Any) -> float:
        first, second = self.bits
        if isinstance(self.action_space, spaces.Discrete):
            return float(action == 2 * first + second)
        if isinstance(self.action_space, spaces.Box):
            return 1.0 - float(np.abs(action - (2 * self.bits - 1)).mean()) / 2
        wanted = self.bits if isinstance(self.action_space, spaces.MultiBinary) else [2 * first, second]
        return float(np.mean(action == wanted))

    def _observe(self) -> Any:
        self.bits = self.np_random.integers(2, size=2)
        signs = (2 * self.bits - 1).astype(np.float32)
        if self.observed == "dict":
            return {"first": self.bits[0], "second": signs[1:]}
        return self._image() if self.observed == "image" else signs

    def _image(self) -> np.ndarray:
        """:return: one of the quarters is white"""
        image = np.zeros((36, 36, 1), np.uint8)
        row, column = 18 * self.bits
        image[row : row + 18, column : column + 18] = 255
        return image


class NeedsArgument(gym.Env[Any, Any]):
    """Cannot be made from its id alone."""

    def __init__(self, arena: str) -> None:
        self.arena = arena


class UnboundedActions(Toy):
    """PPO needs bounds of continuous actions."""

    def __init__(self) -> None:
        super().__init__(VECTOR)
        self.action_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)


class GatedCartPole(CartPoleEnv):
    """
    CartPole that waits before one of its steps: a training can be held in the middle of a rollout.

    :param gate: waits while this file exists
    :param step: number of the step, over all episodes
    """

    def __init__(self, gate: str, step: int) -> None:
        super().__init__()
        self.gate = Path(gate)
        self.gated_step = step
        self.steps = 0

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        while self.steps == self.gated_step and self.gate.exists():
            time.sleep(0.02)
        return super().step(action)


for name, space in {
    "Image": IMAGE,
    "Vector": VECTOR,
    "Discrete": spaces.Discrete(5),
    "Mixed": spaces.Dict({"image": IMAGE, "vector": VECTOR, "room": spaces.Discrete(4)}),
}.items():
    gym.register(f"Toy{name}-v0", Toy, kwargs={"space": space})
for fault in ("nan", "crash", "stuck"):
    gym.register(f"Toy{fault.title()}-v0", Toy, kwargs={"space": VECTOR, "fault": fault})
gym.register("ToyWage-v0", Wage)
for name, observed, actions in (
    ("Image", "image", spaces.Discrete(4)),
    ("Dict", "dict", spaces.Discrete(4)),
    ("MultiDiscrete", "vector", spaces.MultiDiscrete([3, 2])),
    ("MultiBinary", "vector", spaces.MultiBinary(2)),
    ("Box", "vector", spaces.Box(-1.0, 1.0, (2,), np.float32)),
):
    gym.register(f"ToyMatching{name}-v0", Matching, kwargs={"observed": observed, "actions": actions})
gym.register("ToyNeedsArgument-v0", NeedsArgument)
gym.register("ToyUnboundedActions-v0", UnboundedActions)
gym.register("ToyGatedCartPole-v0", GatedCartPole, max_episode_steps=500)
