"""``search``: good options for several families of agents, with the same budget for each."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sb3_vgs_ppo.cli.options import parse_options
from sb3_vgs_ppo.cli.shell import program
from sb3_vgs_ppo.cli.tables import print_rows
from sb3_vgs_ppo.errors import StudyError

if TYPE_CHECKING:
    from sb3_vgs_ppo.runs.search import SearchResult


@dataclass(frozen=True)
class SearchOptions:
    """Try options of train, trial by trial, and keep the best of every family of agents. Needs the extra search. The
    same command again goes on where it was stopped."""

    search: Path
    """YAML file with the search: env_id, total_timesteps, seeds, n_trials, families with their spaces."""
    out: Path
    """Folder of the search, new or empty, or that of the same search, which may now have more trials."""
    workers: int | None = None
    """Runs at a time; one per CPU if not given. What is tried does not depend on it."""
    progress: bool = True
    """Show a progress bar on a terminal. Elsewhere, and without it, a line is printed per finished run."""


def run(argv: Sequence[str], prog: str) -> int:
    """
    :return: 0 if every trial is finished, 128 plus the signal that stopped the search
    :raises StudyError: the search cannot be run, or a run of it failed
    """
    options = parse_options(SearchOptions, argv, prog=prog)
    if options.workers is not None and options.workers < 1:
        raise StudyError(f"--workers {options.workers} is too small; remedy: at least 1")
    from sb3_vgs_ppo.studies.search import read_search_file

    search = read_search_file(options.search)
    # torch and SB3 are imported only once the search is understood
    from sb3_vgs_ppo.runs.engines import LocalEngine
    from sb3_vgs_ppo.runs.search import check_search, run_search
    from sb3_vgs_ppo.runs.study_display import make_study_display

    check_search(search)
    workers = options.workers or os.cpu_count() or 1
    result = run_search(
        search,
        options.out,
        make_engine=lambda: LocalEngine(workers),
        make_display=lambda: make_study_display(options.progress, out=sys.stdout, terminal=sys.stderr),
    )
    _print_best(result)
    if result.signal_number is not None:
        command = shlex.join([*prog.split()[1:], *argv])
        print(f"Stopped; everything so far is saved.\nNext: {program('sb3-vgs-ppo')} {command}")
        return 128 + result.signal_number
    print(f"Trials: {options.out / 'trials.csv'}\nVariants for a study: {options.out / 'best.yaml'}")
    return 0


def _print_best(result: SearchResult) -> None:
    from sb3_vgs_ppo.studies.search_tables import best_trials
    from sb3_vgs_ppo.studies.wording import number

    for trial in best_trials(result.trials):
        values = [
            f"{path} {number(value) if isinstance(value, float) else value}" for path, value in trial.values.items()
        ]
        print_rows([(trial.family, f"best {number(trial.mean)}, {trial.variant.name}: {', '.join(values)}")])
