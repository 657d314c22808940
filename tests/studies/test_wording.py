from __future__ import annotations

import math

import pytest

from sb3_vgs_ppo.studies.results import Estimate
from sb3_vgs_ppo.studies.wording import duration, interval, listed, number, p_value, signed, with_interval


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.00312, "0.00312"),
        (-83.46, "−83.5"),
        (99.96, "100"),
        (1234.6, "1,235"),
        (34_000_000.0, "3.40e+07"),
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "–"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text


def test_differences_carry_their_sign() -> None:
    assert [signed(value) for value in (84.0, -30.0, 0.0)] == ["+84", "−30", "0"]
    assert interval(Estimate(84, -30, 150, 5), sign=True) == "−30 to +150"


def test_one_seed_has_no_interval() -> None:
    assert with_interval(Estimate(84, None, None, 1)) == "84 (no interval)"
    assert with_interval(Estimate(84, 20, 150, 5)) == "84 (20 to 150)"
    assert with_interval(None) == "–"


@pytest.mark.parametrize(
    ("value", "text"), [(0.0004, "< 0.001"), (0.0317, "0.03"), (0.0996, "0.1"), (0.126, "0.13"), (1.0, "1")]
)
def test_p_value(value: float, text: str) -> None:
    assert p_value(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(None, "–"), (45.2, "45 s"), (99.6, "2 min"), (12_000, "3.3 h")])
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_listed() -> None:
    assert [listed(words) for words in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
