"""Supports of the categorical critic: its atoms, and returns encoded as probabilities over them.

Sources: Hafner, Pasukonis, Ba & Lillicrap, "Mastering Diverse Domains through World Models" (DreamerV3), 2023, for
two-hot targets on symexp-spaced atoms; Farebrother et al., "Stop Regressing: Training Value Functions via
Classification for Scalable Deep RL", ICML 2024, for HL-Gauss targets on evenly spaced atoms.
"""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod

import torch as th
from torch import nn

from sb3_vgs_ppo.errors import UserInputError

SYMLOG_LIMIT = 20.0
"""The outermost symexp-spaced atoms are ±symexp(20) = ±4.85e8 (DreamerV3)."""

HL_GAUSS_SIGMA = 0.75
"""Standard deviation of an HL-Gauss target in bin widths, the ratio that Farebrother et al. recommend."""

PADDING = 3
"""Atoms beyond v_min and beyond v_max: a target at v_max is 3.5 / 0.75 = 4.7 standard deviations away from where its
Gaussian is cut off. Its mean is then off by 6e-6 bin widths, about as much as the binning alone is anywhere else;
without padding it is off by 0.37."""

TAIL = 0.01
"""Probability on either side of a predicted distribution that its spread leaves out: see :meth:`Support.std`."""


def symexp(x: th.Tensor) -> th.Tensor:
    """
    Inverse of DreamerV3's symlog: sign(x) · (exp(|x|) − 1).

    :param x: any shape
    :return: same shape
    """
    return x.sign() * x.abs().expm1()


def two_hot(targets: th.Tensor, atoms: th.Tensor) -> th.Tensor:
    """
    Split each target between its two neighbouring atoms so that the mean is the target. The split is linear in the
    return itself, not in its logarithm, which is what makes it unbiased (DreamerV3, "symexp twohot").

    :param targets: returns, shape (batch,), between the outermost atoms or NaN
    :param atoms: ascending, shape (n_atoms,)
    :return: probabilities, shape (batch, n_atoms); NaN where the target is
    """
    upper = th.searchsorted(atoms, targets).clamp(1, len(atoms) - 1)
    lower = upper - 1
    weights = (targets - atoms[lower]) / (atoms[upper] - atoms[lower])
    probabilities = targets.new_zeros(len(targets), len(atoms))
    probabilities.scatter_(1, lower.unsqueeze(1), (1.0 - weights).unsqueeze(1))
    return probabilities.scatter_(1, upper.unsqueeze(1), weights.unsqueeze(1))


def hl_gauss(targets: th.Tensor, edges: th.Tensor, sigma: float) -> th.Tensor:
    """
    Mass of N(target, σ²) in each bin, renormalised over all bins (Farebrother et al., section 3).

    Shapes: (n_atoms + 1,) − (batch, 1) → cdf (batch, n_atoms + 1) → differences (batch, n_atoms).

    :param targets: returns, shape (batch,)
    :param edges: edges of the bins, ascending, shape (n_atoms + 1,)
    :param sigma: standard deviation σ, in units of the return
    :return: probabilities, shape (batch, n_atoms); NaN where the target is
    """
    # erf = 2·cdf − 1; both constants cancel in the quotient.
    cdf = th.erf((edges - targets.unsqueeze(1)) / (math.sqrt(2.0) * sigma))
    return cdf.diff(dim=1) / (cdf[:, -1:] - cdf[:, :1])


class Support(nn.Module, ABC):
    """
    Atoms in ascending order, symmetric around their centre, and what a categorical critic does with them.

    Everything is rebuilt from the arguments, so that nothing of it is in the ``state_dict``.

    :param atoms: shape (n_atoms,), in units of the return
    :param prior_logits: logits of an untrained critic, shape (n_atoms,)
    :param low: smallest target that is not clamped
    :param high: largest target that is not clamped
    """

    atoms: th.Tensor
    prior_logits: th.Tensor

    def __init__(self, atoms: th.Tensor, prior_logits: th.Tensor, low: float, high: float) -> None:
        super().__init__()
        self.register_buffer("atoms", atoms, persistent=False)
        self.register_buffer("prior_logits", prior_logits, persistent=False)
        self.low = low
        self.high = high
        self.centre: float = (low + high) / 2

    @abstractmethod
    def _project(self, targets: th.Tensor) -> th.Tensor:
        """Encode targets that lie within [low, high] or are NaN: (batch,) → (batch, n_atoms)."""

    def encode(self, targets: th.Tensor) -> th.Tensor:
        """
        Probabilities that a critic should predict for these returns.

        :param targets: returns, shape (batch,); those outside [low, high] are clamped, non-finite ones give NaN
        :return: probabilities, shape (batch, n_atoms)
        """
        return self._project(_clamped(targets, self.low, self.high))

    def project(self, atoms: th.Tensor) -> th.Tensor:
        """
        A distribution on this support: what every atom weighs is split between its two neighbours, as by
        :func:`two_hot` (the categorical projection of Bellemare, Dabney & Munos, "A Distributional Perspective on
        Reinforcement Learning", ICML 2017). HL-Gauss would widen a distribution at every bootstrap.

        :param atoms: of equal probability, shape (batch, m); those outside the outermost atoms are clamped
        :return: probabilities, shape (batch, n_atoms); NaN where an atom is not finite
        """
        within = _clamped(atoms.flatten(), self.atoms[0], self.atoms[-1])
        return two_hot(within, self.atoms).reshape(*atoms.shape, -1).mean(dim=1)

    def clipped(self, targets: th.Tensor) -> th.Tensor:
        """
        Which targets :meth:`encode` clamps.

        :param targets: returns, shape (batch,)
        :return: booleans, shape (batch,)
        """
        return (targets < self.low) | (targets > self.high)

    def mean(self, probabilities: th.Tensor) -> th.Tensor:
        """
        Mean Σ p_k z_k, summed over pairs of opposite atoms: centre + ½ Σ (p_k − p_{n−1−k}) z_k.

        With atoms of ±4.85e8 the plain sum of a symmetric distribution is off by the rounding of its largest terms
        (−1.2 for a uniform one in float32); in pairs they cancel exactly.

        :param probabilities: shape (batch, n_atoms)
        :return: mean, shape (batch, 1), in units of the return
        """
        differences = probabilities - probabilities.flip(1)
        return self.centre + (differences * self.atoms).sum(dim=1, keepdim=True) / 2

    def std(self, probabilities: th.Tensor) -> th.Tensor:
        """
        Standard deviation of the central 98 % of the distribution.

        A softmax never quite empties an atom, and a probability of 1e-12 at 4.85e8 would be a deviation of 485 by
        itself. The quantile head leaves out as much: its outermost midpoints of 32 are at 1.6 and 98.4 %.

        :param probabilities: shape (batch, n_atoms)
        :return: spread, shape (batch,), in units of the return
        """
        cdf = probabilities.cumsum(dim=1)
        cdf = ((cdf - TAIL) / (1.0 - 2.0 * TAIL)).clamp(0.0, 1.0)
        central = th.cat((cdf[:, :1], cdf.diff(dim=1)), dim=1)
        deviations = self.atoms - (central * self.atoms).sum(dim=1, keepdim=True)
        return (central * deviations.square()).sum(dim=1).sqrt()


class SymexpSupport(Support):
    """
    Atoms symexp(x) for n evenly spaced x in [−20, 20], and two-hot targets: returns of any size, without knowing
    their range.

    With 101 atoms each is about 1.5 times the one before, so a certain return y, whose mean is exact, can still have a
    predicted spread of a fifth of |y|.

    An untrained critic predicts p_k ∝ 1 / (1 + |z_k|), whose mean is 0, where DreamerV3's predicts the uniform
    distribution. In that one every perturbation of the logits is multiplied by atoms of 4.85e8: under noise like
    that of AdaptiveUPGD (σ = 0.001) the predicted means were wrong by 7 to 20 standard deviations of the returns
    for the first 1,000 minibatches; from this prior by 1.0, falling to 0.7. It is an offset of the logits, not an
    initial bias, so that weight decay pulls towards it instead of wearing it off.

    :param n_atoms: number of atoms, at least 2; an odd number has an atom at 0
    :raises UserInputError: ``n_atoms`` is not an integer ≥ 2
    """

    def __init__(self, n_atoms: int) -> None:
        _check_n_atoms(n_atoms, minimum=2, reason="two-hot targets lie between two atoms")
        grid = th.linspace(-SYMLOG_LIMIT, SYMLOG_LIMIT, n_atoms, dtype=th.float64)
        atoms = symexp((grid - grid.flip(0)) / 2).float()  # linspace is symmetric up to rounding only
        super().__init__(atoms, -atoms.abs().log1p(), low=atoms[0].item(), high=atoms[-1].item())

    def _project(self, targets: th.Tensor) -> th.Tensor:
        return two_hot(targets, self.atoms)


class LinearSupport(Support):
    """
    Evenly spaced atoms and HL-Gauss targets, for returns whose range is known.

    ``v_min`` and ``v_max`` are the fourth atom from either end: the three beyond hold the tails of Gaussians
    around targets close to the border, which are biased inwards without them.
    An untrained critic predicts the uniform distribution, whose mean is (v_min + v_max) / 2.

    :param n_atoms: number of atoms, at least 8
    :param v_min: smallest return that is represented, finite
    :param v_max: largest return that is represented, finite
    :raises UserInputError: ``n_atoms`` is not an integer ≥ 8, or ``v_min`` and ``v_max`` are not finite, not
        ascending, or too close for float32
    """

    edges: th.Tensor

    def __init__(self, n_atoms: int, v_min: float, v_max: float) -> None:
        _check_n_atoms(
            n_atoms, minimum=2 * PADDING + 2, reason=f"{PADDING} of them lie beyond v_min and as many beyond v_max"
        )
        bin_width = (v_max - v_min) / (n_atoms - 1 - 2 * PADDING)
        edges = v_min + (th.arange(n_atoms + 1, dtype=th.float64) - PADDING - 0.5) * bin_width
        atoms = (edges[:-1] + bin_width / 2).float()
        if not (v_min < v_max and bool(atoms.isfinite().all()) and bool((atoms.diff() > 0).all())):
            raise UserInputError(
                f"v_min={v_min!r} and v_max={v_max!r} give no {n_atoms} ascending finite atoms in float32; "
                "remedy: finite v_min < v_max that enclose the returns"
            )
        super().__init__(atoms, th.zeros(n_atoms), low=float(v_min), high=float(v_max))
        self.register_buffer("edges", edges.float(), persistent=False)
        self.sigma: float = HL_GAUSS_SIGMA * bin_width

    def _project(self, targets: th.Tensor) -> th.Tensor:
        return hl_gauss(targets, self.edges, self.sigma)


def make_support(value_transform: str, n_atoms: int, v_min: float | None, v_max: float | None) -> Support:
    """
    The support that the arguments of a categorical head describe.

    :param value_transform: ``"symlog"`` for :class:`SymexpSupport`, ``"none"`` for :class:`LinearSupport`
    :param n_atoms: number of atoms
    :param v_min: required by ``"none"``, refused by ``"symlog"``
    :param v_max: likewise
    :return: the support
    :raises UserInputError: an unknown ``value_transform``, or arguments that it lacks, does not use or cannot take
    """
    if value_transform == "symlog":
        if v_min is not None or v_max is not None:
            raise UserInputError(
                f"value_transform='symlog' does not use v_min={v_min!r} and v_max={v_max!r}; "
                "remedy: leave them out, or choose value_transform='none'"
            )
        return SymexpSupport(n_atoms)
    if value_transform == "none":
        if v_min is None or v_max is None:
            raise UserInputError(
                f"value_transform='none' needs v_min and v_max, got v_min={v_min!r} and v_max={v_max!r}; "
                "remedy: give the range of the returns, or choose value_transform='symlog', which needs none"
            )
        return LinearSupport(n_atoms, v_min, v_max)
    raise UserInputError(f"unknown value_transform={value_transform!r}; remedy: choose 'symlog' or 'none'")


def _clamped(targets: th.Tensor, low: float | th.Tensor, high: float | th.Tensor) -> th.Tensor:
    # An infinite return must not become an ordinary one: the loss has to show that training has diverged.
    return th.where(targets.isfinite(), targets.clamp(low, high), math.nan)  # type: ignore[arg-type]


def _check_n_atoms(n_atoms: int, minimum: int, reason: str) -> None:
    if not isinstance(n_atoms, numbers.Integral) or n_atoms < minimum:
        raise UserInputError(f"n_atoms={n_atoms!r} is not an integer of at least {minimum}: {reason}")
