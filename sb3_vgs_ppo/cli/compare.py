"""``compare``: options, one study, and its report."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sb3_vgs_ppo.cli.options import parse_options
from sb3_vgs_ppo.cli.shell import program
from sb3_vgs_ppo.errors import StudyError

if TYPE_CHECKING:
    from sb3_vgs_ppo.runs.engines import Engine
    from sb3_vgs_ppo.runs.study import StudyProgress
    from sb3_vgs_ppo.studies.store import StudyStore

_DEFINITION = ("env_ids", "variants", "seeds", "total_timesteps", "baseline", "options")
"""Options that go into the definition of a study, and win over its file."""


@dataclass(frozen=True)
class CompareOptions:
    """Train every variant in every environment with every seed, and report what the learning curves say. The same
    command again goes on where it was stopped."""

    out: Path
    """Folder of the study, new or empty, or that of the same study: finished cells are kept, others go on."""
    study: Path | None = None
    """YAML file with the study: env_ids, variants, seeds, total_timesteps, baseline, options; flags win over it."""
    env_ids: tuple[str, ...] = ()
    """Registered environments."""
    variants: tuple[str, ...] = ()
    """Agents to compare: families (vgs, optimizer, head, baseline, preset), members (vgs-3.0, adam, sb3-ppo,
    continual), or parts joined by + (adam+vgs-3.0; optimizer+vgs is every combination)."""
    seeds: int | None = None
    """Number of seeds: 0, 1, … (5 if nothing says otherwise)."""
    total_timesteps: int | None = None
    """Environment steps of every run (60,000 if nothing says otherwise)."""
    baseline: str | None = None
    """Variant that the others are compared with; sb3-ppo if it is among them, else the one without VGS, else the
    first."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of train for every run, as '{"n_envs": 4, "algo_kwargs": {"gamma": 0.98}}'."""
    engine: Literal["local", "ray"] = "local"
    """Processes of this machine, or a Ray cluster (extra ray)."""
    workers: int | None = None
    """Runs at a time; one per CPU if not given."""
    address: str = "auto"
    """Ray cluster: host:port of its head, or auto for the one that this machine belongs to."""
    extend: bool = False
    """Accept a definition that adds environments, variants or seeds to those in the folder."""
    reuse: tuple[Path, ...] = ()
    """Folders of other studies: their finished runs with the same options are copied instead of trained again."""
    report: bool = True
    """Write the report at the end."""
    progress: bool = True
    """Show a progress bar on a terminal. Elsewhere, and without it, a line is printed per finished run."""


def run(argv: Sequence[str], prog: str) -> int:
    """
    :return: 0 if every cell is done, 1 if some failed, 128 plus the signal that stopped the study
    :raises StudyError: the study cannot be run, or nothing of it is done
    """
    options = parse_options(CompareOptions, argv, prog=prog)
    if options.workers is not None and options.workers < 1:
        raise StudyError(f"--workers {options.workers} is too small; remedy: at least 1")
    store = open_store(options)
    _reuse(options.reuse, store)
    # torch and SB3 are imported only once the study is understood
    from sb3_vgs_ppo.runs.study import run_study
    from sb3_vgs_ppo.runs.study_display import make_study_display

    display = make_study_display(options.progress, out=sys.stdout, terminal=sys.stderr)
    progress, signal_number = run_study(store, _engine(options, store), display)
    if signal_number is not None:
        print(
            f"Stopped with {progress.done} of {len(progress.cells)} cells done; everything so far is saved.\n"
            f"Next: {program('sb3-vgs-ppo')} compare --out {shlex.quote(str(store.path))}{_engine_words(options)}"
        )
        return 128 + signal_number
    if options.report:
        from sb3_vgs_ppo.cli.report import report_study

        report_study(store)
    return _print_failures(progress)


def open_store(options: CompareOptions) -> StudyStore:
    """
    :return: the folder that the study is to be run in, with its definition
    :raises StudyError: no definition, one that cannot be used, or another one than that of the folder
    :raises UserInputError: an option of train that cannot be used
    """
    from sb3_vgs_ppo._values import merged
    from sb3_vgs_ppo.studies.store import MANIFEST, StudyStore
    from sb3_vgs_ppo.studies.study_file import make_study, read_study_file

    given = {name: getattr(options, name) for name in _DEFINITION if getattr(options, name) not in (None, (), {})}
    if not given and options.study is None:
        if not (options.out / MANIFEST).exists():
            raise StudyError(f"{options.out} holds no study yet; remedy: --env-ids and --variants, or --study")
        return StudyStore.open(options.out)
    study = make_study(merged(read_study_file(options.study) if options.study else {}, given))
    from sb3_vgs_ppo.runs.study import check_study

    check_study(study)
    return StudyStore.create_or_open(options.out, study, extend=options.extend)


def _reuse(folders: Sequence[Path], store: StudyStore) -> None:
    if not folders:
        return
    from sb3_vgs_ppo.runs.cells import cell_options, trained_options
    from sb3_vgs_ppo.studies.reuse import reuse_cells
    from sb3_vgs_ppo.studies.store import StudyStore

    for folder in folders:
        taken = reuse_cells(store, StudyStore.open(folder), cell_options, trained_options)
        print(f"{len(taken)} cells are taken from {folder}")


def _engine(options: CompareOptions, store: StudyStore) -> Engine:
    if options.engine == "ray":
        from sb3_vgs_ppo.runs.ray_engine import RayEngine

        return RayEngine(options.address, store.path, options.workers)
    from sb3_vgs_ppo.runs.engines import LocalEngine

    return LocalEngine(options.workers or os.cpu_count() or 1)


def _engine_words(options: CompareOptions) -> str:
    """:return: the options that choose the engine, as words of a command line"""
    words = ["--engine", "ray", "--address", options.address] if options.engine == "ray" else []
    words += ["--workers", str(options.workers)] if options.workers is not None else []
    return "".join(f" {shlex.quote(word)}" for word in words)


def _print_failures(progress: StudyProgress) -> int:
    """:return: exit code"""
    for cell, reason in progress.failed.items():
        print(f"failed: {cell}: {reason}", file=sys.stderr)
    if progress.failed:
        print(f"{len(progress.failed)} cells failed; the same command tries them again", file=sys.stderr)
    return 1 if progress.failed else 0
