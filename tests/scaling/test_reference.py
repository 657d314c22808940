"""Every version against its formulas, written once more in NumPy and float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_vgs_ppo.scaling import KNOWN_VERSIONS, VarianceGradientScaler

pytestmark = pytest.mark.usefixtures("each_computation")

Gradient = Sequence["np.ndarray | None"]
"""One array per tensor; None where a tensor has no gradient."""


def ema0(values: Sequence[float], beta: float) -> float:
    weights = (1 - beta) * beta ** np.arange(len(values))[::-1]
    return float(np.dot(weights, values) / (1 - beta ** len(values)))


def ema1(values: Sequence[float], beta: float, t: int) -> float:
    average = values[0]
    for value in values[1:]:
        average = beta * average + (1 - beta) * value
    return average / (1 - beta**t)


def den(mean: float, eps: float) -> float:
    return max(mean**2, 1e-12) + eps


def observed(stream: Sequence[Gradient], i: int) -> list[np.ndarray]:
    """The finite gradients of tensor i, in float64."""
    series = [gradient[i] for gradient in stream]
    return [g.astype(np.float64) for g in series if g is not None and g.size and np.isfinite(g).all()]


def reference(version: str, stream: Sequence[Gradient], beta: float, eps: float = 1e-8) -> float:
    """Normalized variance after a stream, from the definitions."""
    t = sum(any(g is not None and g.size for g in gradient) for gradient in stream)
    n_tensors = len(stream[0]) if stream else 0
    if version == "1.0":
        elements = all_elements(stream)
        if not elements:
            return 0.0
        mean = ema1([a.mean() for a in elements], beta, t)
        variance = ema1([a.var(ddof=1) if a.size > 1 else 0.0 for a in elements], beta, t)
        return variance / den(mean, eps)
    readings: list[float] = []
    for i in range(n_tensors):
        series = observed(stream, i)
        if not series:
            continue
        if version == "4.0":
            readings += noise_scale(np.array(series), beta, eps)
        elif version == "2.0":
            mean = ema1([np.abs(g).mean() for g in series], beta, t)
            readings.append(ema1([g.var() for g in series], beta, t) / den(mean, eps))
        else:
            mean = ema0([g.mean() for g in series], beta)
            second = ema0([(g.mean() ** 2 if version == "3.0" else (g**2).mean()) for g in series], beta)
            readings.append(max(second - mean**2, 0.0) / den(mean, eps))
    return float(np.quantile(readings, 0.9)) if readings else 0.0


def noise_scale(series: np.ndarray, beta: float, eps: float) -> list[float]:
    """Σσ² / (Σμ² + ε·Σσ²) of one tensor, of whose n observations the weights' squares sum up to ρ; none for n = 1."""
    if len(series) == 1:
        return []
    weights = beta ** np.arange(len(series))[::-1]
    weights /= weights.sum()
    rho = np.square(weights).sum()
    mean = np.average(series, axis=0, weights=weights)
    variance = (np.average((series - mean) ** 2, axis=0, weights=weights) / (1 - rho)).sum()
    squared_mean = max(np.square(mean).sum() - rho * variance, 0.0)
    return [variance / (squared_mean + eps * variance) if variance else 0.0]


def all_elements(stream: Sequence[Gradient]) -> list[np.ndarray]:
    """|g| over the elements of all finite tensors, per step that has such a tensor."""
    steps = [
        [np.abs(g.astype(np.float64)).ravel() for g in gradient if g is not None and np.isfinite(g).all()]
        for gradient in stream
    ]
    return [a for a in (np.concatenate(step) if step else np.empty(0) for step in steps) if a.size]


def feed(scaler: VarianceGradientScaler, stream: Sequence[Gradient]) -> None:
    for gradient in stream:
        for parameter, array in zip(scaler.parameters, gradient, strict=True):
            parameter.grad = None if array is None else th.from_numpy(array.copy()).to(parameter.dtype)
        scaler.step()


def parameters_for(sizes: Sequence[int], dtype: th.dtype = th.float32) -> list[th.nn.Parameter]:
    return [th.nn.Parameter(th.zeros(size, dtype=dtype)) for size in sizes]


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[int], list[list[np.ndarray | None]]]:
    """Sizes of tensors and gradients of them: of all magnitudes, some missing, some not finite, tensors of 0 or 1."""
    sizes = draw(st.lists(st.integers(0, 30), min_size=1, max_size=6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    mean, deviation = draw(st.sampled_from([0.0, 1.0, -30.0])), draw(st.sampled_from([1e-4, 1.0, 1e3]))
    p_missing, p_bad = draw(st.sampled_from([0.0, 0.3, 0.9])), draw(st.sampled_from([0.0, 0.3]))
    stream: list[list[np.ndarray | None]] = []
    for _ in range(draw(st.integers(1, 80))):
        gradient: list[np.ndarray | None] = []
        for size in sizes:
            values = (mean + deviation * rng.normal(size=size)).astype(np.float32)
            if size and rng.random() < p_bad:
                values[rng.integers(size)] = rng.choice([np.nan, np.inf, -np.inf])
            gradient.append(None if rng.random() < p_missing else values)
        stream.append(gradient)
    return sizes, stream


@pytest.mark.parametrize("version", KNOWN_VERSIONS)
@settings(deadline=None, max_examples=25)
@given(case=streams(), beta=st.sampled_from([0.3, 0.9, 0.99]))
def test_normalized_variance_follows_the_formula(
    version: str, case: tuple[list[int], list[list[np.ndarray | None]]], beta: float
) -> None:
    sizes, stream = case
    # 4.0 keeps numbers per element, in the parameters' precision, and has one factor if it is told so
    dtype, one_factor = (th.float64, {"granularity": "global"}) if version == "4.0" else (th.float32, {})
    scaler = VarianceGradientScaler(
        parameters_for(sizes, dtype), version, beta=beta, warmup_steps=0, alpha=0.3, **one_factor
    )
    feed(scaler, stream)
    nv = reference(version, stream, beta)
    # nv = variance / den, so rounding of the moments, 1e-16 of den, is the scale of the absolute error
    assert scaler.get_normalized_variance() == pytest.approx(nv, rel=1e-7, abs=1e-11)
    factor = min(max(1 / (1 + 0.3 * min(nv, 1e6)), 1e-4), 1.0) if any_gradient(stream) else 1.0
    assert scaler.get_scaling_factor() == pytest.approx(factor, rel=1e-7)


def any_gradient(stream: Sequence[Gradient]) -> bool:
    return any(g is not None and g.size for gradient in stream for g in gradient)


@pytest.mark.parametrize("version", KNOWN_VERSIONS)
@settings(deadline=None, max_examples=10)
@given(case=streams())
def test_global_figures_follow_the_formula(version: str, case: tuple[list[int], list[list[np.ndarray | None]]]) -> None:
    """EMA1 of mean, unbiased variance, norm and maximum of |g| over all elements, the same in every version."""
    sizes, stream = case
    scaler = VarianceGradientScaler(parameters_for(sizes), version, beta=0.9)
    feed(scaler, stream)
    state = scaler.state_dict()
    elements = all_elements(stream)
    figures = {
        "grad_mean_ema": np.mean,
        "grad_var_ema": lambda a: a.var(ddof=1) if a.size > 1 else 0.0,
        "grad_norm_ema": np.linalg.norm,
        "grad_max_ema": np.max,
    }
    for key, figure in figures.items():
        # as stored: not divided by 1 − β^t, which t = ∞ leaves out
        expected = ema1([figure(a) for a in elements], 0.9, 10**6) if elements else None
        largest = max((np.max(a) for a in elements), default=0.0)
        assert state[key] == (None if expected is None else pytest.approx(expected, rel=1e-7, abs=1e-13 * largest**2))


def test_a_tensor_that_appears_late_is_corrected_by_its_own_count() -> None:
    """After 50 steps without it, two values 1 and 3 read as their weighted variance, not as nearly nothing."""
    scaler = VarianceGradientScaler(parameters_for([2, 2]), "3.0", beta=0.9)
    always, late = np.ones(2, np.float32), [np.full(2, value, np.float32) for value in (1.0, 3.0)]
    feed(scaler, [[always, None]] * 50)
    assert scaler.get_normalized_variance() == pytest.approx(0.0, abs=1e-12)  # the absent tensor is no reading of 0
    feed(scaler, [[always, late[0]], [always, late[1]]])
    # weights 0.9 and 1 of 1.9: mean (0.9 + 3) / 1.9, variance 0.9 · 1 · (3 − 1)² / 1.9²
    mean, variance = 3.9 / 1.9, 0.9 * 4 / 1.9**2
    # the tensors read 0 and this, and p90 of two lies at 0.9 of the way
    assert scaler.get_normalized_variance() == pytest.approx(0.9 * variance / mean**2, rel=1e-6)


def test_an_absent_tensor_keeps_its_statistics() -> None:
    scaler = VarianceGradientScaler(parameters_for([2, 2]), "3.0", beta=0.9)
    feed(scaler, [[np.full(2, value, np.float32), np.ones(2, np.float32)] for value in (1.0, 5.0)])
    before = scaler.get_normalized_variance()
    feed(scaler, [[None, np.ones(2, np.float32)]] * 30)
    assert scaler.get_normalized_variance() == pytest.approx(before, rel=1e-12)
    assert before > 0.1
