"""Clock offsets of the nodes, measured from rank 0."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from pipeline.distributed.world import World

ROUNDS = 16
"""The fastest of these exchanges is used: it waited least for anything else."""


@dataclass(frozen=True, slots=True)
class ClockOffset:
    """A clock is `milliseconds` ahead of rank 0's, plus or minus `error_milliseconds`."""

    milliseconds: float
    error_milliseconds: float


def clock_offsets(world: World, ranks: Sequence[int]) -> dict[int, ClockOffset]:
    """Return, on rank 0, how far the clocks of `ranks` are ahead of its own; {} on the others.

    Rank 0 and all of `ranks` must call this with the same list. As in NTP, the other rank's time is
    compared with the middle of the exchange, so the error is at most half its duration.
    """
    others = [rank for rank in ranks if rank != 0]
    if world.is_main:
        return {0: ClockOffset(0.0, 0.0)} | {rank: _ask(rank) for rank in others}
    if world.rank in others:
        _answer()
    return {}


def _ask(rank: int) -> ClockOffset:
    answer, exchanges = torch.zeros(1, dtype=torch.int64), list[tuple[int, float]]()
    for _ in range(ROUNDS):
        asked = time.time_ns()
        dist.send(answer, rank)
        dist.recv(answer, rank)
        answered = time.time_ns()
        exchanges.append((answered - asked, int(answer) - (asked + answered) / 2))
    took, ahead = min(exchanges)
    return ClockOffset(ahead / 1e6, took / 2e6)


def _answer() -> None:
    message = torch.zeros(1, dtype=torch.int64)
    for _ in range(ROUNDS):
        dist.recv(message, 0)
        dist.send(torch.tensor([time.time_ns()]), 0)
