"""Loops compiled by Numba where it is installed, the extra ``fast``: one pass over memory instead of one per operation.

A function is a loop's readable definition too, but never the only one: without Numba, NumPy and torch do the same
operation by operation, equal up to rounding.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from sb3_vgs_ppo.errors import CompileFallbackWarning


@cache
def loops(module: str) -> ModuleType | None:
    """
    Import a module of compiled loops when they are first needed, since Numba takes half a second.

    :param module: its full name
    :return: the module; None if Numba is missing, switched off (``NUMBA_DISABLE_JIT=1``), or cannot be imported, of
        which one :class:`~sb3_vgs_ppo.errors.CompileFallbackWarning` tells
    """
    if find_spec("numba") is None:
        return None
    try:
        from numba import config
    except ImportError as error:  # such as a NumPy newer than it knows
        message = f"Numba is installed but cannot be imported ({error}). Updates are slower, with the same results"
        warnings.warn(message, CompileFallbackWarning, stacklevel=2)
        return None
    return None if getattr(config, "DISABLE_JIT", False) else import_module(module)


def compiled(*, reorders: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """
    Decorator of a loop over arrays and numbers. Compiled code is kept on disk where there is a place to write to.

    :param reorders: let sums be added up in another order, several at a time. Everything else, NaN and Inf too, is as
        IEEE 754 has it; also that a product is rounded before it is added, since a loop that writes may run eight
        elements at a time or one, depending on where its arrays lie, and a resumed run must not differ by that
    """
    from numba import njit

    def compile_loop(function: Callable[..., Any]) -> Any:
        fastmath = {"reassoc"} if reorders else False
        try:
            return njit(cache=True, error_model="numpy", fastmath=fastmath)(function)
        except RuntimeError:  # neither the package's folder nor the user's cache can be written to
            return njit(error_model="numpy", fastmath=fastmath)(function)

    return compile_loop
