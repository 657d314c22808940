"""What several rooms' tests have in common."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch as th

from sb3_vgs_ppo import _numba

TOYS = Path(__file__).parent / "runs" / "toys"
"""Folder of small environments, of which tests of runs make modules."""


def assert_equal_nested(actual: Any, expected: Any, where: str = "") -> None:
    """Equality of state dicts, bit for bit, with the place of the first difference."""
    if isinstance(expected, dict):
        assert set(actual) == set(expected), where
        for key, value in expected.items():
            assert_equal_nested(actual[key], value, f"{where}/{key}")
    elif isinstance(expected, list | tuple):
        assert len(actual) == len(expected), where
        for index, value in enumerate(expected):
            assert_equal_nested(actual[index], value, f"{where}/{index}")
    elif isinstance(expected, th.Tensor):
        assert actual.dtype == expected.dtype, where
        assert th.equal(actual, expected), where
    else:
        assert actual == expected, where


def needs(extra: str, *packages: str) -> pytest.MarkDecorator:
    """
    :param extra: one of this package's
    :param packages: what of it is imported
    :return: a mark that skips a test where one of them is not installed; it imports nothing, as that of Atari's package
        registers environments
    """
    missing = ", ".join(name for name in packages if importlib.util.find_spec(name) is None)
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {missing}; pip install 'sb3-vgs-ppo[{extra}]'")


@contextmanager
def without_loops() -> Iterator[None]:
    """As if Numba were not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_numba, "find_spec", lambda _: None)
        _numba.loops.cache_clear()
        yield
    _numba.loops.cache_clear()


def import_zoo() -> None:
    """
    Import rl_zoo3, and take back what that does to gymnasium: it replaces ``TimeLimit`` and registers environments,
    which other tests of the same process would see. Skips a test where it is not installed.
    """
    if importlib.util.find_spec("rl_zoo3") is None:
        pytest.skip("rl_zoo3 is not installed")
    places = (gym.wrappers, gym.wrappers.common)
    classes, registered = [place.TimeLimit for place in places], set(gym.registry)
    import rl_zoo3.train  # noqa: F401

    for place, time_limit in zip(places, classes, strict=True):
        place.TimeLimit = time_limit
    forget_environments_but(registered)


def forget_environments_but(known: set[str]) -> None:
    """
    :param known: ids that stay; so do those which only the first import of their package registers, ours and Atari's
    """
    for env_id in gym.registry.keys() - known:
        if not str(gym.registry[env_id].entry_point).startswith(("ale_py.", "sb3_vgs_ppo.")):
            del gym.registry[env_id]


class Payload:
    """Creates a folder where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)
