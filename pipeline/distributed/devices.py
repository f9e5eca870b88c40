"""Which GPU each rank of a node uses, and whether two ranks would share one."""

from collections import defaultdict
from collections.abc import Sequence

from pipeline.system.command import plural


def device_index(visible: int, local_rank: int, local_size: int) -> int:
    """Return the GPU of a rank, of those that it can see.

    Either the ranks of a node see all of its GPUs, and each takes its own; or a launcher shows each
    rank only its own (`--gpus-per-task=1`, `--gpu-bind`, MIG), and it takes the first.
    """
    return local_rank if local_size <= visible else 0


def shared_gpus(uuids: Sequence[str]) -> str:
    """Return what is wrong if ranks share a GPU, else nothing; `uuids` has one for each rank.

    A rank on the CPU has an empty UUID.
    """
    ranks_of: dict[str, list[int]] = defaultdict(list)
    for rank, uuid in enumerate(uuids):
        ranks_of[uuid].append(rank)
    shared = {uuid: ranks for uuid, ranks in ranks_of.items() if uuid and len(ranks) > 1}
    if not shared:
        return ""
    pairs = "; ".join(
        f"{uuid} is used by ranks {', '.join(map(str, ranks))}" for uuid, ranks in shared.items()
    )
    return (
        f"{pairs}; each rank needs its own: start at most"
        f" {plural(len(ranks_of), 'rank')}, or let each see its own GPU (srun --gpus-per-task=1)"
    )
