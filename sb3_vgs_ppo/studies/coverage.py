"""Whether critics were right: shares of realised returns below predicted quantiles, of single cells and over seeds."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from sb3_vgs_ppo.studies.results import Coverage, Estimate

CALIBRATION_FILE = "calibration.csv"

Shares: TypeAlias = Mapping[tuple[str, float], float]
"""Of one cell: kind (``quantile`` or ``interval``) and level to the share of returns."""


def read_coverage(path: Path) -> Shares | None:
    """
    :param path: ``calibration.csv`` of a cell
    :return: None where there is none: the critic predicts no distribution, or the training diverged
    :raises ValueError: something in it is no number
    :raises KeyError: a column is missing
    """
    if not path.exists():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        return {(row["kind"], float(row["level"])): float(row["coverage"]) for row in csv.DictReader(file)}


def coverage(
    cells: Iterable[Shares | None], estimate: Callable[[Sequence[float]], Estimate | None]
) -> tuple[Coverage, ...]:
    """
    :param cells: those of one variant in one environment
    :param estimate: over seeds
    :return: in the order of the first cell's rows; empty where no cell has any
    """
    known = [shares for shares in cells if shares is not None]
    found = []
    for kind, level in known[0] if known else ():
        share = estimate([shares[kind, level] for shares in known if (kind, level) in shares])
        if share is not None:
            found.append(Coverage(kind, level, share))
    return tuple(found)
