"""The benchmark's arithmetic and bookkeeping; its timings are not tested."""

from __future__ import annotations

import pytest
from stable_baselines3 import PPO

from sb3_vgs_ppo.runs import benchmark
from sb3_vgs_ppo.runs.benchmark import Contender, contenders, measure, ratio


def test_ratio_is_taken_repetition_by_repetition() -> None:
    # A machine that is twice as slow in the second repetition must not change the ratio
    assert ratio([2.0, 4.0, 9.0], [1.0, 2.0, 3.0]) == (2.0, 2.0, 3.0)


def test_ratio_needs_as_many_repetitions() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratio([1.0, 2.0, 3.0], [1.0, 2.0])


def test_sb3_is_the_reference() -> None:
    assert contenders()[0].algorithm is PPO
    assert len({contender.name for contender in contenders()}) == len(contenders())


def test_every_repetition_is_timed_but_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "ROLLOUT_STEPS", 64)
    monkeypatch.setattr(benchmark, "N_EPOCHS", 1)
    lines: list[str] = []
    agents = [Contender("a", PPO, {}, {}), Contender("b", PPO, {"net_arch": [8]}, {})]
    timings = measure("CartPole-v1", 2, repetitions=3, rollouts=2, agents=agents, progress=lines.append)
    assert [timing.name for timing in timings] == ["a", "b"]
    assert all(len(timing.minibatch_ms) == len(timing.steps_per_second) == 3 for timing in timings)
    assert all(value > 0 for timing in timings for value in timing.minibatch_ms + timing.steps_per_second)
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("n_envs", "repetitions", "message"), [(3, 1, "n_envs=3 does not divide"), (8, 0, "repetitions=0")]
)
def test_counts_that_cannot_be_used(n_envs: int, repetitions: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure("CartPole-v1", n_envs, repetitions)
