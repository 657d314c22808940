"""Critics that predict the distribution of returns: value heads, their losses and their supports."""

from __future__ import annotations

from sb3_vgs_ppo.distributional.calibration import (
    LEVELS,
    Coverage,
    RealisedReturns,
    coverage_table,
    discounted_returns,
)
from sb3_vgs_ppo.distributional.heads import CategoricalHead, QuantileHead, ScalarHead, ValueHead, make_value_head
from sb3_vgs_ppo.distributional.lambda_mixture import N_ATOMS, lambda_mixtures, slice_means
from sb3_vgs_ppo.distributional.quantile import quantile_crossing, quantile_huber_loss, quantile_midpoints
from sb3_vgs_ppo.distributional.rollout import rollout_distributions
from sb3_vgs_ppo.distributional.support import LinearSupport, Support, SymexpSupport, hl_gauss, make_support, two_hot
from sb3_vgs_ppo.distributional.value_distribution import Prediction, ValueDistribution

__all__ = [
    "LEVELS",
    "N_ATOMS",
    "CategoricalHead",
    "Coverage",
    "LinearSupport",
    "Prediction",
    "QuantileHead",
    "RealisedReturns",
    "ScalarHead",
    "Support",
    "SymexpSupport",
    "ValueDistribution",
    "ValueHead",
    "coverage_table",
    "discounted_returns",
    "hl_gauss",
    "lambda_mixtures",
    "make_support",
    "make_value_head",
    "quantile_crossing",
    "quantile_huber_loss",
    "quantile_midpoints",
    "rollout_distributions",
    "slice_means",
    "two_hot",
]
