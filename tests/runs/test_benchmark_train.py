"""Whole agents in turns: who takes part, what is counted, and what is judged. Their real times are not tested."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch as th
from stable_baselines3 import PPO

from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.ppo import DistributionalPPO
from sb3_vgs_ppo.runs import benchmark_agent, benchmark_train
from sb3_vgs_ppo.runs.benchmark_agent import Reading, Stopwatch, TimedAgent, Turn
from sb3_vgs_ppo.runs.benchmark_peer import Peer
from sb3_vgs_ppo.runs.benchmark_train import (
    DEFAULT,
    SB3,
    SBX,
    Contender,
    Task,
    agent_settings,
    contenders,
    learn_lines,
    measure_agents,
    train_lines,
    vgs_lines,
)
from sb3_vgs_ppo.scaling import KNOWN_VERSIONS, VarianceGradientScaler

SMALL = Task("CartPole-v1", n_envs=2, rollout_steps=128)


class FakeClock:
    """A clock that every reading of it moves on by a second, half a second of CPU time."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> Reading:
        self.seconds += 1.0
        return self.shown()

    def shown(self) -> Reading:
        return Reading(self.seconds, self.seconds / 2)

    def pass_in(self, function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        """:return: the function, which takes so long"""

        def slow(*args: Any, **kwargs: Any) -> Any:
            self.seconds += seconds
            return function(*args, **kwargs)

        return slow


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    fake = FakeClock()
    monkeypatch.setattr(benchmark_agent, "now", fake)
    return fake


def turn(learn: float, train: float, scaler: float = 0.0) -> Turn:
    """The wall clock shows ten times as much."""
    return Turn(*(Reading(10 * seconds, seconds) for seconds in (learn, train, scaler)))


def test_sb3_is_the_reference_and_the_default_takes_part() -> None:
    names = [contender.name for contender in contenders()]
    assert contenders()[0].algorithm is PPO
    assert names[0] == SB3
    assert DEFAULT in names
    assert len(set(names)) == len(names)


def test_why_an_update_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler\nand a long story")

    monkeypatch.setattr(th, "compile", refuse)
    reason = benchmark_train.why_not_compiled(SMALL)
    assert reason is not None
    assert "the loss cannot be compiled here (RuntimeError: no compiler)" in reason


def test_every_version_of_the_scaler_takes_part() -> None:
    assert [agent.algorithm_kwargs["vgs_version"] for agent in benchmark_train.scaler_contenders()] == [*KNOWN_VERSIONS]


def test_a_stopwatch_takes_off_what_reading_the_clocks_takes(clock: FakeClock) -> None:
    stopwatch = Stopwatch()
    assert stopwatch.watch(clock.pass_in(str, 10.0))(3) == "3"
    assert stopwatch.watch(clock.pass_in(int, 0.5))("11", base=2) == 3
    assert stopwatch.seconds == Reading(10.5, 5.25)
    assert stopwatch.seconds.plus(stopwatch.own_seconds) == clock.shown()
    stopwatch.reset()
    assert stopwatch.seconds == stopwatch.own_seconds == Reading(0.0, 0.0)


def test_a_turn_counts_learn_train_and_scaler(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> None:
    monkeypatch.setattr(benchmark_train, "N_EPOCHS", 1)
    for owner, name, seconds in (
        (DistributionalPPO, "collect_rollouts", 1000.0),
        (DistributionalPPO, "_train_epoch", 100.0),
        (VarianceGradientScaler, "observe", 10.0),
        (VarianceGradientScaler, "step", 1.0),
    ):
        monkeypatch.setattr(owner, name, clock.pass_in(getattr(owner, name), seconds))
    agent = Contender("default", DistributionalPPO).agent(SMALL, watch_scaler=True)
    first, second = agent.turn(2), agent.turn(2)
    # Two rollouts of two minibatches each
    assert first.scaler == Reading(44.0, 22.0)
    assert first.train == Reading(244.0, 122.0)
    assert first.learn == Reading(2244.0, 1122.0)
    assert second == first  # a turn starts from zero
    agent.close()


def test_agents_learn_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    learned: list[tuple[Any, int]] = []

    def note(agent: TimedAgent, rollouts: int) -> Turn:
        learned.append((type(agent._model), rollouts))
        return turn(1.0, 1.0)

    monkeypatch.setattr(TimedAgent, "turn", note)
    lines: list[str] = []
    agents = [Contender("a", PPO), Contender("b", DistributionalPPO)]
    measured = measure_agents(SMALL, agents, 2, lines.append, rollouts=3)
    assert learned == [(PPO, 3), (DistributionalPPO, 3)] * 3
    assert {name: len(turns) for name, turns in measured.items()} == {"a": 2, "b": 2}
    assert len(lines) == 3


def test_milliseconds_are_per_minibatch() -> None:
    # Two rollouts of 10 epochs of 128/64 minibatches: 40
    lines = train_lines({SB3: [turn(9.0, 4.0)], DEFAULT: [turn(9.0, 2.0)], SBX: [turn(9.0, 1.0)]}, SMALL, rollouts=2)
    assert [(line.what, line.value, line.ratios) for line in lines] == [
        (SB3, 100.0, (1.0,)),
        (DEFAULT, 50.0, (0.5,)),
        (SBX, 250.0, (0.25,)),  # by the wall clock
    ]
    assert [line.met for line in lines] == [None, True, None]


def test_a_scaler_is_a_share_of_its_own_minibatch() -> None:
    lines = vgs_lines({"VGS 1.0": [turn(9.0, 4.0, 1.0)], "VGS 3.0": [turn(9.0, 4.0, 0.2)]}, SMALL, rollouts=2)
    assert [line.ratios for line in lines] == [(0.25,), (0.05,)]
    assert [line.met for line in lines] == [False, True]


def test_speeds_are_higher_where_times_are_lower() -> None:
    measured = {SBX: [turn(4.0, 1.0)], SB3: [turn(8.0, 1.0)], DEFAULT: [turn(4.0, 1.0)]}
    sb3, sbx = learn_lines(measured, Task("HalfCheetah-v5", 8), rollouts=2)
    assert (sb3.against, sb3.value, sb3.ratios, sb3.met) == (SB3, 1024.0, (2.0,), True)
    assert (sbx.against, sbx.ratios, sbx.met) == (SBX, (1.0,), False)
    (elsewhere,) = learn_lines({SB3: measured[SB3], DEFAULT: measured[DEFAULT]}, Task("CartPole-v1", 8), rollouts=2)
    assert elsewhere.met is None  # the budget is stated for HalfCheetah-v5


def test_environments_must_divide_a_rollout() -> None:
    with pytest.raises(ValueError, match="n_envs=3 does not divide 2048"):
        measure_agents(Task("CartPole-v1", 3), [], 1, print)


FAKE_SBX = """
import json, sys
settings = json.loads(sys.argv[1])
print("a library's chatter", file=sys.stderr)
for line in sys.stdin:
    if line == "9\\n":
        sys.exit("RuntimeError: out of rollouts.")
    seconds = settings["n_envs"] * int(line)
    print(json.dumps({"turn": [[seconds, 1], [2, 3], [0, 0]], "peak_kib": 2048}), flush=True)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "fake_sbx.py"
    path.write_text(FAKE_SBX)
    return path


def test_a_peer_answers_turn_by_turn(script: Path) -> None:
    settings = {"module": "sbx", "algorithm": "PPO", **agent_settings(SMALL)}
    with Peer(sys.executable, settings, "remedy: none", script) as peer:
        assert [peer.turn(rollouts).learn for rollouts in (2, 5)] == [Reading(4, 1), Reading(10, 1)]
        assert peer.turn(1) == Turn(Reading(2, 1), Reading(2, 3), Reading(0, 0))
        assert peer.peak_kib == 2048
        with pytest.raises(UserInputError, match=r"^sbx's PPO does not run .*: RuntimeError: out of rollouts; remedy"):
            peer.turn(9)


def test_sbx_takes_its_turn_with_the_others(monkeypatch: pytest.MonkeyPatch, script: Path) -> None:
    def fake_peer(python: str, task: Task) -> Peer:
        return Peer(python, {"module": "sbx", "algorithm": "PPO", **agent_settings(task)}, "", script)

    monkeypatch.setattr(benchmark_train, "sbx_peer", fake_peer)
    monkeypatch.setattr(TimedAgent, "turn", lambda *_: turn(1.0, 1.0))
    measured = measure_agents(SMALL, [Contender(SB3, PPO)], 2, lambda _: None, sys.executable, rollouts=2)
    assert {name: len(turns) for name, turns in measured.items()} == {SBX: 2, SB3: 2}
    assert measured[SBX][0].learn.wall == 4


def test_a_python_that_is_not_there() -> None:
    with pytest.raises(UserInputError, match=r"'nowhere/python': No such file or directory; remedy: python -m venv"):
        benchmark_train.sbx_peer("nowhere/python", SMALL)


@pytest.mark.slow
def test_the_script_trains_an_agent() -> None:
    settings = {"module": "stable_baselines3", "algorithm": "PPO", **agent_settings(SMALL, device="cpu")}
    with Peer(sys.executable, settings, "") as peer:
        learn, train, scaler = peer.turn(1)
    assert learn.wall > train.wall > 0
    assert scaler == Reading(0.0, 0.0)
    assert 100_000 < peer.peak_kib < 10_000_000
