from __future__ import annotations

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_vgs_ppo.scaling.quantiles import observed_quantiles

Q = th.tensor([0.0, 0.1, 0.5, 0.9, 1.0], dtype=th.float64)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e12), min_size=1, max_size=40), st.integers(0, 10), st.randoms())
def test_linear_interpolation_as_in_numpy(values: list[float], n_unobserved: int, random: st.DataObject) -> None:
    padded = values + [float("nan")] * n_unobserved
    random.shuffle(padded)  # type: ignore[attr-defined]
    quantiles = observed_quantiles(th.tensor(padded, dtype=th.float64), Q)
    assert quantiles.numpy() == pytest.approx(np.quantile(values, Q.numpy()), rel=1e-9, abs=1e-12)


def test_rows_of_a_batch_have_their_own_counts() -> None:
    nan = float("nan")
    rows = th.tensor([[3.0, nan, 1.0], [nan, nan, 7.0], [nan, nan, nan]], dtype=th.float64)
    assert observed_quantiles(rows, Q[2:3]).tolist() == [[2.0], [7.0], [0.0]]


def test_what_overflowed_counts_as_zero() -> None:
    assert observed_quantiles(th.tensor([float("inf")], dtype=th.float64), Q).tolist() == [0.0] * 5
