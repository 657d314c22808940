"""Statistics of P gradients that lie in one vector, in one pass each; import it through :mod:`sb3_vgs_ppo._numba`.

What each of them computes is defined elsewhere, array by array: in :mod:`.moments` and :mod:`.quantiles` and in the
measures. NumPy's call on a dozen numbers takes longer than their arithmetic, which is why there are such loops.

Arrays of P numbers are float64. ``bounds`` says where each tensor's elements begin and the last one's end, shape
(P + 1,).
"""

from __future__ import annotations

import math

import numpy as np

from sb3_vgs_ppo._numba import compiled

_WITHOUT_SIGN = np.int32(0x7FFFFFFF)


@compiled(reorders=True)
def segment_sums(values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """:return: Σg, Σ|g|, Σg² and max|g| of each segment of float32 values, shape (4, P)"""
    sums = np.empty((4, bounds.size - 1))
    largest = np.empty(bounds.size - 1, np.int32)
    for i in range(bounds.size - 1):
        segment = values[bounds[i] : bounds[i + 1]]
        total = magnitude = square = 0.0
        for j in range(segment.size):
            value = np.float64(segment[j])
            total += value
            magnitude += abs(value)
            square += value * value
        sums[0, i], sums[1, i], sums[2, i] = total, magnitude, square
        # Bits of a float32 without its sign are ordered as |g| is, NaN above everything; a CPU compares eight at once,
        # if Numba does not widen what the operator & returns to 64 bits
        bits = segment.view(np.int32)
        maximum = np.int32(0)
        for j in range(bits.size):
            magnitude_bits = np.int32(bits[j] & _WITHOUT_SIGN)
            maximum = magnitude_bits if magnitude_bits > maximum else maximum
        largest[i] = maximum
    sums[3] = largest.view(np.float32)
    return sums


@compiled()
def weighted_sum_of_ascending(values: np.ndarray, weights: np.ndarray) -> float:
    """:return: sum of weighted values in ascending order, those that are not finite as 0"""
    ordered = np.empty(values.size)
    for i in range(values.size):
        ordered[i] = values[i] if values[i] < math.inf else 0.0
    ordered.sort()
    total = 0.0
    for i in range(values.size):
        total += weights[i] * ordered[i]
    return total


@compiled()
def scale_by_quantile(
    values: np.ndarray, variances: np.ndarray, weights: np.ndarray, strength: float, smallest: float
) -> float:
    """
    Multiply all float32 values by one factor.

    :param variances: normalized variances of the tensors, shape (P,), or (1,)
    :param weights: of the ascending ones in their quantile, in the same shape
    :param strength: by which that is multiplied
    :param smallest: lower bound of the factor
    :return: the factor
    """
    factor: float = max(1.0 / (1.0 + strength * weighted_sum_of_ascending(variances, weights)), smallest)
    for j in range(values.size):
        values[j] *= np.float32(factor)
    return factor


@compiled()
def scale_by_tensor(
    values: np.ndarray, bounds: np.ndarray, sums: np.ndarray, variances: np.ndarray, strength: float, smallest: float
) -> tuple[float, float]:
    """
    Multiply each segment of float32 values by the factor of its tensor.

    :param sums: of the values, as :func:`segment_sums` returns them
    :param variances: normalized variances of the tensors, shape (P,); one that is not finite counts as 0
    :return: mean factor of all elements, and norm of the finite segments afterwards over that before
    """
    total_factor = scaled = total = 0.0
    for i in range(variances.size):
        segment = values[bounds[i] : bounds[i + 1]]
        factor = max(1.0 / (1.0 + strength * variances[i]), smallest) if variances[i] < math.inf else 1.0
        total_factor += factor * segment.size
        for j in range(segment.size):
            segment[j] *= np.float32(factor)
        if sums[2, i] < math.inf:
            scaled += factor * factor * sums[2, i]
            total += sums[2, i]
    return total_factor / max(values.size, 1), math.sqrt(scaled / max(total, 1e-300))


@compiled()
def enter_global_figures(
    sums: np.ndarray, numel: np.ndarray, averages: np.ndarray, started: np.ndarray, beta: float
) -> None:
    """Let one gradient enter the four averages of :class:`~.elements_spatial.ElementsSpatial`."""
    count = total = square = largest = 0.0
    for i in range(numel.size):
        if sums[2, i] < math.inf:
            count += numel[i]
            total += sums[1, i]
            square += sums[2, i]
            largest = max(largest, sums[3, i])
    if count > 0.0:
        mean = total / count
        variance = max(square - total * mean, 0.0) / max(count - 1.0, 1.0)
        figures = (mean, variance, math.sqrt(square), largest)
        for row in range(4):
            averages[row] += (1.0 - beta * started[row]) * (figures[row] - averages[row])
            started[row] = 1.0


@compiled()
def enter_all_global_figures(
    sums: np.ndarray, numel: np.ndarray, averages: np.ndarray, started: np.ndarray, beta: float
) -> None:
    """Let K gradients enter them, in their order; sums have the shape (K, 4, P)."""
    for k in range(len(sums)):
        enter_global_figures(sums[k], numel, averages, started, beta)


@compiled()
def advance_global_figures(
    sums: np.ndarray,
    numel: np.ndarray,
    averages: np.ndarray,
    started: np.ndarray,
    beta: float,
    eps: float,
    correction: float,
) -> np.ndarray:
    """Let one gradient enter them. :return: normalized variance, shape (1,)"""
    enter_global_figures(sums, numel, averages, started, beta)
    mean, variance = averages[0] / (started[0] * correction), averages[1] / (started[1] * correction)
    return np.full(1, variance / (max(mean * mean, 1e-12) + eps))


@compiled()
def advance_spatial(
    sums: np.ndarray, numel: np.ndarray, averages: np.ndarray, beta: float, eps: float, correction: float
) -> np.ndarray:
    """Update the averages of :class:`~.tensor_spatial.TensorSpatial`. :return: normalized variances, shape (P,)"""
    readings = np.empty(numel.size)
    for i in range(numel.size):
        if sums[2, i] < math.inf:
            mean = sums[0, i] / numel[i]
            variance = max(sums[2, i] / numel[i] - mean * mean, 0.0)
            step_size = 1.0 - beta * averages[2, i]
            averages[0, i] += step_size * (sums[1, i] / numel[i] - averages[0, i])
            averages[1, i] += step_size * (variance - averages[1, i])
            averages[2, i] += step_size * (1.0 - averages[2, i])
        divisor = averages[2, i] * correction
        mean = averages[0, i] / divisor
        readings[i] = averages[1, i] / divisor / (max(mean * mean, 1e-12) + eps)
    return readings


@compiled()
def advance_temporal(
    sums: np.ndarray, numel: np.ndarray, averages: np.ndarray, beta: float, eps: float, mixed: bool
) -> np.ndarray:
    """Update the averages of :class:`~.tensor_temporal.TensorTemporal`, or of its subclass, "mixed".

    :return: normalized variances, shape (P,)
    """
    readings = np.empty(numel.size)
    for i in range(numel.size):
        if sums[2, i] < math.inf:
            mean = sums[0, i] / numel[i]
            second = sums[2, i] / numel[i] if mixed else mean * mean
            averages[0, i] += (1.0 - beta) * (mean - averages[0, i])
            averages[1, i] += (1.0 - beta) * (second - averages[1, i])
            averages[2, i] += (1.0 - beta) * (1.0 - averages[2, i])
        mean = averages[0, i] / averages[2, i]
        squared_mean = mean * mean
        variance = max(averages[1, i] / averages[2, i] - squared_mean, 0.0)
        readings[i] = variance / (max(squared_mean, 1e-12) + eps)
    return readings


@compiled(reorders=True)
def advance_elements(
    gradient: np.ndarray,
    bounds: np.ndarray,
    sums: np.ndarray,
    limit: float,
    weight: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    beta: float,
) -> None:
    """
    Update mean and variance of each element, float32, and the sums of their weights, as
    :class:`~.elements_temporal.ElementsTemporal` does.

    :param sums: of the gradient, as :func:`segment_sums` returns them
    :param limit: a tensor with a larger element is not observed
    """
    first = 1.0 - beta
    for i in range(weight.size):
        if sums[2, i] < math.inf and sums[3, i] < limit:
            elements = slice(bounds[i], bounds[i + 1])
            g, m, v = gradient[elements], mean[elements], variance[elements]
            weight[i] += first * (1.0 - weight[i])
            step_size = np.float32(first / weight[i])
            kept = np.float32(1.0) - step_size
            for j in range(g.size):
                change = g[j] - m[j]
                moved = step_size * change
                m[j] += moved
                v[j] = (v[j] + moved * change) * kept


@compiled(reorders=True)
def read_elements(
    bounds: np.ndarray, weight: np.ndarray, mean: np.ndarray, variance: np.ndarray, beta: float, eps: float
) -> np.ndarray:
    """
    Read what :func:`advance_elements` keeps. A function of its own, since a loaded state has to be read in the order of
    additions in which it was read before it was saved.

    :return: normalized variances of the tensors, shape (P,)
    """
    first = 1.0 - beta
    readings = np.empty(weight.size)
    for i in range(weight.size):
        elements = slice(bounds[i], bounds[i + 1])
        m, v = mean[elements], variance[elements]
        total = square = 0.0
        for j in range(m.size):
            total += np.float64(v[j])
            square += np.float64(m[j]) * np.float64(m[j])
        w = weight[i]
        noise = total * ((1.0 + beta) * w / (2.0 * (w - first)) if w > first else math.nan)
        bias = first * (2.0 - w) / ((1.0 + beta) * w)
        readings[i] = 0.0 if noise == 0.0 else noise / (max(square - bias * noise, 0.0) + eps * noise)
    return readings


@compiled()
def metric_sums(
    sums: np.ndarray, factors: np.ndarray, norm_ratios: np.ndarray, variances: np.ndarray, q: np.ndarray
) -> np.ndarray:
    """
    Add up figures of K steps, as :class:`~.metrics.MetricWindow` does.

    :param sums: of each step, shape (K, 4, P)
    :param factors: shape (K,)
    :param norm_ratios: shape (K,)
    :param variances: NaN where nothing was observed, shape (K, P) or (K, 1)
    :param q: quantiles in [0, 1], ascending, shape (Q,)
    :return: sums of the factors, of the last quantile, of every quantile, of the norms of the finite gradients before
        and after scaling, shape (Q + 4,)
    """
    figures = np.zeros(q.size + 4)
    size = variances.shape[1]
    for k in range(len(sums)):
        ordered = np.zeros(size)
        n_observed = 0
        for i in range(size):
            n_observed += not math.isnan(variances[k, i])
            ordered[i] = variances[k, i] if variances[k, i] < math.inf else 0.0
        ordered.sort()
        for i in range(q.size):
            rank = size - n_observed + q[i] * (n_observed - 1)
            below = int(rank)
            above = min(below + 1, size - 1)
            if n_observed:
                figures[2 + i] += ordered[below] + (rank - below) * (ordered[above] - ordered[below])
        square = 0.0
        for i in range(sums.shape[2]):
            if sums[k, 2, i] < math.inf:
                square += sums[k, 2, i]
        figures[0] += factors[k]
        figures[q.size + 2] += math.sqrt(square)
        figures[q.size + 3] += math.sqrt(square) * norm_ratios[k]
    figures[1] = figures[q.size + 1]
    return figures
