"""Signals that ask a training run to stop, received whatever the main thread is doing.

Schedulers send SIGTERM when they take the machine back, and SIGUSR2 as an early warning (NCCL uses
SIGUSR1). This file imports nothing slow.
"""

import os
import signal
import sys
import threading
import time
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Any

from pipeline.system.exit_codes import STOPPED

STOPS = (signal.SIGTERM, signal.SIGUSR2)
SAME_SECONDS = 1.0
"""A repeat within this time is the same signal, sent to both the process and its group."""
REACH_SECONDS = 60.0
"""How long a step may still take after a signal; then the process ends without saving."""

LAST_WORDS_SECONDS = 1.0
"""If standard error blocks, the process ends without its last message."""


def leave_at_once() -> None:
    """Let the signals end the process with `STOPPED`: during startup nothing can be lost.

    Call this from the main thread.
    """
    for number in STOPS:
        signal.signal(number, _exit)


class StopSignals(AbstractContextManager["StopSignals"]):
    """Receives the signals during the block, in the main thread only.

    Before `hold`, a signal ends the process at once with `STOPPED`. After it, the first signal is
    recorded and the second ends the process; so does the first if `reached` is not called within
    a minute.
    """

    def __init__(self) -> None:
        self.heard: signal.Signals | None = None
        """The first signal since `hold`."""
        self._held = self._reached = False
        self._heard_at = 0.0
        self._deadline: threading.Timer | None = None
        self._before: dict[signal.Signals, Any] = {}

    def hold(self) -> None:
        """Record the next signal instead of ending at once: from now on there is work to save."""
        self._held = True

    def reached(self) -> None:
        """Report that training has reached the step where it stops, or its end."""
        self._reached = True

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is not threading.main_thread():
            return self
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        # Python runs signal handlers between two instructions of the main thread, so not while it
        # waits for other ranks in native code. This pipe gets the signal's number at once.
        self._wakeup_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _nothing) for number in STOPS}
        self._thread = threading.Thread(target=self._receive, name="stop-signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if not self._before:
            return
        self._reached = True
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._writer)  # the thread reads the end of the pipe and returns
        self._thread.join()
        os.close(self._reader)
        if self._deadline is not None:
            self._deadline.cancel()

    def _receive(self) -> None:
        while numbers := os.read(self._reader, 1):
            if numbers[0] in STOPS:
                self._take(signal.Signals(numbers[0]))

    def _take(self, number: signal.Signals) -> None:
        if not self._held:
            _leave(f"stopped by {number.name} before the first step")
        if self.heard is None:
            self.heard, self._heard_at = number, time.monotonic()
            self._deadline = threading.Timer(REACH_SECONDS, self._give_up)
            self._deadline.daemon = True
            self._deadline.start()
        elif time.monotonic() - self._heard_at > SAME_SECONDS:
            _leave(f"stopped at once by a second signal, {number.name}")

    def _give_up(self) -> None:
        if not self._reached:
            _leave(f"the step did not end within {REACH_SECONDS:.0f} s of the signal to stop")


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Replace the default action, which ends the process."""


def _exit(_number: int, _frame: FrameType | None) -> None:
    os._exit(STOPPED)


def _leave(reason: str) -> None:
    threading.Timer(LAST_WORDS_SECONDS, os._exit, (STOPPED,)).start()
    sys.stderr.write(f"{reason}; run the same command again to resume from the last checkpoint\n")
    sys.stderr.flush()
    os._exit(STOPPED)
