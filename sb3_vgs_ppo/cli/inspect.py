"""``inspect``: what a checkpoint or a run folder holds, without running it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import tyro

from sb3_vgs_ppo.cli.options import parse_options
from sb3_vgs_ppo.cli.tables import print_rows
from sb3_vgs_ppo.errors import UserInputError

if TYPE_CHECKING:
    from sb3_vgs_ppo.checkpoint import CheckpointSummary
    from sb3_vgs_ppo.runs.inspection import RunSummary

Rows: TypeAlias = Iterable[tuple[str, object]]


@dataclass(frozen=True)
class InspectOptions:
    """Show what a checkpoint or a run folder holds. Nothing in it is executed."""

    path: tyro.conf.Positional[Path]
    """Checkpoint, SB3 zip, VGS state, or run folder."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print JSON instead of a table."""


def run(argv: Sequence[str], prog: str) -> int:
    """
    :return: exit code 0
    :raises UserInputError: there is no such file or run folder
    :raises CheckpointError: the file cannot be understood
    """
    options = parse_options(InspectOptions, argv, prog=prog)
    from sb3_vgs_ppo.checkpoint import inspect_checkpoint
    from sb3_vgs_ppo.runs.inspection import inspect_run

    if options.path.is_dir():
        of_run = inspect_run(options.path)
        _show(of_run.to_dict(), run_rows(of_run), options.json)
        return 0
    try:
        of_file = inspect_checkpoint(options.path)
    except OSError as error:
        raise UserInputError(f"{options.path} cannot be read: {error.strerror}") from error
    _show(of_file.to_dict(), checkpoint_rows(of_file), options.json)
    return 0


def run_rows(summary: RunSummary) -> Rows:
    """:return: names and values, the most wanted first"""
    status = summary.status
    yield "run folder", summary.folder
    yield "state", status.state + (f" ({status.cause})" if status.cause else "")
    yield "steps", f"{status.num_timesteps:,} of {status.total_timesteps:,}"
    if summary.best_evaluation:
        yield "best evaluation", f"{summary.best_evaluation} at step {summary.best_evaluation.step:,}"
    for name, value in (status.summary or {}).items():
        yield name.replace("_", " "), value
    yield "options", _lines(summary.record["options"])
    if summary.record.get("parent"):
        yield "parent", summary.record["parent"]
    yield "command", " ".join(summary.record["command"])
    yield "versions", _lines(summary.record["versions"])
    if summary.record["git"]:
        changed = ", with uncommitted changes" if summary.record["git"]["modified"] else ""
        yield "commit", summary.record["git"]["commit"] + changed
    if summary.newest_checkpoint:
        yield "", ""
        yield from checkpoint_rows(summary.newest_checkpoint)


def checkpoint_rows(summary: CheckpointSummary) -> Rows:
    """:return: names and values, without what the file does not say"""
    vgs = summary.vgs
    rows: Rows = (
        ("file", summary.file),
        ("kind", summary.kind),
        ("algorithm", summary.algorithm),
        ("steps", None if summary.num_timesteps is None else f"{summary.num_timesteps:,}"),
        ("policy", summary.policy_class),
        ("value head", summary.value_head),
        ("optimizer", summary.optimizer_class),
        ("observations", summary.observation_space),
        ("actions", summary.action_space),
        (
            "parameters",
            f"{summary.n_parameters:,} in {len(summary.parameters)} tensors" if summary.parameters else None,
        ),
        ("VGS", vgs and f"{vgs.version}, {vgs.step_count:,} observations; {_inline(vgs.settings)}"),
        ("versions", _lines(summary.versions)),
        ("members", _lines({name: f"{size:,} bytes" for name, size in summary.members.items()})),
        ("digests", "verified" if summary.digests_verified else "none to verify"),
        ("not stored", ", ".join(summary.unsupported)),
        ("pickles", "\n".join(f"{name}: {', '.join(parts)}" for name, parts in summary.pickles.items())),
    )
    return (row for row in rows if row[1] not in (None, ""))


def _show(values: Mapping[str, object], rows: Rows, as_json: bool) -> None:
    if as_json:
        print(json.dumps(values, indent=2))
        return
    print_rows(rows)


def _lines(values: Mapping[str, object]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in values.items())


def _inline(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
