"""Does each VGS version read what it claims, and does UPGD's gate keep the order of utilities?

A version is fed gradient streams, and its reading is compared with the variance over time that is computed from the
recorded stream directly. UPGD is fed utilities of all signs, and its gate is read from how far the parameters move.

Nothing here draws or prints: see :mod:`sb3_vgs_ppo.runs.diagnosis_figure` and :mod:`sb3_vgs_ppo.cli.diagnose`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import torch as th

from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.optim import UPGD
from sb3_vgs_ppo.optim.options import UtilityNormalization
from sb3_vgs_ppo.runs.gradient_streams import (
    EPS,
    Change,
    GradientStream,
    gradient_streams,
    ppo_stream,
    true_noise_scale,
    true_normalized_variance,
)
from sb3_vgs_ppo.scaling import VarianceGradientScaler

Verdict: TypeAlias = Literal["agrees", "false alarm", "blind", "misreads"]
Ordering: TypeAlias = Literal["preserved", "tied", "lost", "inverted", "nan"]

ZERO = 0.01
"""Normalized variance below this counts as none: the bound of the report's own test."""

TOLERANCE = 0.1
"""Largest relative difference from the truth with which a reading still agrees."""

RESOLUTION = 1e-12
"""Gates closer than this count as equal: it is above the rounding of the parameters from which they are read."""

GATE_STEPS = (1, 1000)
"""Steps at which UPGD's gate is read: when bias correction matters most, and after about 1 / (1 − β_u) steps."""


@dataclass(frozen=True)
class Claim:
    """
    What a VGS version says that it reads.

    :param text: the claim in words
    :param changes: kinds of change over time that the claim covers; on others the version is shown, not judged
    :param truth: computes directly what should be read
    """

    text: str
    changes: frozenset[Change]
    truth: Callable[[GradientStream], float] = true_normalized_variance


_ANY_CHANGE: frozenset[Change] = frozenset({"none", "shared", "independent"})

CLAIMS: dict[str, Claim] = {
    "1.0": Claim("the gradient's variance over time", _ANY_CHANGE),
    "2.0": Claim("each tensor's variance over time", _ANY_CHANGE),
    "3.0": Claim("change over time of each tensor's mean", frozenset({"none", "shared"})),
    "3.1": Claim("each tensor's variance over time", _ANY_CHANGE),
    "4.0": Claim("each element's variance over time", _ANY_CHANGE, true_noise_scale),
}
"""The claim of every VGS version, in the order in which they are shown.

1.0 and 2.0 were documented as measuring "stochastic variance"; 3.1 is Option 1 of the report that found them wrong. 4.0
divides by the squares of the elements' means, the others by that of the tensor's mean.
"""


@dataclass(frozen=True)
class Reading:
    """
    What one version reads at the end of one stream.

    :param stream: name of the stream
    :param true_variance: normalized variance over time, computed directly as the version's claim means it
    :param normalized_variance: the version's reading of it
    :param scaling_factor: the factor that follows from the reading (α 0.1, no warm-up)
    :param verdict: ``"agrees"``; ``"false alarm"`` (reads something where nothing changes); ``"blind"`` (less than a
        tenth of the truth); ``"misreads"`` (any other disagreement)
    :param claimed: whether the version's claim covers this stream
    """

    stream: str
    true_variance: float
    normalized_variance: float
    scaling_factor: float
    verdict: Verdict
    claimed: bool


@dataclass(frozen=True)
class VersionDiagnosis:
    """All readings of one VGS version."""

    version: str
    claim: str
    readings: tuple[Reading, ...]

    @property
    def failures(self) -> tuple[Reading, ...]:
        """Readings that contradict the claim."""
        return tuple(reading for reading in self.readings if reading.claimed and reading.verdict != "agrees")

    @property
    def passes(self) -> bool:
        """Whether the version reads what it claims, on every stream that the claim covers."""
        return not self.failures


@dataclass(frozen=True)
class GateDiagnosis:
    """
    UPGD's gate over one set of utilities, at one step.

    :param normalization: ``utility_normalization`` of the optimizer
    :param utilities: name of the set
    :param step: optimizer step at which the gate was read
    :param gates: the gate of every element, in the order of rising utility; 1 keeps an element where it is, 0 lets it
        take twice a plain step
    :param ordering: of protection: ``"preserved"`` (a higher utility has a higher gate), ``"tied"`` (some different
        utilities share a gate), ``"lost"`` (all do), ``"inverted"`` (somewhere a higher utility has a lower gate) or
        ``"nan"`` (some gate is not a number, and so is the parameter after the step)
    """

    normalization: str
    utilities: str
    step: int
    gates: tuple[float, ...]
    ordering: Ordering

    @property
    def frozen(self) -> float:
        """Share of elements that take less than 2 % of a plain step."""
        return float(np.mean(np.array(self.gates) > 0.99))

    @property
    def passes(self) -> bool:
        """Whether protection keeps the utilities' order, every gate lies inside (0, 1) and no element is frozen."""
        return self.ordering == "preserved" and min(self.gates) > 0.0 and max(self.gates) < 1.0 and self.frozen == 0.0


@dataclass(frozen=True)
class Diagnosis:
    """Everything that one run of the diagnosis found."""

    seed: int
    n_observations: int
    versions: tuple[VersionDiagnosis, ...]
    gates: tuple[GateDiagnosis, ...]


def judge(normalized_variance: float, true_variance: float) -> Verdict:
    """Compare a reading with the truth; see :class:`Reading` for the verdicts."""
    if true_variance < ZERO:
        return "agrees" if normalized_variance < ZERO else "false alarm"
    if abs(normalized_variance - true_variance) <= TOLERANCE * true_variance:
        return "agrees"
    return "blind" if normalized_variance < true_variance / 10 else "misreads"


def read_stream(version: str, stream: GradientStream) -> Reading:
    """Feed a stream to a scaler of the given version, without warm-up, and judge what it reads at the end."""
    parameters = [th.nn.Parameter(th.zeros(gradients.shape[1])) for gradients in stream.gradients]
    vgs = VarianceGradientScaler(parameters, version=version, beta=stream.beta, eps=EPS, warmup_steps=0)
    for observation in zip(*map(th.from_numpy, stream.gradients), strict=True):
        for parameter, gradient in zip(parameters, observation, strict=True):
            parameter.grad = gradient.clone()
        vgs.step()
    true_variance, normalized_variance = CLAIMS[version].truth(stream), vgs.get_normalized_variance()
    return Reading(
        stream=stream.name,
        true_variance=true_variance,
        normalized_variance=normalized_variance,
        scaling_factor=vgs.get_scaling_factor(),
        verdict=judge(normalized_variance, true_variance),
        claimed=stream.change in CLAIMS[version].changes,
    )


def diagnose_versions(versions: Sequence[str], streams: Sequence[GradientStream]) -> tuple[VersionDiagnosis, ...]:
    """Feed every stream to every version."""
    return tuple(
        VersionDiagnosis(version, CLAIMS[version].text, tuple(read_stream(version, stream) for stream in streams))
        for version in versions
    )


def utility_sets(seed: int = 0) -> dict[str, npt.NDArray[np.float64]]:
    """Sets of utilities to protect, each in rising order."""
    return {
        "negative": np.linspace(-2.0, -1.0, 100),
        "mixed": np.linspace(-1.0, 1.0, 100),
        "mixed, max tiny": np.linspace(-1.0, 0.001, 100),
        "extreme": np.array([-1e6, -1e3, -1.0, 0.0, 1.0, 1e3, 1e6]),
        "all equal": np.full(100, 0.5),
        "all zero": np.zeros(100),
        "normal": np.sort(np.random.default_rng(seed).standard_normal(1000)),
    }


def read_gates(
    normalization: UtilityNormalization, utilities: npt.NDArray[np.float64], step: int
) -> npt.NDArray[np.float64]:
    """
    UPGD's gate per element, read from how far one step moves the parameters.

    Gradient 1 and parameter −u make the utility −g·p equal u. The optimizer's state is that of ``step − 1`` earlier
    steps with the same utility. Without noise and decay, a step with learning rate 1 moves an element by 2·(1 − s). In
    float64, so that gates of close utilities stay apart.

    :param normalization: ``utility_normalization`` of the optimizer
    :param utilities: shape (n_elements,)
    :param step: the optimizer step to read, from 1
    :return: the gates s, shape (n_elements,)
    """
    parameter = th.nn.Parameter(-th.from_numpy(utilities))
    parameter.grad = th.ones_like(parameter)
    optimizer = UPGD([parameter], lr=1.0, weight_decay=0.0, sigma=0.0, utility_normalization=normalization)
    settled = 1.0 - optimizer.defaults["beta_utility"] ** (step - 1)
    optimizer.state[parameter] = {"step": step - 1, "avg_utility": settled * th.from_numpy(utilities)}
    before = parameter.detach().clone()
    optimizer.step()
    gates: npt.NDArray[np.float64] = (1.0 - (before - parameter.detach()) / 2.0).numpy()
    return gates


def ordering_of(gates: npt.NDArray[np.float64], utilities: npt.NDArray[np.float64]) -> Ordering:
    """
    Whether gates rise with utilities.

    :param gates: shape (n_elements,)
    :param utilities: shape (n_elements,), in rising order
    :return: see :class:`GateDiagnosis`; equal utilities must have equal gates
    """
    if np.isnan(gates).any():
        return "nan"
    steps, rising = np.diff(gates), np.diff(utilities) > 0
    if np.any(steps < -RESOLUTION) or np.any(steps[~rising] > RESOLUTION):
        return "inverted"
    if np.all(steps[rising] > RESOLUTION):
        return "preserved"
    return "tied" if np.any(steps > RESOLUTION) else "lost"


def diagnose_gates(seed: int = 0) -> tuple[GateDiagnosis, ...]:
    """Read UPGD's gate for every normalization, set of utilities and step of :data:`GATE_STEPS`."""
    found = []
    for normalization in get_args(UtilityNormalization):
        for name, utilities in utility_sets(seed).items():
            for step in GATE_STEPS:
                gates = read_gates(normalization, utilities, step)
                ordering = ordering_of(gates, utilities)
                found.append(GateDiagnosis(normalization, name, step, tuple(gates.tolist()), ordering))
    return tuple(found)


def diagnose(version: str | None = None, n_observations: int = 400, seed: int = 0) -> Diagnosis:
    """
    Run the diagnosis.

    :param version: the only VGS version to look at, without UPGD; None takes all of them, and UPGD
    :param n_observations: gradients per stream
    :param seed: of the streams' noise, of the PPO training and of the drawn utilities
    :raises UserInputError: unknown version, fewer than two observations, or a seed outside [0, 2³²)
    """
    if n_observations < 2:
        raise UserInputError(f"observations={n_observations}: a variance over time needs at least 2")
    if not 0 <= seed < 2**32:
        raise UserInputError(f"seed={seed}: give a whole number from 0 to 2**32 - 1")
    versions = tuple(CLAIMS) if version is None else (version,)
    if not CLAIMS.keys() >= set(versions):
        raise UserInputError(f"unknown VGS version {version!r}; known versions: {', '.join(CLAIMS)}")
    streams = (*gradient_streams(n_observations, seed), ppo_stream(n_observations, seed))
    gates = diagnose_gates(seed) if version is None else ()
    return Diagnosis(seed, n_observations, diagnose_versions(versions, streams), gates)
