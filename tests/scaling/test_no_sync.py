"""Nothing in a training loop's calls waits for an accelerator.

Tensors on the meta device have shapes but no values. So whatever would read one on the host raises an error:
``item()``, ``bool()``, ``cpu()``, boolean indexing. This works without a GPU, takes the path of accelerators, and sees
reads inside torch's own functions.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch as th

from sb3_vgs_ppo.scaling import KNOWN_VERSIONS, VarianceGradientScaler, attach, elements_spatial, metrics


def on_meta(version: str, **kwargs: Any) -> VarianceGradientScaler:
    parameters = [th.nn.Parameter(th.zeros(size, device="meta")) for size in (4, 1, 70_000, 3)]
    return VarianceGradientScaler(parameters, version, warmup_steps=2, **kwargs)


def set_gradients(scaler: VarianceGradientScaler, step: int) -> None:
    for index, parameter in enumerate(scaler.parameters):
        parameter.grad = None if index == step % 5 else th.ones_like(parameter)


@pytest.mark.parametrize("version", KNOWN_VERSIONS)
def test_a_training_loop_reads_nothing(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (elements_spatial, metrics):
        monkeypatch.setattr(module, "BATCH", 3)  # so that figures and metrics are summed up within these steps
    scaler = on_meta(version)
    for step in range(8):
        set_gradients(scaler, step)
        scaler.observe()
        factor = scaler.scale()
        scaler.step()
    assert factor.device.type == "meta"
    assert factor.shape == ()


@pytest.mark.parametrize("granularity", ["element", "tensor", "global"])
@pytest.mark.parametrize("apply_to", ["gradient", "update"])
def test_several_factors_read_nothing_either(granularity: str, apply_to: str) -> None:
    scaler = on_meta("4.0", granularity=granularity, apply_to=apply_to)
    optimizer = th.optim.SGD(scaler.parameters, lr=0.1)
    for step in range(8):
        set_gradients(scaler, step)
        scaler.observe()
        scaler.scale()
        with scaler.scaling_update(optimizer):
            pass
        scaler.step()
    assert all(parameter.device.type == "meta" for parameter in scaler.parameters)


@pytest.mark.parametrize(
    ("version", "options"), [*((version, {}) for version in KNOWN_VERSIONS), ("4.0", {"apply_to": "update"})]
)
def test_the_hooks_of_an_optimizer_read_nothing_either(version: str, options: dict[str, Any]) -> None:
    optimizer = th.optim.SGD([th.nn.Parameter(th.zeros(size, device="meta")) for size in (4, 1, 70_000, 3)])
    scaler = attach(optimizer, version, {"warmup_steps": 2, **options}).vgs
    for step in range(8):
        set_gradients(scaler, step)
        optimizer.step()


@pytest.mark.parametrize("version", KNOWN_VERSIONS)
def test_the_guard_sees_a_host_read(version: str) -> None:
    scaler = on_meta(version)
    for step in range(3):
        set_gradients(scaler, step)
        scaler.step()
    for read in (scaler.scale_gradients, scaler.get_normalized_variance, scaler.get_scaling_factor, scaler.pop_metrics):
        with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
            read()
