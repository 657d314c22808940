"""``policy_kwargs=dict(layer_norm=True)``: hidden layers whose activations get normalized inputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch as th
from torch import nn

from helpers import assert_equal_nested
from sb3_vgs_ppo.plasticity import record_hidden_layers
from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.ppo.loading import load_checkpoint


def agent(env_id: str = "CartPole-v1", **policy_kwargs: object) -> DistributionalPPO:
    return DistributionalPPO(
        "MlpPolicy",
        env_id,
        n_steps=64,
        batch_size=32,
        n_epochs=2,
        seed=1,
        policy_kwargs={"net_arch": {"pi": [8, 6], "vf": [4]}, **policy_kwargs},
    )


def test_every_activation_of_both_networks_gets_normalized_inputs() -> None:
    policy = agent(layer_norm=True).policy
    extractor = policy.mlp_extractor
    assert [type(layer) for layer in extractor.policy_net] == [nn.Linear, nn.LayerNorm, nn.Tanh] * 2
    assert [type(layer) for layer in extractor.value_net] == [nn.Linear, nn.LayerNorm, nn.Tanh]
    obs = 100 * th.randn(5, 4)
    inputs: list[th.Tensor] = []
    for layer in extractor.modules():
        if isinstance(layer, nn.Tanh):
            layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach()))
    extractor(obs)
    assert [tuple(values.shape) for values in inputs] == [(5, 8), (5, 6), (5, 4)]
    for values in inputs:
        assert values.mean(dim=1) == pytest.approx(0.0, abs=1e-5)
        assert values.std(dim=1, correction=0) == pytest.approx(1.0, abs=1e-2)


def test_the_weights_begin_as_without() -> None:
    """LayerNorm draws no random numbers, and its own weights are 1 and 0."""
    with_it, without = (agent(layer_norm=flag).policy for flag in (True, False))
    linear = [
        [p for m in policy.mlp_extractor.modules() if isinstance(m, nn.Linear) for p in m.parameters()]
        for policy in (with_it, without)
    ]
    assert_equal_nested(linear[0], linear[1])
    assert not any(isinstance(module, nn.LayerNorm) for module in without.modules())


@pytest.mark.parametrize("value_head", ["quantile", "scalar"])
def test_it_learns_and_comes_back_from_a_file(value_head: str, tmp_path: Path) -> None:
    model = agent("Pendulum-v1", layer_norm=True, value_head=value_head)
    norms = [m for m in model.policy.modules() if isinstance(m, nn.LayerNorm)]
    model.learn(128)
    assert all((norm.weight != 1).all() for norm in norms)  # they are the optimizer's too
    model.save(tmp_path / "agent")
    for loaded in (load_checkpoint(tmp_path / "agent.zip"), DistributionalPPO.load(tmp_path / "agent.zip")):
        assert_equal_nested(loaded.get_parameters(), model.get_parameters())
        assert loaded.policy.layer_norm
    model.policy.save(tmp_path / "policy.pt")
    alone = type(model.policy).load(tmp_path / "policy.pt")
    assert_equal_nested(alone.state_dict(), model.policy.state_dict())


def test_metrics_see_the_units_behind_the_activations() -> None:
    policy = agent(layer_norm=True).policy
    with record_hidden_layers(policy.mlp_extractor.policy_net) as layers:
        policy.mlp_extractor.forward_actor(th.randn(3, 4))
    assert [tuple(layer.outputs.shape) for layer in layers] == [(3, 8), (3, 6)]
