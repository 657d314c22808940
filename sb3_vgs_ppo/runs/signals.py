"""Ctrl-C and SIGTERM: the first asks a run to stop at the next good moment, the second stops it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_STDERR = 2


class StopRequest:
    """:ivar signal_number: the signal that asked to stop, None while nothing has"""

    signal_number: int | None = None

    def __call__(self, signal_number: int, frame: FrameType | None) -> None:
        """Signal handler. :raises KeyboardInterrupt: the second signal"""
        if self.signal_number is not None:
            raise KeyboardInterrupt
        self.signal_number = signal_number
        # Not print: the signal may have interrupted one, and a buffered stream cannot be entered twice
        os.write(_STDERR, b"\nStopping after this update. Ctrl-C again stops at once.\n")


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request while the block runs; outside the main thread they stay what they are."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
