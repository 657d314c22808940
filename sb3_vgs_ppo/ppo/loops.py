"""The policy's terms of the loss with their gradients, in one pass each; import it through :mod:`sb3_vgs_ppo._numba`.

``policy_terms.py`` defines them, operation by operation. ``B`` is the size of the minibatch. Arrays are float32, sums
float64.
"""

from __future__ import annotations

import math

import numpy as np

from sb3_vgs_ppo._numba import compiled

_LOG_SQRT_2PI = math.log(math.sqrt(2 * math.pi))


@compiled()
def _scale_of(advantages: np.ndarray, normalize: bool) -> tuple[float, float]:
    """:return: what is subtracted from the advantages, and by what they are divided then"""
    n = advantages.size
    if not normalize or n == 1:
        return 0.0, 1.0
    mean = square = 0.0
    for i in range(n):
        mean += advantages[i] / n
    for i in range(n):
        square += (advantages[i] - mean) ** 2
    return mean, math.sqrt(square / (n - 1)) + 1e-8


@compiled()
def _surrogate(log_ratio: float, advantage: float, clip_range: float) -> tuple[float, float]:
    """:return: clipped objective of a sample, and its gradient with respect to ``log_ratio``"""
    ratio = math.exp(log_ratio)
    unclipped = advantage * ratio
    clipped = advantage * min(max(ratio, 1.0 - clip_range), 1.0 + clip_range)
    return (clipped, 0.0) if unclipped > clipped else (unclipped, unclipped)


@compiled()
def gaussian_terms(
    means: np.ndarray,
    log_std: np.ndarray,
    actions: np.ndarray,
    old_log_prob: np.ndarray,
    advantages: np.ndarray,
    normalize: bool,
    clip_range: float,
    ent_coef: float,
    log_ratio: np.ndarray,
    of_means: np.ndarray,
    of_log_std: np.ndarray,
) -> tuple[float, float]:
    """
    :param means: outputs of the actor, shape (B, k), as ``actions`` and ``of_means``
    :param log_std: shape (k,), as ``of_log_std``
    :param old_log_prob: shape (B,), as ``advantages`` and ``log_ratio``
    :return: loss and mean negative entropy; log-ratios and gradients are written to the last arrays
    """
    n, k = means.shape
    inverse_variance, of_deviation = np.empty(k), np.zeros(k)
    entropy = constant = 0.0
    for j in range(k):
        inverse_variance[j] = math.exp(-2.0 * log_std[j])
        constant += log_std[j] + _LOG_SQRT_2PI
        entropy += log_std[j] + 0.5 + _LOG_SQRT_2PI
    mean, deviation = _scale_of(advantages, normalize)
    loss = 0.0
    for i in range(n):
        log_prob = -constant
        for j in range(k):
            error = np.float64(actions[i, j]) - means[i, j]
            log_prob -= 0.5 * error * error * inverse_variance[j]
        log_ratio[i] = log_prob - old_log_prob[i]
        objective, gradient = _surrogate(log_ratio[i], (advantages[i] - mean) / deviation, clip_range)
        loss -= objective / n
        for j in range(k):
            error = np.float64(actions[i, j]) - means[i, j]
            scaled = error * inverse_variance[j]
            of_means[i, j] = -gradient / n * scaled
            of_deviation[j] -= gradient / n * (error * scaled - 1.0)
    for j in range(k):
        of_log_std[j] = of_deviation[j] - ent_coef
    return loss, -entropy


@compiled()
def categorical_terms(
    logits: np.ndarray,
    actions: np.ndarray,
    old_log_prob: np.ndarray,
    advantages: np.ndarray,
    normalize: bool,
    clip_range: float,
    ent_coef: float,
    log_ratio: np.ndarray,
    of_logits: np.ndarray,
) -> tuple[float, float]:
    """
    :param logits: outputs of the actor, shape (B, k), as ``of_logits``
    :param actions: shape (B, 1), of any dtype
    :param old_log_prob: shape (B,), as ``advantages`` and ``log_ratio``
    :return: loss and mean negative entropy; log-ratios and gradients are written to the last arrays
    """
    n, k = logits.shape
    log_probabilities, probabilities = np.empty(k), np.empty(k)
    mean, deviation = _scale_of(advantages, normalize)
    loss = negative_entropy = 0.0
    for i in range(n):
        largest, total, of_sample = logits[i, 0], 0.0, 0.0
        for j in range(k):
            largest = max(largest, logits[i, j])
        for j in range(k):
            total += math.exp(logits[i, j] - largest)
        log_total = math.log(total) + largest
        for j in range(k):
            log_probabilities[j] = logits[i, j] - log_total
            probabilities[j] = math.exp(log_probabilities[j])
            if probabilities[j] != 0.0:  # also if it is NaN
                of_sample += probabilities[j] * log_probabilities[j]
        action = int(actions[i, 0])
        log_ratio[i] = log_probabilities[action] - old_log_prob[i]
        objective, gradient = _surrogate(log_ratio[i], (advantages[i] - mean) / deviation, clip_range)
        loss -= objective / n
        negative_entropy += of_sample / n
        for j in range(k):
            chosen = 1.0 if j == action else 0.0
            of_logits[i, j] = -gradient / n * (chosen - probabilities[j])
            if ent_coef != 0.0 and probabilities[j] != 0.0:
                of_logits[i, j] += ent_coef / n * probabilities[j] * (log_probabilities[j] - of_sample)
    return loss, negative_entropy
