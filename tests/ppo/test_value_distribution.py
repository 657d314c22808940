"""``model.value_distribution``: observations as ``predict`` takes them, distributions as the critic predicts them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv, SimpleMultiObsEnv

from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.ppo import DistributionalPPO

ENVS: dict[str, tuple[str, Any]] = {
    "vector": ("MlpPolicy", "CartPole-v1"),
    "image": ("CnnPolicy", lambda: FakeImageEnv(screen_height=36, screen_width=36, n_channels=1)),
    "dict": ("MultiInputPolicy", lambda: SimpleMultiObsEnv(num_col=2, num_row=2)),
}


def model_of(env: str, **policy_kwargs: Any) -> DistributionalPPO:
    policy, make = ENVS[env]
    env_of_three = make_vec_env(make, 3, seed=0)
    return DistributionalPPO(policy, env_of_three, n_steps=8, batch_size=8, policy_kwargs=policy_kwargs, seed=0)


@pytest.mark.parametrize("head", ["quantile", "categorical"])
@pytest.mark.parametrize("env", ENVS)
def test_one_observation_or_a_batch_as_predict_takes_them(env: str, head: str) -> None:
    model = model_of(env, value_head=head)
    batch: Any = model.get_env().reset()  # type: ignore[union-attr]
    one = {name: values[1] for name, values in batch.items()} if isinstance(batch, dict) else batch[1]
    of_batch, of_one = model.value_distribution(batch), model.value_distribution(one)
    assert (of_batch.shape, of_one.shape) == ((3,), ())
    with th.no_grad():
        values = model.policy.predict_values(model.policy.obs_to_tensor(batch)[0])
    assert of_batch.mean == pytest.approx(values.squeeze(1).numpy(), rel=1e-4, abs=1e-4)
    assert of_one.mean == pytest.approx(of_batch.mean[1], rel=1e-4, abs=1e-4)
    assert of_one.quantile([0.25, 0.75]).shape == (2,)
    assert of_batch.quantile([0.25, 0.75]).shape == (3, 2)
    assert (of_batch.cvar(0.1) <= of_batch.mean).all()


def test_asking_leaves_no_graph_and_draws_nothing() -> None:
    model = model_of("vector")
    before = th.random.get_rng_state()
    model.value_distribution(np.zeros(4, np.float32))
    assert th.equal(th.random.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.policy.parameters())


def test_a_scalar_critic_names_the_remedy() -> None:
    with pytest.raises(UserInputError, match=r"value_head='scalar' predicts .* remedy: .*value_head='quantile'"):
        model_of("vector", value_head="scalar").value_distribution(np.zeros(4, np.float32))
