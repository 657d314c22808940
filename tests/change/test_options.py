from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sb3_vgs_ppo.change import RESPONSES, RaiseEntropy, RaiseNoise, ShrinkHead, make_change_callback
from sb3_vgs_ppo.errors import UserInputError


def test_none_is_no_callback_and_report_has_no_responses() -> None:
    assert make_change_callback("none") is None
    callback = make_change_callback("report", {"alpha": 0.02})
    assert callback is not None
    assert (callback.responses, callback.chart.alpha) == ([], 0.02)


@pytest.mark.parametrize("name", RESPONSES)
def test_every_response_has_defaults_and_its_name(name: str) -> None:
    callback = make_change_callback(name)
    assert callback is not None
    assert [response.name for response in callback.responses] == [name]


def test_arguments_reach_what_takes_them() -> None:
    kwargs: dict[str, Any] = {"keep": 0.3, "rollouts": 7, "bonus": 0.2, "min_history": 4}
    callback = make_change_callback("shrink-head+raise-entropy+raise-noise", kwargs, Path("changes.jsonl"))
    assert callback is not None
    shrink, entropy, noise = callback.responses
    assert isinstance(shrink, ShrinkHead)
    assert isinstance(entropy, RaiseEntropy)
    assert isinstance(noise, RaiseNoise)
    assert (shrink.keep, entropy.rollouts, noise.rollouts, entropy.bonus) == (0.3, 7, 7, 0.2)
    assert (callback.chart.min_history, callback.file) == (4, Path("changes.jsonl"))


@pytest.mark.parametrize(
    ("on_change", "kwargs", "message"),
    [
        ("restart", {}, "on_change 'restart': 'restart' is no response; did you mean 'restart-head'"),
        ("shrink-head+", {}, "on_change 'shrink-head[+]': '' is no response; known: none, raise-entropy"),
        ("raise-noise+raise-noise", {}, "names a response twice"),
        ("none", {"alpha": 0.1}, "on_change 'none' has no such argument; remedy: on_change 'report'"),
        ("restart-head", {"keep": 0.1}, "change_kwargs 'keep': .* 'restart-head' has no such argument"),
        ("report", {"alpa": 0.1}, "change_kwargs 'alpa': .*; did you mean 'alpha'"),
        ("report", {"alpha": 2}, "alpha=2 is no number between 0 and 0.5"),
        ("report+restart-head", {}, "'report[+]restart-head': report stands alone"),
        ("restart-head+none", {}, "none stands alone"),
    ],
)
def test_what_cannot_be_understood(on_change: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        make_change_callback(on_change, kwargs)
