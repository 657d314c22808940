"""Share of a run's time that its checkpoints take: python scripts/checkpoint_overhead.py

Both are measured in the same run, because two runs after each other differ by more than the share. Evaluations are off.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from sb3_vgs_ppo.runs.config import TrainConfig
from sb3_vgs_ppo.runs.training import Run, train


def main() -> None:
    """Print one line of a Markdown table per environment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env-ids", nargs="+", default=["CartPole-v1", "LunarLander-v3", "Hopper-v5", "Humanoid-v5"])
    parser.add_argument("--steps", type=int, default=50_000, help="steps per run, with a checkpoint every 10,000")
    arguments = parser.parse_args()
    print("| environment | checkpoint, median | 10,000 steps | share |\n|---|---|---|---|")
    for env_id in arguments.env_ids:
        checkpoints, seconds = measure(env_id, arguments.steps)
        per_interval = (seconds - sum(checkpoints)) * 10_000 / arguments.steps
        print(
            f"| {env_id} | {statistics.median(checkpoints) * 1e3:.0f} ms | {per_interval:.1f} s "
            f"| {sum(checkpoints) / (seconds - sum(checkpoints)):.1%} |",
            flush=True,
        )


def measure(env_id: str, steps: int) -> tuple[list[float], float]:
    """
    :param env_id: environment to train on with the command's defaults
    :param steps: environment steps
    :return: seconds of each checkpoint, and of the whole training
    """
    checkpoints: list[float] = []
    save = Run._save_checkpoint

    def timed(run: Run, iteration: int) -> None:
        started = time.perf_counter()
        save(run, iteration)
        checkpoints.append(time.perf_counter() - started)

    Run._save_checkpoint = timed  # type: ignore[method-assign, assignment]
    try:
        with tempfile.TemporaryDirectory() as folder:
            options = {"total_timesteps": steps, "eval_every": 0, "run_dir": str(Path(folder, "run"))}
            result = train(TrainConfig(env_id=env_id, normalize=env_id != "CartPole-v1", **options))  # type: ignore[arg-type]
            return checkpoints, result.num_timesteps / result.steps_per_second
    finally:
        Run._save_checkpoint = save  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
