"""Steps per second of a study with one worker and with several, taking turns: python scripts/study_throughput.py

Every measurement trains the same cells in a new folder, from the start of the workers to the last mark.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from sb3_vgs_ppo.runs.engines import LocalEngine
from sb3_vgs_ppo.runs.study import run_study
from sb3_vgs_ppo.studies.store import StudyStore
from sb3_vgs_ppo.studies.study_file import make_study


def throughput(workers: int, cells: int, total_timesteps: int) -> float:
    """:return: environment steps per second, all workers together"""
    values = {"env_ids": ["CartPole-v1"], "variants": ["vgs-3.0"], "seeds": cells, "total_timesteps": total_timesteps}
    with tempfile.TemporaryDirectory() as scratch:
        store = StudyStore.create_or_open(Path(scratch, "study"), make_study(values))
        started = time.perf_counter()
        progress, _ = run_study(store, LocalEngine(workers))
        seconds = time.perf_counter() - started
    if progress.failed:
        raise SystemExit(f"a cell failed: {progress.failed}")
    return progress.steps_total / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="workers beside one (2)")
    parser.add_argument("--cells", type=int, default=4, help="cells of the study (4)")
    parser.add_argument("--total-timesteps", type=int, default=20_480, help="steps of a cell (20480)")
    parser.add_argument("--repetitions", type=int, default=3, help="measurements of each (3)")
    options = parser.parse_args()
    ratios = []
    for _ in range(options.repetitions):
        one, many = (throughput(n, options.cells, options.total_timesteps) for n in (1, options.workers))
        ratios.append(many / one)
        print(
            f"1 worker {one:,.0f} steps/s, {options.workers} workers {many:,.0f} steps/s: {many / one:.2f} x",
            flush=True,
        )
    print(f"median {statistics.median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
