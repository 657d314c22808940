"""Version 4.0: what each granularity reads and multiplies, what it does to updates, and what it remembers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_vgs_ppo._flat import flat_view, pack, pack_parameters, split_like
from sb3_vgs_ppo.errors import CheckpointError, UserInputError
from sb3_vgs_ppo.optim import AdaptiveUPGD
from sb3_vgs_ppo.scaling import VarianceGradientScaler

pytestmark = pytest.mark.usefixtures("each_computation")

SHAPES = ((3, 4), (), (2,))
GRANULARITIES = ("element", "tensor", "global")

each_granularity = pytest.mark.parametrize("granularity", GRANULARITIES)


def make(shapes: Sequence[tuple[int, ...]] = SHAPES, **kwargs: Any) -> VarianceGradientScaler:
    kwargs = {"warmup_steps": 2, "beta": 0.9, "alpha": 1.0, **kwargs}
    return VarianceGradientScaler([th.nn.Parameter(th.ones(shape)) for shape in shapes], "4.0", **kwargs)


def set_gradients(scaler: VarianceGradientScaler, step: int, scale: float = 1.0) -> None:
    """Every element has a mean and a noise of its own."""
    generator = th.Generator().manual_seed(step)
    for i, parameter in enumerate(scaler.parameters):
        n = parameter.numel()
        values = th.linspace(1.0, 3.0, n) + (0.1 + i) * th.linspace(0.0, 1.0, n) * th.randn(n, generator=generator)
        parameter.grad = scale * values.view(parameter.shape)


def train(scaler: VarianceGradientScaler, steps: range, scale: float = 1.0) -> None:
    for step in steps:
        set_gradients(scaler, step, scale)
        scaler.scale_gradients()
        scaler.step()


def gradients(scaler: VarianceGradientScaler) -> th.Tensor:
    return th.cat([parameter.grad.flatten() for parameter in scaler.parameters])


def parameters(scaler: VarianceGradientScaler) -> th.Tensor:
    return th.cat([parameter.detach().flatten() for parameter in scaler.parameters])


def recorded(steps: range) -> np.ndarray:
    """The gradients of :func:`set_gradients`, shape (n, N)."""
    scaler = make()
    rows = []
    for step in steps:
        set_gradients(scaler, step)
        rows.append(gradients(scaler).double().numpy())
    return np.array(rows)


def moments(series: np.ndarray, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """Unbiased σ² and μ² of each element, shape (N,), by the definition."""
    weights = beta ** np.arange(len(series))[::-1]
    weights /= weights.sum()
    rho = (weights**2).sum()
    mean = weights @ series
    variance = weights @ (series - mean) ** 2 / (1 - rho)
    return variance, mean**2 - rho * variance


def expected_factors(granularity: str, steps: range, strength: float = 1.0) -> np.ndarray:
    """The factor of each element, shape (N,)."""
    variance, squared_mean = moments(recorded(steps), beta=0.9)
    if granularity == "element":
        nv = variance / (np.maximum(squared_mean, 0.0) + 1e-8 * variance)
    else:
        sizes = [int(np.prod(shape)) for shape in SHAPES]
        starts = np.cumsum([0, *sizes[:-1]])
        nv = np.add.reduceat(variance, starts) / np.maximum(np.add.reduceat(squared_mean, starts), 0.0)
        nv = np.full(3, np.quantile(nv, 0.9)) if granularity == "global" else nv
        nv = np.repeat(nv, sizes)
    return np.maximum(1 / (1 + strength * np.minimum(nv, 1e6)), 1e-4)


@each_granularity
@pytest.mark.parametrize("in_one_buffer", [False, True])
def test_what_gradients_are_multiplied_by(granularity: str, in_one_buffer: bool) -> None:
    """γ = 1 / (1 + α·η²), from the gradients before, whether they lie in one buffer or not."""
    scaler = make(granularity=granularity)
    train(scaler, range(40))
    set_gradients(scaler, 40)
    raw = gradients(scaler)
    if in_one_buffer:
        pieces = pack([parameter.grad for parameter in scaler.parameters])
        for parameter, piece in zip(scaler.parameters, pieces, strict=True):
            parameter.grad = piece
    flat = flat_view([parameter.grad for parameter in scaler.parameters]) if in_one_buffer else None
    scaler.observe(flat)
    factor = float(scaler.scale(flat))
    expected = expected_factors(granularity, range(40))
    assert (gradients(scaler) / raw).numpy() == pytest.approx(expected, rel=2e-4)
    assert factor == pytest.approx(expected.mean(), rel=2e-4)
    assert np.ptp(expected) > (0.1 if granularity != "global" else -1.0)


@each_granularity
def test_reading_is_the_p90_over_what_has_a_factor(granularity: str) -> None:
    scaler = make(granularity=granularity)
    train(scaler, range(40))
    variance, squared_mean = moments(recorded(range(40)), beta=0.9)
    if granularity != "element":
        variance, squared_mean = (np.add.reduceat(x, [0, 12, 13]) for x in (variance, squared_mean))
    nv = variance / np.maximum(squared_mean, 1e-8 * variance)
    assert scaler.get_normalized_variance() == pytest.approx(np.quantile(nv, 0.9), rel=1e-3)


@each_granularity
def test_scale_of_the_gradient_does_not_matter_at_all(granularity: str) -> None:
    """A power of two changes no digit; ε is relative, so a tiny gradient reads the same."""
    readings = []
    for scale in (1.0, 2.0**20, 2.0**-40):
        scaler = make(granularity=granularity)
        train(scaler, range(30), scale)
        readings.append((scaler.get_normalized_variance(), scaler.get_scaling_factor()))
    assert readings[0] == readings[1] == readings[2]
    assert readings[0][1] < 0.99


@each_granularity
def test_what_is_known_of_nothing_but_noise(granularity: str) -> None:
    """Without a mean the factor is the smallest allowed; a gradient that is always zero is left alone."""
    scaler = make(((1,), (1,)), granularity=granularity, variance_cap=50.0)
    for step in range(20):
        scaler.parameters[0].grad = th.tensor([(-1.0) ** step])
        scaler.parameters[1].grad = th.zeros(1)
        scaler.step()
    for parameter in scaler.parameters:
        parameter.grad = th.ones(1)
    scaler.scale_gradients()
    # 90 % of the way from 0 to the noisy tensor's reading is above the cap too
    assert gradients(scaler).tolist() == pytest.approx([1 / 51, 1 / 51 if granularity == "global" else 1.0])


def test_bias_of_the_squared_mean_is_removed() -> None:
    """Σμ² over 20,000 elements with mean 0.1 and noise 1: 0.01 each, where m² alone is 0.0626 at β = 0.9."""
    scaler = make(((20_000,),))
    for step in range(100):
        scaler.parameters[0].grad = 0.1 + th.randn(20_000, generator=th.Generator().manual_seed(step))
        scaler.step()
    assert scaler.get_normalized_variance() == pytest.approx(100.0, rel=0.1)  # with the bias it would be 16


@each_granularity
def test_tensors_that_miss_or_are_not_finite_keep_their_statistics(granularity: str) -> None:
    """As if the other gradients alone had come: each tensor counts its own observations."""
    disturbed, honest = make(((3,), (2,)), granularity=granularity), make(((3,), (2,)), granularity=granularity)
    for step in range(30):
        set_gradients(disturbed, step)
        first, second = disturbed.parameters
        if step % 3 == 1:
            second.grad = None
        elif step % 3 == 2:
            second.grad = th.tensor([1.0, [float("nan"), float("inf"), 1e30][step % 9 // 3]])
        disturbed.step()
        honest.parameters[0].grad = first.grad
        if step % 3 == 0:
            honest.parameters[1].grad = second.grad
        else:
            honest.parameters[1].grad = None
        honest.step()
    assert disturbed.get_normalized_variance() == honest.get_normalized_variance() > 0.0
    assert disturbed.state_dict()["param_ema_weight"].tolist() == pytest.approx([1 - 0.9**30, 1 - 0.9**10])


def test_single_observations_are_no_reading() -> None:
    """One gradient has no variance: the tensor counts as not observed, as does one without elements."""
    scaler = make(((2,), (2,), (0,)), warmup_steps=0)
    for step in range(3):
        scaler.parameters[0].grad = th.tensor([1.0, 3.0]) * (1 + step)
        scaler.parameters[1].grad = th.ones(2) if step == 2 else None
        scaler.step()
    alone = make(((2,),), warmup_steps=0)
    for step in range(3):
        alone.parameters[0].grad = th.tensor([1.0, 3.0]) * (1 + step)
        alone.step()
    assert scaler.get_normalized_variance() == pytest.approx(alone.get_normalized_variance(), rel=1e-6)
    assert alone.get_normalized_variance() > 0.1


class TestUpdates:
    @each_granularity
    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize("optimizer_class", [th.optim.Adam, AdaptiveUPGD])
    def test_the_optimizers_step_is_shortened(
        self, granularity: str, packed: bool, optimizer_class: type[th.optim.Optimizer]
    ) -> None:
        """By γ of the averaged gradient: with β₁ = 0.9 the noise counts 1/19."""
        free, scaled = (make(granularity=granularity, apply_to="update") for _ in range(2))
        free.enabled = False
        optimizers = []
        for scaler in (free, scaled):
            if packed:
                pack_parameters(scaler.parameters)
            optimizers.append(optimizer_class(scaler.parameters, lr=0.1, **self.quiet(optimizer_class)))
        for step in range(41):
            before = parameters(scaled)
            # the same start and the same optimizer's state for both
            for source, target in zip(scaled.parameters, free.parameters, strict=True):
                target.data.copy_(source.data)
            for scaler, optimizer in zip((free, scaled), optimizers, strict=True):
                set_gradients(scaler, step)
                raw = gradients(scaler)
                assert scaler.scale_gradients() == 1.0
                assert th.equal(gradients(scaler), raw)
                with scaler.scaling_update(optimizer):
                    optimizer.step()
                scaler.step()
        moved = (parameters(scaled) - before) / (parameters(free) - before)
        assert moved.numpy() == pytest.approx(expected_factors(granularity, range(40), strength=1 / 19), rel=1e-3)

    @staticmethod
    def quiet(optimizer_class: type[th.optim.Optimizer]) -> dict[str, Any]:
        return {"sigma": 0.0} if optimizer_class is AdaptiveUPGD else {}

    @pytest.mark.parametrize(
        ("momentum", "optimizer", "expected"),
        [
            (None, lambda p: th.optim.SGD(p, lr=0.1), 1.0),
            (None, lambda p: th.optim.SGD(p, lr=0.1, momentum=0.5), 1 / 3),
            (None, lambda p: th.optim.Adam(p, betas=(0.8, 0.9)), 1 / 9),
            (0.6, th.optim.Adam, 1 / 4),
            (0.0, th.optim.Adam, 1.0),
        ],
    )
    def test_noise_of_the_average(self, momentum: float | None, optimizer: Any, expected: float) -> None:
        scaler = make(granularity="global", apply_to="update", momentum=momentum)
        train(scaler, range(20))
        with scaler.scaling_update(optimizer(scaler.parameters)):
            pass
        nv = scaler.get_normalized_variance()
        assert scaler.get_scaling_factor() == pytest.approx(1 / (1 + expected * nv), rel=1e-9)

    def test_momentum_is_an_option_for_gradients(self) -> None:
        scaler = make(granularity="global", momentum=0.5)
        train(scaler, range(20))
        nv = scaler.get_normalized_variance()
        assert scaler.get_scaling_factor() == pytest.approx(1 / (1 + nv / 3), rel=1e-9)

    def test_warm_up_and_gradients_leave_updates_alone(self) -> None:
        for scaler in (make(apply_to="update", warmup_steps=100), make(apply_to="gradient")):
            train(scaler, range(20))
            with scaler.scaling_update(th.optim.SGD(scaler.parameters, lr=1.0)):
                for parameter in scaler.parameters:
                    parameter.data += 1.0
            assert parameters(scaler).unique().tolist() == [2.0]

    def test_groups_that_average_differently(self) -> None:
        scaler = make(apply_to="update")
        first, *others = scaler.parameters
        groups = [{"params": [first]}, {"params": others, "betas": (0.5, 0.9)}]
        with (
            pytest.raises(UserInputError, match=r"\[0\.5, 0\.9\]; remedy: momentum="),
            scaler.scaling_update(th.optim.Adam(groups)),
        ):
            pass

    def test_metrics_report_the_factor_and_an_unscaled_gradient(self) -> None:
        scaler = make(apply_to="update", warmup_steps=0)
        train(scaler, range(20))
        scaler.pop_metrics()
        set_gradients(scaler, 20)
        scaler.scale_gradients()
        factor = scaler.get_scaling_factor()
        with scaler.scaling_update(th.optim.SGD(scaler.parameters, lr=0.1)):
            pass
        scaler.step()
        metrics = scaler.pop_metrics()
        assert metrics["vgs/scaling_factor"] == pytest.approx(factor, rel=1e-6)
        assert factor < 0.99
        assert metrics["vgs/grad_norm_scaled"] == metrics["vgs/grad_norm_raw"]


@each_granularity
def test_metrics_report_the_norm_after_scaling(granularity: str) -> None:
    scaler = make(granularity=granularity)
    train(scaler, range(30))
    scaler.pop_metrics()
    set_gradients(scaler, 30)
    raw = gradients(scaler)
    scaler.scale_gradients()
    scaled = gradients(scaler)
    scaler.step()
    metrics = scaler.pop_metrics()
    assert metrics["vgs/grad_norm_raw"] == pytest.approx(float(raw.norm()), rel=1e-5)
    assert metrics["vgs/grad_norm_scaled"] == pytest.approx(float(scaled.norm()), rel=1e-5)
    assert scaled.norm() < 0.999 * raw.norm()
    if granularity == "element":
        assert metrics["vgs/normalized_variance"] == metrics["vgs/variance_p90"]
        assert metrics["vgs/variance_p90"] == pytest.approx(scaler.get_normalized_variance(), rel=1e-12)


class TestState:
    @each_granularity
    def test_averages_of_elements(self, granularity: str) -> None:
        """Already divided by 1 − β^n, tensor by tensor: after 1 and 3 at β = 0.9, weights 0.9 and 1 of 1.9."""
        scaler = make(((2,), ()), granularity=granularity)
        for value in (1.0, 3.0):
            scaler.parameters[0].grad, scaler.parameters[1].grad = th.tensor([value, 2 * value]), th.tensor(5.0)
            scaler.step()
        state = scaler.state_dict()
        mean, variance = 3.9 / 1.9, 0.9 * 4 / 1.9**2
        assert state["element_grad_mean_ema"].tolist() == pytest.approx([mean, 2 * mean, 5.0])
        assert state["element_grad_var_ema"].tolist() == pytest.approx([variance, 4 * variance, 0.0])
        assert state["param_ema_weight"].tolist() == pytest.approx([0.19, 0.19])
        assert state["granularity"] == granularity

    @each_granularity
    def test_continues_bit_for_bit_with_the_files_application(self, granularity: str) -> None:
        original, restored = make(granularity=granularity, momentum=0.3), make()
        train(original, range(10))
        restored.load_state_dict(original.state_dict())
        for scaler in (original, restored):
            train(scaler, range(10, 20))
            set_gradients(scaler, 20)
            scaler.scale_gradients()
        assert th.equal(gradients(original), gradients(restored))

    def test_a_state_of_another_version_leaves_the_application_alone(self) -> None:
        older = VarianceGradientScaler([th.zeros(shape) for shape in SHAPES], "3.0", alpha=0.7)
        scaler = make(granularity="element", apply_to="update")
        with pytest.warns(UserWarning, match="each element of the gradient"):
            scaler.load_state_dict(older.state_dict())
        state = scaler.state_dict()
        assert (state["granularity"], state["apply_to"], state["alpha"]) == ("element", "update", 0.7)

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("element_grad_mean_ema", [1.0] * 14, "has 14 entries for 15 elements"),
            ("element_grad_var_ema", [float("nan")] * 15, "NaN or Inf"),
            ("element_grad_var_ema", [-1.0] * 15, "below 0"),
            ("element_grad_var_ema", None, "is None although"),
            ("granularity", "layer", "granularity must be one of 'element', 'tensor', 'global', got 'layer'"),
            ("apply_to", None, "apply_to must be one of"),
            ("momentum", 1.0, r"momentum must be None or a number in \[0, 1\), got 1.0"),
        ],
    )
    def test_refusals(self, field: str, value: Any, message: str) -> None:
        scaler = make()
        train(scaler, range(5))
        state = scaler.state_dict()
        with pytest.raises(CheckpointError, match=message):
            scaler.load_state_dict({**state, field: value})
        assert th.equal(scaler.state_dict()["element_grad_var_ema"], state["element_grad_var_ema"])

    def test_a_copy_has_averages_of_its_own(self) -> None:
        scaler = make()
        train(scaler, range(10))
        twin, before = copy.deepcopy(scaler), scaler.get_normalized_variance()
        train(scaler, range(10, 20))
        assert twin.get_normalized_variance() == before != scaler.get_normalized_variance()

    def test_two_numbers_per_element(self) -> None:
        scaler = make(((100, 100),))
        train(scaler, range(3))
        averages = [scaler.state_dict()[key] for key in ("element_grad_mean_ema", "element_grad_var_ema")]
        assert [(average.numel(), average.dtype) for average in averages] == [(10_000, th.float32)] * 2


@pytest.mark.parametrize("name", ["granularity", "apply_to", "momentum"])
def test_other_versions_have_no_choice(name: str) -> None:
    value = {"granularity": "element", "apply_to": "update", "momentum": 0.5}[name]
    with pytest.raises(UserInputError, match=rf"{name}={value!r} needs version '4\.0', not '3\.0'"):
        VarianceGradientScaler([th.zeros(2)], "3.0", **{name: value})


def test_flat_gradients_are_read_as_separate_ones() -> None:
    first, second = make(granularity="element"), make(granularity="element")
    for step in range(10):
        for scaler in (first, second):
            set_gradients(scaler, step)
        flat = gradients(second)
        for parameter, piece in zip(second.parameters, split_like(flat, second.parameters), strict=True):
            parameter.grad = piece
        first.scale_gradients()
        second.observe(flat)
        second.scale(flat)
        assert th.equal(gradients(first), gradients(second))
        first.step()
        second.step()
    assert first.get_scaling_factor() == second.get_scaling_factor() < 1.0
