"""Functions that ``torch.compile`` makes faster where it can, and that run as they are, with a word why, where not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

import torch as th

from sb3_vgs_ppo.errors import CompileFallbackWarning

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_CPU_OPTIONS = {
    # Kernels are called from C++: for networks of 64 x 64 the calls from Python take as long as the kernels
    "cpp_wrapper": True,
    # By exp, twice as fast as the library's tanh and as exact as float32 needs
    "cpp.use_decompose_tanh": True,
    # Dynamo's guards have looked at the same things
    "size_asserts": False,
    "alignment_asserts": False,
}


class Compiled(Generic[Arguments, Result]):
    """
    A function that is compiled when it is first called, and again for tensors of other shapes.

    What is in the tensors may change from call to call; numbers and settings are compiled in. If it cannot be compiled,
    one warning says why, and it runs as it is from then on.

    :param function: of tensors on a CPU, which it may write to
    :param name: what it is, for the warning
    """

    def __init__(self, function: Callable[Arguments, Result], name: str) -> None:
        self.failure: str | None = None
        """Why it runs as it is; None while it is compiled, or may yet be."""
        self._function, self._name = function, name
        self._compiled: Callable[Arguments, Result] | None = None

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if self.failure is None:
            try:
                if self._compiled is None:
                    self._compiled = th.compile(self._function, fullgraph=True, dynamic=False, options=_options())
                return self._compiled(*args, **kwargs)
            except Exception as error:  # of torch, of the C++ compiler, of the folder of the compiled code: of any kind
                first_line = str(error).strip().partition("\n")[0]
                self.fall_back(f"{self._name} cannot be compiled here ({type(error).__name__}: {first_line})")
        return self._function(*args, **kwargs)

    def fall_back(self, reason: str) -> None:
        """
        Run as it is from now on, and warn, once.

        :param reason: why
        """
        if self.failure is None:
            self.failure = reason
            message = f"updates are not compiled: {reason}. They are slower, with the same results"
            warnings.warn(message, CompileFallbackWarning, stacklevel=2)


def _options() -> dict[str, Any]:
    known = set(th._inductor.list_options())
    return {name: value for name, value in _CPU_OPTIONS.items() if name in known}
