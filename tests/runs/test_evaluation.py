from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_vgs_ppo.runs.config import TrainConfig
from sb3_vgs_ppo.runs.environments import make_training_env
from sb3_vgs_ppo.runs.evaluation import (
    Evaluation,
    append_evaluation,
    best_evaluation,
    evaluate,
    evaluation_phase,
    evaluation_seed,
    read_evaluations,
)

FIRST = Evaluation(100, (1.0, 2.5, 4.0), (10, 20, 60))


def make_model(normalize: bool = False) -> PPO:
    env = make_vec_env("Pendulum-v1", 1, seed=0)
    return PPO("MlpPolicy", VecNormalize(env) if normalize else env, n_steps=32, batch_size=16, n_epochs=1, seed=0)


def test_figures_of_three_episodes() -> None:
    assert FIRST.mean_reward == 2.5
    assert FIRST.std_reward == pytest.approx(np.sqrt((1.5**2 + 0 + 1.5**2) / 3))
    assert FIRST.mean_ep_length == 30
    assert str(FIRST) == "2.50 ± 1.22 over 3 episodes"


def test_the_table_is_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.csv"
    assert read_evaluations(path) == []
    second = Evaluation(200, (0.1 + 0.2, -1e-9), (1, 2))
    append_evaluation(path, FIRST)
    append_evaluation(path, second)
    assert read_evaluations(path) == [FIRST, second]
    lines = path.read_text().splitlines()
    assert lines[0] == "step,mean_reward,std_reward,mean_ep_length,episodes,rewards,ep_lengths"
    assert lines[1] == "100,2.5,1.224744871391589,30.0,3,1.0 2.5 4.0,10 20 60"
    assert len(lines) == 3


def test_the_best_is_the_first_of_equals() -> None:
    later = Evaluation(200, (2.5,), (5,))
    worse = Evaluation(50, (2.4,), (5,))
    assert best_evaluation([worse, FIRST, later]) is FIRST
    assert best_evaluation([]) is None


def test_an_evaluation_depends_on_agent_and_seed_alone() -> None:
    model = make_model()
    first = evaluate(model, "Pendulum-v1", 2, 4, seed=7)
    assert len(first.rewards) == 4
    assert first.ep_lengths == (200, 200, 200, 200)
    assert len(set(first.rewards)) == 4  # each episode has a start of its own
    assert evaluate(model, "Pendulum-v1", 2, 4, seed=7) == first
    assert evaluate(model, "Pendulum-v1", 2, 4, seed=8).rewards != first.rewards


def test_an_evaluation_plays_the_task_of_its_phase(tmp_path: Path) -> None:
    """An agent that always chooses action 0 does something else where the actions are swapped."""
    kwargs = {"change": "action_permutation"}
    env = make_training_env("ContinualCartPole-v0", 1, 3, monitor_dir=tmp_path, env_kwargs=kwargs)
    model = PPO("MlpPolicy", env, n_steps=32, batch_size=16, n_epochs=1, seed=0)
    with th.no_grad():
        model.policy.action_net.weight.zero_()  # type: ignore[union-attr]
        model.policy.action_net.bias.copy_(th.tensor([1.0, 0.0]))  # type: ignore[union-attr]
    lengths = [
        evaluate(model, "ContinualCartPole-v0", 2, 6, seed=1, env_kwargs=kwargs, phase=phase).ep_lengths
        for phase in range(3)
    ]
    assert lengths[0] == lengths[2] != lengths[1]
    assert env.get_attr("phase") == [0]


@pytest.mark.parametrize(
    ("num_timesteps", "phase"), [(0, 0), (1, 0), (40_000, 0), (40_001, 1), (80_000, 1), (81_920, 1)]
)
def test_the_phase_is_that_of_the_last_step_that_was_asked_for(num_timesteps: int, phase: int) -> None:
    config = TrainConfig(env_id="ContinualCartPole-v0", total_timesteps=80_000)
    assert evaluation_phase(config, num_timesteps) == phase
    assert evaluation_phase(replace(config, env_id="CartPole-v1"), num_timesteps) == 0


@pytest.mark.parametrize("normalize", [False, True])
def test_an_evaluation_leaves_no_trace_in_training(normalize: bool) -> None:
    parameters = []
    for watched in (False, True):
        model = make_model(normalize)
        model.learn(32)
        if watched:
            evaluate(model, "Pendulum-v1", 1, 1, seed=0)
        model.learn(32, reset_num_timesteps=False)
        parameters.append(th.nn.utils.parameters_to_vector(model.policy.parameters()))
    assert th.equal(*parameters)


def test_a_normalized_agent_is_shown_normalized_observations_and_paid_in_full() -> None:
    model = make_model(normalize=True)
    model.learn(64)
    wrapped = model.get_vec_normalize_env()
    assert wrapped is not None
    before = evaluate(model, "Pendulum-v1", 1, 2, seed=0)
    wrapped.obs_rms.mean = wrapped.obs_rms.mean + 1.0
    after = evaluate(model, "Pendulum-v1", 1, 2, seed=0)
    assert before.rewards != after.rewards
    assert min(before.rewards) < -300  # an untrained pendulum costs several hundreds


def test_no_more_environments_than_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def make(env_id: str, n_envs: int, seed: int, training_env: object, **options: object) -> object:
        asked.append(n_envs)
        return make_vec_env(env_id, n_envs, seed=seed)

    monkeypatch.setattr("sb3_vgs_ppo.runs.evaluation.make_evaluation_env", make)
    evaluate(make_model(), "Pendulum-v1", 8, 1, seed=0)
    assert asked == [1]


def test_seeds_of_evaluations_do_not_repeat() -> None:
    seeds = {evaluation_seed(run, number) for run in range(20) for number in range(20)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert evaluation_seed(1, 2) == evaluation_seed(1, 2) != evaluation_seed(2, 1)
