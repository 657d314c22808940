"""The scaler that stands between ``backward()`` and ``optimizer.step()``.

It multiplies all gradients by one factor that falls with their normalized variance. What "variance" means is the
difference between its versions, see :mod:`sb3_vgs_ppo.scaling.versions`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.logger import Logger

from sb3_vgs_ppo._flat import flat_view
from sb3_vgs_ppo._types import StateDict
from sb3_vgs_ppo.errors import UserInputError, VGSMigrationWarning
from sb3_vgs_ppo.scaling.arrays import Array, as_array, as_tensor, at_least, dot, silent, zero_unless
from sb3_vgs_ppo.scaling.elements_spatial import ElementsSpatial
from sb3_vgs_ppo.scaling.elements_temporal import ElementsTemporal
from sb3_vgs_ppo.scaling.factors import Factors, averaging_of
from sb3_vgs_ppo.scaling.measure import Measure
from sb3_vgs_ppo.scaling.metrics import QUANTILES, VARIANCES, MetricWindow, record
from sb3_vgs_ppo.scaling.moments import GradientReader, Observation
from sb3_vgs_ppo.scaling.parameters import checked_parameters
from sb3_vgs_ppo.scaling.quantiles import ascending, observed_quantiles, rank_weights
from sb3_vgs_ppo.scaling.settings import Application, AppliedTo, Granularity, Settings
from sb3_vgs_ppo.scaling.state import APPLICATION, check_sizes, migrate_state, migration_message, parse_state
from sb3_vgs_ppo.scaling.versions import DEFAULT_VERSION, KNOWN_VERSIONS, MEASURES, application_of


@dataclass(slots=True)
class _Staged:
    """A gradient that was observed but not committed, and what was done with it.

    :param observation: of the raw gradient
    :param factor: by which it, or the update that came of it, was multiplied; mean over elements, 0-d or a float
    :param norm_ratio: norm of the gradient after scaling over that before it, 0-d or a float
    """

    observation: Observation
    factor: Array
    norm_ratio: Array


class VarianceGradientScaler:
    """
    Scales gradients down by how noisy they are::

        loss.backward()
        vgs.scale_gradients()
        clip_grad_norm_(parameters, max_grad_norm)
        optimizer.step()
        vgs.step()

    All statistics are of the raw gradient, before scaling and clipping. The factor depends only on observations that
    were committed before, so it does not correlate with the gradient that it scales. A tensor without a gradient, or
    with a NaN or Inf in it, is not observed in that step.

    Nothing waits for an accelerator, except where a float is returned: a training loop calls :meth:`observe` and
    :meth:`scale` instead of :meth:`scale_gradients`, which is both.

    Pickling and deep-copying carry settings and statistics, never parameters or a logger.

    :param parameters: the P tensors whose ``.grad`` is read and scaled, all on one device. Build the scaler, or call
        :meth:`update_parameters`, after moving a module to another device
    :param version: what is measured: "1.0" the spread over all elements, "2.0" inside each tensor (both legacy), "3.0"
        the change of each tensor's mean over time, "3.1" time and space mixed, "4.0" the change of each element over
        time
    :param enabled: False leaves gradients as they are and observes nothing; may be set at any time
    :param beta: decay of the moving averages; 0.99 remembers about the last hundred gradients
    :param alpha: strength; a normalized variance of 1/alpha halves the gradient
    :param eps: keeps the normalized variance finite where a mean gradient is near 0 (unit: gradient²; in "4.0" a share
        of the variance, without unit)
    :param warmup_steps: observations before the first scaling, so that the averages are not of a handful of values
    :param min_scaling_factor: the factor is never smaller, so that no step is lost altogether
    :param variance_cap: normalized variances above count as this one
    :param granularity: "4.0" only. What has a factor of its own: each ``"element"`` (Balles & Hennig 2018, "Dissecting
        Adam", equation 14: the smallest expected squared error with α = 1), each ``"tensor"`` (the default, since Σσ² /
        Σμ² is far better known than the ratio of one element), or ``"global"``: one factor, from the 0.9-quantile over
        tensors, as the other versions have
    :param apply_to: "4.0" only. Factors multiply the ``"gradient"`` (the default), or the optimizer's ``"update"``, see
        :meth:`scaling_update`: Adam-like optimizers cancel a steady factor of the gradient
    :param momentum: "4.0" only. Decay β₁ of an optimizer that averages gradients: what counts is the noise of the
        average, (1 − β₁) / (1 + β₁) of that of the gradient (their M-SVAG). None (the default) is 0 for gradients; for
        updates it is read from the optimizer
    :param logger: an SB3 logger to which :meth:`step` records the figures of :meth:`pop_metrics`, at the price of one
        host read per step
    :raises UserInputError: (a ValueError) an argument is out of range, the version is not known, or there are no
        parameters, or duplicates, several devices or complex numbers among them
    :raises TypeError: ``parameters`` is not an iterable of tensors
    """

    def __init__(
        self,
        parameters: Iterable[th.Tensor],
        version: str = DEFAULT_VERSION,
        *,
        enabled: bool = True,
        beta: float = 0.99,
        alpha: float = 0.1,
        eps: float = 1e-8,
        warmup_steps: int = 100,
        min_scaling_factor: float = 1e-4,
        variance_cap: float = 1e6,
        granularity: Granularity | None = None,
        apply_to: AppliedTo | None = None,
        momentum: float | None = None,
        logger: Logger | None = None,
    ) -> None:
        if version not in KNOWN_VERSIONS:
            known = ", ".join(map(repr, KNOWN_VERSIONS))  # as texts, which the number 3.0 is not
            raise UserInputError(f"version {version!r} is not known; known versions: {known}")
        self._version = version
        self._settings = Settings(beta, alpha, eps, warmup_steps, min_scaling_factor, variance_cap)
        application = {"granularity": granularity, "apply_to": apply_to, "momentum": momentum}
        self._application = application_of(version, {k: v for k, v in application.items() if v is not None})
        self._set_strength(optimizer_momentum=0.0)
        self.enabled: bool = bool(enabled)
        self.logger = logger
        self.update_parameters(parameters)

    @property
    def version(self) -> str:
        """What is measured; fixed for the life of a scaler."""
        return self._version

    @property
    def settings(self) -> Settings:
        """beta, alpha, eps, warmup_steps, min_scaling_factor and variance_cap."""
        return self._settings

    @property
    def parameters(self) -> tuple[th.Tensor, ...]:
        """The tensors themselves, not copies; empty in a copy of a scaler."""
        return () if self._reader is None else self._reader.parameters

    def update_parameters(self, parameters: Iterable[th.Tensor]) -> None:
        """
        Watch new tensors; statistics and warm-up restart.

        :param parameters: as in the constructor
        :raises UserInputError: no parameters, or duplicates, several devices or complex numbers among them
        :raises TypeError: not an iterable of tensors
        """
        per_element = MEASURES[self._version].per_element
        self._reader: GradientReader | None = GradientReader(checked_parameters(parameters), per_element)
        self._layout, self._numel = self._reader.layout, self._reader.numel
        self._q = self._numel.new_full((1,), 0.9)
        self._one = self._numel.new_ones(()) if self._numel.device.type != "cpu" else 1.0
        self.reset_statistics()

    def reset_statistics(self) -> None:
        """Forget every observation; warm-up restarts."""
        self._step_count = 0
        self._staged: _Staged | None = None
        self._window = MetricWindow(self._layout)
        # The global figures, which every version keeps for logging, are the statistics of version 1.0
        self._figures = ElementsSpatial(self._layout, self._settings.beta, self._settings.eps)
        self._measure: Measure = self._figures
        if MEASURES[self._version] is not ElementsSpatial:
            self._measure = MEASURES[self._version](self._layout, self._settings.beta, self._settings.eps)
        self._normalized_variances = self._read_measure()
        self._p90_weights: tuple[int, Array] = (-1, None)  # how many tensors were observed, and weights for so many

    def forget(self, parameters: Iterable[th.Tensor]) -> None:
        """
        Let statistics of some tensors begin anew, because their values did. They count as not observed until they have
        gradients again; warm-up, and figures of all tensors together, go on.

        :param parameters: some of :attr:`parameters`; others are ignored
        """
        forgotten = {id(parameter) for parameter in parameters}
        tensors = [i for i, parameter in enumerate(self.parameters) if id(parameter) in forgotten]
        self._staged = None
        self._measure.forget(tensors)
        self._normalized_variances = self._read_measure()
        self._p90_weights = (-1, None)

    def scale_gradients(self) -> float:
        """
        Stage this gradient's statistics, then multiply every ``.grad`` by the factor.

        Call it once per ``backward()``. Statistics that were staged before and not committed are replaced, so an
        update that is skipped leaves no trace in them.

        :return: the factor, the mean over elements where there are several; exactly 1 (gradients bit-identical) while
            disabled or warming up, or if factors are applied to the update
        :raises RuntimeError: a gradient is sparse, or this is a copy without parameters
        """
        self.observe()
        return float(self.scale())

    def observe(self, flat: th.Tensor | None = None) -> None:
        """
        Stage this gradient's statistics: the first half of :meth:`scale_gradients`.

        :param flat: the gradients of all parameters as one tensor in their order, if the caller keeps them in one
            buffer; without it they are looked for
        :raises RuntimeError: as :meth:`scale_gradients`
        """
        reader = self._bound_reader()
        self._staged = None
        if not self.enabled:
            return
        observation = reader.read(flat)
        if observation.n_gradients:
            self._staged = _Staged(observation, self._one, self._one)
            self._window.add_gradient(observation)

    def scale(self, flat: th.Tensor | None = None) -> Array:
        """
        Multiply every ``.grad`` by the factor: the second half of :meth:`scale_gradients`, without a host read.

        :param flat: as in :meth:`observe`
        :return: as :meth:`scale_gradients`, a float on a CPU, elsewhere a 0-d float64 tensor
        :raises RuntimeError: this is a copy without parameters
        """
        reader = self._bound_reader()
        if self._application.apply_to == "update" or not self._active():
            return self._one
        if flat is not None and self._staged is not None:
            applied = self._scale_by_loops(reader.loop_array(flat), self._staged.observation)
            if applied is not None:
                self._staged.factor, self._staged.norm_ratio = applied
                return applied[0]
        factors = self._factors()
        if flat is not None:
            factors.scale_flat_(flat.detach())
        elif gradients := reader.gradients():
            with th.no_grad():
                factors.scale_(gradients, reader.present)
        else:
            return self._one
        factor = factors.mean()
        if self._staged is not None:
            self._staged.factor, self._staged.norm_ratio = factor, factors.norm_ratio(self._staged.observation)
        return factor

    def _scale_by_loops(self, flat: np.ndarray | None, observation: Observation) -> tuple[float, float] | None:
        """
        Scale all gradients in one call.

        :param flat: all of them as the loops take them
        :return: mean factor, and norm after scaling over that before it; None where there are no loops for it
        """
        loops, granularity = self._layout.loops, self._application.granularity
        if flat is None or loops is None or granularity == "element":
            return None
        variances = self._normalized_variances
        if granularity == "global":
            factor = loops.scale_by_quantile(flat, variances, self._weigh_p90(), self._strength, self._smallest_factor)
            return factor, factor
        scaled: tuple[float, float] = loops.scale_by_tensor(
            flat, self._layout.bounds, observation.sums, variances, self._strength, self._smallest_factor
        )
        return scaled

    @contextmanager
    def scaling_update(self, optimizer: th.optim.Optimizer) -> Iterator[None]:
        """
        Scale what the optimizer does inside, if ``apply_to="update"``: p ← p_old + γ·(p − p_old)::

            with vgs.scaling_update(optimizer):
                optimizer.step()
            vgs.step()

        The old parameters are kept meanwhile. Otherwise, while disabled or warming up, this does nothing.

        :param optimizer: gives β₁, unless ``momentum`` was set
        :raises UserInputError: its parameter groups average gradients differently, and ``momentum`` was not set
        :raises RuntimeError: this is a copy without parameters
        """
        reader = self._bound_reader()
        if self._application.apply_to == "gradient":
            yield
            return
        self.read_momentum(optimizer)
        if not self._active():
            yield
            return
        flat = flat_view(reader.parameters)
        moving = [parameter.detach() for parameter in reader.parameters] if flat is None else [flat]
        old = [tensor.clone() for tensor in moving]
        yield
        with th.no_grad():
            factors = self._factors()
            if flat is None:
                factors.shorten_(moving, old)
            else:
                factors.shorten_flat_(flat, old[0])
            if self._staged is not None:
                self._staged.factor = factors.mean()

    def step(self) -> None:
        """
        Commit the staged statistics, or observe ``.grad`` and commit that if none are staged; then log.

        Does nothing while disabled, or if no tensor has a gradient.

        :raises RuntimeError: as :meth:`scale_gradients`
        """
        if self._staged is None or not self.enabled:
            self.observe()
        if self._staged is None:
            return
        staged, self._staged = self._staged, None
        observation, variances = staged.observation, self._normalized_variances
        self._window.add_step(observation, staged.factor, staged.norm_ratio, variances, warmup=not self._active())
        self._step_count += 1
        self._normalized_variances = self._measure.advance(observation, self._step_count)
        if self._measure is not self._figures:
            self._figures.update(observation)
        if self.logger is not None:
            record(self.logger, self.pop_metrics())

    def discard(self) -> None:
        """Drop staged statistics, because the update that they belong to was skipped."""
        self._staged = None

    def get_normalized_variance(self) -> float:
        """
        :return: nv of the raw gradients committed so far, 0 if there were none: the 0.9-quantile over tensors, or over
            elements if each has a factor of its own
        """
        if self._application.granularity == "element":
            return float(observed_quantiles(self._element_variances().double(), self._q)[0])
        return float(self._normalized_variance())

    def read_momentum(self, optimizer: th.optim.Optimizer) -> None:
        """
        Learn β₁ before the first update, so that :meth:`get_scaling_factor` knows the factor that comes next. Later
        :meth:`scaling_update` does so at every update. Without effect where factors are applied to the gradient or
        ``momentum`` was set.

        :param optimizer: whose updates are scaled
        :raises UserInputError: its parameter groups average gradients differently, and ``momentum`` was not set
        """
        is_read = self._application.apply_to == "update" and self._application.momentum is None
        self._set_strength(averaging_of(optimizer) if is_read else 0.0)

    def get_scaling_factor(self) -> float:
        """:return: the factor that is applied next, the mean over elements where there are several"""
        return float(self._factors().mean()) if self._active() else 1.0

    @th.no_grad()
    def pop_metrics(self) -> dict[str, float]:
        """
        Report on the steps since the last call, with one host read (two until every tensor was observed).

        :return: averages over the committed steps under ``vgs/...`` (absent if there were none), and
            ``vgs/step_count`` (observations since statistics restarted) and ``vgs/nonfinite`` (number of tensors that
            had a NaN or Inf in their gradient, summed over all steps, skipped ones too). If each element has a factor
            of its own, variances are over elements, and of the last step alone
        """
        self._weigh_p90(wait=True)
        metrics = {**self._window.pop(), "vgs/step_count": self._step_count}
        if self._application.granularity == "element" and "vgs/normalized_variance" in metrics:
            quantiles = observed_quantiles(self._element_variances().double(), self._q.new_tensor(QUANTILES)).tolist()
            metrics |= dict(zip(VARIANCES, (quantiles[-1], *quantiles), strict=True))
        return metrics

    @th.no_grad()
    def state_dict(self) -> StateDict:
        """
        :return: plain Python values and copies of tensors; ``torch.load(weights_only=True)`` reads it back.
            The fields are listed in :mod:`sb3_vgs_ppo.scaling.state`
        """
        state = {"vgs_version": self._version, **self._all_settings(), "step_count": self._step_count}
        state |= self._figures.statistics()
        return state if self._measure is self._figures else {**state, **self._measure.statistics()}

    @th.no_grad()
    def load_state_dict(self, state: StateDict, strict: bool = True) -> None:
        """
        Take over settings and statistics; the version stays this scaler's own.

        A state of the same measure ("1.x" is 1.0, "2.0.1" is 2.0, "3.2" is 3.1, none is 1.0) continues bit for bit.
        One of another measure gives its settings and global figures; per-parameter statistics and warm-up restart, with
        one :class:`~sb3_vgs_ppo.errors.VGSMigrationWarning`. On any error the scaler stays as it was.

        :param state: as :meth:`state_dict` of any version returns it
        :param strict: refuse unknown keys, and missing settings and global figures; otherwise the former are ignored
            and this scaler's settings fill the gaps (as SB3's ``set_parameters(exact_match=False)`` asks)
        :raises CheckpointError: names the field that is missing, does not fit or is of an unknown version
        """
        parsed = parse_state(state, strict, defaults=self._all_settings())
        check_sizes(parsed, self._layout.sizes)
        migrated = migrate_state(parsed, self._version)
        if migrated is not parsed:
            found = state.get("vgs_version", "1.0 (it names none)")
            warnings.warn(
                migration_message(found, parsed["vgs_version"], self._version), VGSMigrationWarning, stacklevel=3
            )
        self.enabled = migrated["enabled"]
        self._settings = Settings(**{field.name: migrated[field.name] for field in fields(Settings)})
        if migrated is parsed and self._measure.per_element:
            self._application = Application(**{name: migrated[name] for name in APPLICATION})
        self._set_strength(self._optimizer_momentum)
        self.reset_statistics()
        self._step_count = migrated["step_count"]
        self._figures.load_statistics(migrated)
        if self._measure is not self._figures:
            self._measure.load_statistics(migrated)
        self._normalized_variances = self._read_measure()

    def __getstate__(self) -> dict[str, Any]:
        unbound = {"_reader": None, "logger": None, "_staged": None, "_window": MetricWindow(self._layout)}
        return {**self.__dict__, **unbound}

    def _all_settings(self) -> StateDict:
        application = asdict(self._application) if self._measure.per_element else {}
        return {"enabled": self.enabled, **asdict(self._settings), **application}

    def _bound_reader(self) -> GradientReader:
        if self._reader is None:
            raise RuntimeError(
                "this VarianceGradientScaler is a copy, and copies carry no parameters. Remedy: "
                "state = vgs.state_dict(); vgs.update_parameters(module.parameters()), which restarts the statistics; "
                "vgs.load_state_dict(state)"
            )
        return self._reader

    @silent
    def _read_measure(self) -> Array:
        return self._measure.normalized_variance(self._step_count)

    def _active(self) -> bool:
        return self.enabled and self._step_count >= self._settings.warmup_steps

    def _normalized_variance(self) -> Array:
        """:return: 0.9-quantile over the observed tensors, 0-d"""
        weights = self._weigh_p90()
        if (loops := self._layout.loops) is not None:
            return loops.weighted_sum_of_ascending(self._normalized_variances, weights)
        return dot(ascending(self._normalized_variances), weights)

    def _weigh_p90(self, wait: bool = False) -> Array:
        """
        :param wait: look how many tensors were observed, also on an accelerator
        :return: weights of the ascending normalized variances in their 0.9-quantile, in their shape
        """
        variances, (n_weighed, weights) = self._normalized_variances, self._p90_weights
        if n_weighed == len(variances):
            return weights  # they do not change any more
        n_observed = None
        if wait or isinstance(variances, np.ndarray):
            n_observed = len(variances) - int(as_tensor(variances).isnan().sum())
            if n_observed == n_weighed:
                return weights
        weights = as_array(rank_weights(as_tensor(variances), self._q)[0])
        if n_observed is not None:
            self._p90_weights = (n_observed, weights)
        return weights

    def _element_variances(self) -> th.Tensor:
        assert isinstance(self._measure, ElementsTemporal)  # no other version has this granularity
        return self._measure.element_variances()

    def _factors(self) -> Factors:
        """:return: clip(1 / (1 + α · min(nv, variance_cap)), min_scaling_factor, 1), nv of the average"""
        granularity = self._application.granularity
        if granularity == "global":
            nv = self._normalized_variance()
        else:
            nv = self._normalized_variances if granularity == "tensor" else self._element_variances()
            nv = zero_unless(nv < math.inf, nv)
        factors = at_least(1.0 / (1.0 + self._strength * nv), self._smallest_factor)
        return Factors(factors, granularity, self._layout)

    def _set_strength(self, optimizer_momentum: float) -> None:
        """
        Find out by what nv is multiplied in a factor, and the smallest factor.

        :param optimizer_momentum: of the optimizer whose update is scaled; counts where ``momentum`` was not set
        """
        self._optimizer_momentum = optimizer_momentum
        momentum, settings = self._application.momentum or optimizer_momentum, self._settings
        self._strength = settings.alpha * (1.0 - momentum) / (1.0 + momentum)
        # The factor falls with nv, so both bounds on its lower side are one; it cannot exceed 1
        self._smallest_factor = max(settings.min_scaling_factor, 1.0 / (1.0 + self._strength * settings.variance_cap))
