"""With a scalar head, Adam and no VGS, the parameters equal those of SB3's PPO bit for bit.

The test runs the installed SB3: it also fails when an upgrade moves ``PPO.train``.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import LinearSchedule

from sb3_vgs_ppo.ppo import DistributionalPPO

ROLLOUT = 256


def trained(algorithm: type[PPO], env_id: str, n_envs: int, policy: str = "MlpPolicy", **kwargs: Any) -> PPO:
    """Three rollouts, with a last minibatch that is shorter than the others."""
    policy_kwargs = dict(kwargs.pop("policy_kwargs", {}))
    if algorithm is DistributionalPPO:
        policy_kwargs |= {"value_head": "scalar", "optimizer_class": th.optim.Adam}
        kwargs["vgs_version"] = None
    model = algorithm(
        policy,
        make_vec_env(env_id, n_envs=n_envs, seed=7),
        n_steps=ROLLOUT // n_envs,
        batch_size=60,
        n_epochs=3,
        seed=7,
        device="cpu",
        policy_kwargs=policy_kwargs,
        **kwargs,
    )
    return model.learn(3 * ROLLOUT)


def assert_same(ours: PPO, theirs: PPO) -> None:
    expected = theirs.policy.state_dict()
    actual = ours.policy.state_dict()
    assert list(actual) == list(expected)
    for name, tensor in expected.items():
        assert th.equal(actual[name], tensor), f"{name} differs by {(actual[name] - tensor).abs().max()}"
    moments = theirs.policy.optimizer.state_dict()["state"]
    for index, state in ours.policy.optimizer.state_dict()["state"].items():
        assert th.equal(state["exp_avg_sq"], moments[index]["exp_avg_sq"])


@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
@pytest.mark.parametrize("n_envs", [1, 4])
@pytest.mark.parametrize(
    ("env_id", "kwargs"),
    [
        pytest.param("CartPole-v1", {}, id="cartpole"),
        pytest.param("Pendulum-v1", {}, id="pendulum"),
        pytest.param("CartPole-v1", {"target_kl": 1e-3, "learning_rate": 3e-3}, id="cartpole-target_kl"),
        pytest.param("Pendulum-v1", {"use_sde": True, "sde_sample_freq": 4}, id="pendulum-gsde"),
        pytest.param("Pendulum-v1", {"learning_rate": LinearSchedule(1e-3, 1e-5, 1.0)}, id="pendulum-lr_schedule"),
        pytest.param(
            "CartPole-v1", {"clip_range": LinearSchedule(0.3, 0.1, 1.0), "ent_coef": 0.01}, id="cartpole-clip_schedule"
        ),
        pytest.param("CartPole-v1", {"clip_range_vf": 0.1, "learning_rate": 3e-3}, id="cartpole-clip_range_vf"),
        pytest.param("CartPole-v1", {"policy_kwargs": {"share_features_extractor": False}}, id="cartpole-unshared"),
    ],
)
def test_parameters_equal_sb3_bit_for_bit(env_id: str, n_envs: int, kwargs: dict[str, Any]) -> None:
    ours = trained(DistributionalPPO, env_id, n_envs, **kwargs)
    theirs = trained(PPO, env_id, n_envs, **kwargs)
    assert ours._n_updates == theirs._n_updates
    assert_same(ours, theirs)
    figures = "policy_gradient_loss value_loss entropy_loss approx_kl clip_fraction loss explained_variance"
    for figure in figures.split():
        expected = theirs.logger.name_to_value[f"train/{figure}"]
        assert ours.logger.name_to_value[f"train/{figure}"] == pytest.approx(expected, rel=1e-5, abs=1e-7), figure


def test_target_kl_case_really_stops_early() -> None:
    model = trained(DistributionalPPO, "CartPole-v1", 4, target_kl=1e-3, learning_rate=3e-3)
    assert model._n_updates < 3 * 3


def test_the_comparison_sees_a_difference() -> None:
    with pytest.raises(AssertionError, match="differs by"):
        assert_same(trained(DistributionalPPO, "CartPole-v1", 4, vf_coef=0.5001), trained(PPO, "CartPole-v1", 4))
