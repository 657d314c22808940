"""What is reported: averages over the committed steps, by hand and through an SB3 logger."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.logger import Logger, configure

from sb3_vgs_ppo.scaling import KNOWN_VERSIONS, VarianceGradientScaler
from sb3_vgs_ppo.scaling import metrics as metrics_module

KEYS = {
    "vgs/scaling_factor",
    "vgs/normalized_variance",
    "vgs/variance_p10",
    "vgs/variance_p50",
    "vgs/variance_p90",
    "vgs/grad_norm_raw",
    "vgs/grad_norm_scaled",
    "vgs/warmup_active",
    "vgs/nonfinite",
    "vgs/step_count",
}


def make(version: str = "3.0", sizes: tuple[int, ...] = (3, 5, 2), **kwargs: object) -> VarianceGradientScaler:
    parameters = [th.nn.Parameter(th.zeros(size)) for size in sizes]
    return VarianceGradientScaler(parameters, version, warmup_steps=4, **kwargs)  # type: ignore[arg-type]


def set_gradients(scaler: VarianceGradientScaler, step: int) -> float:
    """Noisy gradients, the later tensors noisier; returns their total norm."""
    generator = th.Generator().manual_seed(step)
    for i, parameter in enumerate(scaler.parameters):
        noise = th.randn((), generator=generator) + th.randn(parameter.shape, generator=generator)
        parameter.grad = 1.0 + (0.2 + i) * noise
    return float(th.cat([p.grad.double() for p in scaler.parameters]).norm())


@pytest.mark.parametrize("version", KNOWN_VERSIONS)
@pytest.mark.parametrize("n_steps", [10, 200])
def test_averages_since_the_last_reading(version: str, n_steps: int) -> None:
    """The factor and the readings of a step are those that were used in it, before it was committed."""
    scaler = make(version, **({"granularity": "global"} if version == "4.0" else {}))
    for step in range(2):
        set_gradients(scaler, step)
        scaler.step()
    scaler.pop_metrics()
    variances, factors, norms = [], [], []
    for step in range(2, 2 + n_steps):
        norms.append(set_gradients(scaler, step))
        variances.append(scaler.get_normalized_variance())
        factors.append(scaler.scale_gradients())
        scaler.step()
    metrics = scaler.pop_metrics()
    assert metrics.keys() == KEYS
    assert metrics["vgs/normalized_variance"] == pytest.approx(np.mean(variances), rel=1e-9)
    assert metrics["vgs/variance_p90"] == metrics["vgs/normalized_variance"] or version == "1.0"
    assert metrics["vgs/scaling_factor"] == pytest.approx(np.mean(factors), rel=1e-9)
    assert metrics["vgs/grad_norm_raw"] == pytest.approx(np.mean(norms), rel=1e-6)
    assert metrics["vgs/grad_norm_scaled"] == pytest.approx(np.dot(norms, factors) / n_steps, rel=1e-6)
    assert metrics["vgs/warmup_active"] == pytest.approx(2 / n_steps)
    assert metrics["vgs/step_count"] == 2 + n_steps
    assert metrics["vgs/nonfinite"] == 0
    assert factors[-1] < 1.0


def test_quantiles_over_tensors() -> None:
    """Three tensors of one element whose two values give known variances over time."""
    scaler = make(sizes=(1, 1, 1), beta=0.5)
    for values in ((1.0, 1.0, 1.0), (1.0, 3.0, 7.0), (0.0, 0.0, 0.0)):
        for parameter, value in zip(scaler.parameters, values, strict=True):
            parameter.grad = th.tensor([value])
        scaler.step()
        metrics = scaler.pop_metrics()
    # weights 1/3 and 2/3 of the first two steps: mean (1 + 2v)/3, variance 2/9·(v − 1)²
    nv = [2 / 9 * (v - 1) ** 2 / ((1 + 2 * v) / 3) ** 2 for v in (1.0, 3.0, 7.0)]
    expected = np.quantile(nv, [0.1, 0.5, 0.9])
    assert [metrics[f"vgs/variance_p{p}"] for p in (10, 50, 90)] == pytest.approx(expected, rel=1e-6)


def test_version_1_has_one_reading_for_all_tensors() -> None:
    scaler = make("1.0")
    for step in range(6):
        set_gradients(scaler, step)
        scaler.step()
    metrics = scaler.pop_metrics()
    assert metrics["vgs/variance_p10"] == metrics["vgs/variance_p50"] == metrics["vgs/variance_p90"] > 0.0


def test_step_alone_reports_the_factor_that_was_applied() -> None:
    """Gradients that were never scaled have factor 1, whatever the factor would have been."""
    scaler = make()
    for step in range(20):
        set_gradients(scaler, step)
        scaler.step()
    metrics = scaler.pop_metrics()
    assert scaler.get_scaling_factor() < 0.99
    assert metrics["vgs/scaling_factor"] == 1.0
    assert metrics["vgs/grad_norm_scaled"] == metrics["vgs/grad_norm_raw"]


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_nonfinite_tensors_are_counted_in_skipped_steps_too(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "BATCH", batch)
    scaler = make()
    for step in range(8):
        set_gradients(scaler, step)
        for parameter in scaler.parameters[: step % 3]:  # 0, 1, 2, 0, 1, 2, 0, 1 tensors
            parameter.grad[0] = float("nan")
        scaler.parameters[2].grad = None  # missing is not non-finite
        scaler.scale_gradients()
        if step % 2:
            scaler.discard()
        else:
            scaler.step()
    metrics = scaler.pop_metrics()
    assert metrics["vgs/nonfinite"] == 7
    assert metrics["vgs/step_count"] == 4
    assert all(np.isfinite(value) for value in metrics.values())
    assert scaler.pop_metrics() == {"vgs/nonfinite": 0, "vgs/step_count": 4}


def test_a_step_is_reported_with_its_own_gradient_whatever_was_read_in_between() -> None:
    scaler = make()
    norm = set_gradients(scaler, 0)
    scaler.observe()
    scaler.pop_metrics()
    scaler.step()
    set_gradients(scaler, 1)
    scaler.observe()  # as many gradients as steps are waiting, but not the same
    assert scaler.pop_metrics()["vgs/grad_norm_raw"] == pytest.approx(norm)


def test_nothing_to_report_while_disabled() -> None:
    scaler = make(enabled=False)
    set_gradients(scaler, 0)
    scaler.scale_gradients()
    scaler.step()
    assert scaler.pop_metrics() == {"vgs/nonfinite": 0, "vgs/step_count": 0}


@pytest.mark.parametrize("version", KNOWN_VERSIONS)
def test_reading_metrics_does_not_change_the_factors(version: str) -> None:
    """Reading fixes the quantile's weights once all tensors were seen; they must be the same weights."""
    read, unread = make(version), make(version)
    for step in range(30):
        factors = []
        for scaler in (read, unread):
            set_gradients(scaler, step)
            if step < 10:
                scaler.parameters[1].grad = None  # appears later
            factors.append(scaler.scale_gradients())
            scaler.step()
        read.pop_metrics()
        assert factors[0] == factors[1]
    assert factors[0] < 1.0


def test_weights_are_forgotten_with_the_statistics() -> None:
    scaler, fresh = make(), make()
    for step in range(10):
        set_gradients(scaler, step)
        scaler.step()
    scaler.pop_metrics()
    scaler.reset_statistics()
    for step in range(10):
        for current in (scaler, fresh):
            set_gradients(current, step)
            current.parameters[0].grad = None
            current.step()
    assert scaler.get_normalized_variance() == fresh.get_normalized_variance()


class TestSb3Logger:
    def logged(self, logger: Logger, tmp_path: Path) -> dict[str, float]:
        logger.dump(0)
        header, *_, last = (tmp_path / "progress.csv").read_text().splitlines()
        return dict(zip(header.split(","), map(float, last.split(",")), strict=True))

    def test_a_dump_holds_what_pop_metrics_would_have_said(self, tmp_path: Path) -> None:
        logger = configure(str(tmp_path), ["stdout", "csv"])
        logged, silent = make(logger=logger), make()
        for step in range(12):
            for scaler in (logged, silent):
                set_gradients(scaler, step)
                if step in (3, 7):
                    scaler.parameters[0].grad[0] = float("inf")
                scaler.scale_gradients()
                scaler.step()
        expected = silent.pop_metrics()
        assert expected["vgs/nonfinite"] == 2
        assert self.logged(logger, tmp_path) == pytest.approx(expected, rel=1e-9)
        assert logged.pop_metrics() == {"vgs/nonfinite": 0, "vgs/step_count": 12}

    def test_keys_survive_the_stdout_table(self, tmp_path: Path) -> None:
        """SB3 cuts keys at 36 characters and raises where two cut keys collide."""
        scaler = make(logger=configure(str(tmp_path), ["stdout"]))
        set_gradients(scaler, 0)
        scaler.step()
        assert scaler.logger is not None
        assert set(scaler.logger.name_to_value) == KEYS
        assert max(map(len, KEYS)) <= 36
        scaler.logger.dump(0)
