"""State: what is kept, in which precision, and that it survives saving, copying and loading."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch as th

from sb3_vgs_ppo.errors import CheckpointError
from sb3_vgs_ppo.optim import UPGD, AdaptiveUPGD

from .descriptions import DESCRIPTIONS, Description, both_paths, every_optimizer

DTYPES = pytest.mark.parametrize("dtype", [th.float32, th.float64, th.bfloat16, th.float16], ids=str)


def make_params(dtype: th.dtype = th.float32) -> list[th.nn.Parameter]:
    generator = th.Generator().manual_seed(0)
    return [th.nn.Parameter(th.randn(shape, generator=generator).to(dtype)) for shape in [(3, 4), (4,), ()]]


def make_optimizer(description: Description, params: list[th.nn.Parameter], lr: float = 0.01, **options: Any) -> Any:
    return description.optimizer([{"params": params[:2]}, {"params": params[2:], "lr": 10 * lr}], lr, **options)


def run(optimizer: Any, first_step: int, n_steps: int, seed: int | None = None) -> None:
    """Steps with gradients that depend on the step alone; the first tensor gets one only from step 2 on."""
    if seed is not None:
        th.manual_seed(seed)
    params = [param for group in optimizer.param_groups for param in group["params"]]
    for step in range(first_step, first_step + n_steps):
        generator = th.Generator().manual_seed(100 + step)
        for i, param in enumerate(params):
            grad = th.randn(param.shape, generator=generator).to(param.dtype)
            param.grad = None if i == 0 and step < 2 else grad
        optimizer.step()


def through_a_file(state_dict: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    th.save(state_dict, file)
    file.seek(0)
    loaded: dict[str, Any] = th.load(file, weights_only=True)
    return loaded


def assert_same(params: list[th.nn.Parameter], others: list[th.nn.Parameter]) -> None:
    assert all(th.equal(param, other) for param, other in zip(params, others, strict=True))


@every_optimizer
@DTYPES
@both_paths
def test_a_saved_run_continues_bit_for_bit(description: Description, dtype: th.dtype, foreach: bool) -> None:
    params = make_params(dtype)
    optimizer = make_optimizer(description, params, foreach=foreach)
    run(optimizer, 0, 5)
    saved = through_a_file(optimizer.state_dict())
    resumed_params = [th.nn.Parameter(param.detach().clone()) for param in params]
    resumed = make_optimizer(description, resumed_params, lr=0.5, foreach=foreach)
    resumed.load_state_dict(saved)
    run(optimizer, 5, 5, seed=8)
    run(resumed, 5, 5, seed=8)
    assert_same(params, resumed_params)
    assert not th.equal(params[0], make_params(dtype)[0])


@every_optimizer
def test_the_state_dict_holds_tensors_and_plain_values_only(description: Description) -> None:
    optimizer = make_optimizer(description, make_params(), generator=th.Generator())
    run(optimizer, 0, 3)
    saved = optimizer.state_dict()
    assert list(saved["state"][0]) == ["step", *description.state]
    assert [saved["state"][i]["step"] for i in range(3)] == [1, 3, 3]
    assert "generator" not in saved["param_groups"][0]
    assert through_a_file(saved)["param_groups"] == saved["param_groups"]


@every_optimizer
@DTYPES
def test_loading_shares_no_memory_with_the_source(description: Description, dtype: th.dtype) -> None:
    optimizer, other = (make_optimizer(description, make_params(dtype)) for _ in range(2))
    run(optimizer, 0, 3)
    saved = optimizer.state_dict()
    before = copy.deepcopy(saved["state"])
    other.load_state_dict(saved)
    run(other, 3, 2)
    for key, state in before.items():
        for name in description.state:
            assert th.equal(saved["state"][key][name], state[name])


@every_optimizer
@DTYPES
def test_half_precision_parameters_keep_their_state_in_float32(description: Description, dtype: th.dtype) -> None:
    params = make_params(dtype)
    optimizer = make_optimizer(description, params)
    run(optimizer, 0, 3)
    expected = th.float64 if dtype == th.float64 else th.float32
    reloaded = make_optimizer(description, params)
    reloaded.load_state_dict(optimizer.state_dict())
    for state in (*optimizer.state.values(), *reloaded.state.values()):
        assert {state[name].dtype for name in description.state} == {expected}


@every_optimizer
@both_paths
def test_a_state_of_another_precision_is_converted(description: Description, foreach: bool) -> None:
    double = make_optimizer(description, make_params(th.float64))
    run(double, 0, 3)
    params = make_params(th.float32)
    single = make_optimizer(description, params, foreach=foreach)
    single.load_state_dict(double.state_dict())
    run(single, 3, 1)
    assert {single.state[param][name].dtype for param in params for name in description.state} == {th.float32}


@every_optimizer
@both_paths
def test_the_utility_of_a_bfloat16_parameter_does_not_stall(description: Description, foreach: bool) -> None:
    """1 − 0.999^1000 = 0.632 of −g·p = 2; kept in bfloat16 the average would stop near 0.25 of it."""
    param = th.nn.Parameter(th.full((2,), -1.0, dtype=th.bfloat16))
    optimizer = description.optimizer([param], lr=0.0, foreach=foreach)
    param.grad = th.full_like(param, 2.0)
    for _ in range(1000):
        optimizer.step()
    assert optimizer.state[param]["avg_utility"].tolist() == pytest.approx([2 * (1 - 0.999**1000)] * 2, rel=1e-4)


@both_paths
def test_half_precision_weights_are_rounded_once_per_step(foreach: bool) -> None:
    """Decay and step by half an ulp each together move 1 to the next bfloat16 below, 1 − 2^-8; alone neither would."""
    param = th.nn.Parameter(th.ones(1, dtype=th.bfloat16))
    param.grad = th.ones_like(param)
    half_ulp = 2.0**-9
    UPGD([param], lr=half_ulp, weight_decay=1.0, sigma=0.0, foreach=foreach).step()
    assert param.item() == 1 - 2.0**-8


@every_optimizer
def test_states_from_before_the_later_options_load(description: Description) -> None:
    params = make_params()
    optimizer = make_optimizer(description, params)
    run(optimizer, 0, 3)
    old = copy.deepcopy(optimizer.state_dict())
    for group in old["param_groups"]:
        for name in ("utility_normalization", "noise", "foreach", "maximize"):
            del group[name]
    for state in old["state"].values():
        state["step"] = th.tensor(float(state["step"]))  # how torch's own optimizers count
    resumed_params = [th.nn.Parameter(param.detach().clone()) for param in params]
    resumed = make_optimizer(description, resumed_params, utility_normalization="max", noise="relative")
    resumed.load_state_dict(old)
    assert resumed.param_groups[1]["utility_normalization"] == "minmax"
    run(optimizer, 3, 2, seed=4)
    run(resumed, 3, 2, seed=4)
    assert_same(params, resumed_params)
    assert resumed.state[resumed_params[1]]["step"] == 5


STRANGERS = [
    pytest.param(description, stranger, id=f"{description.name}-{stranger.__name__}")
    for description in DESCRIPTIONS
    for stranger in (th.optim.Adam, th.optim.SGD, UPGD, AdaptiveUPGD)
    if stranger is not description.optimizer
]


@pytest.mark.parametrize(("description", "stranger_class"), STRANGERS)
def test_the_state_of_another_optimizer_is_refused(description: Description, stranger_class: Any) -> None:
    params = make_params()
    optimizer = make_optimizer(description, params)
    run(optimizer, 0, 2)
    before = copy.deepcopy(optimizer.state_dict())
    stranger = stranger_class([{"params": params[:2]}, {"params": params[2:]}], lr=0.1)
    run(stranger, 0, 3)
    with pytest.raises(CheckpointError, match=rf"saved by another optimizer\? {description.name}"):
        optimizer.load_state_dict(stranger.state_dict())
    assert optimizer.state_dict()["param_groups"] == before["param_groups"]
    assert th.equal(optimizer.state_dict()["state"][1]["avg_utility"], before["state"][1]["avg_utility"])


@every_optimizer
def test_the_state_of_other_parameters_is_refused(description: Description) -> None:
    params = make_params()
    optimizer = make_optimizer(description, params)
    run(optimizer, 0, 3)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][0]["avg_utility"] = th.zeros(4, 3)
    with pytest.raises(CheckpointError, match=r"avg_utility of parameter 0 .* shape \(4, 3\).* \(3, 4\)"):
        optimizer.load_state_dict(saved)
    with pytest.raises(ValueError, match="different number of parameter groups"):
        description.optimizer(params).load_state_dict(optimizer.state_dict())


@every_optimizer
def test_the_users_own_hook_may_convert_a_foreign_state(description: Description) -> None:
    """The check comes after the hooks, and the full-precision copy is taken from what they return."""
    optimizer, other = (make_optimizer(description, make_params(th.bfloat16)) for _ in range(2))
    run(optimizer, 0, 3)
    renamed = copy.deepcopy(optimizer.state_dict())
    for state in renamed["state"].values():
        state["utility"] = state.pop("avg_utility")

    def convert(_: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
        states = {key: {**state, "avg_utility": state["utility"]} for key, state in state_dict["state"].items()}
        for state in states.values():
            del state["utility"]
        return {**state_dict, "state": states}

    other.register_load_state_dict_pre_hook(convert)
    other.load_state_dict(renamed)
    assert th.equal(other.state_dict()["state"][0]["avg_utility"], renamed["state"][0]["utility"])


@every_optimizer
@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["copy", "pickle"]
)
def test_copies_continue_alike_with_a_generator_of_their_own(description: Description, clone: Any) -> None:
    params = make_params()
    optimizer = make_optimizer(description, params, generator=th.Generator().manual_seed(6))
    run(optimizer, 0, 3)
    params_copy, optimizer_copy = clone((params, optimizer))
    run(optimizer, 3, 2)
    run(optimizer_copy, 3, 2)
    assert_same(params, params_copy)
    assert optimizer_copy.generator is not optimizer.generator
    assert not th.equal(params[1], make_params()[1])


def test_every_optimizer_is_described() -> None:
    assert {description.optimizer for description in DESCRIPTIONS} == {UPGD, AdaptiveUPGD}
