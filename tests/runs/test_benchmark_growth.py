"""Sweeps over sizes: what takes part, what is judged, and the picture. Their real times are not tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from sb3_vgs_ppo.errors import UserInputError
from sb3_vgs_ppo.runs import benchmark_growth
from sb3_vgs_ppo.runs.benchmark_agent import Reading, Turn
from sb3_vgs_ppo.runs.benchmark_figure import check_folder, draw_growth, save_growth
from sb3_vgs_ppo.runs.benchmark_growth import Sweep, growth_lines, sweep_agents, sweep_steps
from sb3_vgs_ppo.runs.benchmark_train import DEFAULT, SB3, Contender, Task

PARAMETERS = Sweep(
    "parameters", "ms", (10, 100, 1000), {"AdamW": (((1.0,) * 2),) * 3, "ours": ((1, 1), (2, 4), (40, 44))}
)
TENSORS = Sweep("tensors", "ms", (1, 30, 1000), {"AdamW": (((1.0,) * 2),) * 3, "ours": ((2, 4), (3, 3), (4, 16))})


def test_parameters_are_judged_per_parameter_in_the_last_decade() -> None:
    adamw, ours = growth_lines([PARAMETERS])
    assert adamw.met is None
    assert ours.ratios == pytest.approx((2.0, 1.1))  # 40/2 and 44/4 times for ten times as many
    assert ours.met is False
    assert ours.what == "ours: 1,000 parameters, per parameter"


def test_tensors_are_judged_beside_one() -> None:
    _, ours = growth_lines([TENSORS])
    assert ours.ratios == (2.0, 4.0)
    assert ours.met is True  # 3.0


def test_other_axes_have_no_budget() -> None:
    assert growth_lines([Sweep("quantiles", "ms", (1, 2), {"ours": ((1.0,), (9.0,))})]) == []


def test_steps_at_all_sizes_take_turns_with_each_other() -> None:
    sizes: list[int] = []

    def shapes_of(count: int) -> list[tuple[int, ...]]:
        sizes.append(count)
        return [(count,)] * 2

    lines: list[str] = []
    sweep = sweep_steps("tensors", (5, 50), shapes_of, 2, lines.append)
    assert sizes == [5, 50]
    assert lines == ["tensors: round 0 of 2 (warm-up, not counted)", "tensors: round 1 of 2", "tensors: round 2 of 2"]
    assert [*sweep.times] == ["AdamW", "AdaptiveUPGD", "AdaptiveUPGD, one buffer", "VGS 3.0", "VGS 3.0, one buffer"]
    assert all([len(times) for times in series] == [2, 2] for series in sweep.times.values())


def test_sizes_of_the_specification() -> None:
    assert (benchmark_growth.PARAMETERS[0], benchmark_growth.PARAMETERS[-1]) == (1_000, 10_000_000)
    assert (benchmark_growth.TENSORS[0], benchmark_growth.TENSORS[-1]) == (1, 1_000)
    for count in benchmark_growth.PARAMETERS:
        assert sum(shape[0] for shape in benchmark_growth._shapes_by_elements(count)) == count
    for count in benchmark_growth.TENSORS:
        shapes = benchmark_growth._shapes_by_tensors(count)
        assert len(shapes) == count
        assert sum(shape[0] for shape in shapes) == pytest.approx(benchmark_growth.N_ELEMENTS, rel=0.001)


def test_agents_grow_in_environments_batches_and_quantiles(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[tuple[Task, Any]] = []

    def measure_agents(task: Task, agents: list[Contender], repetitions: int, *_: Any, **__: Any) -> dict[str, Any]:
        assert [agent.name for agent in agents] == [SB3, "SB3 PPO, AdamW", DEFAULT]
        measured.append((task, agents[-1].policy_kwargs.get("n_quantiles")))
        return {agent.name: [Turn(Reading(0.0, 4.096), Reading(0.0, 1.28), Reading(0, 0))] for agent in agents}

    monkeypatch.setattr(benchmark_growth, "measure_agents", measure_agents)
    environments, batches, quantiles = sweep_agents(Task("CartPole-v1", 8), 1, lambda _: None)
    assert [task.n_envs for task, _ in measured[:7]] == [1, 2, 4, 8, 16, 32, 64]
    assert environments.medians(SB3) == [pytest.approx(2000.0)] * 7  # µs for each of 2,048 steps
    assert [task.batch_size for task, _ in measured[7:15]] == [32, 64, 128, 256, 512, 1024, 2048, 4096]
    # One rollout of 4,096 steps, ten times over: 1,280 minibatches of 32 and 10 of 4,096
    assert batches.medians(DEFAULT) == [pytest.approx(2.0**power) for power in range(8)]
    assert [n_quantiles for _, n_quantiles in measured[15:]] == [1, 4, 16, 64, 256]
    assert quantiles.values == (1, 4, 16, 64, 256)


def test_the_picture_is_logarithmic_with_a_panel_per_axis() -> None:
    figure = draw_growth([PARAMETERS, TENSORS])
    assert isinstance(figure, Figure)
    shown = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_xlabel() for axes in shown] == ["parameters", "tensors"]
    for axes in shown:
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        assert axes.get_legend_handles_labels()[1] == ["AdamW", "ours"]
    assert shown[0].lines[1].get_ydata().tolist() == [1.0, 3.0, 42.0]


def test_the_picture_is_written_twice(tmp_path: Path) -> None:
    png, svg = save_growth([TENSORS], tmp_path)
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in svg.read_text()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserInputError, match=r"--out '.*file/figures' cannot be made: Not a directory"):
        check_folder(tmp_path / "file" / "figures")
