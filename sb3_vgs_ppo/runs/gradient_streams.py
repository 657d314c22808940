"""Recorded gradients whose variance over time is known: those of the two reports that corrected VGS, and real ones.

A gradient that never changes has none, however much its elements differ; a gradient whose elements are all equal has
as much as it changes. These two are what the legacy versions of the scaler read the wrong way round.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch as th

Change: TypeAlias = Literal["none", "shared", "independent"]
"""How a stream changes over time: not at all, all elements of a tensor together, or each element on its own."""

BETA = 0.99
EPS = 1e-8


@dataclass(frozen=True)
class GradientStream:
    """
    Recorded gradients of one or more tensors.

    :param name: short name, unique among the streams
    :param change: how the elements change over time
    :param gradients: one float32 array of shape (n_observations, n_elements) per tensor
    :param beta: decay of the scaler that reads the stream
    """

    name: str
    change: Change
    gradients: tuple[npt.NDArray[np.float32], ...]
    beta: float = BETA


def gradient_streams(n_observations: int = 400, seed: int = 0) -> tuple[GradientStream, ...]:
    """
    The streams of the reports.

    Tensors have 100 elements, as in the reports; noise that is independent per element has 1000, because the mean over
    N elements shrinks it N-fold and that is what hides it from version 3.0.

    :param n_observations: gradients per stream; the report's Test Case 3 keeps its own 30 (and its β of 0.9)
    :param seed: of the noise
    :return: the streams, those that do not change first
    """
    rng = np.random.default_rng(seed)
    ones = np.ones((n_observations, 100))
    noise = 1.0 + 2.0 * rng.standard_normal((n_observations, 1))

    def stream(name: str, change: Change, gradients: npt.NDArray[np.float64], beta: float = BETA) -> GradientStream:
        return GradientStream(name, change, (gradients.astype(np.float32),), beta)

    return (
        stream("uniform constant 1", "none", ones),
        stream("constant linspace(-1, 1)", "none", ones * np.linspace(-1.0, 1.0, 100)),
        stream("constant linspace(0, 1)", "none", ones * np.linspace(0.0, 1.0, 100)),
        stream("constant x 1000", "none", ones * np.linspace(0.0, 1000.0, 100)),
        stream("Test Case 3 (30 obs.)", "none", np.tile(np.linspace(-1.0, 1.0, 100), (30, 1)), beta=0.9),
        stream("uniform 1 + 2 N(0, 1)", "shared", ones * noise),
        stream("uniform noisy x 1000", "shared", ones * noise * 1e3),
        stream("uniform noisy x 0.001", "shared", ones * noise * 1e-3),
        stream("N(0.1, 1) per element", "independent", 0.1 + rng.standard_normal((n_observations, 1000))),
    )


def ppo_stream(n_observations: int, seed: int) -> GradientStream:
    """
    The raw gradients of the first updates of SB3's PPO on CartPole-v1, unclipped.

    :param n_observations: number of updates
    :param seed: of agent and environment
    """
    from stable_baselines3 import PPO

    updates: list[list[npt.NDArray[np.float32]]] = []

    def record(optimizer: th.optim.Optimizer, *_: Any) -> None:
        updates.append([p.grad.flatten().numpy().copy() for p in optimizer.param_groups[0]["params"]])

    with _global_generators_restored():
        agent = PPO("MlpPolicy", "CartPole-v1", n_steps=128, max_grad_norm=math.inf, seed=seed, device="cpu")
        agent.policy.optimizer.register_step_pre_hook(record)
        updates_per_rollout = agent.n_epochs * agent.n_steps // agent.batch_size
        agent.learn(agent.n_steps * math.ceil(n_observations / updates_per_rollout))
    gradients = tuple(np.stack(tensor[:n_observations]) for tensor in zip(*updates, strict=True))
    return GradientStream("PPO on CartPole-v1", "independent", gradients)


@contextmanager
def _global_generators_restored() -> Iterator[None]:
    """Undo the seeding of Python's, NumPy's and torch's global generators, which an SB3 agent with a seed does."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - those that SB3 seeds
    try:
        with th.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


def true_normalized_variance(stream: GradientStream) -> float:
    """
    Variance over time of a tensor's elements, averaged over them, relative to the square of the tensor's mean.

    Observation t of n weighs β^(n − t), as in a bias-corrected EMA. It is a mean square deviation in float64, so that
    nothing cancels. Over several tensors: their 0.9-quantile, as the scaler takes it.
    """
    per_tensor = []
    for gradients in stream.gradients:
        mean, variance, _ = _moments(gradients, stream.beta)
        per_tensor.append(variance.mean() / (max(mean.mean() ** 2, 1e-12) + EPS))
    return float(np.quantile(per_tensor, 0.9))


def true_noise_scale(stream: GradientStream) -> float:
    """
    Σσ² / Σμ² over a tensor's elements: their variance over time relative to the squares of their own means.

    Weights and quantile as in :func:`true_normalized_variance`, but both sums are unbiased: a mean over time is noisy
    too. McCandlish et al. (2018, arXiv:1812.06162) call this the simple noise scale.
    """
    per_tensor = []
    for gradients in stream.gradients:
        mean, variance, rho = _moments(gradients, stream.beta)
        noise = variance.sum() / (1.0 - rho)
        signal = max(np.square(mean).sum() - rho * noise, 0.0)
        per_tensor.append(noise / (signal + EPS * noise) if noise else 0.0)
    return float(np.quantile(per_tensor, 0.9))


def _moments(
    gradients: npt.NDArray[np.float32], beta: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]:
    """:return: weighted mean and variance of each element over time, and the sum of the squared weights"""
    observed = gradients.astype(np.float64)
    weights = beta ** np.arange(len(observed))[::-1]
    weights /= weights.sum()
    # Relative to the last observation, so that a constant has no variance at all, not one of rounding errors.
    change = observed - observed[-1]
    mean_change = weights @ change
    return observed[-1] + mean_change, weights @ (change - mean_change) ** 2, float(weights @ weights)
