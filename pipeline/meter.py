"""Loss and speed of training, read from the device only when they are reported."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import psutil
import torch

from pipeline.distributed.world import World
from pipeline.system.exit_codes import LossError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reading:
    """Means over the steps since the last reading."""

    loss: float
    images_per_second: float
    data_wait_percent: float


def process_seconds() -> float:
    """Return the seconds since this process started."""
    return time.time() - psutil.Process().create_time()


class Meter:
    """Adds up the loss on the device and times on the host, from one reading to the next."""

    def __init__(self, world: World, *, global_batch: int) -> None:
        self._world, self._global_batch = world, global_batch
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=world.device)
        self._steps = 0
        self._started = time.perf_counter()
        self._waited = 0.0
        self._seconds = 0.0

    def fetch(self, batches: Iterator[T]) -> T:
        """Return the next batch, and time how long the loop waits for it."""
        before = time.perf_counter()
        batch = next(batches)
        self._waited += time.perf_counter() - before
        return batch

    def add(self, loss: torch.Tensor) -> None:
        """Add the mean loss of a step on this rank, without waiting for the device."""
        self._loss_sum += loss
        self._steps += 1

    def read(self, step: int) -> Reading:
        """Return the means since the last reading, over all ranks. A collective.

        Raises `LossError`, on all ranks, if the loss is NaN or infinite.
        """
        steps = self._steps
        loss = self._world.all_reduce_sum_(self._loss_sum).item() / (steps * self._world.size)
        if not math.isfinite(loss):
            raise LossError(
                f"the loss became {loss} between step {step - steps + 1} and step {step};"
                " lower optim.lr, lengthen the warm-up, or use a wider train.precision"
            )
        elapsed = time.perf_counter() - self._started
        reading = Reading(
            loss=loss,
            images_per_second=steps * self._global_batch / elapsed,
            data_wait_percent=100 * self._waited / elapsed,
        )
        self._seconds += elapsed
        self._loss_sum.zero_()
        self._steps = 0
        return reading

    def take_seconds(self) -> float:
        """Return the seconds spent training since the last call, without evaluations and saves."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def restart(self) -> None:
        """Start timing again: the time since the last reading was not training."""
        self._started = time.perf_counter()
        self._waited = 0.0
