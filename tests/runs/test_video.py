from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize

from helpers import needs
from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.ppo.loading import load_checkpoint
from sb3_vgs_ppo.runs import calibration, training, video
from sb3_vgs_ppo.runs.config import TrainConfig
from sb3_vgs_ppo.runs.evaluation import evaluation_seed, read_evaluations
from sb3_vgs_ppo.runs.resuming import resume
from sb3_vgs_ppo.runs.training import VIDEO_NUMBER, train
from sb3_vgs_ppo.runs.video import Frame, check_rendering, write_video

MATCHING = "toy_envs:ToyMatchingBox-v0"
Configure = Callable[..., TrainConfig]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "FINAL_EVALUATION_EPISODES", 2)
    monkeypatch.setattr(calibration, "STEPS", 16)


def moving_square(n_frames: int) -> list[Frame]:
    frames = np.zeros((n_frames, 41, 60, 3), np.uint8)
    for number, frame in enumerate(frames):
        frame[:20, 5 * number : 5 * number + 20] = (255, 0, 0)
    return list(frames)


def read_mp4(path: Path) -> tuple[list[Frame], float]:
    """:return: frames in RGB, and frames per second"""
    cv2 = pytest.importorskip("cv2", reason="cv2 is not installed: pip install 'sb3-vgs-ppo[atari]'")
    file = cv2.VideoCapture(str(path))
    frames = []
    while (read := file.read())[0]:
        frames.append(read[1][..., ::-1])
    return frames, file.get(cv2.CAP_PROP_FPS)


@needs("atari", "cv2")
def test_mp4_where_opencv_is_there(tmp_path: Path) -> None:
    (tmp_path / "video.gif").write_text("of an earlier end of the run")
    path = write_video(tmp_path, iter(moving_square(6)), 12)
    assert [file.name for file in tmp_path.iterdir()] == ["video.mp4"] == [path.name]
    frames, fps = read_mp4(path)
    assert fps == 12
    assert len(frames) == 6
    assert frames[0].shape == (40, 60, 3)  # the codec has no odd sizes
    for number, frame in enumerate(frames):
        red, green, _ = frame[10, 5 * number + 10].astype(int)
        assert red > 180
        assert green < 80
        assert frame[30].max() < 60


@pytest.mark.parametrize(("fps", "milliseconds"), [(10, 100), (60, 20)])
def test_gif_elsewhere(fps: float, milliseconds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)  # which makes its import fail
    path = write_video(tmp_path, iter(moving_square(6)), fps)
    assert path.name == "video.gif"
    with Image.open(path) as file:
        assert file.size == (60, 41)
        assert file.n_frames == 6  # type: ignore[attr-defined]
        assert file.info["duration"] == milliseconds
        assert file.info["loop"] == 0
        for number, frame in enumerate(moving_square(6)):
            file.seek(number)
            np.testing.assert_array_equal(np.asarray(file.convert("RGB")), frame)


@pytest.mark.usefixtures("toy_envs")
def test_the_best_agent_plays_with_its_own_statistics(short_config: Configure) -> None:
    """Until the last state, whose image a vectorized environment would have replaced by that of the next episode."""
    config = short_config(env_id=MATCHING, record_video=True, normalize=True, frame_stack=2, eval_every=128)
    result = train(config)
    assert result.video is not None
    evaluations = read_evaluations(result.folder.evaluations)
    best = max(evaluations, key=lambda evaluation: evaluation.mean_reward)
    assert (result.video.agent, result.video.step) == ("best_model.zip", best.step)
    assert result.video.n_steps == 8
    seed = evaluation_seed(config.seed, VIDEO_NUMBER)
    normalizer = VecNormalize(make_vec_env(MATCHING, seed=seed), training=False, norm_reward=False)
    env = VecFrameStack(normalizer, 2)
    model = load_checkpoint(result.folder.best_model, env)
    normalizer.norm_reward = False
    env.seed(seed)  # loading has given it the run's
    observation, played = env.reset(), 0.0
    for _ in range(8):
        observation, rewards, _, _ = env.step(model.predict(observation, deterministic=True)[0])  # type: ignore[arg-type]
        played += rewards[0]
    assert result.video.episode_return == pytest.approx(played, abs=1e-5)
    frames, fps = read_mp4(result.video.path)
    assert (len(frames), fps) == (9, 10)


@pytest.mark.usefixtures("toy_envs")
def test_the_final_agent_plays_where_there_was_no_evaluation(short_config: Configure) -> None:
    config = short_config(env_id=MATCHING, record_video=True, eval_every=0, total_timesteps=128)
    result = train(config)
    assert result.video is not None
    assert (result.video.agent, result.video.step) == ("final_model.zip", 128)
    result.video.path.unlink()
    resumed = resume(result.folder.path, total_timesteps=256)
    assert resumed is not None
    assert resumed.video is not None
    assert resumed.video.path.exists()
    assert resumed.video.step == 256


@pytest.mark.usefixtures("toy_envs")
def test_a_long_episode_is_cut_off(short_config: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "MAX_STEPS", 3)
    result = train(short_config(env_id=MATCHING, record_video=True, eval_every=0, total_timesteps=128))
    assert result.video is not None
    assert result.video.n_steps == 3


def test_the_return_of_a_cut_off_episode_is_not_normalized(
    short_config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "MAX_STEPS", 40)
    options = {"env_id": "Pendulum-v1", "normalize": True, "record_video": True, "eval_every": 0}
    result = train(short_config(**options, total_timesteps=128))
    assert result.video is not None
    assert result.video.episode_return < -40  # an untrained pendulum costs several units a step; normalized, less


@pytest.mark.usefixtures("toy_envs")
@pytest.mark.parametrize("env_id", ["toy_envs:ToyVector-v0", "toy_envs:ToyWage-v0"])
def test_an_environment_without_images_is_refused_before_the_training(
    env_id: str, short_config: Configure, tmp_path: Path
) -> None:
    config = short_config(env_id=env_id, record_video=True)
    with pytest.raises(
        UserInputError, match=rf"--record-video: {env_id} cannot be rendered .*; remedy: --no-rec"
    ) as raised:
        train(config)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []
    check_rendering(MATCHING, {"render_mode": None})
