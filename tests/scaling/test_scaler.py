"""The scaler's interface: what is scaled when, what is refused, and what a copy carries."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch as th

from helpers import without_loops
from sb3_vgs_ppo.scaling import DEFAULT_VERSION, KNOWN_VERSIONS, VarianceGradientScaler

each_version = pytest.mark.parametrize("version", KNOWN_VERSIONS)


PER_TENSOR = ("param_grad_mean_ema", "param_grad_sq_ema", "param_ema_weight")
PER_ELEMENT = ("element_grad_mean_ema", "element_grad_var_ema", "param_ema_weight")
STATISTICS = {**dict.fromkeys(("2.0", "3.0", "3.1"), PER_TENSOR), "4.0": PER_ELEMENT}

ONE_FACTOR = {"4.0": {"granularity": "global"}}
"""Settings with which a version that has several factors has one, as the others do."""


def make(version: str = "3.0", sizes: tuple[int, ...] = (4, 3), **kwargs: Any) -> VarianceGradientScaler:
    return VarianceGradientScaler([th.nn.Parameter(th.zeros(size)) for size in sizes], version, **kwargs)


def set_gradients(scaler: VarianceGradientScaler, step: int, scale: float = 1.0) -> list[th.Tensor]:
    """Noisy gradients of a step, the same in every test; returns copies."""
    generator = th.Generator().manual_seed(step)
    for parameter in scaler.parameters:
        values = th.randn(parameter.shape, generator=generator) + 3.0 * th.randn((), generator=generator) + 0.5
        parameter.grad = (scale * values).to(parameter.dtype)
    return [p.grad.clone() for p in scaler.parameters]


def train(scaler: VarianceGradientScaler, steps: range) -> list[float]:
    factors = []
    for step in steps:
        set_gradients(scaler, step)
        factors.append(scaler.scale_gradients())
        scaler.step()
    return factors


def gradients(scaler: VarianceGradientScaler) -> list[th.Tensor]:
    return [p.grad for p in scaler.parameters]


def same(actual: list[th.Tensor], expected: list[th.Tensor]) -> bool:
    return all(th.equal(a, e) for a, e in zip(actual, expected, strict=True))


class TestFactor:
    def test_default_is_version_3(self) -> None:
        assert VarianceGradientScaler([th.zeros(2)]).version == DEFAULT_VERSION == "3.0"
        assert KNOWN_VERSIONS == ("1.0", "2.0", "3.0", "3.1", "4.0")

    @each_version
    def test_gradients_are_multiplied_by_the_returned_factor(self, version: str) -> None:
        unbounded = {"min_scaling_factor": 1e-9, "variance_cap": 1e12}
        scaler = make(version, warmup_steps=0, **unbounded, **ONE_FACTOR.get(version, {}))
        train(scaler, range(20))
        announced = scaler.get_scaling_factor()
        raw = set_gradients(scaler, 20)
        factor = scaler.scale_gradients()
        assert factor == announced == pytest.approx(1 / (1 + 0.1 * scaler.get_normalized_variance()), rel=1e-12)
        assert 0.0 < factor < 0.999
        for scaled, gradient in zip(gradients(scaler), raw, strict=True):
            th.testing.assert_close(scaled, gradient * factor)

    @each_version
    def test_warm_up_ends_after_exactly_that_many_steps(self, version: str) -> None:
        scaler = make(version, warmup_steps=7)
        factors = train(scaler, range(9))
        assert factors[:7] == [1.0] * 7
        assert all(factor < 0.999 for factor in factors[7:])

    @each_version
    def test_gradients_are_bit_identical_during_warm_up(self, version: str) -> None:
        scaler = make(version, warmup_steps=1)
        raw = set_gradients(scaler, 0)
        assert scaler.scale_gradients() == 1.0
        assert same(gradients(scaler), raw)

    @each_version
    def test_nothing_is_observed_yet(self, version: str) -> None:
        scaler = make(version, warmup_steps=0)
        assert scaler.get_normalized_variance() == 0.0
        set_gradients(scaler, 0)
        assert scaler.scale_gradients() == 1.0

    @each_version
    def test_factor_depends_only_on_earlier_observations(self, version: str) -> None:
        """The gradient that is scaled must not change its own factor, however extreme it is."""
        factors = []
        for scale in (1.0, 1e6):
            scaler = make(version, warmup_steps=0)
            train(scaler, range(10))
            set_gradients(scaler, 10, scale)
            factors.append(scaler.scale_gradients())
        assert factors[0] == factors[1]

    def test_bounds_of_the_factor(self) -> None:
        def factor(**kwargs: Any) -> float:
            scaler = make("3.1", warmup_steps=0, **kwargs)
            for parameter in scaler.parameters:
                parameter.grad = th.linspace(-1.0, 1.0, len(parameter))  # reads some 10⁷
            scaler.step()
            return scaler.get_scaling_factor()

        assert factor(alpha=0.1, min_scaling_factor=1e-9) == 1 / (1 + 0.1 * 1e6)
        assert factor(alpha=0.1, min_scaling_factor=1e-9, variance_cap=10.0) == 0.5
        assert factor(alpha=0.1, min_scaling_factor=0.7, variance_cap=10.0) == 0.7
        assert factor(alpha=0.0) == 1.0
        assert factor(alpha=0.1) == 1e-4

    @each_version
    def test_single_elements(self, version: str) -> None:
        """The variance of one element is 0, not NaN; over time it still changes."""
        scaler = make(version, sizes=(1,), warmup_steps=0)
        for value in (1.0, 3.0):
            scaler.parameters[0].grad = th.tensor([value])
            scaler.step()
        # weights 0.99 and 1: mean 2.005 and variance 1; without bias, twice that variance around a mean of √3
        expected = {"1.0": 0.0, "2.0": 0.0, "4.0": 2 / 3}.get(version, 0.25)
        assert scaler.get_normalized_variance() == pytest.approx(expected, abs=1e-2)

    def test_tensors_without_elements_are_not_observed(self) -> None:
        scaler = make(sizes=(0, 4), warmup_steps=0)
        train(scaler, range(20))
        alone = make(sizes=(4,), warmup_steps=0)
        for step in range(20):
            set_gradients(scaler, step)
            alone.parameters[0].grad = scaler.parameters[1].grad
            alone.step()
        assert scaler.get_normalized_variance() == pytest.approx(alone.get_normalized_variance(), rel=1e-12) != 0.0


@each_version
@pytest.mark.filterwarnings("error")
def test_what_is_not_observed_warns_of_nothing(version: str) -> None:
    """NaN, opposite infinities, tensors without gradient or elements, and squares that overflow."""
    scaler = VarianceGradientScaler([th.nn.Parameter(th.zeros(n, dtype=th.float64)) for n in (3, 2, 2, 0)], version)
    scaler.load_state_dict({**scaler.state_dict(), "warmup_steps": 0})
    for values in ([math.nan, 1.0, 1.0], [math.inf, -math.inf, 1.0], [1e200, 1.0, 1.0], [1e153, 1.0, 1.0]):
        scaler.parameters[0].grad = th.tensor(values, dtype=th.float64)
        scaler.parameters[1].grad = th.ones(2, dtype=th.float64)
        scaler.scale_gradients()
        scaler.step()
        assert scaler.get_scaling_factor() > 0.0
    assert scaler.pop_metrics()["vgs/nonfinite"] == 3
    assert scaler.state_dict()["step_count"] == 4


class TestStaging:
    @each_version
    def test_statistics_are_of_the_raw_gradient(self, version: str) -> None:
        """Whatever scaling, clipping and the optimizer do to ``.grad`` before ``step()`` is not seen."""
        honest, disturbed = make(version, warmup_steps=0), make(version, warmup_steps=0)
        for step in range(10):
            for scaler in (honest, disturbed):
                set_gradients(scaler, step)
                scaler.scale_gradients()
            for parameter in disturbed.parameters:
                parameter.grad = None if step % 2 else parameter.grad * 1e-3
            honest.step()
            disturbed.step()
        assert honest.get_normalized_variance() == disturbed.get_normalized_variance() > 0.0

    @each_version
    def test_step_alone_observes_the_gradient(self, version: str) -> None:
        staged, direct = make(version), make(version)
        for step in range(10):
            set_gradients(staged, step)
            staged.scale_gradients()
            staged.step()
            set_gradients(direct, step)
            direct.step()
        assert staged.get_normalized_variance() == direct.get_normalized_variance() > 0.0

    def test_a_skipped_update_is_not_committed(self) -> None:
        scaler, expected = make(warmup_steps=0), make(warmup_steps=0)
        train(expected, range(10))
        for step in range(10):
            set_gradients(scaler, 1000 + step, scale=100.0)
            scaler.scale_gradients()  # no step(): replaced by the next call
            set_gradients(scaler, step)
            scaler.scale_gradients()
            scaler.step()
        assert scaler.get_normalized_variance() == expected.get_normalized_variance()
        assert scaler.state_dict()["step_count"] == 10

    def test_discard_drops_what_is_staged(self) -> None:
        scaler = make()
        set_gradients(scaler, 0)
        scaler.scale_gradients()
        scaler.discard()
        for parameter in scaler.parameters:
            parameter.grad = None
        scaler.step()
        assert scaler.state_dict()["step_count"] == 0

    def test_observe_and_scale_are_scale_gradients_in_two_halves(self) -> None:
        whole, halves = make(warmup_steps=2), make(warmup_steps=2)
        for step in range(6):
            set_gradients(whole, step)
            factor = whole.scale_gradients()
            raw = set_gradients(halves, step)
            halves.observe()
            assert same(gradients(halves), raw)
            assert float(halves.scale()) == factor
            assert same(gradients(halves), gradients(whole))
            whole.step()
            halves.step()
        assert factor < 1.0

    def test_steps_without_any_gradient_do_not_count(self) -> None:
        scaler = make(warmup_steps=1)
        assert scaler.scale_gradients() == 1.0
        scaler.step()
        assert scaler.state_dict()["step_count"] == 0

    def test_disabled_leaves_everything_alone(self) -> None:
        scaler = make(warmup_steps=0, enabled=False)
        raw = set_gradients(scaler, 0)
        assert scaler.scale_gradients() == scaler.get_scaling_factor() == 1.0
        scaler.step()
        assert same(gradients(scaler), raw)
        assert scaler.state_dict()["step_count"] == 0

    def test_switched_off_and_on_again(self) -> None:
        scaler = make(warmup_steps=0)
        train(scaler, range(10))
        set_gradients(scaler, 10)
        scaler.scale_gradients()
        before = scaler.get_normalized_variance()
        scaler.enabled = False
        scaler.step()  # what was staged while enabled is dropped
        assert train(scaler, range(20, 25)) == [1.0] * 5
        scaler.enabled = True
        assert scaler.get_normalized_variance() == before
        assert scaler.get_scaling_factor() < 1.0
        assert scaler.state_dict()["step_count"] == 10

    @pytest.mark.filterwarnings("ignore:Using backward")
    def test_graph_of_the_gradient_is_not_kept(self) -> None:
        """``backward(create_graph=True)`` leaves gradients that require gradients."""
        scaler = make(sizes=(3,), warmup_steps=0)
        parameter = scaler.parameters[0]
        for step in range(3):
            parameter.grad = None
            ((parameter + step) ** 3).sum().backward(create_graph=True)
            factor = scaler.scale_gradients()
            scaler.step()
        assert factor < 1.0
        assert not any(t.requires_grad for t in scaler.state_dict().values() if isinstance(t, th.Tensor))


class TestRestart:
    @each_version
    def test_reset_is_a_fresh_scaler(self, version: str) -> None:
        scaler, fresh = make(version, warmup_steps=3), make(version, warmup_steps=3)
        train(scaler, range(50, 90))
        scaler.reset_statistics()
        assert train(scaler, range(6)) == train(fresh, range(6))

    @pytest.mark.parametrize("how", [nullcontext, without_loops])
    @pytest.mark.parametrize("version", ["2.0", "3.0", "3.1", "4.0"])
    def test_forgotten_tensors_read_as_tensors_that_come_later(
        self, version: str, how: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """Beside a scaler whose second tensor has no gradient before the others have had thirty."""
        with how():
            forgetful, late = (make(version, (4, 3, 5), warmup_steps=0) for _ in range(2))
            for step in range(40):
                for scaler in (forgetful, late):
                    set_gradients(scaler, step)
                    if scaler is late and step < 30:
                        scaler.parameters[1].grad = None
                    scaler.scale_gradients()
                    scaler.step()
                if step == 29:
                    forgetful.forget([forgetful.parameters[1], th.zeros(3)])
                    assert forgetful.get_normalized_variance() == late.get_normalized_variance() > 0.0
                if step >= 29:
                    assert forgetful.get_scaling_factor() == late.get_scaling_factor()
            states = forgetful.state_dict(), late.state_dict()
            assert all(th.equal(states[0][key], states[1][key]) for key in STATISTICS[version])

    def test_new_parameters_restart_and_are_the_ones_scaled(self) -> None:
        scaler = make(warmup_steps=3)
        train(scaler, range(10))
        layer = th.nn.Linear(2, 2)
        scaler.update_parameters(layer.parameters())
        assert scaler.state_dict()["step_count"] == 0
        assert [id(p) for p in scaler.parameters] == [id(p) for p in layer.parameters()]
        factors = train(scaler, range(6))
        assert factors[:3] == [1.0] * 3
        assert factors[4] < 1.0

    def test_new_parameters_drop_what_is_staged(self) -> None:
        scaler = make()
        set_gradients(scaler, 0)
        scaler.scale_gradients()
        scaler.update_parameters([th.nn.Parameter(th.zeros(2))])
        scaler.step()
        assert scaler.state_dict()["step_count"] == 0

    def test_refused_parameters_leave_the_scaler_alone(self) -> None:
        scaler = make(warmup_steps=0)
        train(scaler, range(5))
        before, parameters = scaler.get_normalized_variance(), scaler.parameters
        with pytest.raises(ValueError, match="empty"):
            scaler.update_parameters([])
        assert scaler.parameters == parameters
        assert scaler.get_normalized_variance() == before > 0.0


@each_version
@pytest.mark.parametrize("dtype", [th.float16, th.bfloat16, th.float64])
def test_other_precisions_read_like_float32(version: str, dtype: th.dtype) -> None:
    """The same values, exact in every precision, so the readings agree to the last bit of what they are summed in."""
    scalers = []
    for d in (th.float32, dtype):
        scaler = VarianceGradientScaler([th.nn.Parameter(th.zeros(512, dtype=d))], version, warmup_steps=0)
        for step in range(10):
            scaler.parameters[0].grad = (th.arange(512) % 7 - step).to(d)
            factor = scaler.scale_gradients()
            scaler.step()
        assert scaler.parameters[0].grad.dtype == d
        scalers.append((scaler.get_normalized_variance(), factor))
    # 4.0 keeps its averages in float32, unless the parameters are float64
    precise = version == "4.0" and dtype == th.float64
    assert scalers[0] == (pytest.approx(scalers[1], rel=1e-5) if precise else scalers[1])
    assert scalers[0][1] < 1.0
    precision = th.float64 if dtype == th.float64 else th.float32
    # the factor keeps its digits, the product is rounded once: a factor rounded to 16 bits is off by up to 0.4 %
    expected = (th.arange(512) % 7 - 9).to(precision) * th.tensor(factor, dtype=precision)
    assert th.equal(scaler.parameters[0].grad, expected.to(dtype))


def test_float16_squares_do_not_overflow() -> None:
    """300² is beyond float16's 65504."""
    scaler = VarianceGradientScaler([th.nn.Parameter(th.zeros(4, dtype=th.float16))], "3.1")
    scaler.parameters[0].grad = th.full((4,), 300.0, dtype=th.float16)
    scaler.step()
    assert scaler.state_dict()["grad_norm_ema"] == 600.0


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *[("beta", v) for v in (0.0, 1.0, -0.1, 1.5, float("nan"), "0.9", None)],
            *[("alpha", v) for v in (-1e-9, float("nan"), float("inf"))],
            *[("eps", v) for v in (0.0, -1e-8)],
            *[("warmup_steps", v) for v in (-1, 1.5, True, "many")],
            *[("min_scaling_factor", v) for v in (0.0, -0.1, 1.0001)],
            *[("variance_cap", v) for v in (0.0, -1.0, float("inf"))],
        ],
    )
    def test_bad_settings_are_echoed(self, name: str, value: Any) -> None:
        with pytest.raises(ValueError, match=f"{name} must be .*got {value!r}"):
            make(**{name: value})

    @pytest.mark.parametrize("kwargs", [{"alpha": 0}, {"min_scaling_factor": 1}, {"warmup_steps": 0}, {"beta": 1e-9}])
    def test_settings_at_the_edge_are_accepted(self, kwargs: dict[str, Any]) -> None:
        assert make(**kwargs).state_dict().items() >= kwargs.items()

    @pytest.mark.parametrize("version", ["4.5", "3", "2.0.1", "", None, 3.0])
    def test_unknown_version_lists_the_known_ones(self, version: Any) -> None:
        with pytest.raises(ValueError, match=rf"{version!r} is not known; known versions: '1\.0', '2\.0', '3\.0', "):
            make(version)

    def test_no_parameters(self) -> None:
        with pytest.raises(ValueError, match=r"parameters are empty, got \[\]"):
            VarianceGradientScaler([])

    def test_duplicates(self) -> None:
        parameter = th.nn.Parameter(th.zeros(2))
        with pytest.raises(ValueError, match="1 duplicates"):
            VarianceGradientScaler([parameter, th.nn.Parameter(th.zeros(2)), parameter])

    def test_several_devices(self) -> None:
        with pytest.raises(ValueError, match=r"several devices \(cpu, meta\)"):
            VarianceGradientScaler([th.zeros(2), th.zeros(2, device="meta")])

    def test_complex_parameters(self) -> None:
        with pytest.raises(ValueError, match=r"got torch\.complex64 at position 1"):
            VarianceGradientScaler([th.zeros(2), th.zeros(2, dtype=th.complex64)])

    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            (th.zeros(3), r"got a single tensor; remedy: \[tensor\]"),
            ([("weight", th.zeros(3))], "got tuple at position 0"),
        ],
    )
    def test_what_is_no_list_of_tensors(self, parameters: Any, message: str) -> None:
        with pytest.raises(TypeError, match=message):
            VarianceGradientScaler(parameters)

    @pytest.mark.parametrize("with_dense", [False, True])
    def test_sparse_gradients(self, with_dense: bool) -> None:
        embedding = th.nn.Embedding(5, 2, sparse=True)
        embedding(th.tensor([1, 1])).sum().backward()
        dense = th.nn.Parameter(th.zeros(2))
        dense.grad = th.ones(2)
        scaler = VarianceGradientScaler([dense, embedding.weight] if with_dense else [embedding.weight])
        with pytest.raises(RuntimeError, match=r"does not support sparse gradients.*sparse=False"):
            scaler.scale_gradients()


class TestCopies:
    @each_version
    @pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda scaler: pickle.loads(pickle.dumps(scaler))])
    def test_copies_carry_statistics_but_no_parameters(
        self, version: str, duplicate: Callable[[VarianceGradientScaler], VarianceGradientScaler]
    ) -> None:
        scaler = make(version, warmup_steps=0, alpha=0.7, logger=_Unpicklable())  # type: ignore[arg-type]
        scaler.logger = None
        train(scaler, range(10))
        scaler.logger = _Unpicklable()  # type: ignore[assignment]
        set_gradients(scaler, 10)
        scaler.scale_gradients()
        twin = duplicate(scaler)
        assert twin.parameters == ()
        assert twin.logger is None
        assert twin.get_normalized_variance() == scaler.get_normalized_variance() > 0.0
        assert twin.get_scaling_factor() == scaler.get_scaling_factor()
        for use in (twin.scale_gradients, twin.observe, twin.scale, twin.step):
            with pytest.raises(RuntimeError, match="update_parameters"):
                use()

        # the remedy that the message names
        state = twin.state_dict()
        twin.update_parameters(th.nn.Parameter(th.zeros(size)) for size in (4, 3))
        twin.load_state_dict(state)
        scaler.logger = None
        scaler.discard()
        assert train(twin, range(10, 15)) == train(scaler, range(10, 15))

    def test_a_copy_does_not_share_statistics(self) -> None:
        scaler = make(warmup_steps=0)
        train(scaler, range(10))
        twin = copy.deepcopy(scaler)
        before = twin.get_normalized_variance()
        train(scaler, range(10, 20))
        assert twin.get_normalized_variance() == before != scaler.get_normalized_variance()


class _Unpicklable:
    """Stands for a logger, which holds open files."""

    def __reduce__(self) -> Any:
        raise TypeError("cannot pickle a logger")
