from __future__ import annotations

import io
import math

import pytest
from rich.text import Text

from sb3_vgs_ppo.runs.progress import Display, PlainLines, ProgressBar, make_display


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _terminal_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")


def shown(terminal: io.StringIO) -> list[str]:
    return Text.from_ansi(terminal.getvalue().replace("\r", "\n")).plain.splitlines()


def test_a_bar_is_for_terminals_that_want_one() -> None:
    assert type(make_display(True, io.StringIO(), Terminal())) is ProgressBar
    assert type(make_display(False, io.StringIO(), Terminal())) is PlainLines
    assert type(make_display(True, Terminal(), io.StringIO())) is PlainLines


def test_plain_lines_are_messages_and_nothing_else() -> None:
    out = io.StringIO()
    with PlainLines(out) as display:
        display.start(100)
        display.message("evaluated [1]")
        display.step(10)
        display.update(10, 1.5, 0.5)
    assert out.getvalue() == "evaluated [1]\n"


def test_the_bar_shows_steps_speed_return_and_factor() -> None:
    terminal = Terminal()
    with ProgressBar(terminal) as display:
        display.start(2000)
        display.message("evaluated [1]")
        display.update(500, math.nan, None)
        display.update(1500, 12.34, 0.876)
    lines = shown(terminal)
    assert "evaluated [1]" in [line.strip() for line in lines]
    assert any("500/2,000" in line and line.rstrip().endswith("return –") for line in lines)
    last = lines[-1] if lines[-1].strip() else lines[-2]
    assert "1,500/2,000" in last
    assert " steps/s, ETA 0:00:" in last
    assert last.rstrip().endswith("return 12.3, VGS 0.88")


def test_steps_move_the_bar_but_not_at_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    display = ProgressBar(Terminal())
    moves = []
    monkeypatch.setattr(display._progress, "update", lambda task, completed: moves.append(completed))
    clock = iter([10.0, 10.05, 10.2])
    monkeypatch.setattr("sb3_vgs_ppo.runs.progress.time.monotonic", lambda: next(clock))
    for num_timesteps in (8, 16, 24):
        display.step(num_timesteps)
    assert moves == [8, 24]


def test_the_base_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with Display() as display:
        display.start(10)
        display.step(5)
        display.update(5, 0.0, None)
        display.message("hello")
    assert capsys.readouterr() == ("", "")
