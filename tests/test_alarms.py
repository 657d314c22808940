from __future__ import annotations

from pathlib import Path

import pytest

from sb3_vgs_ppo._alarms import ALARMS_FILE, Alarm, append_alarm, read_alarms

ALARMS = [Alarm(2_048, 20.5, 0.1, 1e-4, ["restart-head", "raise-entropy"]), Alarm(40_960, 3.0, 0.4, 1e-3, [])]


def test_alarms_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / ALARMS_FILE
    assert read_alarms(path) == []
    for alarm in ALARMS:
        append_alarm(path, alarm)
    assert read_alarms(path) == ALARMS


@pytest.mark.parametrize("line", ['{"step": 1', '{"steps": 1}', "7"])
def test_a_line_that_is_no_alarm(line: str, tmp_path: Path) -> None:
    path = tmp_path / ALARMS_FILE
    append_alarm(path, ALARMS[0])
    with path.open("a") as file:
        file.write(line)
    with pytest.raises(ValueError, match=r"Expecting|holds something else than alarms"):
        read_alarms(path)
