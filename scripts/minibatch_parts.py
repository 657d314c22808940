"""Where the time of a minibatch of the default agent goes: python scripts/minibatch_parts.py

Each part in units of SB3's minibatch, CPU time; SB3's PPO takes turns with the agent in the same process. What reading
the clocks takes is measured where it is done, and taken off. NUMBA_DISABLE_JIT=1 shows the agent without Numba.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import torch as th

from sb3_vgs_ppo.ppo import dppo
from sb3_vgs_ppo.runs.benchmark_agent import Stopwatch, TimedAgent
from sb3_vgs_ppo.runs.benchmark_train import DEFAULT, ROLLOUTS, SB3, Task, contenders

SAMPLES, LOSS, BACKWARD, VGS, CLIPPING, OPTIMIZER, REST = (
    "samples",
    "forward pass and losses",
    "backward pass",
    "VGS 3.0",
    "norm and clipping",
    "AdaptiveUPGD",
    "the rest: what is logged, and Python between the parts",
)


class WatchedParts:
    """
    The parts of a model's update, timed from now on.

    :param model: a :class:`~sb3_vgs_ppo.ppo.DistributionalPPO` with VGS
    """

    def __init__(self, model: Any) -> None:
        self.watches = {part: Stopwatch() for part in (SAMPLES, LOSS, BACKWARD, VGS, CLIPPING, OPTIMIZER)}
        self._choose, self._apply, self._minibatches = (
            model._choose_evaluation,
            model._apply_gradients,
            dppo.minibatches,
        )
        model._choose_evaluation, model._apply_gradients = self._chosen, self._applied
        dppo.minibatches = self._drawn  # type: ignore[assignment]
        for name in ("observe", "scale", "step"):
            setattr(model.vgs, name, self.watches[VGS].watch(getattr(model.vgs, name)))

    def _drawn(self, *args: Any) -> Iterator[Any]:
        draw = self.watches[SAMPLES].watch(self._minibatches(*args).__next__)
        try:
            while True:
                yield draw()
        except StopIteration:
            return

    def _chosen(self, parameters: list[th.nn.Parameter]) -> tuple[Callable[..., Any], Any]:
        evaluate, gradients = self._choose(parameters)
        watched = self.watches[LOSS].watch(evaluate)
        for name in ("norm", "clip_"):
            setattr(gradients, name, self.watches[CLIPPING].watch(getattr(gradients, name)))

        def evaluation(*args: Any) -> tuple[th.Tensor, Callable[[], None]]:
            loss, backward = watched(*args)
            return loss, self.watches[BACKWARD].watch(backward)

        return evaluation, gradients

    def _applied(self, loss: th.Tensor, gradients: Any, step: Callable[[], Any], log: Any) -> None:
        self._apply(loss, gradients, self.watches[OPTIMIZER].watch(step), log)

    def turn(self, agent: TimedAgent) -> dict[str, float]:
        """:return: CPU seconds of each part in one turn of the agent"""
        for watch in self.watches.values():
            watch.reset()
        train = agent.turn(ROLLOUTS).train
        watched = sum(watch.seconds.plus(watch.own_seconds).cpu for watch in self.watches.values())
        return {**{part: watch.seconds.cpu for part, watch in self.watches.items()}, REST: train.cpu - watched}


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env-id", default="HalfCheetah-v5", help="registered environment with vector observations")
    parser.add_argument("--repetitions", type=int, default=5, help="measured turns of each agent")
    arguments = parser.parse_args()
    th.set_num_threads(1)
    task = Task(arguments.env_id, n_envs=8)
    agents = {contender.name: contender for contender in contenders()}
    with closing(agents[SB3].agent(task)) as sb3, closing(agents[DEFAULT].agent(task)) as agent:
        parts = WatchedParts(agent._model)
        rows: list[dict[str, float]] = []
        for repetition in range(arguments.repetitions + 1):
            reference, seconds = sb3.turn(ROLLOUTS).train.cpu, parts.turn(agent)
            if repetition:  # the first turn pays for compilation
                rows.append({part: value / reference for part, value in seconds.items()})
    print("| part | of SB3's minibatch | range |\n|---|---|---|")
    for part in rows[0]:
        values = [row[part] for row in rows]
        print(f"| {part} | {statistics.median(values):.3f} | {min(values):.3f}–{max(values):.3f} |")
    totals = [sum(row.values()) for row in rows]
    print(f"| together | {statistics.median(totals):.3f} | {min(totals):.3f}–{max(totals):.3f} |")


if __name__ == "__main__":
    main()
