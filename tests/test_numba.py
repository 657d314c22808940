"""When there are compiled loops, and when not."""

from __future__ import annotations

import builtins
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sb3_vgs_ppo import _numba
from sb3_vgs_ppo.errors import CompileFallbackWarning

MODULES = [f"sb3_vgs_ppo.{room}.loops" for room in ("distributional", "optim", "ppo", "scaling")]

pytest.importorskip("numba", reason="numba is not installed: pip install 'sb3-vgs-ppo[fast]'")


@pytest.fixture(autouse=True)
def ask_anew() -> Iterator[None]:
    _numba.loops.cache_clear()
    yield
    _numba.loops.cache_clear()


@pytest.mark.parametrize("module", MODULES)
def test_loops_are_there_where_numba_is(module: str) -> None:
    found = _numba.loops(module)
    assert found is not None
    assert found.__name__ == module


def test_without_numba_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_numba, "find_spec", lambda _: None)
    assert _numba.loops(MODULES[0]) is None


def test_they_can_be_switched_off_as_numba_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numba.config.DISABLE_JIT", 1)
    assert _numba.loops(MODULES[0]) is None


def test_a_numba_that_cannot_be_imported_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def refuse(name: str, *args: Any) -> Any:
        if name == "numba":
            raise ImportError("Numba needs NumPy 2.5 or less. Got NumPy 2.6.")
        return imported(name, *args)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.warns(CompileFallbackWarning, match=r"NumPy 2\.6.*slower, with the same results"):
        assert _numba.loops(MODULES[0]) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _numba.loops(MODULES[0]) is None


def test_a_place_to_keep_compiled_code_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def without_cache(**options: Any) -> Callable[[Any], Any]:
        asked.append(options.get("cache", False))
        if asked[-1]:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr("numba.njit", without_cache)

    def double(x: int) -> int:
        return 2 * x

    assert _numba.compiled()(double) is double
    assert asked == [True, False]


def test_importing_the_package_does_not_import_numba() -> None:
    code = "import sys, sb3_vgs_ppo; sys.exit('numba' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
