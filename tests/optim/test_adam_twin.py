"""Steps of Adam and AdamW over all tensors at once: torch's own numbers, bit for bit, and its own state."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch as th

from helpers import assert_equal_nested
from sb3_vgs_ppo._flat import pack, pack_parameters
from sb3_vgs_ppo.optim import adam_twin
from sb3_vgs_ppo.optim.adam_twin import joint_steps

SHAPES = [(64, 5), (64,), (64, 64), (64,), (1, 64), (1,), (3, 7), ()]
OPTIMIZERS: dict[str, Callable[..., th.optim.Optimizer]] = {"Adam": th.optim.Adam, "AdamW": th.optim.AdamW}
OPTIONS: dict[str, dict[str, Any]] = {
    "SB3's": {"eps": 1e-5},
    "betas and decay": {"betas": (0.99, 0.99), "weight_decay": 0.1},
    "amsgrad": {"amsgrad": True},
    "maximize": {"maximize": True, "lr": th.tensor(0.01)},
}


def make_optimizer(kind: str, *, packed: bool = True, **options: Any) -> th.optim.Optimizer:
    generator = th.Generator().manual_seed(0)
    parameters = [th.nn.Parameter(th.randn(shape, generator=generator)) for shape in SHAPES]
    if packed:
        pack_parameters(parameters)
    return OPTIMIZERS[kind](parameters, **options)


def parameters_of(optimizer: th.optim.Optimizer) -> list[th.Tensor]:
    parameters: list[th.Tensor] = optimizer.param_groups[0]["params"]
    return parameters


def set_gradients(optimizer: th.optim.Optimizer, seed: int, *, packed: bool = True) -> None:
    generator = th.Generator().manual_seed(seed)
    gradients = [th.randn(p.shape, generator=generator) for p in parameters_of(optimizer)]
    for parameter, gradient in zip(parameters_of(optimizer), pack(gradients) if packed else gradients, strict=True):
        if parameter.grad is None or not packed:
            parameter.grad = gradient
        else:
            parameter.grad.copy_(gradient)


def assert_equal(optimizer: th.optim.Optimizer, plain: th.optim.Optimizer) -> None:
    assert_equal_nested(optimizer.state_dict(), plain.state_dict())
    for parameter, expected in zip(parameters_of(optimizer), parameters_of(plain), strict=True):
        assert th.equal(parameter, expected)


@pytest.fixture
def twins(monkeypatch: pytest.MonkeyPatch) -> list[th.optim.Optimizer]:
    """All twins that were made in a test."""
    made = []
    make = adam_twin._JointSteps._make_twin

    def recorded(self: Any) -> th.optim.Optimizer | None:
        twin = make(self)
        if twin is not None:
            made.append(twin)
        return twin

    monkeypatch.setattr(adam_twin._JointSteps, "_make_twin", recorded)
    return made


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_numbers_and_state_are_those_of_torch(
    kind: str, options: dict[str, Any], twins: list[th.optim.Optimizer]
) -> None:
    optimizer, plain = make_optimizer(kind, **options), make_optimizer(kind, packed=False, **options)
    for update in range(4):
        for one in (optimizer, plain):
            one.param_groups[0]["lr"] *= 0.9  # a schedule, between updates as in SB3
        with joint_steps(optimizer) as step:
            for minibatch in range(25):
                set_gradients(optimizer, 25 * update + minibatch)
                step()
        for minibatch in range(25):
            set_gradients(plain, 25 * update + minibatch, packed=False)
            plain.step()
        assert_equal(optimizer, plain)
    assert [len(twin.param_groups[0]["params"]) for twin in twins] == [1, 1, 1, 1]


def test_layers_whose_state_was_reset_have_their_own_count(twins: list[th.optim.Optimizer]) -> None:
    optimizer, plain = make_optimizer("Adam"), make_optimizer("Adam", packed=False)
    for one in (optimizer, plain):
        for seed in range(6):
            if seed == 3:
                for parameter in parameters_of(one)[4:6]:
                    del one.state[parameter]
            with joint_steps(one) as step:
                set_gradients(one, seed, packed=one is optimizer)
                step()
    assert_equal(optimizer, plain)
    assert [len(twin.param_groups[0]["params"]) for twin in twins] == [1, 1, 3, 3]


def test_what_a_copy_or_a_loaded_state_moved_is_packed_again(twins: list[th.optim.Optimizer]) -> None:
    optimizer, plain = make_optimizer("Adam"), make_optimizer("Adam", packed=False)
    for seed in range(6):
        set_gradients(optimizer, seed)
        with joint_steps(optimizer) as step:
            step()
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        set_gradients(plain, seed, packed=False)
        plain.step()
    assert_equal(optimizer, plain)
    assert len(twins) == 5  # from the second step on


def test_the_count_is_right_after_an_error() -> None:
    optimizer = make_optimizer("Adam")
    set_gradients(optimizer, 0)

    def take_three_steps_and_fail() -> None:
        with joint_steps(optimizer) as step:
            for _ in range(3):
                step()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        take_three_steps_and_fail()
    assert {float(state["step"]) for state in optimizer.state.values()} == {3.0}


def subclass(optimizer: th.optim.Optimizer) -> th.optim.Optimizer:
    optimizer.__class__ = type("MyAdam", (th.optim.Adam,), {})
    return optimizer


def hooked(optimizer: th.optim.Optimizer) -> th.optim.Optimizer:
    optimizer.register_step_post_hook(lambda *_: None)
    return optimizer


def scheduled(optimizer: th.optim.Optimizer) -> th.optim.Optimizer:
    th.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    return optimizer


def two_groups(optimizer: th.optim.Optimizer) -> th.optim.Optimizer:
    optimizer.add_param_group({"params": [th.nn.Parameter(th.zeros(2))]})
    return optimizer


OTHERS: dict[str, th.optim.Optimizer] = {
    "SGD": th.optim.SGD([th.nn.Parameter(th.zeros(2))]),
    "a subclass": subclass(make_optimizer("Adam")),
    "hooks": hooked(make_optimizer("Adam")),
    "a scheduler's step": scheduled(make_optimizer("AdamW")),
    "two groups": two_groups(make_optimizer("Adam")),
    "foreach": make_optimizer("Adam", foreach=True),
    "fused": make_optimizer("Adam", fused=True),
}


@pytest.mark.parametrize("optimizer", OTHERS.values(), ids=OTHERS.keys())
def test_others_step_as_they_do(optimizer: th.optim.Optimizer) -> None:
    with joint_steps(optimizer) as step:
        assert step == optimizer.step


def test_gradients_that_were_replaced_are_noticed() -> None:
    """A single tensor lies back to back with itself wherever its gradient is."""
    optimizer, plain = (th.optim.Adam([th.nn.Parameter(th.ones(1))], lr=0.1) for _ in range(2))
    with joint_steps(optimizer) as step:
        for seed in range(5):
            set_gradients(optimizer, seed, packed=False)
            step()
            set_gradients(plain, seed, packed=False)
            plain.step()
    assert_equal(optimizer, plain)


@pytest.mark.parametrize("where", ["weights", "gradients"])
def test_scattered_tensors_step_as_they_do(where: str, twins: list[th.optim.Optimizer]) -> None:
    optimizer, plain = make_optimizer("Adam", packed=where != "weights"), make_optimizer("Adam", packed=False)
    with joint_steps(optimizer) as step:
        for seed in range(3):
            set_gradients(optimizer, seed, packed=where != "gradients")
            step()
            set_gradients(plain, seed, packed=False)
            plain.step()
    assert_equal(optimizer, plain)
    assert twins == []
