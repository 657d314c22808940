"""The fast implementation against the readable one, and what both promise about the device."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch as th

from sb3_vgs_ppo._flat import flat_view, pack, pack_parameters
from sb3_vgs_ppo.optim import flat_step

from .descriptions import (
    Description,
    both_paths,
    every_noise,
    every_normalization,
    every_optimizer,
)

pytestmark = pytest.mark.usefixtures("each_computation")

SYNCHRONIZING = ("item", "__bool__", "__float__", "__int__", "__index__", "cpu", "numpy", "tolist", "nonzero")


def train(description: Description, n_steps: int, **options: Any) -> tuple[th.nn.Module, Any]:
    """Fit a small network to a fixed function; returns it with its optimizer."""
    th.manual_seed(0)
    net = th.nn.Sequential(th.nn.Linear(3, 8), th.nn.Tanh(), th.nn.Linear(8, 2))
    groups = [
        {"params": net[0].parameters(), "lr": 3e-3},
        {"params": net[2].parameters(), "weight_decay": 0.1, "sigma": 0.02},
    ]
    optimizer = description.optimizer(groups, 1e-2, generator=th.Generator().manual_seed(1), **options)
    inputs = th.randn(16, 3)
    targets = th.stack([inputs.prod(1), inputs.sum(1).sin()], 1)
    for _ in range(n_steps):
        optimizer.zero_grad()
        th.nn.functional.mse_loss(net(inputs), targets).backward()
        optimizer.step()
    return net, optimizer


@every_optimizer
@every_noise
def test_both_implementations_agree_over_a_thousand_steps(description: Description, noise: str) -> None:
    (oracle, oracle_state), (fast, fast_state) = (
        train(description, 1000, noise=noise, foreach=foreach) for foreach in (False, True)
    )
    start, _ = train(description, 0)
    for first, slow, quick in zip(start.parameters(), oracle.parameters(), fast.parameters(), strict=True):
        assert (slow - first).abs().max() > 0.1, "it must have learned something for the agreement to mean anything"
        th.testing.assert_close(quick, slow, rtol=1e-3, atol=1e-4)
        for name in description.state:
            th.testing.assert_close(fast_state.state[quick][name], oracle_state.state[slow][name], rtol=1e-2, atol=1e-5)


@every_optimizer
def test_the_default_is_the_fast_path_where_it_works(
    description: Description, each_computation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Subclass(th.Tensor):
        pass

    def steps_through(param: th.Tensor) -> list[str]:
        calls: list[str] = []
        for name in ("loop_step", "flat_step", "single_tensor_step"):
            monkeypatch.setattr(f"sb3_vgs_ppo.optim.base.{name}", lambda *_, name=name, **__: calls.append(name))
        param.grad = th.ones_like(param)
        description.optimizer([param]).step()
        return calls

    quickest = "loop_step" if each_computation == "loops" else "flat_step"
    assert steps_through(th.nn.Parameter(th.ones(3))) == [quickest]
    assert steps_through(th.nn.Parameter(th.ones(3, dtype=th.float64))) == ["flat_step"]
    assert steps_through(th.nn.Parameter(th.ones(3).as_subclass(Subclass))) == ["single_tensor_step"]
    optimizer = description.optimizer([th.nn.Parameter(th.ones(3))], foreach=True)
    with pytest.raises(ValueError, match=r"foreach value: True .*Subclass.*foreach=None"):
        optimizer.add_param_group({"params": [th.nn.Parameter(th.ones(3).as_subclass(Subclass))]})
    assert len(optimizer.param_groups) == 1


@every_optimizer
@both_paths
@pytest.mark.parametrize("packed", ["nothing", "weights", "weights and gradients"])
def test_a_graph_from_before_a_step_is_refused(description: Description, *, foreach: bool, packed: str) -> None:
    params = [th.nn.Parameter(th.ones(3)), th.nn.Parameter(th.ones(3))]
    if packed != "nothing":
        pack_parameters(params)
    optimizer = description.optimizer(params, foreach=foreach)
    loss = params[0].sum() + params[1].pow(3).sum()
    loss.backward(retain_graph=True)
    if packed == "weights and gradients":
        grads = pack([param.grad for param in params if param.grad is not None])
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@every_optimizer
@every_normalization
@every_noise
@both_paths
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_step_never_waits_for_the_device(
    description: Description,
    *,
    normalization: str,
    noise: str,
    foreach: bool,
    device: str,
    each_computation: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the meta device there are no numbers to wait for; on the CPU every door to a number is walled up, except for
    loops, which see a CPU's memory as an array."""
    params = [th.nn.Parameter(th.ones(shape, device=device)) for shape in [(3, 2), (), (4,)]]
    optimizer = description.optimizer(params, utility_normalization=normalization, noise=noise, foreach=foreach)

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("host synchronization inside step()")

    with monkeypatch.context() as patch:
        for name in SYNCHRONIZING:
            if name == "numpy" and each_computation == "loops":
                continue
            patch.setattr(th.Tensor, name, refuse)
        for step in range(3):
            for i, param in enumerate(params):
                param.grad = th.ones_like(param) if step or i else None
            optimizer.step()
    assert [optimizer.state[param]["step"] for param in params] == [2, 3, 3]


def compiled_against_eager(description: Description, backend: str, **options: Any) -> None:
    """Six compiled steps equal six eager ones, which a step count frozen into the graph would not."""

    def make() -> tuple[list[th.nn.Parameter], Any]:
        generator = th.Generator().manual_seed(2)
        params = [th.nn.Parameter(th.randn(shape, generator=generator)) for shape in [(3, 4), (5,)]]
        return params, description.optimizer(params, 1e-2, **options)

    (params, eager), (compiled_params, optimizer) = make(), make()
    th._dynamo.reset()
    step: Callable[[], Any] = th.compile(optimizer.step, backend=backend, fullgraph=True)
    for seed in range(6):
        for param, twin in zip(params, compiled_params, strict=True):
            param.grad = th.randn(param.shape, generator=th.Generator().manual_seed(seed))
            twin.grad = param.grad.clone()
        state = th.get_rng_state()
        eager.step()
        th.set_rng_state(state)
        step()
    for param, twin in zip(params, compiled_params, strict=True):
        th.testing.assert_close(twin, param, rtol=1e-5, atol=1e-6)
    assert optimizer.state[compiled_params[0]]["step"] == 6


@every_optimizer
@both_paths
def test_a_step_is_one_graph_for_the_compiler(description: Description, foreach: bool) -> None:
    compiled_against_eager(description, "eager", foreach=foreach, noise="relative", sigma=0.1)


@pytest.mark.slow
@every_optimizer
@both_paths
def test_compiled_code_gives_the_same_numbers(description: Description, foreach: bool) -> None:
    compiled_against_eager(description, "inductor", foreach=foreach, sigma=0.0)


def parameters_with_gradients(*, packed: bool) -> list[th.nn.Parameter]:
    params = [th.nn.Parameter(th.linspace(-1, 1, 6).view(2, 3)), th.nn.Parameter(th.tensor([0.5, -2.0]))]
    if packed:
        pack_parameters(params)
    grads = pack(params) if packed else [param.detach().clone() for param in params]
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad
    return params


Meddle = Callable[[list[th.nn.Parameter], th.optim.Optimizer], Any]


def replace_state(params: list[th.nn.Parameter], optimizer: th.optim.Optimizer) -> None:
    optimizer.state[params[0]]["avg_utility"] = th.full((2, 3), 0.3)


def replace_gradients(params: list[th.nn.Parameter], _: th.optim.Optimizer) -> None:
    for param in params:
        param.grad = th.full_like(param, -7.0)


def go_over_to_double(params: list[th.nn.Parameter], _: th.optim.Optimizer) -> None:
    for param in params:
        assert param.grad is not None
        data, grad, param.grad = param.detach().double(), param.grad.double(), None
        param.data = data
        param.grad = grad


def begin_anew(params: list[th.nn.Parameter], optimizer: th.optim.Optimizer) -> None:
    """As one would reset a layer."""
    state = optimizer.state[params[0]]
    state["step"] = 0
    for name, value in state.items():
        if name != "step":
            value.zero_()


def change_values(params: list[th.nn.Parameter], _: th.optim.Optimizer) -> None:
    with th.no_grad():
        params[0].mul_(-3.0)


def add_group(params: list[th.nn.Parameter], optimizer: th.optim.Optimizer) -> None:
    params.append(th.nn.Parameter(th.ones(3)))
    params[-1].grad = th.tensor([1.0, 2.0, 3.0])
    optimizer.add_param_group({"params": params[-1:], "lr": 0.5})


MEDDLES: dict[str, Meddle] = {
    "nothing": lambda *_: None,
    "state": replace_state,
    "data of a state": lambda params, optimizer: setattr(
        optimizer.state[params[0]]["avg_utility"], "data", th.full((2, 3), 0.3)
    ),
    "anew": begin_anew,
    "emptied": lambda params, optimizer: optimizer.state[params[0]].clear(),
    "all emptied": lambda params, optimizer: [optimizer.state[param].clear() for param in params],
    "forgotten": lambda params, optimizer: optimizer.state.pop(params[0]),
    "gradient": lambda params, _: setattr(params[0], "grad", th.full((2, 3), 7.0)),
    "gradients": replace_gradients,
    "strides": lambda params, _: setattr(params[0], "grad", th.arange(6.0).view(3, 2).T),
    "data": lambda params, _: setattr(params[1], "data", th.tensor([3.0, 4.0])),
    "values": change_values,
    "double": go_over_to_double,
    "frozen": lambda params, _: setattr(params[0], "grad", None),
    "group": add_group,
    "load": lambda _, optimizer: optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict())),
}


@every_optimizer
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("meddle", MEDDLES)
def test_nothing_of_the_last_step_is_trusted_blindly(description: Description, meddle: str, packed: bool) -> None:
    """Four steps, and between them something that changes a tensor, or moves it elsewhere; the oracle keeps neither
    views nor copies that go stale."""
    results = []
    for foreach in (False, True):
        params = parameters_with_gradients(packed=packed)
        optimizer = description.optimizer(params, 0.1, sigma=0.0, foreach=foreach)
        optimizer.step()
        MEDDLES[meddle](params, optimizer)
        optimizer.step()
        optimizer.state[params[1]]["avg_utility"].fill_(0.2)
        optimizer.step()
        begin_anew(params[1:], optimizer)
        optimizer.step()
        results.append([*params, *(optimizer.state[param]["avg_utility"] for param in params)])
    for slow, fast in zip(*results, strict=True):
        th.testing.assert_close(fast, slow)


@every_optimizer
def test_packed_tensors_are_stepped_in_place(description: Description) -> None:
    params = parameters_with_gradients(packed=True)
    optimizer = description.optimizer(params, 0.1)
    for _ in range(3):
        optimizer.step()
    assert flat_view(params) is not None
    for name in description.state:
        assert flat_view([optimizer.state[param][name] for param in params]) is not None


@every_optimizer
def test_large_copies_are_not_kept(description: Description, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would take the memory of a model twice over, from one step to the next."""

    needed = 2 * 4 * (6 + 2)  # weights and gradients, float32
    params = parameters_with_gradients(packed=False)
    optimizer = description.optimizer(params, 0.1)
    optimizer.step()
    assert sum(flat.copied_bytes for flat in optimizer._last_flats) == needed
    monkeypatch.setattr(flat_step, "KEPT_BYTES", needed - 1)
    optimizer = description.optimizer(params, 0.1)
    optimizer.step()
    assert optimizer._last_flats == []


@every_optimizer
def test_no_gradient_is_kept(description: Description) -> None:
    params = parameters_with_gradients(packed=False)
    optimizer = description.optimizer(params, 0.1)
    for _ in range(2):
        for param in params:
            param.grad = th.ones_like(param)
        optimizer.step()
    gradients = [weakref.ref(param.grad) for param in params]
    optimizer.zero_grad()
    assert [gradient() for gradient in gradients] == [None, None]


@every_optimizer
def test_a_gradient_that_becomes_sparse_is_refused(description: Description) -> None:
    params = parameters_with_gradients(packed=False)
    optimizer = description.optimizer(params, 0.1)
    optimizer.step()
    before = [param.detach().clone() for param in params]
    assert params[0].grad is not None
    params[0].grad = params[0].grad.to_sparse()
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        optimizer.step()
    assert all(map(th.equal, params, before))
