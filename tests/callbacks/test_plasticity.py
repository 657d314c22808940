"""What is measured of policies whose weights are written down, and that measuring leaves no trace."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.policies import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
    MultiInputActorCriticPolicy,
)
from torch import nn

from sb3_vgs_ppo.callbacks import PlasticityCallback, measure_plasticity
from sb3_vgs_ppo.callbacks.plasticity import sample_states
from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.optim import UPGD
from sb3_vgs_ppo.ppo.policies import MlpPolicy

PLANE = spaces.Box(-1.0, 1.0, (2,), np.float32)
STATES = th.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.0], [0.0, 0.25]])


def make(
    action_space: spaces.Space[Any],
    policy: type[ActorCriticPolicy] = ActorCriticPolicy,
    space: spaces.Space[Any] = PLANE,
    **kwargs: Any,
) -> ActorCriticPolicy:
    return policy(space, action_space, lambda _: 0.1, **kwargs)


def fill(layer: nn.Module, weight: list[list[float]], bias: list[float]) -> None:
    with th.no_grad():
        layer.weight.copy_(th.tensor(weight))  # type: ignore[operator, union-attr]
        layer.bias.copy_(th.tensor(bias))  # type: ignore[operator, union-attr]


def hand_made(action_space: spaces.Space[Any], outputs: list[list[float]], **kwargs: Any) -> ActorCriticPolicy:
    """
    The actor's hidden units are x, y, 0 and 0, the critic's x + y and 0.

    :param outputs: weights of the action head for x and y, (2, outputs)
    """
    policy = make(action_space, net_arch={"pi": [4], "vf": [2]}, activation_fn=nn.ReLU, **kwargs)
    fill(policy.mlp_extractor.policy_net[0], [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [-1.0, 0.0]], [0.0] * 4)
    fill(policy.mlp_extractor.value_net[0], [[1.0, 1.0], [-1.0, -1.0]], [0.0, -2.0])
    fill(policy.action_net, [[x, y, 0.0, 0.0] for x, y in zip(*outputs, strict=True)], [0.0] * len(outputs[0]))
    fill(policy.value_net, [[3.0, 0.0]], [4.0])
    return policy


def test_every_value_of_a_policy() -> None:
    """Logits (8, 0), (0, 1), (4, 0) and (0, 1/4): one probability of four is above 0.99."""
    found = measure_plasticity(hand_made(spaces.Discrete(2), [[8.0, 0.0], [0.0, 1.0]]), STATES)
    assert found == {
        "actor_weight_norm": pytest.approx(3**0.5),
        "critic_weight_norm": pytest.approx(8**0.5),  # biases count
        "action_head_weight_norm": pytest.approx(65**0.5),
        "value_head_weight_norm": pytest.approx(5.0),
        "actor_dormant_fraction": 0.5,
        "critic_dormant_fraction": 0.5,
        "actor_effective_rank": 2,
        "critic_effective_rank": 1,
        "logit_norm": pytest.approx((8 + 1 + 4 + 0.25) / 4),
        "action_saturation": 0.25,
    }


def test_choices_of_several_dimensions() -> None:
    """The first has two options, (8, 0) in the first state and (4, 0) in the third, the second three, all near 0."""
    policy = hand_made(spaces.MultiDiscrete([2, 3]), [[8.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0]])
    assert measure_plasticity(policy, STATES)["action_saturation"] == 1 / 8


def test_binary_choices() -> None:
    """Logits of yes are 8 x and −6 x: both are certain in the first state, neither in the third."""
    policy = hand_made(spaces.MultiBinary(2), [[8.0, -6.0], [0.0, 0.0]])
    assert measure_plasticity(policy, STATES)["action_saturation"] == 2 / 8


def test_means_of_gaussians() -> None:
    """Means (3 x, y) in bounds of ±2 and ±0.5: 3 in the first state and 1 in the second are outside."""
    bounds = np.array([2.0, 0.5], dtype=np.float32)
    found = measure_plasticity(hand_made(spaces.Box(-bounds, bounds), [[3.0, 0.0], [0.0, 1.0]]), STATES)
    assert found["action_saturation"] == 2 / 8
    assert found["mean_action_norm"] == pytest.approx((3 + 1 + 1.5 + 0.25) / 4)
    assert "logit_norm" not in found


@pytest.mark.parametrize("bound", [1.0, np.inf])
def test_means_without_or_before_bounds_have_no_saturation(bound: float) -> None:
    squashed: dict[str, Any] = {"use_sde": True, "squash_output": True} if bound == 1.0 else {}
    policy = hand_made(spaces.Box(-bound, bound, (2,)), [[9.0, 0.0], [0.0, 9.0]], **squashed)
    assert "action_saturation" not in measure_plasticity(policy, STATES)


def test_what_a_policy_does_not_have_is_left_out() -> None:
    linear = measure_plasticity(make(spaces.Discrete(2), net_arch=[]), STATES)
    assert {name for name in linear if name.startswith(("actor", "critic"))} == {
        "actor_effective_rank",
        "critic_effective_rank",
    }
    tanh = measure_plasticity(make(spaces.Discrete(2)), STATES)
    assert "actor_tanh_saturation" in tanh
    assert not any("gate" in name for name in tanh)


def test_what_is_not_finite_is_left_out() -> None:
    policy = hand_made(spaces.Discrete(2), [[8.0, 0.0], [0.0, 1.0]])
    with th.no_grad():
        policy.mlp_extractor.policy_net[0].bias[0] = th.nan
    found = measure_plasticity(policy, STATES)
    assert {name for name in found if name.startswith("actor")} == set()
    assert not {"logit_norm", "action_saturation"} & found.keys()
    assert found["critic_effective_rank"] == 1


class Recurrent(ActorCriticPolicy):
    """Calls its networks in another way than SB3."""

    def get_distribution(self, obs: Any, lstm_states: Any = None) -> Any:
        raise NotImplementedError


def test_of_networks_that_are_used_in_another_way_only_weights_are_measured() -> None:
    found = measure_plasticity(make(spaces.Discrete(2), Recurrent), STATES)
    assert {name.removesuffix("_weight_norm") for name in found} == {"actor", "critic", "action_head", "value_head"}


@pytest.mark.parametrize("shared", [True, False])
def test_images(shared: bool) -> None:
    """A shared extractor is measured once and belongs to both towers; one of each tower is part of that."""
    image = spaces.Box(0, 255, (3, 36, 36), np.uint8)
    policy = make(spaces.Discrete(2), ActorCriticCnnPolicy, image, share_features_extractor=shared, net_arch=[8])
    observations = th.randint(0, 256, (5, *image.shape), generator=th.Generator().manual_seed(0), dtype=th.uint8)
    calls = []
    for extractor in {policy.pi_features_extractor, policy.vf_features_extractor}:
        extractor.register_forward_hook(lambda *_: calls.append(1))
    found = measure_plasticity(policy, observations)
    assert len(calls) == (1 if shared else 2)
    assert found["actor_dormant_fraction"] > 0  # some of 672 ReLU units; tanh units are never dormant
    assert (found["actor_dormant_fraction"] == found["critic_dormant_fraction"]) == shared
    assert ("features_weight_norm" in found) == shared
    assert (found["actor_weight_norm"] > 20) == (not shared)


def test_the_gates_of_an_optimizer() -> None:
    options = {"utility_normalization": "max", "sigma": 0.0}
    policy = make(spaces.Discrete(2), MlpPolicy, net_arch=[1], optimizer_class=UPGD, optimizer_kwargs=options)
    assert "gate_saturation" not in measure_plasticity(policy, STATES)
    for parameter in policy.parameters():
        parameter.grad = th.zeros_like(parameter)  # utility 0, gate 1/2
    action = policy.action_net
    action.weight.grad = th.tensor([[-1.0], [100.0]])  # type: ignore[operator]
    fill(action, [[1.0], [1.0]], [0.0, 0.0])  # utilities 1 and −100: gates sigmoid(1) and sigmoid(−100)
    policy.optimizer.step()
    n = sum(parameter.numel() for parameter in policy.parameters())
    gates = np.array([1 / (1 + np.exp(-1.0)), 0.0, *[0.5] * (n - 2)])
    found = measure_plasticity(policy, STATES)
    assert found["gate_saturation"] == pytest.approx(1 / n)
    assert found["gate_std"] == pytest.approx(gates.std())


class WithDropout(MlpPolicy):
    def _build_mlp_extractor(self) -> None:
        super()._build_mlp_extractor()
        self.mlp_extractor.policy_net.insert(1, nn.Dropout(0.5))
        self.mlp_extractor.policy_net.insert(0, nn.BatchNorm1d(2))


def global_generators() -> str:
    return f"{th.get_rng_state().tolist()} {np.random.get_state()} {random.getstate()}"  # noqa: NPY002 - what SB3 uses


def test_measuring_leaves_no_trace() -> None:
    policy = make(spaces.Discrete(2), WithDropout)
    policy.train()
    policy.value_net.eval()
    modes = [module.training for module in policy.modules()]
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    generators = global_generators()
    first = measure_plasticity(policy, STATES)
    assert first == measure_plasticity(policy, STATES)
    assert global_generators() == generators
    assert [module.training for module in policy.modules()] == modes
    assert not any(module._forward_hooks for module in policy.modules())
    assert all(parameter.grad is None for parameter in policy.parameters())
    for name, value in policy.state_dict().items():
        assert th.equal(value, before[name]), name


def test_states_come_from_all_environments_and_times() -> None:
    buffer = RolloutBuffer(64, PLANE, spaces.Discrete(2), n_envs=4)
    steps, envs = np.indices((64, 4))
    buffer.observations[:] = np.stack((steps, envs), axis=-1)
    sample = sample_states(buffer, 32)
    assert len({tuple(state) for state in sample.tolist()}) == 32
    for env in range(4):
        times = sample[sample[:, 1] == env][:, 0]
        assert len(times) == 8
        assert times.diff().min() >= 8
    assert len(sample_states(buffer, 1000)) == 256


def test_dict_states_stay_together() -> None:
    space = spaces.Dict({"a": PLANE, "b": spaces.Box(0, 255, (1,), np.uint8)})
    buffer = DictRolloutBuffer(8, space, spaces.Discrete(2), n_envs=2)
    buffer.observations["a"][..., 0] = buffer.observations["b"][..., 0] = np.arange(16).reshape(8, 2)
    sample = sample_states(buffer, 5)
    assert isinstance(sample, dict)
    assert sample["a"][:, 0].tolist() == sample["b"][:, 0].tolist()
    found = measure_plasticity(make(spaces.Discrete(2), MultiInputActorCriticPolicy, space), sample)
    assert found["actor_effective_rank"] >= 1


class Rows(KVWriter):
    """Keeps what was logged."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        self.rows.append({name: value for name, value in key_values.items() if name.startswith("plasticity/")})


def learn(callback: PlasticityCallback | None, algorithm: Any = PPO, **kwargs: Any) -> tuple[Any, list[dict[str, Any]]]:
    """:return: the model after four rollouts, and the rows that it logged"""
    model = algorithm("MlpPolicy", make_vec_env("CartPole-v1", 2, seed=0), n_steps=16, seed=0, device="cpu", **kwargs)
    rows = Rows()
    model.set_logger(Logger(None, [rows]))
    model.learn(128, callback, log_interval=1)
    return model, rows.rows


def test_training_is_the_same_with_and_without_the_callback() -> None:
    (plain, _), (measured, rows) = (
        learn(callback, batch_size=16, n_epochs=2) for callback in (None, PlasticityCallback(n_states=20))
    )
    for one, other in zip(plain.policy.parameters(), measured.policy.parameters(), strict=True):
        assert th.equal(one, other)
    assert len(rows) == 4
    assert len({row["plasticity/actor_weight_norm"] for row in rows}) == 4
    assert all(row.keys() == rows[0].keys() and len(row) == 12 for row in rows)
    assert max(map(len, rows[0])) <= 36  # SB3's table would cut longer ones


def test_the_first_row_is_of_the_untrained_policy() -> None:
    _, rows = learn(PlasticityCallback(), batch_size=16)
    untrained = PPO("MlpPolicy", make_vec_env("CartPole-v1", 2), seed=0, device="cpu").policy
    weights = nn.utils.parameters_to_vector(untrained.mlp_extractor.policy_net.parameters())
    assert rows[0]["plasticity/actor_weight_norm"] == pytest.approx(weights.norm().item())


def test_every_so_many_rollouts_also_where_training_goes_on() -> None:
    model, rows = learn(PlasticityCallback(every=3), A2C)
    assert [bool(row) for row in rows] == [True, False, False, True]
    later = Rows()
    model.set_logger(Logger(None, [later]))
    model.learn(128, PlasticityCallback(every=3), log_interval=1, reset_num_timesteps=False)
    assert [bool(row) for row in later.rows] == [False, False, True, False]


def test_other_algorithms_are_refused() -> None:
    model = DQN("MlpPolicy", "CartPole-v1", buffer_size=10)
    with pytest.raises(UserInputError, match="cannot measure DQN with DQNPolicy; remedy: an on-policy algorithm"):
        model.learn(1, PlasticityCallback())


@pytest.mark.parametrize("name", ["n_states", "every"])
def test_numbers_below_one_are_refused(name: str) -> None:
    with pytest.raises(UserInputError, match=f"{name} 0 is too small; remedy: at least 1"):
        PlasticityCallback(**{name: 0})
