"""A predicted distribution of returns as its user sees it: mean, quantiles, tail, and where a return lies in it.

Both heads predict atoms with probabilities: the quantile head chooses the atoms and gives each the same probability
(Dabney et al. 2018), the categorical head the other way round. Sources: Rockafellar & Uryasev, "Optimization of
Conditional Value-at-Risk", Journal of Risk 2000, for the conditional value at risk; Chernozhukov, Fernández-Val &
Galichon, "Quantile and Probability Curves Without Crossing", Econometrica 2010, for sorting crossed quantiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch as th

from sb3_vgs_ppo.distributional.support import TAIL
from sb3_vgs_ppo.errors import UserInputError

Array: TypeAlias = npt.NDArray[np.float64]

Prediction: TypeAlias = th.Tensor | tuple[th.Tensor, th.Tensor]
"""What a policy's ``predict_value_distribution`` returns: quantiles (batch, n), or atoms (n,) and their probabilities
(batch, n), in units of the return."""


@dataclass(frozen=True, eq=False)
class ValueDistribution:
    """
    Distributions of the return from some states, each of n atoms. The leading dimensions, written ``...``, are those of
    the states: none for one observation, (batch,) for a batch.

    Mean, spread and CVaR are those of the atoms. :meth:`quantile` and :meth:`cdf` read between them: the
    mid-distribution function, which counts half of an atom's own probability as below it, is joined by straight lines.
    So the quantiles at the midpoints (k + ½) / n are the quantile head's outputs themselves, and a certain return that
    two-hot targets split between its two neighbours is the median.

    :param atoms: ascending, in units of the return, (..., n)
    :param probabilities: of the atoms, (..., n), with a sum of 1
    :param tail: probability at either end that is not taken at its word: :attr:`std`, :meth:`quantile` and :meth:`cvar`
        count it as if it lay at its inner border. A softmax never quite empties an atom, and a probability of 1e-9
        at −4.85e8 would lower a CVaR of a quarter by 2
    """

    atoms: Array
    probabilities: Array
    tail: float = 0.0

    @classmethod
    def of(cls, prediction: Prediction) -> ValueDistribution:
        """
        :param prediction: quantiles (batch, n) in any order, or ascending atoms (n,) and probabilities (batch, n)
        :return: the same as distributions, batch shape (batch,). Crossed quantiles are sorted, which brings them closer
            to the true ones (Chernozhukov et al. 2010); atoms with probabilities get a tail of 1 %, what the quantile
            head with 32 quantiles leaves out too
        """
        if isinstance(prediction, th.Tensor):
            atoms = np.sort(_as_array(prediction), axis=-1)
            return cls(atoms, np.full(atoms.shape, 1.0 / atoms.shape[-1]))
        atoms, probabilities = map(_as_array, prediction)
        total = probabilities.sum(axis=-1, keepdims=True)  # 1 up to float32
        return cls(np.broadcast_to(atoms, probabilities.shape), probabilities / total, TAIL)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the batch; () for one distribution."""
        return self.atoms.shape[:-1]

    def __getitem__(self, index: Any) -> ValueDistribution:
        """
        :param index: into the batch
        :return: the distributions there
        """
        return ValueDistribution(self.atoms[index], self.probabilities[index], self.tail)

    @staticmethod
    def concatenate(parts: Sequence[ValueDistribution]) -> ValueDistribution:
        """
        :param parts: of one critic, batch shapes (n, ...)
        :return: all of them, in a batch of the sum of the n
        """
        atoms, probabilities = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("atoms", "probabilities")
        )
        return ValueDistribution(atoms, probabilities, parts[0].tail)

    def reshape(self, *shape: int) -> ValueDistribution:
        """
        :param shape: of the batch
        :return: the same distributions
        """
        shape = (*shape, self.atoms.shape[-1])
        return ValueDistribution(self.atoms.reshape(shape), self.probabilities.reshape(shape), self.tail)

    def with_mean(self, mean: npt.ArrayLike) -> ValueDistribution:
        """
        Take the tails at what :attr:`tail` says, and shift the whole distribution.

        :param mean: that it should have, (...)
        :return: such distributions, whose :attr:`tail` is 0
        """
        shift = np.asarray(mean, np.float64) - _weighted(self._believed, self.probabilities)
        return ValueDistribution(self._believed + shift[..., None], self.probabilities)

    @property
    def mean(self) -> Array:
        """Mean, shape (...); what ``predict_values`` predicts, tails included."""
        return _weighted(self.atoms, self.probabilities)

    @property
    def std(self) -> Array:
        """Standard deviation, shape (...)."""
        deviations = self._believed - _weighted(self._believed, self.probabilities)[..., None]
        return np.sqrt(_weighted(deviations**2, self.probabilities))

    def quantile(self, level: npt.ArrayLike) -> Array:
        """
        :param level: one cumulative probability in [0, 1], or several, (m,)
        :return: quantiles, shape (...) for one level, (..., m) for several
        :raises UserInputError: a level outside [0, 1]
        """
        levels = np.asarray(level, np.float64)
        if not ((levels >= 0) & (levels <= 1)).all():
            raise UserInputError(f"level {level!r}; remedy: cumulative probabilities from 0 to 1")
        at = np.broadcast_to(levels.clip(self.tail, 1 - self.tail).reshape(-1), (*self.shape, levels.size))
        return _polygon(at, self._middles, self.atoms).reshape((*self.shape, *levels.shape))

    def cdf(self, value: npt.ArrayLike) -> Array:
        """
        Cumulative distribution function F, the inverse of :meth:`quantile` within the atoms; at a return that came of
        the state it is the probability integral transform, uniform in [0, 1] where the prediction is right.

        :param value: one value per distribution, (...), in units of the return
        :return: shape (...); half of the mass for a value that all atoms equal, 0 and 1 beyond the outermost atoms
        """
        values = np.broadcast_to(np.asarray(value, np.float64), self.shape)
        inside = _polygon(values[..., None], self.atoms, self._middles)[..., 0]
        inside = np.where(values < self.atoms[..., 0], 0.0, inside)
        return np.where(values > self.atoms[..., -1], 1.0, inside)

    def value_at_risk(self, alpha: float) -> Array:
        """
        The best of the worst returns that together have probability α: the smallest atom z with P(Z ≤ z) ≥ α.

        Unlike :meth:`quantile` it is always an atom, at which the objective of :meth:`cvar` is largest.

        :param alpha: α in (0, 1]
        :return: shape (...), in units of the return
        :raises UserInputError: α is not in (0, 1]
        """
        if not 0 < alpha <= 1:
            raise UserInputError(f"alpha={alpha!r}; remedy: a share of the returns, above 0 and at most 1")
        n_below = np.sum(np.cumsum(self.probabilities, axis=-1) < alpha, axis=-1, keepdims=True)
        last = self.atoms.shape[-1] - 1  # where rounding leaves the sum of all below 1
        return np.take_along_axis(self._believed, n_below.clip(max=last), axis=-1)[..., 0]

    def cvar(self, alpha: float) -> Array:
        """
        Conditional value at risk: the mean of the worst returns that together have probability α, with the share of the
        last of these atoms that makes α full. It is the maximum over ν of ν − E[(ν − Z)₊] / α, attained at the value at
        risk (Rockafellar & Uryasev 2000, theorem 1, for returns in the place of losses).

        :param alpha: α in (0, 1]; 1 gives the mean but for what ``tail`` says
        :return: shape (...), in units of the return
        :raises UserInputError: α is not in (0, 1]
        """
        threshold = self.value_at_risk(alpha)
        shortfalls = np.maximum(threshold[..., None] - self._believed, 0.0)
        return threshold - _weighted(shortfalls, self.probabilities) / alpha

    @cached_property
    def _middles(self) -> Array:
        """Mid-distribution function at the atoms, (..., n)."""
        return np.cumsum(self.probabilities, axis=-1) - 0.5 * self.probabilities

    @cached_property
    def _believed(self) -> Array:
        """The atoms, those of the tails moved to their borders, (..., n)."""
        if not self.tail:
            return self.atoms
        borders = self.quantile([0.0, 1.0])
        return self.atoms.clip(borders[..., :1], borders[..., 1:])


def _as_array(tensor: th.Tensor) -> Array:
    return tensor.detach().cpu().numpy().astype(np.float64)


def _weighted(values: Array, weights: Array) -> Array:
    """:return: weighted sum over the atoms, (...)"""
    total: Array = np.sum(values * weights, axis=-1)
    return total


def _polygon(at: Array, xs: Array, ys: Array) -> Array:
    """
    Straight lines through points in ascending order, the middle of a vertical line, and constant beyond both ends.

    :param at: where to read, (..., m)
    :param xs: first coordinates of the points, (..., n)
    :param ys: second coordinates, (..., n)
    :return: shape (..., m)
    """
    n_points = xs.shape[-1]
    # (..., m, n) → (..., m): the last point that is not above, and the first that is not below
    last = np.sum(xs[..., None, :] <= at[..., None], axis=-1) - 1
    first = np.sum(xs[..., None, :] < at[..., None], axis=-1)
    ends = [index.clip(0, n_points - 1) for index in (last, first)]
    (left, right), (low, high) = ([np.take_along_axis(values, end, axis=-1) for end in ends] for values in (xs, ys))
    share = np.divide(at - left, right - left, out=np.full(at.shape, 0.5), where=left != right)
    read: Array = low + share * (high - low)
    return read
