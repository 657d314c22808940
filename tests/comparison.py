"""Whether two run folders hold the same run, bit for bit, apart from what a clock has written."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch as th
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sb3_vgs_ppo.checkpoint import MANIFEST, read_checkpoint
from sb3_vgs_ppo.runs.folder import RunFolder
from sb3_vgs_ppo.runs.resume_state import RUN_STATE

CLOCK = ("time/fps", "time/time_elapsed")
TENSORS = (".pth", ".pt")


def assert_same_run(one: Path, other: Path) -> None:
    """:raises AssertionError: the first difference"""
    for folder in (one, other):
        leftovers = [path for path in folder.rglob("*") if path.suffix in (".vgs-tmp", ".unusable")]
        assert leftovers == []
    assert tables(one) == tables(other)
    assert scalars(one) == scalars(other)
    zips = sorted(path.relative_to(one) for path in one.rglob("*.zip"))
    assert zips == sorted(path.relative_to(other) for path in other.rglob("*.zip"))
    for name in zips:
        assert_same(contents(one / name), contents(other / name), str(name))
    summaries = [RunFolder(folder).read_status().summary or {} for folder in (one, other)]
    for summary in summaries:
        summary.pop("steps_per_second")
    assert summaries[0] == summaries[1]


def tables(folder: Path) -> dict[str, list[dict[str, str]]]:
    """:return: rows of every CSV file, without what a clock has written; each step once"""
    files = {"progress.csv": 0, "evaluations.csv": 0}
    files |= {path.name: 0 for path in folder.glob("calibration.csv")}  # a scalar critic has none
    files |= {path.relative_to(folder).as_posix(): 1 for path in folder.glob("monitor/*.csv")}
    rows = {}
    for name, n_comments in files.items():
        lines = (folder / name).read_text().splitlines()[n_comments:]
        rows[name] = [
            {key: value for key, value in row.items() if key not in (*CLOCK, "t")} for row in csv.DictReader(lines)
        ]
    steps = [int(row["time/total_timesteps"]) for row in rows["progress.csv"]]
    assert steps == sorted(set(steps))
    return rows


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """:return: steps and values by tag, each step once and in order"""
    found: dict[str, list[tuple[int, float]]] = {}
    # One after the other: names tell the second, and here runs are resumed within one
    for path in sorted(folder.glob("events.*"), key=lambda path: path.stat().st_mtime_ns):
        events = EventAccumulator(str(path), size_guidance={"scalars": 0})
        events.Reload()
        for tag in set(events.Tags()["scalars"]) - set(CLOCK):
            found.setdefault(tag, []).extend((event.step, event.value) for event in events.Scalars(tag))
    for tag, values in found.items():
        steps = [step for step, _ in values]
        assert steps == sorted(set(steps)), tag
    return found


def contents(path: Path) -> dict[str, Any]:
    """:return: everything in a checkpoint that is tensors or plain values, without what a clock has written"""
    checkpoint = read_checkpoint(path)
    found = {name: checkpoint.tensors(name) for name in checkpoint.archive.members if name.endswith(TENSORS)}
    found[MANIFEST] = [checkpoint.manifest.num_timesteps, checkpoint.manifest.arguments, checkpoint.manifest.attributes]
    if RUN_STATE in found:
        state = found[RUN_STATE]
        del state["extent"]["sizes"]  # times have more digits or fewer
        for episode in state["model"]["ep_info_buffer"]:
            del episode["t"]
        for environment in state["environments"]:
            for layer in environment["layers"]:
                layer.pop("t_start", None)
    return found


def assert_same(one: Any, other: Any, where: str) -> None:
    """Compare values and types, tensors bit for bit."""
    assert type(one) is type(other), where
    if isinstance(one, th.Tensor):
        assert one.dtype == other.dtype, where
        assert one.shape == other.shape, where
        assert one.contiguous().view(-1).numpy().tobytes() == other.contiguous().view(-1).numpy().tobytes(), where
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where}: {key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, (first, second) in enumerate(_pairs(one, other)):
            assert_same(first, second, f"{where}[{index}]")
    else:
        assert repr(one) == repr(other), where


def _pairs(one: Any, other: Any) -> Iterator[tuple[Any, Any]]:
    return zip(one, other, strict=True)
