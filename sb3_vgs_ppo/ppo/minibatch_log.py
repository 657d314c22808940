"""Figures of one ``train()`` call, kept as tensors and read at its end.

SB3 reads five numbers per minibatch with ``.item()``; on a GPU each read waits for the device.
"""

from __future__ import annotations

import torch as th


class MinibatchLog:
    """Collects 0-d tensors per minibatch; nothing is read on the host before the update is over."""

    def __init__(self) -> None:
        self.skipped = 0
        """Number of minibatches whose update was skipped."""
        self._figures: dict[str, list[th.Tensor]] = {}
        self._log_ratios: list[th.Tensor] = []
        self._epoch_start = 0
        self._predictions: list[th.Tensor] = []
        self._targets: list[th.Tensor] = []

    def start_epoch(self) -> None:
        """Forget what is reported of the last epoch only."""
        self._epoch_start = len(self._log_ratios)
        self._predictions.clear()
        self._targets.clear()

    def add(self, **figures: th.Tensor) -> None:
        """:param figures: 0-d tensors, reported as their mean over all minibatches"""
        for name, value in figures.items():
            self._figures.setdefault(name, []).append(value.detach() if value.requires_grad else value)

    def add_log_ratio(self, log_ratio: th.Tensor) -> None:
        """:param log_ratio: log-probabilities under the current policy less those under the old one, (batch,)"""
        self._log_ratios.append(log_ratio.detach())

    def add_predictions(self, predictions: th.Tensor, targets: th.Tensor) -> None:
        """
        :param predictions: raw predictions of the value head, (batch, k)
        :param targets: λ-returns, (batch,)
        """
        self._predictions.append(predictions.detach())
        self._targets.append(targets)

    def last_epoch_predictions(self) -> tuple[th.Tensor, th.Tensor]:
        """:return: predictions (samples, k) and targets (samples,) of the last epoch"""
        return th.cat(self._predictions), th.cat(self._targets)

    def last_kl(self) -> th.Tensor:
        """:return: :func:`approximate_kl` of the last minibatch, 0-d"""
        return approximate_kl(self._log_ratios[-1]).mean()

    def last(self, name: str) -> float:
        """:return: the figure of the last minibatch"""
        return float(self._figures[name][-1])

    def fraction_above(self, name: str, bound: float) -> float:
        """:return: fraction of the minibatches with this figure in which it exceeds the bound, 0 if there are none"""
        values = self._figures.get(name)
        return float((th.stack(values) > bound).float().mean()) if values else 0.0

    def means(self, clip_range: float) -> dict[str, float]:
        """
        :param clip_range: a ratio that is further away from 1 was clipped
        :return: mean of every figure over the minibatches where it is not NaN; likewise ``clip_fraction``; and
            ``approx_kl`` over those of the last epoch; with one host read in all
        """
        means = {name: th.stack(values).double().nanmean() for name, values in self._figures.items()}
        if self._log_ratios:
            ratios = [log_ratio.exp() for log_ratio in _by_size(self._log_ratios)]
            means["clip_fraction"] = _mean_of_rows([((ratio - 1).abs() > clip_range).float() for ratio in ratios])
            of_epoch = _by_size(self._log_ratios[self._epoch_start :])
            means["approx_kl"] = _mean_of_rows([approximate_kl(log_ratio) for log_ratio in of_epoch])
        return dict(zip(means, th.stack(list(means.values())).tolist(), strict=True)) if means else {}


def approximate_kl(log_ratio: th.Tensor) -> th.Tensor:
    """
    The k3 estimator of the reverse KL divergence (http://joschu.net/blog/kl-approx.html): unbiased, never negative.

    :param log_ratio: log-probabilities under the current policy less those under the old one, any shape
    :return: estimate of every sample, same shape
    """
    return (th.exp(log_ratio) - 1) - log_ratio


def _by_size(minibatches: list[th.Tensor]) -> list[th.Tensor]:
    """:return: minibatches of one size each, stacked, shape (number, size); the last one of an epoch may be shorter"""
    sizes = dict.fromkeys(map(len, minibatches))
    return [th.stack([minibatch for minibatch in minibatches if len(minibatch) == size]) for size in sizes]


def _mean_of_rows(groups: list[th.Tensor]) -> th.Tensor:
    """:return: mean over the rows of all groups of each row's mean, NaN left out, 0-d"""
    return th.cat([group.mean(1) for group in groups]).double().nanmean()
