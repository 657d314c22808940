"""The effective rank of matrices whose singular values are known."""

from __future__ import annotations

import pytest
import torch as th

from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.plasticity import effective_rank


def matrix(values: list[float], n_states: int = 9) -> th.Tensor:
    """:return: features with these singular values, shape (n_states, len(values))"""
    generator = th.Generator().manual_seed(0)
    left = th.linalg.qr(th.randn(n_states, n_states, generator=generator))[0]
    right = th.linalg.qr(th.randn(len(values), len(values), generator=generator))[0]
    return left[:, : len(values)] @ th.diag(th.tensor(values)) @ right


@pytest.mark.parametrize(
    ("values", "delta", "expected"),
    [
        ([6.0, 3.0, 1.0], 0.05, 3),  # 9 of 10; of their squares it would be 45 of 46
        ([6.0, 3.0, 1.0], 0.15, 2),
        ([6.0, 3.0, 1.0], 0.45, 1),
        ([1.0, 1.0, 1.0, 0.02], 0.01, 3),  # 3 of 3.02
        ([1.0, 1.0, 1.0, 0.04], 0.01, 4),
    ],
)
def test_known_singular_values(values: list[float], delta: float, expected: int) -> None:
    features = matrix(values)
    assert effective_rank(features, delta) == expected
    assert effective_rank(1e-6 * features, delta) == expected
    assert effective_rank(features.T, delta) == expected


def test_the_default_delta_is_that_of_the_paper() -> None:
    assert effective_rank(matrix([1.0, 1.0, 0.03])) == 3
    assert effective_rank(matrix([1.0, 1.0, 0.01])) == 2


def test_exactly_one_minus_delta_is_enough() -> None:
    assert effective_rank(th.eye(4), delta=0.25) == 3


def test_features_are_not_centred() -> None:
    """A column that is the same in all states, and one that is not: centred, one direction is left."""
    assert effective_rank(th.tensor([[1.0, 1.0], [1.0, -1.0], [1.0, 1.0], [1.0, -1.0]])) == 2


@pytest.mark.parametrize("dtype", [th.float64, th.bfloat16])
def test_every_dtype(dtype: th.dtype) -> None:
    assert effective_rank(th.eye(3, dtype=dtype)) == 3


def test_features_that_are_zero_have_rank_zero() -> None:
    assert effective_rank(th.zeros(5, 3)) == 0


@pytest.mark.parametrize("delta", [-0.1, 1.0])
def test_a_delta_that_leaves_nothing_is_refused(delta: float) -> None:
    with pytest.raises(UserInputError, match=rf"delta {delta} is not in \[0, 1\)"):
        effective_rank(th.eye(2), delta)
