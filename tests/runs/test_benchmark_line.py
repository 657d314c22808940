"""The benchmark's arithmetic: turns, ratios, budgets."""

from __future__ import annotations

import pytest

from sb3_vgs_ppo.runs.benchmark_agent import Reading
from sb3_vgs_ppo.runs.benchmark_line import Budget, Line, line_of_readings, ratios, take_turns


class Machine:
    """Contenders of 1 and 3 ms, on a machine that is slower from turn to turn."""

    def __init__(self) -> None:
        self.order: list[str] = []

    def turn(self, name: str, milliseconds: float) -> Reading:
        self.order.append(name)
        slowdown = 2.0 ** ((len(self.order) - 1) // 2)  # it doubles with every round
        return Reading(10 * slowdown * milliseconds, slowdown * milliseconds)


def measured(repetitions: int) -> tuple[Machine, dict[str, list[Reading]], list[str]]:
    machine, lines = Machine(), list[str]()
    turns = {"SB3": lambda: machine.turn("SB3", 3.0), "ours": lambda: machine.turn("ours", 1.5)}
    return machine, take_turns(turns, repetitions, lines.append), lines


def test_contenders_take_turns_and_the_first_round_does_not_count() -> None:
    machine, readings, lines = measured(repetitions=3)
    assert machine.order == ["SB3", "ours"] * 4
    assert [reading.cpu for reading in readings["SB3"]] == [6.0, 12.0, 24.0]
    assert [reading.cpu for reading in readings["ours"]] == [3.0, 6.0, 12.0]
    assert lines == ["round 0 of 3 (warm-up, not counted)", "round 1 of 3", "round 2 of 3", "round 3 of 3"]


def test_a_machine_that_slows_down_does_not_change_a_ratio() -> None:
    _, readings, _ = measured(repetitions=3)
    line = line_of_readings("train", ("ours", readings["ours"]), ("SB3", readings["SB3"]), "ms")
    assert line.ratios == (0.5, 0.5, 0.5)
    assert line.value == 6.0


def test_cpu_time_is_judged_unless_the_wall_clock_is_asked_for() -> None:
    ours, theirs = [Reading(9.0, 1.0), Reading(1.0, 1.0)], [Reading(3.0, 2.0), Reading(2.0, 4.0)]
    line = line_of_readings("train", ("ours", ours), ("SB3", theirs), "ms", Budget(0.4))
    assert (line.value, line.ratios, line.wall_ratios) == (1.0, (0.5, 0.25), (3.0, 0.5))
    assert line.met  # 0.375
    line = line_of_readings("train", ("ours", ours), ("sbx", theirs), "ms", Budget(0.4), clock="wall")
    assert (line.value, line.ratios, line.wall_ratios) == (5.0, (3.0, 0.5), ())
    assert line.met is False


def test_ratios_need_as_many_repetitions() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 2.0, 3.0], [1.0, 2.0])


def test_too_few_repetitions() -> None:
    with pytest.raises(ValueError, match="repetitions=0; remedy"):
        take_turns({}, 0)


@pytest.mark.parametrize(
    ("budget", "text", "met_at"),
    [(Budget(0.65), "≤ 0.65", (True, True, False)), (Budget(0.65, "≥"), "≥ 0.65", (False, True, True))],
)
def test_a_budget_is_met_on_its_side_of_the_limit(budget: Budget, text: str, met_at: tuple[bool, ...]) -> None:
    assert str(budget) == text
    assert tuple(budget.met_by(ratio) for ratio in (0.6, 0.65, 0.7)) == met_at


def test_the_median_is_judged_and_only_beside_a_budget() -> None:
    # The mean, 0.8, would miss it
    assert Line("vgs", "a", "b", 1.0, "ms", (0.5, 0.6, 1.3), budget=Budget(0.65)).met is True
    assert Line("vgs", "a", "b", 1.0, "ms", (0.5, 0.6, 1.3)).met is None
