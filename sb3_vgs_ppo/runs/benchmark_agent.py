"""An agent that is timed while it learns: in this process, or as a script in one of its own.

As a script it runs under any Python that has the agent's package, so nothing of this package is imported here::

    python benchmark_agent.py '{"module": "sbx", "algorithm": "PPO", "env_id": "HalfCheetah-v5", "n_envs": 8, ...}'

It then learns for as many rollouts as a line of its standard input says, and answers each with a line of JSON.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Reading(NamedTuple):
    """
    One quantity by both clocks.

    :param wall: what a user waits for
    :param cpu: time of this process on a processor, all its threads added up, which other processes do not lengthen
    """

    wall: float
    cpu: float

    def plus(self, other: Reading, times: float = 1.0) -> Reading:
        """:return: the sum, the other one multiplied first"""
        return Reading(self.wall + times * other.wall, self.cpu + times * other.cpu)


NOTHING = Reading(0.0, 0.0)


def now() -> Reading:
    """:return: seconds, each from a point of its own"""
    return Reading(time.perf_counter(), time.process_time())


class Stopwatch:
    """Adds up the time that is spent in functions, less what reading the clocks takes there.

    That takes two to three times as long between other code, when it has left the caches, as in a loop of its own. So
    it is measured at every call, by reading them twice before it.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start anew."""
        self.seconds: Reading = NOTHING
        self.own_seconds: Reading = NOTHING
        """By how much the functions take longer because they are timed."""

    def watch(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """:return: the function, whose calls are timed from now on"""

        def watched(*args: Any, **kwargs: Any) -> Any:
            before = now()
            start = now()
            result = function(*args, **kwargs)
            end = now()
            reading = start.plus(before, -1.0)
            self.seconds = self.seconds.plus(end).plus(start, -1.0).plus(reading, -1.0)
            self.own_seconds = self.own_seconds.plus(reading, 3.0)
            return result

        return watched


class Turn(NamedTuple):
    """
    Seconds of one turn.

    :param learn: of ``learn()``, end to end
    :param train: of ``train()`` in it
    :param scaler: of the VGS in that; 0 unless it is watched
    """

    learn: Reading
    train: Reading
    scaler: Reading


class TimedAgent:
    """
    An agent whose ``train()`` is timed while it learns.

    :param model: an on-policy algorithm of SB3, ready to learn
    :param rollout_steps: its ``n_steps`` times the number of environments
    :param watch_scaler: time its VGS too, at the price of reading the clocks nine times per minibatch
    """

    def __init__(self, model: Any, rollout_steps: int, watch_scaler: bool = False) -> None:
        self._model = model
        self._rollout_steps = rollout_steps
        self._train, self._scaler = Stopwatch(), Stopwatch()
        model.train = self._train.watch(model.train)
        if watch_scaler:
            for name in ("observe", "scale", "step"):
                setattr(model.vgs, name, self._scaler.watch(getattr(model.vgs, name)))

    def turn(self, rollouts: int) -> Turn:
        """:return: seconds of learning for some rollouts"""
        learn = Stopwatch()
        self._train.reset()
        self._scaler.reset()
        learn.watch(self._model.learn)(rollouts * self._rollout_steps, reset_num_timesteps=False)
        train = self._train.seconds.plus(self._scaler.own_seconds, -1.0)
        watching = self._train.own_seconds.plus(self._scaler.own_seconds)
        return Turn(learn.seconds.plus(watching, -1.0), train, self._scaler.seconds)

    def close(self) -> None:
        """Close its environments."""
        self._model.get_env().close()


def make_agent(
    algorithm: Callable[..., Any],
    env_id: str,
    n_envs: int,
    rollout_steps: int,
    arguments: dict[str, Any],
    watch_scaler: bool = False,
) -> TimedAgent:
    """
    :param algorithm: an on-policy algorithm of SB3 or like those
    :param env_id: registered environment with vector observations
    :param n_envs: environments, stepped in this process
    :param rollout_steps: steps per rollout, all environments together
    :param arguments: of the algorithm, besides
    :param watch_scaler: as in :class:`TimedAgent`
    :return: the agent, which has not learned anything
    """
    from stable_baselines3.common.env_util import make_vec_env

    env = make_vec_env(env_id, n_envs=n_envs, seed=0)
    model = algorithm("MlpPolicy", env, n_steps=rollout_steps // n_envs, **arguments)
    return TimedAgent(model, rollout_steps, watch_scaler)


def peak_kib() -> int:
    """:return: most memory that this process has held, in KiB"""
    # Linux hands the peak of getrusage() down to a process from the one that started it, which may be larger
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())[0])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak  # bytes there


def main() -> None:
    """Learn a turn for every line of the standard input, and answer with its seconds."""
    # The folder of this file, whose modules would be found by their bare names
    sys.path[:] = [folder for folder in sys.path if folder != str(Path(__file__).resolve().parent)]
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no answer
    settings = json.loads(sys.argv[1])
    module = importlib.import_module(settings.pop("module"))
    agent = make_agent(getattr(module, settings.pop("algorithm")), **settings)
    for line in sys.stdin:
        turn = agent.turn(int(line))
        print(json.dumps({"turn": turn, "peak_kib": peak_kib()}), file=answers, flush=True)


if __name__ == "__main__":
    main()
