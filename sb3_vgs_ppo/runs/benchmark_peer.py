"""An agent that learns in a process of its own, whenever it is told to.

For agents whose packages live in another environment, and for the peak of memory, which only a fresh process shows.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.runs import benchmark_agent
from sb3_vgs_ppo.runs.benchmark_agent import Reading, Turn

# One thread in every library, as in the process that measures
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
}
SBX_REMEDY = (
    "remedy: python -m venv sbx-env && sbx-env/bin/pip install sbx-rl 'gymnasium[mujoco]', "
    "then --against sbx --sbx-python sbx-env/bin/python"
)


class Peer:
    """
    A process with one agent, to be used as a context.

    :param python: the interpreter, of an environment that has the agent's package
    :param settings: ``module`` and ``algorithm``, by name, and the other arguments of
        :func:`~sb3_vgs_ppo.runs.benchmark_agent.make_agent`
    :param remedy: how to make it run, for the error
    :param script: program that is spoken to
    :raises UserInputError: there is no such interpreter
    """

    def __init__(
        self,
        python: Path | str,
        settings: dict[str, Any],
        remedy: str,
        script: Path = Path(benchmark_agent.__file__),
    ) -> None:
        self._who = f"{settings['module']}'s {settings['algorithm']} does not run under {str(python)!r}"
        self._remedy = remedy
        self.peak_kib: int = 0
        """Most memory that the process has held so far, as of the last turn."""
        with ExitStack() as stack:
            self._errors = stack.enter_context(tempfile.TemporaryFile("w+"))
            try:
                self._process = subprocess.Popen(
                    [str(python), str(script), json.dumps(settings)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._errors,
                    env={**os.environ, **ONE_THREAD},
                    text=True,
                )
            except OSError as error:
                raise self._error(error.strerror or str(error)) from error
            self._resources = stack.pop_all()

    def turn(self, rollouts: int) -> Turn:
        """
        :return: seconds of learning for some rollouts
        :raises UserInputError: the process ended instead; the last line of its complaint is named
        """
        try:
            print(rollouts, file=cast("IO[str]", self._process.stdin), flush=True)
            answer = json.loads(cast("IO[str]", self._process.stdout).readline())
        except (BrokenPipeError, json.JSONDecodeError) as error:
            self._process.wait()  # until then its complaint may not be complete
            self._errors.seek(0)
            complaint = self._errors.read().strip().splitlines() or ["it ended without a word"]
            raise self._error(complaint[-1]) from error
        self.peak_kib = answer["peak_kib"]
        return Turn(*(Reading(*reading) for reading in answer["turn"]))

    def _error(self, reason: str) -> UserInputError:
        return UserInputError(f"{self._who}: {reason.rstrip('.')}; {self._remedy}")

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()  # it holds nothing that would have to be saved
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            cast("IO[str]", pipe).close()
        self._resources.close()
