"""The signals that ask a training to stop, heard whatever the main thread is doing.

SIGTERM comes from schedulers that want the machine back, SIGUSR2 from those that tell beforehand
(SIGUSR1 belongs to NCCL). This file imports nothing that takes long.
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
"""A signal that comes again this soon is the same: sent to the process, and to its group."""
REACH_SECONDS = 60.0
"""How long a step may take to end once a signal came; after that there is nothing to wait for."""

LAST_WORDS_SECONDS = 1.0
"""A process whose standard error takes nothing any more ends without them."""


def leave_at_once() -> None:
    """Let the signals end the process with `STOPPED`: as long as it is starting, nothing is lost.

    Call it from the main thread.
    """
    for number in STOPS:
        signal.signal(number, _exit)


class StopSignals(AbstractContextManager["StopSignals"]):
    """Hears the signals while the block lasts; needs the main thread, and elsewhere hears none.

    Until `hold` a signal ends the process at once, with `STOPPED`. Then the first one is noted and
    the second one ends it; so does the first if `reached` does not follow within a minute.
    """

    def __init__(self) -> None:
        self.heard: signal.Signals | None = None
        """The first signal since `hold`."""
        self._held = self._reached = False
        self._heard_at = 0.0
        self._deadline: threading.Timer | None = None
        self._before: dict[signal.Signals, Any] = {}

    def hold(self) -> None:
        """Note the next signal instead of leaving at once: from now on there is work to save."""
        self._held = True

    def reached(self) -> None:
        """Tell that training has come to where it stops, or to its end."""
        self._reached = True

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is not threading.main_thread():
            return self
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        # Python's own handlers run only between two of the main thread's instructions, and while it
        # waits for other ranks there are none. The number of a signal goes to this pipe at once.
        self._wakeup_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _nothing) for number in STOPS}
        self._thread = threading.Thread(target=self._listen, name="stop-signals", daemon=True)
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
        os.close(self._writer)  # which the thread sees as the end
        self._thread.join()
        os.close(self._reader)
        if self._deadline is not None:
            self._deadline.cancel()

    def _listen(self) -> None:
        while numbers := os.read(self._reader, 1):
            if numbers[0] in STOPS:
                self._hear(signal.Signals(numbers[0]))

    def _hear(self, number: signal.Signals) -> None:
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
    """Take the signal from the system's default, which would end the process."""


def _exit(_number: int, _frame: FrameType | None) -> None:
    os._exit(STOPPED)


def _leave(reason: str) -> None:
    threading.Timer(LAST_WORDS_SECONDS, os._exit, (STOPPED,)).start()
    sys.stderr.write(f"{reason}; the same command goes on from the last checkpoint\n")
    sys.stderr.flush()
    os._exit(STOPPED)
