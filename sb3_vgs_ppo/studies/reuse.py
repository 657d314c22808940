"""Cells that another study has trained already: the same run, so the same numbers, and no need to train it twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from sb3_vgs_ppo.studies.definition import Cell, Study
from sb3_vgs_ppo.studies.store import MARK, StudyStore

Options: TypeAlias = Mapping[str, Any]
"""All options of ``train``, those at their defaults too: two studies may write them differently."""

_NOT_DECIDING = ("keep_checkpoints", "progress", "verbose", "track", "track_project", "record_video")
"""Options on which a cell's numbers do not depend."""


def reuse_cells(
    store: StudyStore,
    other: StudyStore,
    planned: Callable[[Study, Cell], Options],
    trained: Callable[[Path], Options],
) -> list[Cell]:
    """
    Copy the done cells of another study whose options are those of cells that are not begun here. Cells that train on
    from others are left out: what they start from is another run.

    :param store: study that takes them; its other cells stay as they are
    :param other: study that is read
    :param planned: options of a cell that is to be trained
    :param trained: options of a finished one, from its folder
    :return: cells that are done now
    :raises StudyError: a cell of the other study is damaged
    """
    done = {identity(trained(other.folder(cell))): cell for cell in other.study.cells() if other.is_done(cell)}
    taken = []
    for cell in store.study.cells():
        source = done.get(identity(planned(store.study, cell)))
        if source is None or store.study.parent(cell) or other.study.parent(source) or store.folder(cell).exists():
            continue
        if _keeps(store.study, cell) > _keeps(other.study, source):
            continue  # others may train on from checkpoints that are gone there
        other.completion(source)  # which refuses a damaged one
        _copy(other, source, store, cell)
        taken.append(cell)
    return taken


def identity(options: Options) -> str:
    """
    :param options: of a run
    :return: those that decide its numbers, as a text that is the same for the same run
    """
    deciding = {name: value for name, value in options.items() if name not in _NOT_DECIDING}
    return json.dumps(deciding, sort_keys=True)


def _keeps(study: Study, cell: Cell) -> int:
    return int(study.train_options(cell).get("keep_checkpoints", 0))


def _copy(other: StudyStore, source: Cell, store: StudyStore, cell: Cell) -> None:
    """The folder takes its place when it is whole, and its mark is written last, as after a training."""
    target = store.folder(cell)
    arriving = target.with_name(f"{target.name}.arriving")
    if arriving.exists():
        shutil.rmtree(arriving)
    shutil.copytree(other.folder(source), arriving, ignore=shutil.ignore_patterns(MARK, ".lock"))
    arriving.rename(target)
    store.mark_done(cell)
