"""Values of NumPy as tensors and back, through the bytes of a checkpoint's member."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sb3_vgs_ppo.checkpoint import dump_tensors, load_tensors
from sb3_vgs_ppo.runs.plain_values import from_plain, to_plain

IMAGES = np.arange(2 * 5 * 4 * 3, dtype=np.uint8).reshape(2, 5, 4, 3)


def back(value: Any) -> Any:
    return from_plain(load_tensors(dump_tensors(to_plain(value)), "checkpoint.zip", "run_state.pt"))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "uint32", "uint64", "int64", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 2)])
def test_values_come_back_with_their_type(dtype: str, shape: tuple[int, ...]) -> None:
    value = np.full(shape, np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1, dtype)[()]
    returned = back({"one": [value], "other": (1.5, None, "text")})
    assert returned["other"] == (1.5, None, "text")
    assert type(returned["one"][0]) is type(value)
    assert returned["one"][0].dtype == dtype
    np.testing.assert_array_equal(returned["one"][0], value)


@pytest.mark.parametrize(
    "array",
    [
        IMAGES,
        IMAGES.transpose(0, 3, 1, 2),
        IMAGES[..., :1].copy().transpose(0, 3, 1, 2),  # one channel
        IMAGES[:1].copy().transpose(0, 3, 1, 2),  # one environment
        IMAGES.T,
        IMAGES.astype(np.uint16).swapaxes(0, 2),
    ],
)
def test_axes_keep_their_order_in_memory(array: np.ndarray) -> None:
    """Convolutions take another path where the channels are the last axis in memory, and round in another order."""
    returned = back(array)
    np.testing.assert_array_equal(returned, array)
    assert returned.strides == array.strides


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "array",
    [
        np.broadcast_to(np.arange(3), (2, 3)),  # read-only
        np.zeros(3, [("flag", "u1"), ("value", "f4")])["value"],  # every five bytes
        np.arange(3)[::-1],
    ],
)
def test_arrays_that_torch_would_not_take(array: np.ndarray) -> None:
    np.testing.assert_array_equal(back(array), array)


def test_a_change_of_what_came_back_does_not_reach_what_was_stored() -> None:
    stored = to_plain(np.zeros(3))
    from_plain(stored)[0] = 1.0
    assert from_plain(stored)[0] == 0.0
