"""Legacy agents trained anew: same options and seed, another VGS version, both curves side by side."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecFrameStack

from sb3_vgs_ppo.errors import RunFolderError, UserInputError
from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.ppo.loading import load_checkpoint
from sb3_vgs_ppo.runs.config import TrainConfig
from sb3_vgs_ppo.runs.folder import RunFolder, read_json
from sb3_vgs_ppo.runs.retraining import continue_checkpoint, read_source, retrain
from sb3_vgs_ppo.runs.retraining_figure import scaling_factors
from sb3_vgs_ppo.runs.training import train

CONFIG = TrainConfig(
    env_id="CartPole-v1",
    frame_stack=2,
    total_timesteps=256,
    n_envs=2,
    seed=5,
    vgs_version="2.0",
    algo_kwargs={
        "n_steps": 64,
        "batch_size": 32,
        "n_epochs": 2,
        "gamma": 0.97,
        "policy_kwargs": {"net_arch": [8]},
        "vgs_kwargs": {"warmup_steps": 2, "alpha": 10.0},
    },
    checkpoint_every=128,
    eval_every=128,
    eval_episodes=1,
    device="cpu",
)


@pytest.fixture(scope="module")
def legacy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("legacy") / "run"
    train(replace(CONFIG, run_dir=str(folder)))
    return folder


def parameters(path: Path) -> dict[str, th.Tensor]:
    return load_checkpoint(path).policy.state_dict()


def same(first: dict[str, th.Tensor], second: dict[str, th.Tensor]) -> bool:
    return all(th.equal(tensor, second[name]) for name, tensor in first.items())


def test_from_scratch_is_the_same_run_under_another_version(legacy_run: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in legacy_run.rglob("*") if path.is_file()}
    done = retrain(legacy_run, tmp_path / "study")
    options = read_json(tmp_path / "study" / "new" / "config.json")["options"]
    old_options = read_json(legacy_run / "config.json")["options"]
    assert options == {**old_options, "vgs_version": "3.0"}
    train(replace(CONFIG, vgs_version="3.0", run_dir=str(tmp_path / "direct")))
    final = tmp_path / "study" / "new" / "final_model.zip"
    assert same(parameters(final), parameters(tmp_path / "direct" / "final_model.zip"))
    assert not same(parameters(final), parameters(legacy_run / "final_model.zip"))
    assert {path: path.read_bytes() for path in before} == before
    old = tmp_path / "study" / "old"
    assert (old / "progress.csv").read_bytes() == (legacy_run / "progress.csv").read_bytes()
    assert len(list((old / "monitor").iterdir())) == 2
    summary = json.loads((tmp_path / "study" / "summary.json").read_text())
    assert (summary["old"]["vgs_version"], summary["new"]["vgs_version"]) == ("2.0", "3.0")
    assert summary["new"]["mean_reward"] == done.new_mean_reward
    # The old agent's evaluation is the one that ended its own training
    status = RunFolder(legacy_run).read_status()
    assert status.summary is not None
    assert done.old.mean_reward == status.summary["final_mean_reward"]
    assert (tmp_path / "study" / "comparison.png").stat().st_size > 10_000


def test_continue_starts_from_the_migrated_weights(legacy_run: Path, tmp_path: Path) -> None:
    config = read_json(legacy_run / "config.json")
    done = retrain(legacy_run, tmp_path / "study", continue_weights=True, total_timesteps=128)
    assert done.result is not None
    assert done.result.steps_per_second > 0
    new = RunFolder(tmp_path / "study" / "new")
    summary = new.read_status().summary
    assert summary is not None
    assert summary["steps_per_second"] == done.result.steps_per_second
    record = read_json(new.config)
    assert record["parent"] == str(legacy_run / "final_model.zip")
    assert record["options"]["algo_kwargs"] == config["options"]["algo_kwargs"]
    old = parameters(legacy_run / "final_model.zip")
    continued = parameters(new.final_model)
    env = VecFrameStack(make_vec_env("CartPole-v1"), 2)
    scratch = DistributionalPPO("MlpPolicy", env, policy_kwargs={"net_arch": [8]}, seed=5).policy.state_dict()
    weight = "mlp_extractor.policy_net.0.weight"
    moved = (continued[weight] - old[weight]).norm()
    assert 0 < moved < 0.5 * (continued[weight] - scratch[weight]).norm()
    model = load_checkpoint(new.final_model)
    assert model.vgs is not None
    assert model.vgs.version == "3.0"
    assert model.num_timesteps == 128
    # Statistics restarted: 128 steps are 4 minibatches of 32, twice
    assert model.vgs.state_dict()["step_count"] == 8


def test_a_lone_checkpoint_needs_its_environment_and_keeps_its_options(legacy_run: Path, tmp_path: Path) -> None:
    lone = tmp_path / "agent.zip"
    lone.write_bytes((legacy_run / "final_model.zip").read_bytes())
    with pytest.raises(UserInputError, match="--env-id"):
        read_source(lone, None)
    source = read_source(lone, "CartPole-v1")
    assert source.run is None
    expected = {**CONFIG.algo_kwargs}
    assert source.config.algo_kwargs == expected
    ours = (source.config.n_envs, source.config.seed, source.config.vgs_version, source.config.optimizer)
    assert ours == (2, 5, "2.0", "adaptive-upgd")
    assert source.config.frame_stack == 2
    done = retrain(lone, env_id="CartPole-v1", total_timesteps=128)
    assert done.folder == tmp_path / "agent_vgs-3.0"
    assert not (done.folder / "old").exists()


def test_a_lone_checkpoint_that_was_compiled_is_again(tmp_path: Path) -> None:
    DistributionalPPO("MlpPolicy", "CartPole-v1", n_steps=64, compile=True).save(tmp_path / "agent.zip")
    source = read_source(tmp_path / "agent.zip", "CartPole-v1")
    assert source.config.compile is True
    assert "compile" not in source.config.algo_kwargs


def test_called_again_it_redraws_and_trains_no_more(legacy_run: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    retrain(legacy_run, study, total_timesteps=128)
    trained = (study / "new" / "final_model.zip").read_bytes()
    (study / "comparison.png").unlink()
    assert retrain(legacy_run, study, total_timesteps=128).result is None
    with pytest.raises(RunFolderError, match="begun with other options"):
        retrain(legacy_run, study, total_timesteps=256)
    with pytest.raises(RunFolderError, match="begun with other options"):
        retrain(legacy_run, study, total_timesteps=128, continue_weights=True)
    assert (study / "comparison.png").is_file()
    assert (study / "new" / "final_model.zip").read_bytes() == trained


def test_a_run_of_another_device_is_retrained_on_the_one_that_is_named(
    legacy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    run = shutil.copytree(legacy_run, tmp_path / "old")
    record = json.loads((run / "config.json").read_text())
    record["options"]["device"] = "cuda"
    (run / "config.json").write_text(json.dumps(record))
    with pytest.raises(UserInputError, match="--device 'cuda': torch sees no CUDA device here"):
        retrain(run, tmp_path / "study", total_timesteps=128)
    assert not (tmp_path / "study").exists()
    done = retrain(run, tmp_path / "study", total_timesteps=128, device="cpu")
    assert json.loads((done.folder / "new" / "config.json").read_text())["options"]["device"] == "cpu"
    continued = continue_checkpoint(run / "final_model.zip", tmp_path / "more", total_timesteps=128, device="cpu")
    assert continued.folder.path == tmp_path / "more"


def test_refusals_leave_nothing_behind(legacy_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match=r"VGS 2\.0 already"):
        retrain(legacy_run, tmp_path / "a", to_version="2.0")
    with pytest.raises(UserInputError, match="was trained in CartPole-v1"):
        retrain(legacy_run, tmp_path / "a", env_id="Pendulum-v1")
    with pytest.raises(UserInputError, match=r"99\.zip does not exist"):
        retrain(legacy_run / "checkpoints" / "99.zip", tmp_path / "a")
    with pytest.raises(UserInputError, match="neither a run folder nor a checkpoint"):
        retrain(tmp_path / "nothing", tmp_path / "a")
    assert not (tmp_path / "a").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(RunFolderError, match="not empty"):
        retrain(legacy_run, tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_scaling_factors_of_a_progress_table(tmp_path: Path) -> None:
    table = tmp_path / "progress.csv"
    table.write_text("time/total_timesteps,vgs/scaling_factor\n100,\n200,0.5\n300,nan\n400,0.25\n")
    assert scaling_factors(table) == ([200, 400], [0.5, 0.25])
    assert scaling_factors(tmp_path / "none.csv") == ([], [])
