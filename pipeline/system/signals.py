"""Signals that ask a training run to stop, received whatever the main thread is doing.

Schedulers send SIGTERM when they take the machine back, and SIGUSR2 as an early warning (NCCL uses
SIGUSR1). Ctrl-C sends SIGINT. This file imports nothing slow.
"""

import os
import signal
import sys
import threading
import time
from contextlib import AbstractContextManager, suppress
from types import FrameType, TracebackType
from typing import Any

from pipeline.system.exit_codes import INTERRUPTED, STOPPED

STOPS = (signal.SIGTERM, signal.SIGUSR2)
"""Sent by schedulers."""
SAME_SECONDS = 1.0
"""A repeat within this time is the same signal, sent to both the process and its group."""
REACH_SECONDS = 60.0
"""How long a step may still take after a signal; then the process ends without saving."""

LAST_WORDS_SECONDS = 1.0
"""If standard error blocks, the process ends without its last message."""
SHOW_CURSOR = b"\x1b[?25h\n"
"""A progress bar hides it."""


def leave_at_once() -> None:
    """Let the signals end the process with their exit code: during startup nothing can be lost.

    Call this from the main thread.
    """
    for number in heeded():
        signal.signal(number, _exit)


def heeded() -> tuple[signal.Signals, ...]:
    """Return the signals that stop a run: STOPS, and SIGINT unless it is ignored (nohup, `&`)."""
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    return STOPS if ignored else (*STOPS, signal.SIGINT)


def code_of(number: signal.Signals) -> int:
    """Return the exit code of a process that stopped because of a signal."""
    return INTERRUPTED if number == signal.SIGINT else STOPPED


class StopSignals(AbstractContextManager["StopSignals"]):
    """Receives the signals during the block, in the main thread only.

    Before `hold`, a signal ends the process at once. After it, the first signal is recorded and the
    second ends the process; so does the first if `reached` is not called within a minute.
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
        self._before = {number: signal.signal(number, _nothing) for number in heeded()}
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
            if numbers[0] in self._before:
                self._take(signal.Signals(numbers[0]))

    def _take(self, number: signal.Signals) -> None:
        if not self._held:
            _leave(number, f"stopped by {number.name} before the first step")
        if self.heard is None:
            self.heard, self._heard_at = number, time.monotonic()
            self._deadline = threading.Timer(REACH_SECONDS, self._give_up, (number,))
            self._deadline.daemon = True
            self._deadline.start()
            if number == signal.SIGINT:  # in a thread: standard error may block
                threading.Thread(target=_promise, daemon=True).start()
        elif time.monotonic() - self._heard_at > SAME_SECONDS:
            _leave(number, f"stopped at once by a second signal, {number.name}")

    def _give_up(self, number: signal.Signals) -> None:
        if not self._reached:
            _leave(
                number, f"the step did not end within {REACH_SECONDS:.0f} s of the signal to stop"
            )


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Replace the default action, which ends the process."""


def _exit(number: int, _frame: FrameType | None) -> None:
    os._exit(code_of(signal.Signals(number)))


def _promise() -> None:
    """Tell the user once, however many ranks there are, what Ctrl-C does."""
    if os.environ.get("RANK", "0") == "0":
        with suppress(OSError, ValueError):
            sys.stderr.write(
                "\nsaving and stopping after this step; press Ctrl-C again to stop at once\n"
            )
            sys.stderr.flush()


def _leave(number: signal.Signals, reason: str) -> None:
    threading.Timer(LAST_WORDS_SECONDS, os._exit, (code_of(number),)).start()
    with suppress(OSError, ValueError):
        sys.stderr.write(
            f"{reason}; run the same command again to resume from the last checkpoint\n"
        )
        sys.stderr.flush()
        if os.isatty(1):
            os.write(1, SHOW_CURSOR)
    os._exit(code_of(number))
