"""An episode of an agent as a video: ``video.mp4`` where OpenCV can write it, else ``video.gif``."""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from PIL import Image
from stable_baselines3.common.env_util import unwrap_wrapper
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, unwrap_vec_normalize

from sb3_vgs_ppo._files import atomic_write
from sb3_vgs_ppo.checkpoint import read_checkpoint
from sb3_vgs_ppo.checkpoint.vec_normalize import VEC_NORMALIZE, load_vec_normalize_state
from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.ppo.loading import load_checkpoint
from sb3_vgs_ppo.runs.environments import make_env, make_evaluation_env

MAX_STEPS = 3_000
"""A longer episode, or one without an end, is cut off."""

DEFAULT_FPS = 30
"""Of environments that do not say theirs; gymnasium's default too."""

_SHORTEST_GIF_FRAME_MS = 20
"""Browsers show frames that are to be shorter for 100 ms."""

Frame: TypeAlias = npt.NDArray[np.uint8]
"""RGB image, (height, width, 3)."""


@dataclass(frozen=True)
class Video:
    """
    :param path: the file
    :param agent: name of the checkpoint whose agent plays
    :param step: environment steps that the agent was trained
    :param episode_return: sum of the rewards shown
    :param n_steps: steps shown
    """

    path: Path
    agent: str
    step: int
    episode_return: float
    n_steps: int


class Camera(gym.Wrapper[Any, Any, Any, Any]):
    """
    Outermost wrapper of an environment that keeps the newest image: of a terminal state too, which a vectorized
    environment leaves within the same step.

    :ivar frame: image of the state after the last step, of the first state before
    """

    frame: Frame | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        result = self.env.reset(seed=seed, options=options)
        if self.frame is None:
            self.frame = rendered(self.env)
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        result = self.env.step(action)
        self.frame = rendered(self.env)
        return result


def check_rendering(env_id: str, env_kwargs: Mapping[str, Any]) -> None:
    """
    Render one image: what is missing shows before the training, not after it.

    :param env_id: an environment that can be made
    :param env_kwargs: its arguments
    :raises UserInputError: the environment has no images, or they need what is not there
    """
    _draw_off_screen()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            env = make_env(env_id, rendering(env_kwargs))
            try:
                env.reset(seed=0)
                rendered(env)
            finally:
                env.close()
    except Exception as error:  # whatever a renderer raises: no display, no OpenGL, no pygame
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserInputError(
            f"--record-video: {env_id} cannot be rendered as images: {reason}; remedy: --no-record-video, or an "
            'environment with the render mode "rgb_array"'
        ) from error


def rendering(env_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """:return: arguments of an environment that renders images"""
    return {**env_kwargs, "render_mode": "rgb_array"}


def rendered(env: gym.Env[Any, Any]) -> Frame:
    """
    :return: image of the environment's state
    :raises ValueError: it gives something else
    """
    frame = env.render()
    if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        got = f"an array {frame.shape} {frame.dtype}" if isinstance(frame, np.ndarray) else repr(frame)
        raise ValueError(f"render() gives {got}, not an RGB image")
    return frame


def record_video(
    checkpoint: Path,
    folder: Path,
    env_id: str,
    seed: int,
    training_env: VecEnv,
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    phase_at: Callable[[int], int] = lambda step: 0,
    device: str = "auto",
) -> Video:
    """
    Let the deterministic policy play one episode of at most :data:`MAX_STEPS` steps, and write it as a video.

    :param checkpoint: the agent
    :param folder: where the video goes; an older one is replaced
    :param seed: seeds the environment
    :param training_env: where the agent was trained
    :param env_kwargs: arguments of the environment
    :param phase_at: phase of a continual environment at a step of the training
    :param device: where the policy computes
    """
    _draw_off_screen()
    model = load_checkpoint(checkpoint, device=device)
    phase = phase_at(model.num_timesteps)
    env = make_evaluation_env(env_id, 1, seed, training_env, env_kwargs=rendering(env_kwargs or {}), phase=phase)
    try:
        normalizer = unwrap_vec_normalize(env)
        if normalizer is not None:  # the best agent has seen other statistics than the final one
            state = read_checkpoint(checkpoint).tensors(VEC_NORMALIZE)
            load_vec_normalize_state(normalizer, state, str(checkpoint))
            normalizer.norm_reward = False  # the state is that of training
        episode = _Episode(model, env)
        path = write_video(folder, episode.frames(), env.get_attr("metadata")[0].get("render_fps") or DEFAULT_FPS)
    finally:
        env.close()
    return Video(path, checkpoint.name, model.num_timesteps, episode.episode_return, episode.n_steps)


def write_video(folder: Path, frames: Iterator[Frame], fps: float) -> Path:
    """
    :param frames: images of one size, at least one
    :param fps: images per second
    :return: ``video.mp4``, or ``video.gif`` where there is no OpenCV that writes MP4
    """
    first = next(frames)
    frames = itertools.chain([first], frames)
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch, "video.mp4")
        writer = _mp4_writer(draft, first, fps)
        if writer is None:
            draft = draft.with_suffix(".gif")
            _write_gif(draft, frames, fps)
        else:
            for frame in frames:
                writer.write(_even(frame)[..., ::-1])  # OpenCV's order is BGR
            writer.release()
        path = folder / draft.name
        with atomic_write(path) as file:
            file.write(draft.read_bytes())
        path.with_suffix(".gif" if path.suffix == ".mp4" else ".mp4").unlink(missing_ok=True)
    return path


def _draw_off_screen() -> None:
    """Tell SDL, behind pygame, where there is no screen: it would look for one, and write an error of its own."""
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


class _Episode:
    """
    One episode of an agent.

    :ivar episode_return: sum of its rewards, as ``Monitor`` counts them: not normalized, not clipped
    :ivar n_steps: its steps
    """

    def __init__(self, model: DistributionalPPO, env: VecEnv) -> None:
        self.model = model
        self.env = env
        self.episode_return = 0.0
        self.n_steps = 0

    def frames(self) -> Iterator[Frame]:
        """Play, and give the images of all states, the terminal one included."""
        vec_env = self.env.unwrapped
        assert isinstance(vec_env, DummyVecEnv)
        camera = Camera(vec_env.envs[0])
        vec_env.envs[0] = camera
        observation = self.env.reset()
        assert camera.frame is not None
        yield camera.frame
        for _ in range(MAX_STEPS):
            action, _ = self.model.predict(observation, deterministic=True)  # type: ignore[arg-type]
            observation, _, _, infos = self.env.step(action)
            self.n_steps += 1
            yield camera.frame
            if "episode" in infos[0]:  # the Monitor's: in Atari games a lost life is none, though an end for training
                self.episode_return = float(infos[0]["episode"]["r"])
                return
        monitor = unwrap_wrapper(camera, Monitor)  # within what clips rewards
        assert isinstance(monitor, Monitor)
        self.episode_return = sum(monitor.rewards)


def _mp4_writer(path: Path, first: Frame, fps: float) -> Any:
    """:return: writer of VP9, which browsers play, for images of a size; None where OpenCV has none"""
    try:
        import cv2
    except ImportError:
        return None
    height, width = _even(first).shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"vp09"), fps, (width, height))
    return writer if writer.isOpened() else None


def _even(frame: Frame) -> Frame:
    """:return: the image without a last odd row or column, for which the codec has no place"""
    height, width = frame.shape[:2]
    return frame[: height - height % 2, : width - width % 2]


def _write_gif(path: Path, frames: Iterator[Frame], fps: float) -> None:
    images = (Image.fromarray(frame).convert("P", palette=Image.Palette.ADAPTIVE) for frame in frames)
    duration = max(round(1000 / fps), _SHORTEST_GIF_FRAME_MS)
    next(images).save(path, save_all=True, append_images=images, duration=duration, loop=0)
