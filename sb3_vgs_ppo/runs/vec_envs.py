"""Environments stepped side by side: all of them in this process, or each in a process of its own."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn


class WorkerEnv(gym.Wrapper[Any, Any, Any, Any]):
    """
    The outermost wrapper of an environment in a process of its own, in which functions of the main one can be called.

    A terminal sends Ctrl-C to these processes too. It is the run that decides when they end.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def call(self, request: bytes) -> bytes:
        """
        :param request: pickled function of the environment and its further arguments. Pickled here: on its own,
            multiprocessing would put every tensor into shared memory
        :return: pickled result and error, one of which is None
        """
        outcome: tuple[Any, Exception | None]
        try:
            function, arguments = pickle.loads(request)
            outcome = function(self.env, *arguments), None
        except Exception as error:
            outcome = None, error
        return pickle.dumps(outcome)


class WorkerVecEnv(SubprocVecEnv):
    """
    SB3's ``SubprocVecEnv`` of environments in :class:`WorkerEnv`, whose processes end when they are to.

    :param env_fns: make one environment each, in its own process
    """

    def __init__(self, env_fns: list[Callable[[], gym.Env[Any, Any]]]) -> None:
        # One import of torch and SB3 for all processes, which takes seconds
        multiprocessing.get_context("forkserver").set_forkserver_preload([__name__])
        super().__init__(env_fns, start_method="forkserver")

    def reset(self) -> VecEnvObs:
        """:raises RuntimeError: an environment raised an error, which its process has printed"""
        with _as_error_of_an_environment():
            return super().reset()

    def step_wait(self) -> VecEnvStepReturn:
        """:raises RuntimeError: as above"""
        with _as_error_of_an_environment():
            return super().step_wait()

    def close(self) -> None:
        """End the processes. SB3 would wait for ever for answers that an interrupted step has taken already."""
        if self.closed:
            return
        try:
            if not self.waiting:
                super().close()
        except OSError:
            pass  # one of them is gone
        for process in self.processes:
            process.terminate()
            process.join()
        self.closed = True


@contextmanager
def _as_error_of_an_environment() -> Iterator[None]:
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise RuntimeError("the process of an environment has ended; its error is printed above") from error


def call_in_each(env: VecEnv, function: Callable[..., Any], *arguments: Sequence[Any]) -> list[Any]:
    """
    Call a function of one environment with each of them, in the process where it lives.

    :param env: vectorized environment, with any wrappers
    :param function: of a module, so that it can be pickled; its first argument is the environment
    :param arguments: values of every further argument, one per environment
    :return: results, one per environment
    :raises TypeError: environments that cannot be reached
    """
    vec_env = env.unwrapped
    rows = list(zip(*arguments, strict=True)) if arguments else [()] * env.num_envs
    if isinstance(vec_env, DummyVecEnv):
        return [function(one, *row) for one, row in zip(vec_env.envs, rows, strict=True)]
    if not isinstance(vec_env, WorkerVecEnv):
        raise TypeError(f"environments of {type(vec_env).__name__} cannot be reached; remedy: DummyVecEnv")
    results = []
    for index, row in enumerate(rows):
        [answer] = vec_env.env_method("call", pickle.dumps((function, row)), indices=index)
        result, error = pickle.loads(answer)
        if error is not None:
            raise error
        results.append(result)
    return results
