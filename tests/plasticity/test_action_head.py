"""How certain a policy is, from outputs whose probabilities are written down."""

from __future__ import annotations

import pytest
import torch as th

from sb3_vgs_ppo.plasticity import near_certain_fraction, out_of_bounds_fraction, output_norm


def logits(*probabilities: list[float]) -> th.Tensor:
    """Shifted, so that a sigmoid or the logits as they are would not do."""
    return th.tensor(probabilities).log() + 3.0


def test_near_certain_choices() -> None:
    of_three = logits([0.995, 0.004, 0.001], [0.005, 0.991, 0.004], [0.985, 0.010, 0.005], [0.4, 0.3, 0.3])
    assert near_certain_fraction([of_three]) == 0.5
    assert near_certain_fraction([of_three], threshold=0.98) == 0.75


def test_choices_of_several_kinds_count_one_by_one() -> None:
    first = logits([0.999, 0.001], [0.5, 0.5])
    pairs = th.stack([logits([0.5, 0.5], [0.999, 0.001]), logits([0.001, 0.999], [0.6, 0.4])])  # two each
    assert near_certain_fraction([first, pairs]) == 3 / 6


def test_the_norm_is_the_mean_over_states() -> None:
    assert output_norm(th.tensor([[3.0, 4.0], [0.0, 0.0], [-5.0, 12.0]])) == pytest.approx((5 + 0 + 13) / 3)


def test_means_outside_their_own_bounds() -> None:
    means = th.tensor([[0.0, 2.0], [-1.5, 1.0], [1.0, -2.5], [0.5, -2.0]])  # bounds themselves are inside
    low, high = th.tensor([-1.0, -2.0]), th.tensor([1.0, 1.5])
    assert out_of_bounds_fraction(means, low, high) == 3 / 8
