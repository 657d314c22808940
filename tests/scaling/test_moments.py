"""Sums of gradients: grouped, in blocks and on accelerators they are the same sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch as th

from sb3_vgs_ppo.scaling import moments
from sb3_vgs_ppo.scaling.moments import GradientReader

pytestmark = pytest.mark.usefixtures("each_computation")


def parameters_with_gradients(shapes: list[tuple[int, ...]], dtype: th.dtype = th.float32) -> list[th.nn.Parameter]:
    generator = th.Generator().manual_seed(0)
    parameters = [th.nn.Parameter(th.zeros(shape, dtype=dtype)) for shape in shapes]
    for parameter in parameters:
        parameter.grad = (th.randn(parameter.shape, generator=generator, dtype=th.float64) - 0.3).to(dtype)
    return parameters


def sums_by_hand(parameters: list[th.nn.Parameter]) -> np.ndarray:
    arrays = [p.grad.double().numpy().ravel() for p in parameters if p.grad is not None]
    return np.array([[g.sum(), np.abs(g).sum(), (g**2).sum(), np.abs(g).max()] for g in arrays]).T


SHAPES: list[tuple[int, ...]] = [(3, 4), (1,), (7,), (2, 3, 5), (40,), (), (9,)]


@pytest.mark.parametrize("group", [1, 10, 45, 2**16])
@pytest.mark.parametrize("block", [1, 9, 2**16])
def test_sums_do_not_depend_on_groups_and_blocks(group: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors alone, in mixed groups, and all in one; large ones whole and in pieces."""
    monkeypatch.setattr(moments, "GROUP_ELEMENTS", group)
    monkeypatch.setattr(moments, "CPU_BLOCK", block)
    parameters = parameters_with_gradients(SHAPES)
    observation = GradientReader(parameters).read()
    np.testing.assert_allclose(np.asarray(observation.sums), sums_by_hand(parameters), rtol=1e-12)


def test_sums_of_an_accelerator_equal_those_of_a_cpu() -> None:
    """The reduction for accelerators runs on a CPU too."""
    sizes = [4, 1, 7]
    values = th.randn(12, dtype=th.float64, generator=th.Generator().manual_seed(1))
    offsets = np.cumsum([0, *sizes])
    on_device = moments._device_segment_sums(values.clone(), th.from_numpy(offsets))
    on_cpu = moments._cpu_segment_sums(values.clone(), offsets[:-1])
    np.testing.assert_allclose(on_device.numpy(), on_cpu, rtol=1e-14)


@pytest.mark.parametrize("dtype", [th.float16, th.bfloat16, th.float32, th.float64])
@pytest.mark.parametrize("shapes", [[(300,)], [(300,), (2, 2)]])
def test_reading_leaves_gradients_alone(dtype: th.dtype, shapes: list[tuple[int, ...]]) -> None:
    parameters = parameters_with_gradients(shapes, dtype)
    before = [p.grad.clone() for p in parameters]
    observation = GradientReader(parameters).read()
    assert all(th.equal(b, p.grad) for b, p in zip(before, parameters, strict=True))
    np.testing.assert_allclose(np.asarray(observation.sums), sums_by_hand(parameters), rtol=1e-12)


def test_changing_sets_of_gradients() -> None:
    """The plan of one step must not leak into the next."""
    parameters = parameters_with_gradients([(3,), (4,), (5,), (0,)])
    gradients = [p.grad for p in parameters]
    reader = GradientReader(parameters)
    for present in ([0, 1, 2], [1], [0, 2], [], [0, 1, 2], [1, 2]):
        for index, parameter in enumerate(parameters):
            parameter.grad = gradients[index] if index in present or index == 3 else None
        observation = reader.read()
        assert observation.n_gradients == len(present)
        assert observation.finite.tolist() == [index in present for index in range(4)]
        np.testing.assert_allclose(
            np.asarray(observation.sums)[:, present], sums_by_hand([parameters[i] for i in present]).reshape(4, -1)
        )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_bad_element_marks_its_tensor_only(bad: float) -> None:
    parameters = parameters_with_gradients([(3,), (4,), (5,)])
    parameters[1].grad[2] = bad
    observation = GradientReader(parameters).read()
    assert observation.finite.tolist() == [True, False, True]
    np.testing.assert_allclose(np.asarray(observation.sums)[:, ::2], sums_by_hand([parameters[0], parameters[2]]))


def test_opposite_infinities_do_not_cancel() -> None:
    parameters = parameters_with_gradients([(4,)])
    parameters[0].grad[:2] = th.tensor([float("inf"), -float("inf")])
    assert GradientReader(parameters).read().finite.tolist() == [False]


def test_gradients_that_are_not_contiguous() -> None:
    parameter = th.nn.Parameter(th.zeros(4, 3))
    parameter.grad = th.arange(12.0).reshape(3, 4).t()
    assert GradientReader([parameter]).read().mean().tolist() == [5.5]


@pytest.mark.parametrize("group", [1, 45, 2**16])
def test_gradients_in_one_buffer_are_read_as_one(group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "GROUP_ELEMENTS", group)
    parameters = parameters_with_gradients([*SHAPES, (0,)])
    flat = th.cat([p.grad.flatten() for p in parameters])
    expected, actual = GradientReader(parameters).read(), GradientReader(parameters).read(flat)
    np.testing.assert_array_equal(actual.sums, expected.sums)
    assert actual.n_gradients == expected.n_gradients == len(SHAPES)
