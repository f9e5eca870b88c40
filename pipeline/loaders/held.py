"""Keeps the batches on a GPU in memory until the GPU has read them."""

from collections import deque
from collections.abc import Callable
from typing import Protocol

import torch


class Mark(Protocol):
    """A place in the work that is queued on a device, such as a `torch.cuda.Event`."""

    def query(self) -> bool:
        """Whether the device has passed it."""
        ...

    def synchronize(self) -> None:
        """Wait until the device has passed it."""
        ...


class HeldBatches:
    """Holds each batch until the device has passed a mark that follows the step on that batch.

    A step only queues its work. DALI may use the memory of a batch again as soon as the last
    reference to it is gone, even if no kernel has read it yet.
    """

    def __init__(self, mark: Callable[[], Mark]) -> None:
        """`mark` puts a mark after all work that is queued so far."""
        self._mark = mark
        self._in_use: torch.Tensor | None = None
        self._queued: deque[tuple[torch.Tensor, Mark]] = deque()

    def hold(self, images: torch.Tensor) -> None:
        """Hold a batch that is about to be used."""
        assert self._in_use is None, "the batch before was not released"
        self._in_use = images

    def release(self) -> None:
        """Release the last batch once the work that is now queued is done. It never waits."""
        if self._in_use is not None:
            self._queued.append((self._in_use, self._mark()))
            self._in_use = None
        while self._queued and self._queued[0][1].query():
            self._queued.popleft()

    def close(self) -> None:
        """Wait for the work that is now queued, and release all batches."""
        self.release()
        if self._queued:
            self._queued[-1][1].synchronize()
        self._queued.clear()


def mark_on(device: torch.device) -> Callable[[], Mark] | None:
    """Return what marks the current stream of a GPU; None for the CPU, which queues nothing."""
    if device.type == "cpu":
        return None
    return lambda: torch.cuda.current_stream(device).record_event()
