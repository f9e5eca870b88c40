"""All ranks stop at the same step, whichever of them was asked to."""

import time
from collections.abc import Callable

from pipeline.distributed.world import World
from pipeline.system.signals import StopSignals

VOTE_SECONDS = 0.5
MOST_STEPS = 16
"""Votes are about so far apart, and never more than so many steps: steps may become slower."""


class Stopping:
    """Votes between the ranks on whether to stop.

    A vote is a collective of two numbers on the CPU that goes on in the background during a step,
    so it costs some microseconds and never waits for a GPU. Every rank must take part in each.
    """

    def __init__(self, world: World, signals: StopSignals) -> None:
        self._world, self._signals = world, signals
        self._tally: Callable[[], list[int]] | None = None
        self._interval, self._steps_left = 1, 0
        self._voted_at = time.monotonic()
        self.agreed = False
        """Whether all ranks stop here. It is the same on all of them after each vote."""

    def vote(self) -> None:
        """A step is done: learn how the last vote came out, and begin another if it is time."""
        self._signals.hold()
        if self._world.size == 1:
            self._agree(heard=self._signals.heard is not None)
            return
        self._count()
        self._steps_left -= 1
        if self._steps_left <= 0 and not self.agreed:
            self._begin()

    def vote_now(self) -> None:
        """Vote and wait for the outcome, until the slowest rank has come here."""
        if self.asked():
            self._signals.reached()
        if self._world.size > 1:
            self._count()
            self._begin()
            self._count()
        else:
            self._agree(heard=self._signals.heard is not None)

    def end(self) -> None:
        """Training is over: who asks it to stop from now on is too late."""
        self._signals.reached()

    def asked(self) -> bool:
        """Whether this rank, for one, wants to stop."""
        return self.agreed or self._signals.heard is not None

    def _begin(self) -> None:
        now = time.monotonic()
        milliseconds, self._voted_at = int(1000 * (now - self._voted_at)), now
        self._tally = self._world.all_reduce_max_async([int(self.asked()), milliseconds])

    def _count(self) -> None:
        if self._tally is None:
            return
        heard, milliseconds = self._tally()
        self._tally = None
        self._agree(heard=bool(heard))
        # What decides when to vote again is the slowest rank's time, which all now know.
        wanted = self._interval * 1000 * VOTE_SECONDS / max(1, milliseconds)
        self._interval = self._steps_left = int(min(MOST_STEPS, max(1, wanted)))

    def _agree(self, *, heard: bool) -> None:
        self.agreed = self.agreed or heard
        if self.agreed:
            self._signals.reached()
