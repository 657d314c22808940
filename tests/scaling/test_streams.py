"""What each version reads on gradient streams whose answer is known: the seed reports' test cases and more."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import torch as th

from sb3_vgs_ppo.scaling import KNOWN_VERSIONS, VarianceGradientScaler

pytestmark = pytest.mark.usefixtures("each_computation")

CONSTANT_ONES = th.ones(100)
CONSTANT_SPREAD = th.linspace(-1.0, 1.0, 100)


def read(version: str, stream: Iterable[th.Tensor], beta: float = 0.99) -> float:
    """Normalized variance after a stream of gradients of one tensor."""
    scaler = None
    for gradient in stream:
        if scaler is None:
            parameter = th.nn.Parameter(th.zeros_like(gradient))
            scaler = VarianceGradientScaler([parameter], version, beta=beta)
        parameter.grad = gradient.clone()
        scaler.step()
    assert scaler is not None
    return scaler.get_normalized_variance()


def noise(seed: int, *shape: int) -> th.Tensor:
    return th.randn(*shape, generator=th.Generator().manual_seed(seed))


def weighted_moments(values: th.Tensor, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance over the first axis, observation t of n weighing β^(n − t), with nothing that cancels."""
    x = values.double().numpy()
    weights = beta ** np.arange(len(x))[::-1]
    mean = np.average(x, axis=0, weights=weights)
    return mean, np.average((x - mean) ** 2, axis=0, weights=weights)


class TestSeedReports:
    """Thirty steps each, as in the reports."""

    @pytest.mark.parametrize("version", KNOWN_VERSIONS)
    def test_case_1_uniform_constant_reads_zero(self, version: str) -> None:
        assert read(version, [CONSTANT_ONES] * 30) == pytest.approx(0.0, abs=1e-12)

    def test_case_2_uniform_noisy_is_the_smoking_gun(self) -> None:
        """Legacy versions read 0 although the gradient changes by twice its mean every step."""
        values = 2.0 * noise(0, 30) + 1.0
        stream = [CONSTANT_ONES * value for value in values]
        assert read("2.0", stream) == pytest.approx(0.0, abs=1e-12)
        # by hand: all elements are equal, so the variance of the mean over time is the whole truth
        mean, variance = weighted_moments(values, 0.99)
        assert variance / mean**2 > 1.0
        assert read("3.0", stream) == pytest.approx(variance / mean**2, rel=1e-6)
        assert read("3.1", stream) == pytest.approx(variance / mean**2, rel=1e-6)

    def test_zero_mean_noise_of_the_first_report(self) -> None:
        stream = [CONSTANT_ONES * value for value in 2.0 * noise(1, 30)]
        assert read("2.0", stream) == pytest.approx(0.0, abs=1e-12)
        assert read("3.0", stream) > 1.0

    def test_case_3_heterogeneous_constant_in_version_2(self) -> None:
        """The report prints 1.278; an EMA that started at zero would give 1.333."""
        # mean|g| = 50/99, var = (1/3)(101/99); both EMAs are read divided by 1 − 0.9^30
        by_hand = (101 / 297) * (1 - 0.9**30) / (50 / 99) ** 2
        assert by_hand == pytest.approx(1.2767, abs=1e-4)
        assert read("2.0", [CONSTANT_SPREAD] * 30, beta=0.9) == pytest.approx(by_hand, rel=1e-6)

    def test_case_3_heterogeneous_constant_in_version_3(self) -> None:
        assert read("3.0", [CONSTANT_SPREAD] * 30, beta=0.9) == pytest.approx(0.0, abs=1e-6)

    def test_the_recommended_fix_fails_the_reports_own_test(self) -> None:
        assert read("3.1", [CONSTANT_SPREAD] * 30) > 1e6


class TestEvidence:
    """400 observations at β = 0.99, the figures of the project's measurements."""

    @pytest.mark.parametrize(("version", "expected"), [("3.0", 0.0), ("3.1", 3.4e7), ("4.0", 0.0)])
    def test_constant_linspace_around_zero(self, version: str, expected: float) -> None:
        assert read(version, [CONSTANT_SPREAD] * 400) == pytest.approx(expected, rel=1e-2, abs=1e-6)

    @pytest.mark.parametrize(("version", "expected"), [("3.0", 0.0), ("3.1", 0.34), ("4.0", 0.0)])
    def test_constant_linspace_above_zero(self, version: str, expected: float) -> None:
        assert read(version, [th.linspace(0.0, 1.0, 100)] * 400) == pytest.approx(expected, rel=1e-2, abs=1e-9)

    def test_all_elements_equal_and_noisy(self) -> None:
        """Variance 4 around a mean of 1; the measured 4.87 is one draw of a moving average over some 200 values."""
        values = 1.0 + 2.0 * noise(2, 400)
        readings = [read(version, [CONSTANT_ONES * value for value in values]) for version in ("3.0", "3.1")]
        mean, variance = weighted_moments(values, 0.99)
        assert readings == pytest.approx([variance / mean**2] * 2, rel=1e-6)
        assert 2.5 < readings[0] < 8.0
        # 4.0 takes off what the noise adds to the squared mean, (1 − β)/(1 + β) of the unbiased variance
        unbiased, share = variance / (1 - 0.01 / 1.99), 0.01 / 1.99
        without_bias = unbiased / (mean**2 - share * unbiased)
        stream = [CONSTANT_ONES * value for value in values]
        assert read("4.0", stream) == pytest.approx(without_bias, rel=0.01)  # 1 − β^400 is 0.982

    def test_noise_that_is_independent_per_element(self) -> None:
        """3.0 sees a thousandth of it, the variance of a mean over 1000 elements; 3.1 and 4.0 see it all."""
        stream = 0.1 + noise(3, 400, 1000)
        assert read("3.0", stream) == pytest.approx(0.10, rel=0.2)
        assert read("3.1", stream) == pytest.approx(102.5, rel=0.05)
        assert read("4.0", stream) == pytest.approx(100.0, rel=0.1)


class TestCancellation:
    """A gradient with mean 10⁴ and temporal standard deviation 1: float32 moments would have no digit left."""

    @pytest.mark.parametrize("version", ["3.0", "3.1", "4.0"])
    @pytest.mark.parametrize("n_elements", [1, 300])
    def test_variance_within_a_thousandth_of_float64(self, version: str, n_elements: int) -> None:
        values = 1e4 + noise(4, 400)
        mean, variance = weighted_moments(values, 0.99)
        reading = read(version, [value.expand(n_elements) for value in values])
        unbiased = 1 - 0.01 / 1.99 * (1 + 0.99**400) / (1 - 0.99**400) if version == "4.0" else 1.0
        assert reading == pytest.approx(variance / unbiased / mean**2, rel=1e-3)

    def test_spatial_variance_within_a_thousandth_of_float64(self) -> None:
        gradient = 1e4 + noise(5, 500)
        x = gradient.double().numpy()
        assert read("2.0", [gradient] * 1000) == pytest.approx(x.var() / np.mean(x) ** 2, rel=1e-3)
        assert read("1.0", [gradient] * 1000) == pytest.approx(x.var(ddof=1) / np.mean(x) ** 2, rel=1e-3)


@pytest.mark.parametrize("version", KNOWN_VERSIONS)
def test_rounding_never_reads_below_zero(version: str) -> None:
    """E[x²] − E[x]² of a constant comes out a little below 0 as often as above."""
    readings = [read(version, [th.full((3,), value)] * 20) for value in np.linspace(0.1, 2.0, 20)]
    assert 0.0 <= min(readings) <= max(readings) < 1e-12


@pytest.mark.parametrize("version", KNOWN_VERSIONS)
@pytest.mark.parametrize("scale", [1e-2, 1e4])
def test_normalized_variance_does_not_depend_on_the_gradients_scale(version: str, scale: float) -> None:
    """Only ε (1e-8 beside a squared mean of 1e-4 at least) keeps the readings apart."""
    stream = 2.0 + noise(6, 50, 20)
    assert read(version, stream * scale) == pytest.approx(read(version, stream), rel=1e-4)
