"""Numbers and names as a reader sees them, the same in verdicts, tables, figures and on the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sb3_vgs_ppo.studies.results import Estimate

MISSING = "–"

MEASURES = {
    "final": "final return",
    "evaluation": "evaluation",
    "area": "mean return over the training",
    "late_phases": "return in the late phases",
}
"""Measures of a variant by field of :class:`~sb3_vgs_ppo.studies.results.VariantResult`."""

METRICS = {
    "return": "episode return",
    "vgs/scaling_factor": "scaling factor of the gradients",
    "vgs/normalized_variance": "normalized variance",
    "vgs/clip_fraction": "share of updates that were clipped",
    "vgs/update_ratio": "size of the update / parameters",
    "train/approx_kl": "KL divergence of old and new policy",
    "train/entropy_loss": "entropy loss",
    "train/value_loss": "value loss",
    "plasticity/action_saturation": "share of choices that are all but certain, or means out of bounds",
    "plasticity/logit_norm": "norm of the logits",
    "plasticity/mean_action_norm": "norm of the mean action",
    "plasticity/actor_effective_rank": "effective rank of the actor's features",
    "plasticity/critic_effective_rank": "effective rank of the critic's features",
    "plasticity/actor_dormant_fraction": "share of dormant units, actor",
    "plasticity/critic_dormant_fraction": "share of dormant units, critic",
    "plasticity/actor_tanh_saturation": "share of saturated tanh outputs, actor",
    "plasticity/critic_tanh_saturation": "share of saturated tanh outputs, critic",
    "plasticity/action_head_weight_norm": "norm of the weights, action head",
    "plasticity/value_head_weight_norm": "norm of the weights, value head",
    "plasticity/actor_weight_norm": "norm of the weights, actor without head",
    "plasticity/critic_weight_norm": "norm of the weights, critic without head",
    "plasticity/features_weight_norm": "norm of the weights, shared feature extractor",
    "plasticity/gate_saturation": "share of UPGD's gates near 0 or 1",
    "plasticity/gate_std": "spread of UPGD's gates",
}
"""Curves by logged name, in the order in which they are shown; others follow under their own name."""


def number(value: float | None) -> str:
    """:return: three significant digits, none after the point from 100 on; a dash for None, NaN and infinity"""
    if value is None or not math.isfinite(value):
        return MISSING
    style = ".2e" if abs(value) >= 1e7 else ",.0f" if abs(value) >= 99.95 else ".3g"
    return format(value, style).replace("-", "−")


def signed(value: float) -> str:
    """:return: the number with its sign, so that a difference cannot be read as a level"""
    text = number(value)
    return f"+{text}" if value > 0 and text != MISSING else text


def interval(estimate: Estimate, *, sign: bool = False) -> str:
    """:return: ``20 to 150``, or ``no interval`` where there is one seed"""
    if estimate.low is None or estimate.high is None:
        return "no interval"
    write = signed if sign else number
    return f"{write(estimate.low)} to {write(estimate.high)}"


def with_interval(estimate: Estimate | None) -> str:
    """:return: ``84 (20 to 150)``"""
    return MISSING if estimate is None else f"{number(estimate.value)} ({interval(estimate)})"


def p_value(value: float) -> str:
    """:return: one significant digit below 0.1, two above; ``< 0.001`` below that"""
    if value < 0.001:
        return "< 0.001"
    return f"{value:.1g}" if value < 0.0995 else f"{value:.2g}"


def duration(seconds: float | None) -> str:
    """:return: ``45 s``, ``12 min``, ``3.4 h``"""
    if seconds is None:
        return MISSING
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.1f} h"


def counted(count: int, noun: str) -> str:
    """:return: ``1 seed``, ``5 seeds``"""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def listed(words: Sequence[str]) -> str:
    """:return: ``a, b and c``"""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def metric_label(metric: str) -> str:
    """:return: what a logged value is, in words where we know it"""
    return METRICS.get(metric, metric)
