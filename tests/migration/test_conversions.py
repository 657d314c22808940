"""The pure functions on state dicts: value heads and optimizer states in other forms."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch as th
from torch import nn

from sb3_vgs_ppo.distributional import make_value_head
from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.migration.optimizer_state import convert_optimizer, forget_last, shared_options
from sb3_vgs_ppo.migration.value_head import convert_value_head
from sb3_vgs_ppo.optim import AdaptiveUPGD

LATENTS = th.linspace(-1.0, 1.0, 12).reshape(4, 3)


def policy_with(n_outputs: int) -> dict[str, th.Tensor]:
    generator = th.Generator().manual_seed(0)
    return {
        "action_net.bias": th.ones(2),
        "value_net.weight": th.randn(n_outputs, 3, generator=generator),
        "value_net.bias": th.randn(n_outputs, generator=generator),
    }


def head_of(name: str, policy: dict[str, th.Tensor], **kwargs: Any) -> Any:
    head = make_value_head(name, nn.Linear(3, 1) if name == "scalar" else 3, **kwargs)
    head.load_state_dict({key: policy[f"value_net.{key}"] for key in ("weight", "bias")})
    return head


class TestValueHead:
    @pytest.mark.parametrize("n_quantiles", [1, 5, 32])
    def test_scalar_to_quantile_keeps_the_mean(self, n_quantiles: int) -> None:
        policy = policy_with(1)
        converted = convert_value_head(policy, "scalar", "quantile", n_quantiles)
        old, new = head_of("scalar", policy), head_of("quantile", converted, n_quantiles=n_quantiles)
        assert new.predict(LATENTS).shape == (4, n_quantiles)
        assert th.allclose(new(LATENTS), old(LATENTS), rtol=1e-6, atol=1e-6)
        assert converted["action_net.bias"] is policy["action_net.bias"]

    def test_quantile_to_scalar_keeps_the_mean(self) -> None:
        policy = policy_with(5)
        converted = convert_value_head(policy, "quantile", "scalar", 32)
        old, new = head_of("quantile", policy, n_quantiles=5), head_of("scalar", converted)
        assert th.allclose(new(LATENTS), old(LATENTS), rtol=1e-6, atol=1e-6)
        assert not th.allclose(new(LATENTS), old.predict(LATENTS)[:, :1], atol=0.1)

    def test_the_argument_is_not_changed(self) -> None:
        policy = policy_with(1)
        before = copy.deepcopy(policy)
        convert_value_head(policy, "scalar", "quantile", 4)["value_net.weight"].zero_()
        assert all(th.equal(policy[name], before[name]) for name in before)

    @pytest.mark.parametrize(
        "pair", [("scalar", "categorical"), ("categorical", "quantile"), ("quantile", "categorical")]
    )
    def test_what_could_only_be_fitted_is_refused(self, pair: Any) -> None:
        with pytest.raises(UserInputError, match=f"value_head='{pair[1]}' cannot be made from a {pair[0]} head"):
            convert_value_head(policy_with(5), *pair, 32)

    def test_equal_quantiles_learn_a_distribution(self) -> None:
        """Returns around the old values with standard deviation 2: the quantiles part in the right order."""
        policy = policy_with(1)
        head = head_of("quantile", convert_value_head(policy, "scalar", "quantile", 8), n_quantiles=8)
        values = head(LATENTS).detach().flatten()
        optimizer = th.optim.Adam(head.parameters(), lr=0.02)
        generator = th.Generator().manual_seed(1)
        for _ in range(500):
            loss = head.loss(head.predict(LATENTS), values + 2.0 * th.randn(4, generator=generator))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        quantiles = head.predict(LATENTS).detach()
        assert (quantiles.diff(dim=1) > 0).float().mean() > 0.95
        assert quantiles.std(dim=1).mean() == pytest.approx(1.9, abs=0.4)


def trained(optimizer_class: Any, **kwargs: Any) -> tuple[list[nn.Parameter], Any]:
    """Three tensors after a few steps."""
    th.manual_seed(0)
    parameters = [nn.Parameter(th.randn(3)), nn.Parameter(th.randn(2, 2)), nn.Parameter(th.randn(2))]
    optimizer = optimizer_class(parameters, **kwargs)
    for _ in range(5):
        optimizer.zero_grad()
        sum((parameter * th.randn_like(parameter)).sum() for parameter in parameters).backward()
        optimizer.step()
    return parameters, optimizer


class TestOptimizerState:
    def test_the_last_tensors_are_forgotten(self) -> None:
        _, optimizer = trained(th.optim.Adam, lr=0.1)
        state = optimizer.state_dict()
        assert forget_last(state, 2)["state"].keys() == {0}
        assert forget_last(state, 2)["param_groups"] == state["param_groups"]
        assert state["state"].keys() == {0, 1, 2}

    @pytest.mark.parametrize("source", [th.optim.Adam, th.optim.AdamW])
    def test_adams_moments_and_options_are_carried_over(self, source: Any) -> None:
        parameters, optimizer = trained(source, lr=0.1, betas=(0.8, 0.9), eps=1e-3)
        before = copy.deepcopy(optimizer.state_dict())
        converted = convert_optimizer(optimizer.state_dict(), AdaptiveUPGD)
        target = AdaptiveUPGD(parameters)
        target.load_state_dict(converted)
        for key, entry in before["state"].items():
            new = target.state_dict()["state"][key]
            assert new["step"] == 5
            assert not new["avg_utility"].any()
            assert all(th.equal(new[name], entry[name]) for name in ("exp_avg", "exp_avg_sq"))
        group = target.param_groups[0]
        assert (group["lr"], group["betas"], group["eps"]) == (0.1, (0.8, 0.9), 1e-3)
        assert group["weight_decay"] == AdaptiveUPGD([nn.Parameter(th.ones(1))]).defaults["weight_decay"]
        assert str(optimizer.state_dict()) == str(before)

    def test_adaptive_upgd_to_adam_goes_on_with_the_same_direction(self) -> None:
        """Where AdaptiveUPGD has no noise, decay or gate, its direction is Adam's."""
        parameters, optimizer = trained(AdaptiveUPGD, lr=0.1, betas=(0.8, 0.9))
        target = th.optim.Adam(parameters)
        target.load_state_dict(convert_optimizer(optimizer.state_dict(), th.optim.Adam))
        entry = copy.deepcopy(optimizer.state_dict()["state"][0])  # the moments are shared
        gradient, old = th.tensor([1.0, -2.0, 0.5]), parameters[0].detach().clone()
        for parameter in parameters:
            parameter.grad = th.zeros_like(parameter)
        parameters[0].grad = gradient
        target.step()
        first = (0.8 * entry["exp_avg"] + 0.2 * gradient) / (1 - 0.8**6)
        second = (0.9 * entry["exp_avg_sq"] + 0.1 * gradient.square()) / (1 - 0.9**6)
        assert th.allclose(parameters[0], old - 0.1 * first / (second.sqrt() + 1e-5), atol=1e-6)

    @pytest.mark.parametrize("step", [1, 5000])
    def test_utilities_that_start_late_give_the_gate_of_a_fresh_optimizer(self, step: int) -> None:
        """With betas of 0 the direction is that of this gradient alone, so that only the gate could differ."""
        results = []
        for start in (0, step):
            parameters, optimizer = trained(AdaptiveUPGD, lr=0.1, betas=(0.0, 0.0), sigma=0.0)
            state = optimizer.state_dict()
            for entry in state["state"].values():
                entry["step"] = start
                entry["avg_utility"].zero_()
            optimizer.load_state_dict(state)
            for k, parameter in enumerate(parameters):
                parameter.grad = th.linspace(-1.0, 2.0 + k, parameter.numel()).reshape(parameter.shape)
            optimizer.step()
            results.append(th.nn.utils.parameters_to_vector(parameters).detach())
        assert th.allclose(*results, atol=1e-6)

    def test_another_optimizer_starts_afresh(self) -> None:
        _, optimizer = trained(th.optim.SGD, lr=0.1, momentum=0.9)
        converted = convert_optimizer(optimizer.state_dict(), th.optim.Adam)
        assert converted["state"] == {}
        assert converted["param_groups"][0]["lr"] == 0.1
        assert shared_options(optimizer.state_dict()) == {}
