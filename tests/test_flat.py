"""Tensors in one buffer: when they are seen as one, and that nothing else is."""

from __future__ import annotations

import copy

import pytest
import torch as th

from sb3_vgs_ppo._flat import flat_view, pack, pack_parameters, split_like


def parameters() -> list[th.nn.Parameter]:
    return [th.nn.Parameter(th.full(shape, value)) for shape, value in [((2, 3), 1.0), ((), 2.0), ((4,), 3.0)]]


def test_packed_parameters_are_one_tensor_with_the_same_values() -> None:
    tensors = parameters()
    before = [tensor.detach().clone() for tensor in tensors]
    assert flat_view(tensors) is None
    pack_parameters(tensors)
    flat = flat_view(tensors)
    assert flat is not None
    assert flat.tolist() == [1.0] * 6 + [2.0] + [3.0] * 4
    assert all(th.equal(tensor, value) for tensor, value in zip(tensors, before, strict=True))
    flat.mul_(2.0)
    assert [tensor.sum().item() for tensor in tensors] == [12.0, 4.0, 24.0]


def test_packing_twice_moves_nothing() -> None:
    tensors = parameters()
    pack_parameters(tensors)
    addresses = [tensor.data_ptr() for tensor in tensors]
    pack_parameters(tensors)
    assert [tensor.data_ptr() for tensor in tensors] == addresses


@pytest.mark.parametrize(
    "tensors",
    [
        pytest.param(lambda flat: [flat[4:], flat[:4]], id="another order"),
        pytest.param(lambda flat: [flat[:4], flat[5:]], id="a gap"),
        pytest.param(lambda flat: [flat[:4], flat[4:].clone()], id="another buffer"),
        pytest.param(lambda flat: [flat[:8].view(2, 4).t(), flat[8:]], id="transposed"),
        pytest.param(lambda flat: [flat[:4], flat[4:].view(th.int32)], id="another dtype"),
        pytest.param(lambda flat: [flat[:4].to("meta")], id="no memory"),
    ],
)
def test_what_does_not_lie_back_to_back_is_not_one_tensor(tensors: object) -> None:
    assert flat_view(tensors(th.zeros(12))) is None  # type: ignore[operator]


def test_neighbours_by_chance_are_not_one_tensor() -> None:
    """The second begins where the first one's buffer ends, as blocks of an allocator can."""
    memory = th.zeros(8).numpy()
    first, second = th.from_numpy(memory[:4]), th.from_numpy(memory[4:])
    assert second.data_ptr() == first.data_ptr() + first.nbytes
    assert flat_view([first, second]) is None


def test_copies_are_noticed() -> None:
    tensors = parameters()
    pack_parameters(tensors)
    assert flat_view(copy.deepcopy(tensors)) is None
    tensors[1].data = tensors[1].data.clone()
    assert flat_view(tensors) is None


def test_pack_and_split_keep_shapes() -> None:
    tensors = parameters()
    packed = pack(tensors)
    assert [tensor.shape for tensor in packed] == [tensor.shape for tensor in tensors]
    flat = flat_view(packed)
    assert flat is not None
    assert all(th.equal(a, b) for a, b in zip(split_like(flat, tensors), tensors, strict=True))


def test_parameters_that_differ_in_kind_stay_where_they_are() -> None:
    tensors = [th.nn.Parameter(th.ones(2)), th.nn.Parameter(th.ones(2, dtype=th.float64))]
    addresses = [tensor.data_ptr() for tensor in tensors]
    pack_parameters(tensors)
    assert [(tensor.data_ptr(), tensor.dtype) for tensor in tensors] == [
        (addresses[0], th.float32),
        (addresses[1], th.float64),
    ]
