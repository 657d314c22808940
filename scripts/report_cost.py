"""Seconds and size of the report of a large study: python scripts/report_cost.py

The cells are written, not trained: monitor files, logged values and marks as runs of a million steps leave them.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from sb3_vgs_ppo.studies.definition import Cell, Study, Variant
from sb3_vgs_ppo.studies.report import write_report
from sb3_vgs_ppo.studies.store import StudyStore

N_ENVS = 8
ROLLOUT = 2048
EPISODE = 200  # mean steps
LOGGED = (
    "vgs/scaling_factor",
    "vgs/normalized_variance",
    "vgs/clip_fraction",
    "vgs/update_ratio",
    "train/approx_kl",
    "train/entropy_loss",
    "train/value_loss",
)


def write_cell(store: StudyStore, cell: Cell, steps: int, random: np.random.Generator) -> None:
    """Leave what a run leaves, with random numbers."""
    folder = store.folder(cell)
    (folder / "monitor").mkdir(parents=True)
    for number in range(N_ENVS):
        lengths = random.integers(EPISODE // 2, EPISODE * 3 // 2, steps // N_ENVS // EPISODE)
        episodes = pd.DataFrame({"r": random.normal(100, 20, len(lengths)), "l": lengths, "t": lengths.cumsum()})
        path = folder / "monitor" / f"{number}.monitor.csv"
        path.write_text('#{"t_start": 0.0}\n' + episodes.to_csv(index=False))
    rows = np.arange(ROLLOUT, steps + 1, ROLLOUT)
    logged = {name: random.uniform(size=len(rows)) for name in LOGGED}
    pd.DataFrame({"time/total_timesteps": rows, **logged}).to_csv(folder / "progress.csv", index=False)
    (folder / "config.json").write_text(json.dumps({"options": {}, "versions": {}, "git": None}))
    summary = {"final_mean_reward": 100.0, "steps_per_second": 1000.0}
    status = {"state": "finished", "num_timesteps": steps, "cause": None, "summary": summary}
    (folder / "status.json").write_text(json.dumps(status))
    store.mark_done(cell)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", type=int, default=10, help="variants (10)")
    parser.add_argument("--seeds", type=int, default=5, help="seeds (5)")
    parser.add_argument("--total-timesteps", type=int, default=1_000_000, help="steps of a cell (1000000)")
    options = parser.parse_args()
    variants = [Variant(f"variant-{n}", {"algo_kwargs": {"n_epochs": n}}) for n in range(1, options.variants + 1)]
    study = Study(
        env_ids=("CartPole-v1", "Pendulum-v1"),
        variants=tuple(variants),
        seeds=tuple(range(options.seeds)),
        total_timesteps=options.total_timesteps,
        baseline=variants[0].name,
    )
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        store = StudyStore.create_or_open(Path(scratch, "study"), study)
        for cell in study.cells():
            write_cell(store, cell, options.total_timesteps, random)
        wall, processor = time.perf_counter(), time.process_time()
        page, result = write_report(store)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        size = page.stat().st_size / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(
        f"{result.n_done} cells: {wall:.1f} s, {processor:.1f} s of CPU, page {size:.1f} MB, peak memory {peak:.0f} MB"
    )


if __name__ == "__main__":
    main()
