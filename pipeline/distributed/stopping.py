"""All ranks stop after the same step, whichever of them received the signal."""

import signal
import time
from collections.abc import Callable

from pipeline.distributed.world import World
from pipeline.system.exit_codes import Interrupted, Stopped
from pipeline.system.signals import StopSignals

VOTE_SECONDS = 0.5
MOST_STEPS = 16
"""Vote about every VOTE_SECONDS, and at least every MOST_STEPS steps."""

CONTINUE, STOP, INTERRUPT = 0, 1, 2
"""The votes; the highest wins. INTERRUPT is a stop by Ctrl-C."""


class Stopping:
    """Votes between the ranks on whether to stop.

    A vote is a collective of two numbers on the CPU. It runs in the background during a step, costs
    a few microseconds and never waits for a GPU. Every rank must take part in every vote.
    """

    def __init__(self, world: World, signals: StopSignals) -> None:
        self._world, self._signals = world, signals
        self._tally: Callable[[], list[int]] | None = None
        self._interval, self._steps_left = 1, 0
        self._voted_at = time.monotonic()
        self._verdict = CONTINUE

    @property
    def agreed(self) -> bool:
        """Whether all ranks stop after this step; the same on every rank after each vote."""
        return self._verdict != CONTINUE

    def vote(self) -> None:
        """After a step: take the result of the last vote, and start the next one if it is due."""
        self._signals.hold()
        if self._world.size == 1:
            self._agree(self._own_vote())
            return
        self._count()
        self._steps_left -= 1
        if self._steps_left <= 0 and not self.agreed:
            self._begin()

    def vote_now(self) -> None:
        """Vote and wait for the result, and so for the slowest rank."""
        if self.asked():
            self._signals.reached()
        if self._world.size > 1:
            self._count()
            self._begin()
            self._count()
        else:
            self._agree(self._own_vote())

    def end(self) -> None:
        """Training is finished: later requests to stop have no effect."""
        self._signals.reached()

    def asked(self) -> bool:
        """Whether this rank was asked to stop, or all agreed to."""
        return self.agreed or self._signals.heard is not None

    def stopped(self, message: str) -> Stopped:
        """Return the exception for a stop that all ranks agreed to."""
        return Interrupted(message) if self._verdict == INTERRUPT else Stopped(message)

    def _own_vote(self) -> int:
        heard = self._signals.heard
        own = CONTINUE if heard is None else INTERRUPT if heard == signal.SIGINT else STOP
        return max(own, self._verdict)

    def _begin(self) -> None:
        now = time.monotonic()
        milliseconds, self._voted_at = int(1000 * (now - self._voted_at)), now
        self._tally = self._world.all_reduce_max_async([self._own_vote(), milliseconds])

    def _count(self) -> None:
        if self._tally is None:
            return
        verdict, milliseconds = self._tally()
        self._tally = None
        self._agree(verdict)
        # The slowest rank's time, now known to all, decides when to vote again.
        wanted = self._interval * 1000 * VOTE_SECONDS / max(1, milliseconds)
        self._interval = self._steps_left = int(min(MOST_STEPS, max(1, wanted)))

    def _agree(self, verdict: int) -> None:
        self._verdict = max(self._verdict, verdict)
        if self.agreed:
            self._signals.reached()
