"""Times a few seconds of work on every rank at once: arithmetic, copies and communication."""

import time
from collections.abc import Callable

import torch

from pipeline.distributed.health.links import measure_links, synchronize
from pipeline.distributed.health.records import RankHealth, host_name
from pipeline.distributed.world import World

GPU_MATRIX_SIZE = 8192
"""Large enough to keep a current GPU fully busy for a few milliseconds."""
CPU_MATRIX_SIZE = 1024
COPY_BYTES = 64 * 2**20
GRADIENT_BYTES = 100 * 2**20
"""The gradients of a ResNet-50: 25.6 million parameters in fp32."""
TRIAL_BYTES = 4 * 2**20
MOST_REPEATS = 1000


def check_health(world: World, seconds: float = 10.0) -> list[RankHealth]:
    """Measure each rank and the links between them; return all ranks' figures, on every rank.

    A collective. It takes about `seconds` plus the time to connect, for any number of ranks; longer
    only if a link cannot carry 4 MiB in that time. It does not change the random generators.
    """
    hosts = world.gather(host_name())
    matmul = multiply(world.device, 0.2 * seconds)
    world.gather(None)  # all ranks copy at the same time, as in training
    copy = copy_to(world.device, 0.1 * seconds) if world.device.type == "cuda" else None
    alone = world.size == 1
    all_reduce = None if alone else reduce_all(world, 0.2 * seconds)
    links = () if alone else measure_links(world, hosts, 0.4 * seconds)
    if world.device.type == "cuda":
        torch.cuda.empty_cache()  # training allocates other sizes
    own = RankHealth(
        rank=world.rank,
        host=hosts[world.rank],
        local_rank=world.local_rank,
        device="GPU" if world.device.type == "cuda" else "CPU",
        matmul_teraflops=matmul,
        host_to_device_gigabytes_per_second=copy,
        all_reduce_gigabytes_per_second=all_reduce,
        links=links,
    )
    return world.gather(own)


def multiply(device: torch.device, seconds: float) -> float:
    """Return the TFLOP/s of a product of square matrices: bf16 on GPUs, else fp32."""
    gpu = device.type == "cuda"
    size, dtype = (GPU_MATRIX_SIZE, torch.bfloat16) if gpu else (CPU_MATRIX_SIZE, torch.float32)
    # Random numbers: zeros need less power than the numbers of a network, and run faster.
    generator = torch.Generator(device).manual_seed(0)
    left, right = (
        torch.randn(size, size, dtype=dtype, device=device, generator=generator) for _ in range(2)
    )
    out = torch.empty_like(left)

    def call() -> None:
        torch.mm(left, right, out=out)

    return 2 * size**3 * calls_per_second(call, device, seconds) / 1e12


def copy_to(device: torch.device, seconds: float) -> float:
    """Return the GB/s of copies from pinned host memory to the GPU `device`."""
    source = torch.zeros(COPY_BYTES, dtype=torch.uint8).pin_memory()
    target = torch.empty(COPY_BYTES, dtype=torch.uint8, device=device)

    def call() -> None:
        target.copy_(source, non_blocking=True)

    return COPY_BYTES * calls_per_second(call, device, seconds) / 1e9


def calls_per_second(call: Callable[[], None], device: torch.device, seconds: float) -> float:
    """Return the calls per second; the first third of `seconds` only warms up."""
    call()
    synchronize(device)
    started, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - started < seconds / 3:
        call()
        synchronize(device)
        calls += 1
    pace = calls / (time.perf_counter() - started)
    repeats = max(1, int(pace * seconds * 2 / 3))
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    synchronize(device)
    return repeats / (time.perf_counter() - started)


def reduce_all(world: World, seconds: float) -> float:
    """Return the bus bandwidth in GB/s of an all-reduce the size of gradients; a collective.

    That is 2(n-1)/n * bytes / time for n ranks, as in nccl-tests (doc/PERFORMANCE.md there), and
    comparable with the bandwidth of a link for any number of ranks.
    """
    buffer = torch.zeros(GRADIENT_BYTES // 4, device=world.device)
    trial = buffer[: TRIAL_BYTES // 4]
    _timed_reductions(world, trial, 1)  # connects
    slowest = _slowest(world, _timed_reductions(world, trial, 1))
    share = seconds / 2 / slowest
    part = buffer[: max(trial.numel(), min(buffer.numel(), int(trial.numel() * share)))]
    slowest = _slowest(world, _timed_reductions(world, part, 1))
    repeats = min(max(1, int(seconds / 2 / slowest)), MOST_REPEATS)
    per_call = _timed_reductions(world, part, repeats) / repeats
    return 2 * (world.size - 1) / world.size * part.nbytes / per_call / 1e9


def _timed_reductions(world: World, tensor: torch.Tensor, repeats: int) -> float:
    world.gather(None)
    started = time.perf_counter()
    for _ in range(repeats):
        world.all_reduce_sum_(tensor)
    synchronize(world.device)
    return time.perf_counter() - started


def _slowest(world: World, seconds: float) -> float:
    """Return the longest time of all ranks, so that all choose the same number of repeats."""
    return world.all_reduce_max_async([max(1, int(seconds * 1e9))])()[0] / 1e9
