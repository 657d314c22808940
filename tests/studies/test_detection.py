from __future__ import annotations

from sb3_vgs_ppo._alarms import Alarm
from sb3_vgs_ppo.studies.detection import detection, judge_alarms
from sb3_vgs_ppo.studies.results import Detection


def alarms(*steps: int) -> list[Alarm]:
    return [Alarm(step, 1.0, 0.1, 1e-4, []) for step in steps]


def delays(steps: list[int], length: int | None = 100) -> list[int | None]:
    return [delay for _, delay in judge_alarms(alarms(*steps), length)]


def test_the_first_alarm_in_the_first_half_of_a_phase_finds_its_change() -> None:
    # Phase 0; step 100 completes it; two in phase 1; phase 2 at half time, phase 3 just after it; phase 4
    assert delays([10, 100, 101, 140, 250, 351, 430]) == [None, None, 1, None, 50, None, 30]


def test_a_late_alarm_leaves_a_change_unfound_for_good() -> None:
    assert delays([160, 180, 220]) == [None, None, 20]


def test_where_the_task_stays_nothing_is_found() -> None:
    assert delays([10, 20], None) == [None, None]


def test_detection_over_all_cells() -> None:
    judged = [*judge_alarms(alarms(110, 230, 290), 100), *judge_alarms(alarms(103), 100)]
    assert detection(5, judged) == Detection(5, n_found=3, median_delay=10.0, largest_delay=30, n_other_alarms=1)
    assert detection(5, []) == Detection(5, 0, None, None, 0)
