"""Figures of one ``train()`` call, kept as tensors and read at its end.

SB3 reads five numbers per minibatch with ``.item()``; on a GPU each read waits for the device.
"""

from __future__ import annotations

import torch as th


class MinibatchLog:
    """Collects 0-d tensors per minibatch; nothing is read on the host before the update is over."""

    def __init__(self) -> None:
        self._all: dict[str, list[th.Tensor]] = {}
        self._epoch: dict[str, list[th.Tensor]] = {}
        self._predictions: list[th.Tensor] = []
        self._targets: list[th.Tensor] = []

    def start_epoch(self) -> None:
        """Forget what is reported of the last epoch only."""
        self._epoch.clear()
        self._predictions.clear()
        self._targets.clear()

    def add(self, **figures: th.Tensor) -> None:
        """:param figures: 0-d tensors, reported as their mean over all minibatches"""
        for name, value in figures.items():
            self._all.setdefault(name, []).append(value.detach())

    def add_of_epoch(self, **figures: th.Tensor) -> None:
        """:param figures: 0-d tensors, reported as their mean over the minibatches of the last epoch"""
        for name, value in figures.items():
            self._epoch.setdefault(name, []).append(value.detach())

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

    def sum(self, name: str) -> float:
        """:return: the sum of a figure over all minibatches, 0 if it was never added"""
        values = self._all.get(name)
        return float(th.stack(values).double().sum()) if values else 0.0

    def last(self, name: str) -> float:
        """:return: the figure of the last minibatch"""
        return float(self._all[name][-1])

    def means(self) -> dict[str, float]:
        """:return: mean of every figure over the minibatches where it is not NaN, with one host read in all"""
        series = {**self._all, **self._epoch}
        if not series:
            return {}
        means = th.stack([th.stack(values).double().nanmean() for values in series.values()]).tolist()
        return dict(zip(series, means, strict=True))
