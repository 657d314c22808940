"""A scaler on an optimizer's hooks does what the same calls in the training loop do, and its state goes along."""

from __future__ import annotations

import copy
import gc
import io
import pickle
from collections.abc import Callable
from typing import Any
from weakref import ref

import pytest
import torch as th
from torch import nn

from sb3_vgs_ppo.errors import CheckpointError, UserInputError, VGSMigrationWarning
from sb3_vgs_ppo.optim import UPGD, AdaptiveUPGD
from sb3_vgs_ppo.scaling import KNOWN_VERSIONS, VarianceGradientScaler, attach, attachment_of

EARLY: dict[str, Any] = {"warmup_steps": 2, "alpha": 0.5, "min_scaling_factor": 0.05}
"""Settings with which gradients are scaled from the third step on."""


def make_net() -> nn.Sequential:
    generator = th.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    for parameter in net.parameters():
        parameter.data = th.randn(parameter.shape, generator=generator)
    return net


def sgd(net: nn.Module, **kwargs: Any) -> th.optim.Optimizer:
    return th.optim.SGD(net.parameters(), lr=0.1, **kwargs)


def adam(net: nn.Module) -> th.optim.Optimizer:
    """Two groups, of which torch's loader and ours must not mix up the tensors."""
    first, last = net.get_submodule("0"), net.get_submodule("2")
    return th.optim.Adam([{"params": first.parameters(), "lr": 1e-2}, {"params": last.parameters()}])


def rmsprop(net: nn.Module) -> th.optim.Optimizer:
    return th.optim.RMSprop(net.parameters(), lr=1e-2, momentum=0.5)


def upgd(net: nn.Module) -> th.optim.Optimizer:
    return AdaptiveUPGD(net.parameters(), generator=th.Generator().manual_seed(1))


Build = Callable[[nn.Module], th.optim.Optimizer]
each_optimizer = pytest.mark.parametrize("build", [sgd, adam, rmsprop, upgd])


def backward(net: nn.Module, step: int) -> th.Tensor:
    """:return: the loss of a noisy batch, the same of a step in every test"""
    generator = th.Generator().manual_seed(step)
    inputs, noise = th.randn(5, 3, generator=generator), th.randn(5, 2, generator=generator)
    net.zero_grad()
    loss: th.Tensor = ((net(inputs) - inputs[:, :2] - 3.0 * noise) ** 2).mean()
    loss.backward()
    return loss


def train(net: nn.Module, optimizer: th.optim.Optimizer, steps: range) -> None:
    for step in steps:
        backward(net, step)
        optimizer.step()


def train_by_hand(net: nn.Module, optimizer: th.optim.Optimizer, vgs: VarianceGradientScaler, steps: range) -> None:
    for step in steps:
        backward(net, step)
        vgs.scale_gradients()
        with vgs.scaling_update(optimizer):
            optimizer.step()
        vgs.step()


def weights(net: nn.Module) -> th.Tensor:
    return nn.utils.parameters_to_vector(net.parameters()).detach().clone()


def same_states(one: dict[str, Any], other: dict[str, Any]) -> bool:
    def same(a: Any, b: Any) -> bool:
        return th.equal(a, b) if isinstance(a, th.Tensor) else bool(a == b)

    return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)


class TestSteps:
    @each_optimizer
    @pytest.mark.parametrize(
        ("version", "options"), [*((version, {}) for version in KNOWN_VERSIONS), ("4.0", {"apply_to": "update"})]
    )
    def test_as_the_same_calls_in_the_loop(self, build: Build, version: str, options: dict[str, Any]) -> None:
        by_hand, hooked, plain = make_net(), make_net(), make_net()
        vgs = VarianceGradientScaler(by_hand.parameters(), version, **EARLY, **options)
        train_by_hand(by_hand, build(by_hand), vgs, range(6))
        optimizer = build(hooked)
        attached = attach(optimizer, version, {**EARLY, **options})
        train(hooked, optimizer, range(6))
        train(plain, build(plain), range(6))
        assert th.equal(weights(hooked), weights(by_hand))
        assert not th.equal(weights(hooked), weights(plain))
        assert same_states(attached.vgs.state_dict(), vgs.state_dict())

    @pytest.mark.parametrize(
        ("version", "options"),
        [("3.0", {}), ("4.0", {"granularity": "global"}), ("4.0", {"granularity": "global", "apply_to": "update"})],
    )
    def test_sgd_moves_by_the_factor(self, version: str, options: dict[str, Any]) -> None:
        net = make_net()
        optimizer = sgd(net)
        attached = attach(optimizer, version, {**EARLY, **options})
        train(net, optimizer, range(4))
        factor, before = attached.vgs.get_scaling_factor(), weights(net)
        backward(net, 4)
        raw = th.cat([parameter.grad.flatten() for parameter in net.parameters()])
        optimizer.step()
        assert factor < 0.8
        assert th.allclose(before - weights(net), 0.1 * factor * raw, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("options", [{}, {"apply_to": "update"}])
    @pytest.mark.parametrize("by_keyword", [False, True])
    def test_the_gradient_of_a_closure_is_scaled(self, by_keyword: bool, options: dict[str, Any]) -> None:
        by_hand, hooked = make_net(), make_net()
        vgs = VarianceGradientScaler(by_hand.parameters(), "4.0", **EARLY, **options)
        train_by_hand(by_hand, sgd(by_hand), vgs, range(5))
        optimizer, losses = sgd(hooked), []
        attach(optimizer, "4.0", {**EARLY, **options})
        for step in range(5):
            closure = lambda step=step: backward(hooked, step)  # noqa: E731 - a closure is what it is
            losses.append(optimizer.step(closure=closure) if by_keyword else optimizer.step(closure))
        assert th.equal(weights(hooked), weights(by_hand))
        assert all(isinstance(loss, th.Tensor) and loss > 0 for loss in losses)

    def test_what_has_no_gradient_is_left_alone(self) -> None:
        net = make_net()
        frozen = net.get_parameter("0.weight").requires_grad_(False)
        old, optimizer = frozen.clone(), sgd(net)
        attached = attach(optimizer, "3.0", EARLY)
        train(net, optimizer, range(4))
        assert th.equal(frozen, old)
        assert attached.vgs.state_dict()["param_ema_weight"].tolist()[0] == 0.0
        net.zero_grad()
        optimizer.step()
        assert attached.vgs.state_dict()["step_count"] == 4

    def test_a_step_that_failed_leaves_no_trace(self) -> None:
        nets = make_net(), make_net()
        for net, fails in zip(nets, (False, True), strict=True):
            optimizer = sgd(net)
            attach(optimizer, "4.0", {**EARLY, "apply_to": "update"})
            train(net, optimizer, range(4))
            if fails:
                with pytest.raises(ZeroDivisionError):
                    optimizer.step(lambda: 1 / 0)
            train(net, optimizer, range(4, 6))
        assert th.equal(weights(nets[0]), weights(nets[1]))

    def test_a_group_that_was_added_later_is_noticed(self) -> None:
        net, more = make_net(), nn.Linear(1, 1)
        optimizer = sgd(net)
        attached = attach(optimizer)
        optimizer.add_param_group({"params": more.parameters()})
        backward(net, 0)
        with pytest.raises(UserInputError, match="has 6 tensors now and had 4"):
            optimizer.step()
        attached.detach()
        optimizer.step()


class TestDetaching:
    def test_then_steps_are_as_without(self) -> None:
        net, plain = make_net(), make_net()
        optimizer = sgd(net)
        with attach(optimizer, "3.0", {"warmup_steps": 0}) as attached:
            assert attachment_of(optimizer) is attached
        assert attachment_of(optimizer) is None
        attached.detach()
        train(net, optimizer, range(3))
        train(plain, sgd(plain), range(3))
        assert th.equal(weights(net), weights(plain))
        assert attached.vgs.state_dict()["step_count"] == 0

    def test_the_next_scaler_goes_on(self) -> None:
        straight, paused = make_net(), make_net()
        optimizer = sgd(straight)
        attach(optimizer, "4.0", EARLY)
        train(straight, optimizer, range(8))
        optimizer = sgd(paused)
        for steps in (range(4), range(4, 8)):
            with attach(optimizer, "4.0", EARLY):
                train(paused, optimizer, steps)
        assert th.equal(weights(paused), weights(straight))

    def test_an_optimizer_that_is_no_longer_needed_goes_with_its_scaler(self) -> None:
        optimizer = sgd(make_net())
        attach(optimizer)
        gone = ref(optimizer)
        del optimizer
        gc.collect()
        assert gone() is None

    @pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda optimizer: pickle.loads(pickle.dumps(optimizer))])
    def test_copies_of_an_optimizer_have_no_scaler(self, duplicate: Callable[[Any], Any]) -> None:
        net = make_net()
        optimizer = sgd(net)
        attached = attach(optimizer)
        backward(net, 0)
        other = duplicate(optimizer)
        other.step()
        assert attachment_of(other) is None
        assert attached.vgs.state_dict()["step_count"] == 0
        assert "vgs" not in other.param_groups[0]


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    th.save(state, file)
    file.seek(0)
    return th.load(file, weights_only=True)


class TestState:
    @each_optimizer
    @pytest.mark.parametrize("attached_first", [False, True])
    @pytest.mark.parametrize("version", ["2.0", "3.0", "4.0"])
    def test_is_saved_and_loaded_with_the_optimizer(self, build: Build, attached_first: bool, version: str) -> None:
        straight = make_net()
        optimizer = build(straight)
        attached = attach(optimizer, version, EARLY)
        train(straight, optimizer, range(4))
        saved, loaded = through_a_file([straight.state_dict(), optimizer.state_dict()]), make_net()
        noise = getattr(optimizer, "generator", None)
        saved_noise = noise.get_state() if noise is not None else None
        train(straight, optimizer, range(4, 8))

        loaded.load_state_dict(saved[0])
        resumed = build(loaded)
        if attached_first:
            again = attach(resumed, version)
            resumed.load_state_dict(saved[1])
        else:
            resumed.load_state_dict(saved[1])
            again = attach(resumed)
        if saved_noise is not None:
            resumed.generator.set_state(saved_noise)
        assert again.vgs.version == version
        assert again.vgs.settings == attached.vgs.settings
        train(loaded, resumed, range(4, 8))
        assert th.equal(weights(loaded), weights(straight))
        assert same_states(again.vgs.state_dict(), attached.vgs.state_dict())

    @pytest.mark.parametrize("attached_first", [False, True])
    def test_the_next_factor_is_known_before_the_next_step(self, attached_first: bool) -> None:
        """That of an update counts with the decay of the optimizer's average, which no state of the scaler holds."""
        net = make_net()
        optimizer, other = adam(net), adam(net)
        options = {**EARLY, "apply_to": "update"}
        attached = attach(optimizer, "4.0", options)
        train(net, optimizer, range(4))
        again = attach(other, "4.0", options) if attached_first else None
        other.load_state_dict(optimizer.state_dict())
        vgs = (again or attach(other)).vgs
        assert vgs.get_scaling_factor() == attached.vgs.get_scaling_factor() < 1.0

    def test_groups_that_average_differently_are_refused_and_nothing_attached(self) -> None:
        first, second = make_net(), make_net()
        groups = [{"params": first.parameters()}, {"params": second.parameters(), "betas": (0.5, 0.9)}]
        optimizer = th.optim.Adam(groups)
        with pytest.raises(UserInputError, match=r"\[0\.5, 0\.9\]; remedy: momentum="):
            attach(optimizer, "4.0", {"apply_to": "update"})
        assert attachment_of(optimizer) is None

    def test_settings_that_were_asked_for_win(self) -> None:
        optimizer, other = sgd(make_net()), sgd(make_net())
        attach(optimizer, "4.0", {"alpha": 0.2, "beta": 0.9, "granularity": "element"})
        other.load_state_dict(optimizer.state_dict())
        attached = attach(other, vgs_kwargs={"alpha": 0.7, "granularity": None})
        state = attached.vgs.state_dict()
        assert (state["alpha"], state["beta"], state["granularity"]) == (0.7, 0.9, "element")
        other.load_state_dict(optimizer.state_dict())
        assert attached.vgs.settings.alpha == 0.7

    def test_another_version_starts_anew_with_one_warning(self) -> None:
        net = make_net()
        optimizer = sgd(net)
        with attach(optimizer, "2.0", EARLY):
            train(net, optimizer, range(3))
        with pytest.warns(VGSMigrationWarning, match="CRITICAL FIX") as warned:
            attached = attach(optimizer, "3.0")
        assert len(warned) == 1
        assert attached.vgs.state_dict()["step_count"] == 0
        assert attached.vgs.settings.alpha == 0.5

    def test_a_state_without_one_starts_anew(self) -> None:
        net = make_net()
        fresh = sgd(net).state_dict()
        optimizer = sgd(net)
        attached = attach(optimizer, "3.0", EARLY)
        train(net, optimizer, range(3))
        optimizer.load_state_dict(fresh)
        assert attached.vgs.state_dict()["step_count"] == 0
        assert attached.vgs.settings.alpha == 0.5

    def test_the_live_groups_do_not_hold_it(self) -> None:
        optimizer = sgd(make_net())
        attached = attach(optimizer)
        optimizer.load_state_dict(optimizer.state_dict())
        assert "vgs" not in optimizer.param_groups[0]
        attached.detach()
        assert optimizer.param_groups[0]["vgs"]["vgs_version"] == "3.0"

    def test_that_of_other_tensors_is_refused_and_nothing_attached(self) -> None:
        net = make_net()
        optimizer = sgd(net)
        with attach(optimizer):
            train(net, optimizer, range(1))
        other = sgd(nn.Linear(2, 2))
        other.param_groups[0]["vgs"] = optimizer.param_groups[0]["vgs"]
        with pytest.raises(CheckpointError, match="param_numel"):
            attach(other)
        assert attachment_of(other) is None


class TestRefusals:
    def test_a_second_scaler(self) -> None:
        optimizer = sgd(make_net())
        attach(optimizer)
        with pytest.raises(UserInputError, match=r"this SGD has a scaler already .* remedy: detach\(\)"):
            attach(optimizer, "4.0")

    def test_lbfgs(self) -> None:
        with pytest.raises(UserInputError, match="LBFGS estimates curvature"):
            attach(th.optim.LBFGS(make_net().parameters()))

    def test_what_is_no_optimizer(self) -> None:
        with pytest.raises(TypeError, match="got Sequential"):
            attach(make_net())  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("version", "vgs_kwargs", "message"),
        [
            ("5.0", {}, "version '5.0' is not known"),
            ("3.0", {"version": "4.0"}, "vgs_kwargs has 'version', which is set elsewhere; remedy: version for"),
            ("3.0", {"aplha": 1.0}, "vgs_kwargs has 'aplha'; remedy: one of alpha"),
            ("3.0", {"beta": 1.5}, "beta must be"),
            ("3.0", {"granularity": "element"}, "granularity='element' needs version '4.0'"),
        ],
    )
    def test_arguments_and_the_optimizer_stays_free(
        self, version: str, vgs_kwargs: dict[str, Any], message: str
    ) -> None:
        optimizer = UPGD(make_net().parameters())
        with pytest.raises(UserInputError, match=message):
            attach(optimizer, version, vgs_kwargs)
        attach(optimizer)
