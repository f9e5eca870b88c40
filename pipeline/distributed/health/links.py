"""Bandwidth from one rank to the next; links measured at the same time share no rank."""

import time
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.distributed as dist

from pipeline.distributed.health.records import Link, Route
from pipeline.distributed.world import World

TRIAL_BYTES = 4 * 2**20
"""Enough to estimate a link's speed, and quickly sent even over a slow one."""
MESSAGE_BYTES = 64 * 2**20
"""Large enough that the cost of starting a transfer does not matter."""
MOST_MESSAGES = 200
PHASES = 3

Transfer = Callable[..., dist.Work | None]
"""`dist.isend` or `dist.irecv`."""


def strides(hosts: Sequence[str]) -> list[int]:
    """Return the distances between linked ranks: 1, and the number of ranks per node.

    The second needs nodes with equal numbers of ranks. It links the same GPU of neighbouring nodes,
    through every network card of a node; the first uses only the card of the last rank.
    """
    local_size = hosts.count(hosts[0])
    blocks = [hosts[first : first + local_size] for first in range(0, len(hosts), local_size)]
    even = len(set(hosts)) == len(blocks) and all(
        block == [block[0]] * local_size for block in map(list, blocks)
    )
    return [1, local_size] if even and 1 < local_size < len(hosts) else [1]


def links_of(size: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Yield (phase, source, target) for a ring of blocks of `stride` ranks, from block to block.

    In each phase a rank has at most one link. There are two phases; an odd ring needs a third.
    """
    blocks = size // stride
    for source in range(size):
        block = source // stride
        phase = 2 if blocks % 2 and block == blocks - 1 else block % 2
        yield phase, source, (source + stride) % size


def measure_links(world: World, hosts: Sequence[str], seconds: float) -> tuple[Link, ...]:
    """Return the links that end at this rank; a collective that takes about `seconds`.

    `hosts` has the host of each rank. The device must have been used in a collective before.
    """
    buffer = torch.zeros(MESSAGE_BYTES, dtype=torch.uint8, device=world.device)
    share = seconds / (PHASES * len(strides(hosts)))
    found: list[Link] = []
    for stride in strides(hosts):
        routes = sorted(links_of(world.size, stride))
        for phase in range(PHASES):
            world.gather(None)
            for _, source, target in (link for link in routes if link[0] == phase):
                if world.rank == source:
                    _send(buffer, target)
                elif world.rank == target:
                    route = _route(hosts[source], hosts[target], stride)
                    speed = _receive(buffer, source, share)
                    found.append(Link(route, source, target, speed))
    return tuple(found)


def _route(source: str, target: str, stride: int) -> Route:
    if source == target:
        return "within a node"
    return "between nodes" if stride == 1 else "between nodes, all ranks at once"


def _send(buffer: torch.Tensor, target: int) -> None:
    for _ in ("connects", "is timed"):
        _transfer(dist.isend, buffer[:TRIAL_BYTES], target)
    plan = torch.zeros(2, dtype=torch.int64)
    dist.recv(plan, target)
    size, messages = (int(number) for number in plan)
    _transfer(dist.isend, buffer[:1], target)  # starts the receiver's timer
    for _ in range(messages):
        _transfer(dist.isend, buffer[:size], target)


def _receive(buffer: torch.Tensor, source: int, seconds: float) -> float:
    """Return the bandwidth in GB/s: only the receiver knows when the data has arrived."""
    _transfer(dist.irecv, buffer[:TRIAL_BYTES], source)
    trial = _timed(buffer[:TRIAL_BYTES], source, 1)
    size, messages = plan_messages(TRIAL_BYTES / trial, seconds)
    dist.send(torch.tensor([size, messages]), source)
    _transfer(dist.irecv, buffer[:1], source)
    return size * messages / _timed(buffer[:size], source, messages) / 1e9


def plan_messages(bytes_per_second: float, seconds: float) -> tuple[int, int]:
    """Return the size of a message and the number of messages that take about `seconds`."""
    size = int(min(max(bytes_per_second * seconds, TRIAL_BYTES), MESSAGE_BYTES))
    return size, min(max(1, int(bytes_per_second * seconds / size)), MOST_MESSAGES)


def _timed(buffer: torch.Tensor, source: int, messages: int) -> float:
    synchronize(buffer.device)
    started = time.perf_counter()
    for _ in range(messages):
        _transfer(dist.irecv, buffer, source)
    synchronize(buffer.device)
    return time.perf_counter() - started


# A batch of one: NCCL then reuses the connection of the collectives.
def _transfer(transfer: Transfer, buffer: torch.Tensor, peer: int) -> None:
    for work in dist.batch_isend_irecv([dist.P2POp(transfer, buffer, peer)]):
        work.wait()


def synchronize(device: torch.device) -> None:
    """Wait until `device` has finished its queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
