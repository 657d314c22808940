"""Arguments, groups, closures, schedulers, gradients that are refused, and the use from Stable-Baselines3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch as th
from stable_baselines3 import PPO

from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.optim import UPGD

from .descriptions import Description, both_paths, every_optimizer


def param_with_grad(*values: float) -> th.nn.Parameter:
    """Weights as given, gradient 1 each."""
    param = th.nn.Parameter(th.tensor(values))
    param.grad = th.ones_like(param)
    return param


@every_optimizer
def test_valid_arguments_construct_and_step(description: Description) -> None:
    for options in description.valid:
        param = param_with_grad(1.0, 2.0)
        optimizer = description.optimizer([param], **options)
        optimizer.step()
        assert th.isfinite(param).all()
        moves = options.get("lr", 1e-3) > 0
        assert th.equal(param, th.tensor([1.0, 2.0])) != moves, options


@every_optimizer
def test_bad_arguments_are_refused_for_the_optimizer_and_for_one_group(description: Description) -> None:
    for options, pattern in description.invalid:
        with pytest.raises(UserInputError, match=pattern):
            description.optimizer([param_with_grad(1.0)], **options)
        with pytest.raises(UserInputError, match=pattern):
            description.optimizer([{"params": [param_with_grad(1.0)], **options}])
        harmless = description.optimizer([param_with_grad(1.0)]).defaults
        with pytest.raises(UserInputError, match=pattern):  # also a default that no group uses yet
            description.optimizer([{"params": [param_with_grad(1.0)], **harmless}], **options)
        optimizer = description.optimizer([param_with_grad(1.0)])
        with pytest.raises(UserInputError, match=pattern):
            optimizer.add_param_group({"params": [param_with_grad(1.0)], **options})
        assert len(optimizer.param_groups) == 1


@every_optimizer
def test_a_tensor_as_learning_rate_is_refused(description: Description) -> None:
    with pytest.raises(ValueError, match=r"Invalid learning rate: 0\.0.* Python number: call \.item\(\)"):
        description.optimizer([param_with_grad(1.0)], lr=th.tensor(0.01))


@every_optimizer
@pytest.mark.parametrize(
    ("name", "values"), [("utility_normalization", ("max", "official")), ("foreach", (True, False))]
)
def test_groups_share_the_gate(description: Description, name: str, values: tuple[Any, Any]) -> None:
    groups = [{"params": [param_with_grad(1.0)], name: value} for value in values]
    with pytest.raises(UserInputError, match=rf"Invalid {name} value: {values[1]!r} in one group, {values[0]!r} in"):
        description.optimizer(groups)
    optimizer = description.optimizer(groups[:1])
    with pytest.raises(UserInputError, match="must be the same in all groups"):
        optimizer.add_param_group({"params": [param_with_grad(1.0)]})
    assert len(optimizer.param_groups) == 1


@every_optimizer
@both_paths
def test_a_group_added_later_takes_part_in_the_gate(description: Description, foreach: bool) -> None:
    first, second = param_with_grad(1.0), param_with_grad(5.0)
    optimizer = description.optimizer([first], 0.1, sigma=0.0, weight_decay=0.0, foreach=foreach)
    optimizer.step()
    alone = 1.0 - first.item()
    assert alone == pytest.approx(0.1, rel=1e-4)  # one element has no range: a full lr step
    optimizer.add_param_group({"params": [second], "lr": 0.2})
    optimizer.step()
    protected, plastic = 0.9 - first.item(), 5.0 - second.item()
    # Gates sigmoid(1) and sigmoid(−1): 2·(1 − s) = 0.538 and 1.462.
    assert (protected, plastic) == pytest.approx((0.1 * 0.537883, 0.2 * 1.462117), rel=1e-4)


@every_optimizer
@both_paths
def test_a_scheduler_moves_the_learning_rate(description: Description, foreach: bool) -> None:
    """A constant gradient of 1 and no range: every step is one learning rate long."""
    param = param_with_grad(10.0)
    optimizer = description.optimizer([param], 0.5, sigma=0.0, weight_decay=0.0, foreach=foreach)
    scheduler = th.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    positions = []
    for _ in range(3):
        optimizer.step()
        scheduler.step()
        positions.append(param.item())
    assert positions == pytest.approx([9.5, 9.25, 9.125], abs=1e-4)


@every_optimizer
@both_paths
def test_a_closure_is_evaluated_with_gradients_and_its_loss_returned(description: Description, foreach: bool) -> None:
    param = th.nn.Parameter(th.tensor([3.0]))
    optimizer = description.optimizer([param], 0.1, foreach=foreach)

    def closure() -> th.Tensor:
        optimizer.zero_grad()
        loss = param.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 9.0
    assert param.item() < 3.0
    assert optimizer.step() is None


@every_optimizer
@both_paths
def test_unusual_gradients_are_refused_before_anything_moves(description: Description, foreach: bool) -> None:
    dense, sparse = param_with_grad(1.0, 2.0), th.nn.Parameter(th.ones(2, 2))
    sparse.grad = th.ones(2, 2).to_sparse()
    optimizer = description.optimizer([dense, sparse], foreach=foreach)
    with pytest.raises(RuntimeError, match=rf"{description.name} does not support sparse gradients"):
        optimizer.step()
    sparse.grad = None
    complex_param = th.nn.Parameter(th.ones(2, dtype=th.complex64))
    complex_param.grad = th.ones_like(complex_param)
    optimizer.add_param_group({"params": [complex_param]})
    with pytest.raises(RuntimeError, match=rf"{description.name} does not support complex gradients.*complex64"):
        optimizer.step()
    assert dense.tolist() == [1.0, 2.0]
    assert optimizer.state[dense]["step"] == 0


@every_optimizer
@both_paths
def test_nothing_to_update_is_no_step(description: Description, foreach: bool) -> None:
    param, empty = th.nn.Parameter(th.ones(2)), th.nn.Parameter(th.empty(0, 3))
    empty.grad = th.empty(0, 3)
    optimizer = description.optimizer([param, empty], foreach=foreach)
    optimizer.step()
    assert param.tolist() == [1.0, 1.0]
    assert optimizer.state_dict()["state"] == {}


@both_paths
def test_memory_layout_does_not_matter(foreach: bool) -> None:
    """A transposed gradient and a channels-last weight: every element must meet its own gradient and noise."""
    generator = th.Generator().manual_seed(0)
    weight, grad = (th.randn(2, 3, 4, 5, generator=generator) for _ in range(2))
    results = []
    for layout in (th.contiguous_format, th.channels_last):
        param = th.nn.Parameter(weight.clone(memory_format=layout))
        param.grad = (
            grad.clone()
            if layout == th.contiguous_format
            else grad.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
        )
        UPGD([param], 0.1, foreach=foreach, generator=th.Generator().manual_seed(1)).step()
        results.append(param.detach())
    th.testing.assert_close(results[1], results[0])


@every_optimizer
def test_stable_baselines3_takes_it_by_policy_kwargs(description: Description, tmp_path: Path) -> None:
    def learning_rate(progress_remaining: float) -> float:
        return 1e-3 * (1 + progress_remaining)

    model = PPO(
        "MlpPolicy",
        "CartPole-v1",
        learning_rate,
        n_steps=32,
        batch_size=32,
        n_epochs=2,
        seed=0,
        device="cpu",
        policy_kwargs={
            "net_arch": [8],
            "optimizer_class": description.optimizer,
            "optimizer_kwargs": {"sigma": 1e-3, "noise": "relative"},
        },
    )
    before = {name: param.clone() for name, param in model.policy.named_parameters()}
    model.learn(64)
    optimizer = model.policy.optimizer
    assert isinstance(optimizer, th.optim.Optimizer)
    assert optimizer.param_groups[0]["lr"] == 1e-3  # no progress remains at the last update
    assert all(not th.equal(param, before[name]) for name, param in model.policy.named_parameters())

    model.save(tmp_path / "model")
    loaded = PPO.load(tmp_path / "model", env=model.get_env(), device="cpu")
    assert type(loaded.policy.optimizer) is description.optimizer
    saved, restored = optimizer.state_dict(), loaded.policy.optimizer.state_dict()
    assert restored["param_groups"] == saved["param_groups"]
    assert restored["state"][0]["step"] == 2 * 2
    for key, state in saved["state"].items():
        assert all(th.equal(restored["state"][key][name], state[name]) for name in description.state)
    loaded.learn(32, reset_num_timesteps=False)
    assert loaded.policy.optimizer.state_dict()["state"][0]["step"] == 3 * 2
