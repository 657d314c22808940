"""Which parts of the benchmark are measured, in which order, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, get_args

import pytest
import torch as th

from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.optim import AdaptiveUPGD
from sb3_vgs_ppo.runs import benchmark, benchmark_agent, benchmark_memory, benchmark_steps
from sb3_vgs_ppo.runs.benchmark import Part, check_peer, run_benchmark
from sb3_vgs_ppo.runs.benchmark_agent import Reading, Turn
from sb3_vgs_ppo.runs.benchmark_line import Line
from sb3_vgs_ppo.runs.benchmark_memory import optimizer_state_bytes, scaler_state_bytes
from sb3_vgs_ppo.runs.benchmark_steps import (
    ADAM,
    POLICY_SHAPES,
    optimizer_lines,
    parameters_with_gradients,
)
from sb3_vgs_ppo.runs.benchmark_train import COMPILED, DEFAULT, SB3, Contender, Task
from sb3_vgs_ppo.scaling import KNOWN_VERSIONS

TASK = Task("CartPole-v1", 8)


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Names of the agents that learned, per call; nothing is measured."""
    calls: list[list[str]] = []

    def measure_agents(_: Task, agents: list[Contender], repetitions: int, *__: Any, **___: Any) -> dict[str, Any]:
        calls.append([agent.name for agent in agents])
        return {agent.name: [Turn(*[Reading(1.0, 1.0)] * 3)] * repetitions for agent in agents}

    monkeypatch.setattr(benchmark, "measure_agents", measure_agents)
    monkeypatch.setattr(benchmark, "why_not_compiled", lambda _: None)
    for part in ("optimizer", "memory", "growth"):
        line = Line(part, "a", "b", 1.0, "ms", (1.0,))
        monkeypatch.setattr(benchmark, f"{part}_lines", lambda *_, line=line: [line])
    monkeypatch.setattr(benchmark, "measure_growth", lambda *_: ["a sweep"])
    return calls


def test_all_parts_come_in_order_and_train_and_learn_share_turns(learned: list[list[str]]) -> None:
    result = run_benchmark(get_args(Part), TASK, 2)
    assert list(dict.fromkeys(line.part for line in result.lines)) == [*get_args(Part)]
    assert result.sweeps == ("a sweep",)
    agents, scalers = learned
    assert len(agents) == 7
    assert agents[-1] == COMPILED
    assert scalers == [f"VGS {version}" for version in KNOWN_VERSIONS]


def test_an_agent_that_cannot_be_compiled_is_left_out_with_the_reason(
    learned: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "why_not_compiled", lambda _: "no compiler")
    said: list[str] = []
    run_benchmark(["train"], TASK, 2, progress=said.append)
    assert COMPILED not in learned[0]
    assert said == [f"train: {COMPILED} is left out: no compiler"]


def test_learn_alone_needs_two_agents(learned: list[list[str]]) -> None:
    result = run_benchmark(["learn"], TASK, 2)
    assert learned == [[SB3, DEFAULT]]
    assert [line.part for line in result.lines] == ["learn"]


@pytest.mark.parametrize(
    ("n_envs", "repetitions", "message"), [(3, 1, "n_envs=3 does not divide"), (8, 0, "repetitions=0")]
)
def test_counts_that_cannot_be_used(n_envs: int, repetitions: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_benchmark(["memory"], Task("CartPole-v1", n_envs), repetitions)


@pytest.mark.parametrize(
    ("parts", "against", "python", "message"),
    [
        (("train",), None, "python", "--sbx-python 'python' has no effect without --against sbx"),
        (("train",), "sbx", None, "needs --sbx-python, .*remedy: python -m venv"),
        (("train",), "sbx", "nowhere/python", "--sbx-python 'nowhere/python': No such file .*remedy: python -m venv"),
        (("vgs", "memory"), "sbx", "python", "no effect on --part vgs memory; remedy: --part train"),
    ],
)
def test_a_peer_that_would_have_no_effect(parts: tuple[Part, ...], against: str, python: str, message: str) -> None:
    with pytest.raises(UserInputError, match=message):
        check_peer(parts, against, python)


def test_the_tensors_are_those_of_a_policy() -> None:
    alone, packed = (parameters_with_gradients(POLICY_SHAPES, one_buffer) for one_buffer in (False, True))
    assert (len(alone), sum(parameter.numel() for parameter in alone)) == (13, 11_085)
    for mine, theirs in zip(alone, packed, strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert bool((mine == theirs).all())
        assert bool((mine.grad == theirs.grad).all())
    assert len({parameter.untyped_storage().data_ptr() for parameter in alone}) == 13
    assert len({parameter.untyped_storage().data_ptr() for parameter in packed}) == 1


def test_optimizers_are_compared_with_adam_in_one_buffer_and_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_steps, "STEPS", 1)
    lines = optimizer_lines(1, lambda _: None)
    judged = [line.what for line in lines if line.budget is not None]
    assert judged == ["AdaptiveUPGD", "AdaptiveUPGD, one buffer"]
    assert {line.against for line in lines} == {ADAM, "Adam(fused=True)"}


def test_state_is_one_buffer_more_than_adams() -> None:
    assert optimizer_state_bytes(AdaptiveUPGD) == 3 * 4 * 11_085
    assert optimizer_state_bytes(th.optim.Adam) == 2 * 4 * 11_085 + 13 * 4  # and its step counts


def test_the_scalers_state_does_not_grow_with_elements() -> None:
    assert scaler_state_bytes("3.0", ((6,), (6,))) == scaler_state_bytes("3.0", ((60,), (600,)))
    assert scaler_state_bytes("3.0", ((6,), (6,))) < scaler_state_bytes("3.0", ((6,), (6,), (6,)))


def test_peaks_are_those_of_fresh_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    def peak(_: Task, module: str, __: str) -> float:
        started.append(module)
        return 300.0 if module == "stable_baselines3" else 330.0

    monkeypatch.setattr(benchmark_memory, "_peak_mib", peak)
    line = benchmark_memory.memory_lines(TASK, 2, lambda _: None)[0]
    assert started == ["stable_baselines3", "sb3_vgs_ppo"] * 2
    assert line.ratios == (1.1, 1.1)
    assert line.value == 330.0


def test_a_process_does_not_inherit_the_peak_of_its_parent() -> None:
    code = "import runpy, sys; print(runpy.run_path(sys.argv[1])['peak_kib']())"
    child = subprocess.run([sys.executable, "-c", code, benchmark_agent.__file__], capture_output=True, check=True)
    # This process has imported torch, and holds hundreds of MiB; a bare Python needs some ten
    assert 1_000 < int(child.stdout) < 60_000 < benchmark_agent.peak_kib()
