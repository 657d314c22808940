"""What a search found, as files: ``trials.csv``, and ``best.yaml`` whose variants can stand in a study's file."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import yaml

from sb3_vgs_ppo._files import atomic_write
from sb3_vgs_ppo.studies.search import Search, TrialResult
from sb3_vgs_ppo.studies.wording import counted, listed, number


def best_trials(results: Sequence[TrialResult]) -> list[TrialResult]:
    """:return: of each family the first trial with the largest mean, in their order; none where no trial has a score"""
    best: dict[str, TrialResult] = {}
    for result in results:
        if not math.isnan(result.mean) and (result.family not in best or result.mean > best[result.family].mean):
            best[result.family] = result
    return list(best.values())


def write_search_tables(search: Search, results: Sequence[TrialResult], out: Path) -> list[Path]:
    """
    Write ``trials.csv`` (a row per trial) and ``best.yaml`` (a variant per family). Each file is replaced as a whole.

    :param results: of all finished trials
    :param out: folder
    :return: the files
    """
    rows = [
        {
            "family": result.family,
            "trial": result.number,
            "variant": result.variant.name,
            **result.values,
            **{f"seed_{seed}": score for seed, score in zip(search.seeds, result.scores, strict=True)},
            "mean": result.mean,
        }
        for family in search.families
        for result in results
        if result.family == family.name
    ]
    table = pd.DataFrame(rows)
    scores = [*(f"seed_{seed}" for seed in search.seeds), "mean"]
    with atomic_write(out / "trials.csv") as file:
        table[[name for name in table if name not in scores] + scores].to_csv(file, index=False)
    with atomic_write(out / "best.yaml") as file:
        file.write(_best_yaml(search, results).encode())
    return [out / "trials.csv", out / "best.yaml"]


def _best_yaml(search: Search, results: Sequence[TrialResult]) -> str:
    n_trials = Counter(result.family for result in results)
    seeds = f"{counted(len(search.seeds), 'seed')} ({listed([str(seed) for seed in search.seeds])})"
    head = (
        f"# The best trial of each family by {search.objective} on {search.env_id}, {search.total_timesteps:,} steps, "
        f"{seeds}.\n"
        "# A best score is too high by what was luck: compare these in a study with other seeds.\n"
        "variants:\n"
    )
    entries = [
        f"  # {result.variant.name}, mean {number(result.mean)}, of {counted(n_trials[result.family], 'trial')}\n"
        + yaml.safe_dump([{"name": result.family, "options": dict(result.variant.options)}], sort_keys=False)
        for result in best_trials(results)
    ]
    return head + "".join(f"{entry}\n" for text in entries for entry in _indented(text))


def _indented(text: str) -> list[str]:
    first, *rest = text.splitlines()
    return [first, *(f"  {line}" for line in rest)]
