"""What several rooms' tests have in common."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch as th


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


class Payload:
    """Creates a folder where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)
