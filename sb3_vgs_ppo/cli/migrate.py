"""``migrate``: options, one migration, and its report."""

from __future__ import annotations

import json
import sys
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from sb3_vgs_ppo._types import ValueHeadName
from sb3_vgs_ppo.cli.options import parse_options
from sb3_vgs_ppo.cli.tables import PLAIN_WIDTH, print_rows
from sb3_vgs_ppo.errors import UserInputError, VGSMigrationWarning

if TYPE_CHECKING:
    from sb3_vgs_ppo.migration import MigrationReport


@dataclass(frozen=True)
class MigrateOptions:
    """Bring a checkpoint of an older VGS version, a zip of SB3's PPO or a VGS state up to date, executing nothing."""

    src: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SRC")]
    """File to read; it is never changed."""
    dst: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DST")]
    """File to write, of the same kind; SB3's zip becomes a checkpoint."""
    to_version: str = "3.0"
    """VGS version of the target: 1.0, 2.0, 3.0, 3.1 or 4.0. A checkpoint whose VGS is off stays so."""
    env_id: str | None = None
    """Environment from which the spaces are taken if the source has no manifest, as SB3's files."""
    value_head: ValueHeadName | None = None
    """Critic of the target, if not the source's; scalar and quantile can be made from each other."""
    optimizer: Literal["adam", "adaptive-upgd"] | None = None
    """Optimizer of the target, if not the source's; Adam's moments are carried over."""
    trust_pickle: tyro.conf.FlagCreatePairsOff[bool] = False
    """Unpickle what only pickle could store. This runs whatever code the source holds."""
    force: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace an existing target."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the report as JSON instead of a table."""


def run(argv: Sequence[str], prog: str) -> int:
    """
    :return: exit code 0
    :raises UserInputError: an option cannot be used, or a file cannot be read or written
    :raises CheckpointError: the source cannot be understood
    """
    options = parse_options(MigrateOptions, argv, prog=prog)
    from sb3_vgs_ppo.migration import migrate_checkpoint

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VGSMigrationWarning)  # the report holds its text
            report = migrate_checkpoint(
                options.src,
                options.dst,
                to_version=options.to_version,
                env_id=options.env_id,
                value_head=options.value_head,
                optimizer=options.optimizer,
                trust_pickle=options.trust_pickle,
                force=options.force,
            )
    except OSError as error:
        raise UserInputError(f"{error.filename or options.dst}: {error.strerror or error}") from error
    if options.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        _print_table(report)
    for message in report.warnings:
        print(textwrap.fill(f"warning: {message}", PLAIN_WIDTH, subsequent_indent="  "), file=sys.stderr)
    return 0


def _print_table(report: MigrationReport) -> None:
    rows = [("source", f"{report.source} ({report.kind})"), ("target", report.target)]
    parts = {"kept": report.kept, "converted": report.converted, "reset": report.reset, "to do": report.todo}
    for name, notes in parts.items():
        rows += [("" if position else name, note) for position, note in enumerate(notes)]
    print_rows(rows)
