"""What a study found, as files: ``summary.json``, ``table.csv``, alarms as CSV, and all curves as CSV and Parquet."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd

from sb3_vgs_ppo._files import atomic_write, write_json
from sb3_vgs_ppo.studies.results import Detection, EnvironmentResult, Estimate, StudyResult, VariantResult

SCHEMA = 1

_ESTIMATES = ("final", "evaluation", "area", "late_phases")


def summary_mapping(result: StudyResult) -> dict[str, Any]:
    """
    :return: the result without its curves, as values that strict JSON has: null stands for None and for what is not
        finite
    """
    return {"schema": SCHEMA, **_plain(result)}


def write_tables(result: StudyResult, out: Path) -> list[Path]:
    """
    Write ``summary.json``, ``table.csv`` (a row per environment and variant), ``changes.csv`` (a row per alarm), and
    ``curves.csv`` and ``curves.parquet`` (a row per cell, metric and step; seven digits in the CSV). Each file is
    replaced as a whole.

    :param out: folder; made where it is missing
    :return: the files
    :raises OSError: a file cannot be written
    """
    out.mkdir(parents=True, exist_ok=True)
    rows = [_row(environment, variant) for environment in result.environments for variant in environment.variants]
    table = pd.DataFrame(rows)
    writers: dict[str, Callable[[BinaryIO], object]] = {
        "table.csv": lambda file: table.to_csv(file, index=False),
        "changes.csv": lambda file: result.alarms.to_csv(file, index=False, float_format="%.7g"),
        "curves.csv": lambda file: result.curves.to_csv(file, index=False, float_format="%.7g"),
        "curves.parquet": lambda file: result.curves.to_parquet(file, index=False),
    }
    write_json(out / "summary.json", summary_mapping(result))
    for name, write in writers.items():
        with atomic_write(out / name) as file:
            write(file)
    return [out / "summary.json", *(out / name for name in writers)]


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        named = {field.name: getattr(value, field.name) for field in fields(value)}
        return {name: _plain(part) for name, part in named.items() if not isinstance(part, pd.DataFrame)}
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _row(environment: EnvironmentResult, variant: VariantResult) -> dict[str, Any]:
    row: dict[str, Any] = {"env_id": environment.env_id}
    for field in fields(variant):
        value = getattr(variant, field.name)
        if field.name in _ESTIMATES:
            estimate = value or Estimate(math.nan, None, None, 0)
            row[field.name] = estimate.value
            row[f"{field.name}_low"], row[f"{field.name}_high"] = estimate.low, estimate.high
        elif field.name == "detection":
            row.update(vars(value) if value else dict.fromkeys(field.name for field in fields(Detection)))
        elif field.name == "coverage":
            row.update({f"coverage_{one.kind}_{one.level:g}": one.share.value for one in value})
        elif field.name == "diagnostics":
            row.update(value)
        elif field.name != "phases":  # as many as the task has: they are in summary.json
            row[field.name] = value
    return row
