"""How often the test for changes raises a false alarm: python scripts/false_alarms.py [RUN ...]

Without arguments, on simulated streams whose only truth is that nothing changes. With folders, in all finished runs
below them that tested for changes without being told of any: in rollouts in which nothing can have changed, which are
those of a stationary task, and those of the second half of each phase of one that changes. Runs with the same options
and seed, which studies share, count once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from sb3_vgs_ppo._alarms import read_alarms
from sb3_vgs_ppo.change import SelfStartingChart, Surprise
from sb3_vgs_ppo.envs import phase_length, phase_of
from sb3_vgs_ppo.runs.config import TrainConfig
from sb3_vgs_ppo.runs.folder import RunFolder
from sb3_vgs_ppo.runs.resuming import read_config
from sb3_vgs_ppo.studies.reuse import identity

ALPHA = 1e-3
N_STREAMS, N_ROLLOUTS = 400, 308
ALPHAS = (0.001, 0.01, 0.05, 0.2)
MISSED = 0.4
"""Mean probability integral transform at which most of a prediction is missed, so that the shortfall decides."""


def main() -> None:
    """Print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="RUN", help="run folders, or studies of runs")
    folders: list[Path] = parser.parse_args().folders
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        sys.exit(f"error: {', '.join(missing)}: no such folder; remedy: a run folder, or the --out of a study")
    if folders:
        count_in_runs(folders)
    else:
        simulate()
        simulate_alphas()


def simulate() -> None:
    """Print alarms per rollout that could have raised one, in units of α, with their standard error."""
    print("| shortfalls | alarms / α | standard error |\n|---|---|---|")
    for name, shortfalls in streams(np.random.default_rng(0)):
        n_alarms = np.array([len(watch(stream, ALPHA)[1]) for stream in shortfalls])
        rates = n_alarms / (N_ROLLOUTS - SelfStartingChart().min_history) / ALPHA
        print(f"| {name} | {rates.mean():.2f} | {rates.std(ddof=1) / np.sqrt(N_STREAMS):.2f} |", flush=True)


def simulate_alphas() -> None:
    """Print how often independent, normal shortfalls raise an alarm, in units of α: the first one, and any."""
    print("\n| α | first alarms / α | all alarms / α |\n|---|---|---|")
    for alpha in ALPHAS:
        rng = np.random.default_rng(0)
        n_streams = N_STREAMS if alpha >= 0.01 else 10 * N_STREAMS
        watched = [watch(shortfalls, alpha) for shortfalls in rng.standard_normal((n_streams, N_ROLLOUTS))]
        n_first = sum(bool(alarms) for _, alarms in watched)
        n_before = sum(possible.index(alarms[0]) + 1 if alarms else len(possible) for possible, alarms in watched)
        n_possible, n_alarms = (sum(map(len, part)) for part in zip(*watched, strict=True))
        print(f"| {alpha} | {n_first / n_before / alpha:.2f} | {n_alarms / n_possible / alpha:.2f} |", flush=True)


def watch(shortfalls: npt.NDArray[np.float64], alpha: float) -> tuple[list[int], list[int]]:
    """
    :param shortfalls: of consecutive rollouts
    :return: numbers of the rollouts in which an alarm was possible, and of those that raised one
    """
    chart = SelfStartingChart(alpha)
    possible, alarms = [], []
    for rollout, shortfall in enumerate(shortfalls):
        state = chart.state_dict()
        if len(state["history"]) >= chart.min_history and not (state["settling"] and shortfall > 0.0):
            possible.append(rollout)
        if chart.observe(Surprise(float(shortfall), MISSED)).alarm:
            alarms.append(rollout)
    return possible, alarms


def streams(rng: np.random.Generator) -> Iterator[tuple[str, npt.NDArray[np.float64]]]:
    """:return: names, and shortfalls of the shape (streams, rollouts)"""
    shape, t = (N_STREAMS, N_ROLLOUTS), np.arange(N_ROLLOUTS)
    yield "independent, N(0, 1)", rng.standard_normal(shape)
    yield "N(0, 1) − 0.02 t: returns run ahead of the critic", rng.standard_normal(shape) - 0.02 * t
    yield "N(0, 1) − 5 exp(−t / 30): a learning curve", rng.standard_normal(shape) - 5.0 * np.exp(-t / 30)
    yield "N(0, 1) exp(−t / 60): less and less noise", rng.standard_normal(shape) * np.exp(-t / 60)
    for correlation in (0.5, 0.9):
        yield f"autoregressive, correlation {correlation}", autoregressive(rng, shape, correlation)
    yield "Student's t, 3 degrees of freedom", rng.standard_t(3, shape)
    yield "exponential − 1", rng.exponential(size=shape) - 1.0
    yield "1 − exponential", 1.0 - rng.exponential(size=shape)


def autoregressive(rng: np.random.Generator, shape: tuple[int, int], correlation: float) -> npt.NDArray[np.float64]:
    """:return: streams of variance 1 with this correlation between neighbours"""
    shortfalls = rng.standard_normal(shape)
    innovations = rng.standard_normal(shape) * np.sqrt(1.0 - correlation**2)
    for rollout in range(1, shape[1]):
        shortfalls[:, rollout] = correlation * shortfalls[:, rollout - 1] + innovations[:, rollout]
    return shortfalls


def count_in_runs(folders: list[Path]) -> None:
    """Print rollouts in which nothing can have changed, and the alarms among them, by environment, critic and α."""
    counts: dict[tuple[str, str, float], list[tuple[int, int]]] = {}
    seen: set[str] = set()
    for folder in folders:
        for path in sorted(folder.rglob("status.json")):
            run = RunFolder(path.parent)
            config = read_config(run)
            options = identity(config.to_mapping())
            if options not in seen and run.read_status().state == "finished" and tests_for_changes(config):
                seen.add(options)
                kind = (task(config), config.value_head, config.change_kwargs.get("alpha", ALPHA))
                counts.setdefault(kind, []).append(count_in_run(run, config))
    print("| task | critic | α | runs | rollouts | alarms |\n|---|---|---|---|---|---|")
    expected, totals = 0.0, [0, 0]
    for (name, critic, alpha), runs in counts.items():
        n_rollouts, n_alarms = map(sum, zip(*runs, strict=True))
        expected += alpha * n_rollouts
        totals = [totals[0] + n_rollouts, totals[1] + n_alarms]
        print(f"| {name} | {critic} | {alpha:.2g} | {len(runs)} | {n_rollouts:,} | {n_alarms} |")
    print(f"\n{totals[1]} alarms in {totals[0]:,} rollouts; {expected:.1f} if each raised one with probability α.")


def tests_for_changes(config: TrainConfig) -> bool:
    """:return: whether a run with these options tests for changes and is not told of them"""
    return config.on_change != "none" and not config.change_kwargs.get("told", False)


def task(config: TrainConfig) -> str:
    """:return: the environment, with what was asked of it"""
    options = ", ".join(f"{name} {value}" for name, value in config.env_kwargs.items())
    return f"{config.env_id}, {options}" if options else config.env_id


def count_in_run(run: RunFolder, config: TrainConfig) -> tuple[int, int]:
    """:return: rollouts in which an alarm was possible and nothing can have changed, and the alarms among them"""
    length = phase_length(config.env_id, config.env_kwargs)
    ends = pd.read_csv(run.progress)["time/total_timesteps"].astype(int)
    first = ends.iloc[config.change_kwargs.get("min_history", SelfStartingChart().min_history)]
    size = int(ends.diff().median())

    def cannot_have_changed(end: int) -> bool:
        began = end - size + 1
        phase = phase_of(began, length)
        late = length is None or began - phase * length > length / 2
        return end >= first and late and phase == phase_of(end, length)

    alarms = [alarm.step for alarm in read_alarms(run.changes)]
    return sum(map(cannot_have_changed, ends)), sum(map(cannot_have_changed, alarms))


if __name__ == "__main__":
    main()
