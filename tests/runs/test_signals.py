from __future__ import annotations

import os
import signal
import threading

import pytest

from sb3_vgs_ppo.runs.signals import StopRequest, stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_stops(number: int, capfd: pytest.CaptureFixture[str]) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with stop_on_signals() as stop:
        assert stop.signal_number is None
        os.kill(os.getpid(), number)
        assert stop.signal_number == number
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
    assert "Stopping after this update. Ctrl-C again stops at once." in capfd.readouterr().err


def test_another_thread_cannot_take_signals_and_does_not_fail() -> None:
    requests: list[StopRequest] = []

    def work() -> None:
        with stop_on_signals() as stop:
            requests.append(stop)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert requests[0].signal_number is None
