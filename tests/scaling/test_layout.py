"""Numbers per tensor and per element, where some tensors have no elements."""

from __future__ import annotations

import copy
import pickle
from typing import Literal

import numpy as np
import pytest
import torch as th

from sb3_vgs_ppo.scaling.layout import Layout


def layout(*sizes: int, dtype: th.dtype = th.float32) -> Layout:
    return Layout.of([th.zeros(size, dtype=dtype) for size in sizes])


@pytest.mark.parametrize(("power", "expected"), [(1, [0.0, 6.0, 0.0, 9.0, 0.0]), (2, [0.0, 14.0, 0.0, 41.0, 0.0])])
def test_sums_of_tensors_without_elements_are_zero(power: Literal[1, 2], expected: list[float]) -> None:
    values = th.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    sums = layout(0, 3, 0, 2, 0).sum_powers(values, power)
    assert sums.tolist() == expected
    assert values.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize("dtype", [th.float32, th.float64])
def test_sums_have_the_digits_of_float64(dtype: th.dtype) -> None:
    """In float32 both would lose the small element, and the square would be infinite."""
    sums = layout(2, dtype=dtype)
    values = th.tensor([1e20, 1.0], dtype=dtype)
    assert sums.sum_powers(values, 2)[0] == np.float64(values[0]) ** 2
    assert sums.sum_powers(th.tensor([2.0**25, 1.0], dtype=dtype), 1)[0] == 2.0**25 + 1.0


def test_nothing_but_empty_tensors() -> None:
    assert layout(0, 0).sum_powers(th.zeros(0), 2).tolist() == [0.0, 0.0]


def test_every_element_gets_the_number_of_its_tensor() -> None:
    assert layout(2, 0, 1).spread(np.array([1.0, 2.0, 3.0])).tolist() == [1.0, 1.0, 3.0]  # type: ignore[union-attr]
    assert layout(2, 0, 1).spread(np.array([0.5, 0.5, 0.5])) == 0.5


def test_a_copy_is_the_same_layout() -> None:
    original = layout(2, 0, 1, dtype=th.float64)
    assert original.loops is layout(3).loops
    for copied in (copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
        assert copied == original
        assert copied.counts.tolist() == original.counts.tolist() == copied.numel.tolist() == [2.0, 0.0, 1.0]
        assert copied.loops is original.loops
