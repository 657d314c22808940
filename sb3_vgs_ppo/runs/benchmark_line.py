"""What a benchmark says: a ratio, taken repetition by repetition, beside its budget.

Absolute times of shared machines mean nothing. Contenders take turns, so that whatever slows one down slows down the
other, and the spread of the ratios tells what that left. Specification: "Performance budgets".
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from sb3_vgs_ppo.runs.benchmark_agent import Reading

Key = TypeVar("Key")
Result = TypeVar("Result")
Progress = Callable[[str], None]


def take_turns(
    turns: Mapping[Key, Callable[[], Result]], repetitions: int, progress: Progress = lambda _: None
) -> dict[Key, list[Result]]:
    """
    Measure every contender once per repetition, one after the other, after a repetition that is thrown away.

    :param turns: by contender, what measures it once
    :param repetitions: measured rounds, at least 1
    :param progress: called with a line per round
    :return: by contender, what each repetition gave
    :raises ValueError: too few repetitions
    """
    if repetitions < 1:
        raise ValueError(f"repetitions={repetitions}; remedy: at least 1")
    results: dict[Key, list[Result]] = {key: [] for key in turns}
    for round_ in range(repetitions + 1):
        for key, turn in turns.items():
            result = turn()
            if round_:  # the first one pays for caches, buffers and compilation
                results[key].append(result)
        progress(f"round {round_} of {repetitions}" + ("" if round_ else " (warm-up, not counted)"))
    return results


def ratios(values: Sequence[float], references: Sequence[float]) -> tuple[float, ...]:
    """
    :return: ratio to the reference, repetition by repetition, which cancels what slowed both down
    :raises ValueError: different numbers of repetitions
    """
    return tuple(value / reference for value, reference in zip(values, references, strict=True))


@dataclass(frozen=True)
class Budget:
    """
    :param limit: of the ratio
    :param sense: on which side of it the ratio has to be
    """

    limit: float
    sense: Literal["≤", "≥"] = "≤"

    def met_by(self, ratio: float) -> bool:
        """:return: whether the ratio keeps to it"""
        return ratio <= self.limit if self.sense == "≤" else ratio >= self.limit

    def __str__(self) -> str:
        return f"{self.sense} {self.limit:g}"


@dataclass(frozen=True)
class Line:
    """
    One line of the table.

    :param part: of the benchmark
    :param what: that was measured
    :param against: what it is compared with
    :param value: median of what was measured, in ``unit``
    :param unit: of the value
    :param ratios: to the reference, one per repetition; these are judged
    :param wall_ratios: the same by the wall clock, where ``ratios`` are of CPU time; empty otherwise
    :param budget: None where there is none
    """

    part: str
    what: str
    against: str
    value: float
    unit: str
    ratios: tuple[float, ...]
    wall_ratios: tuple[float, ...] = ()
    budget: Budget | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.ratios)

    @property
    def met(self) -> bool | None:
        """Whether the median keeps to the budget; None without one."""
        return None if self.budget is None else self.budget.met_by(self.median)


def line_of_readings(
    part: str,
    what: tuple[str, Sequence[Reading]],
    against: tuple[str, Sequence[Reading]],
    unit: str,
    budget: Budget | None = None,
    clock: Literal["cpu", "wall"] = "cpu",
) -> Line:
    """
    :param what: name and readings of what was measured, in ``unit``
    :param against: the same of what it is compared with, measured in turn with it
    :param clock: whose ratios are judged; the wall clock only where one of them may use several threads, since CPU time
        is not lengthened by other processes
    """
    own = [getattr(reading, clock) for reading in what[1]]
    by_wall = ratios([reading.wall for reading in what[1]], [reading.wall for reading in against[1]])
    judged = ratios(own, [getattr(reading, clock) for reading in against[1]])
    value = statistics.median(own)
    return Line(part, what[0], against[0], value, unit, judged, by_wall if clock == "cpu" else (), budget)
