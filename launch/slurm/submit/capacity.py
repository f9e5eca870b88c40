"""Whether a request fits the cluster, and how it is laid out on the nodes."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path

from launch.slurm.api.cli import host_names
from launch.slurm.api.nodes import Node, gpu_types, named_features
from launch.slurm.api.partitions import Partition, in_common, limit_text
from launch.slurm.records.submission import JobLayout
from pipeline.config.schema import Slurm
from pipeline.system.command import plural
from pipeline.system.mounts import shared

MEGABYTES = {"K": 1 / 1024, "": 1, "M": 1, "G": 1024, "T": 1024**2}


def plan_layout(slurm: Slurm, partition: Partition, *, nodes: int) -> JobLayout:
    """Return how many processes run on each of `nodes` nodes and the spare ones.

    By default the smallest eligible node decides: all of its GPUs, one rank for each, and the same
    share of its CPUs as of its GPUs.
    """
    eligible = _eligible(slurm, partition)
    gpus = slurm.gpu_count
    if gpus is None:
        gpus = min((node.gpus for node in eligible if node.gpus), default=0)
    ranks = slurm.ranks_per_node or max(1, gpus)
    fitting = [node for node in eligible if node.gpus_of(slurm.gpu_type) >= gpus] or eligible
    cpus = min((_fair_cpus(node, gpus, slurm) for node in fitting), default=1)
    return JobLayout(
        nodes=nodes,
        spare_nodes=slurm.spare_nodes,
        ranks_per_node=ranks,
        cpus_per_rank=slurm.cpus_per_rank or max(1, cpus // ranks),
        gpus_per_node=gpus,
    )


def check_request(
    slurm: Slurm, partitions: dict[str, Partition], *, nodes: int
) -> tuple[Partition, list[str]]:
    """Return the partition for a run on `nodes` nodes, and warnings.

    Several partitions are returned as one that has the nodes of all and the limits of the
    strictest. Raises `ValueError` if the run could never start in one of them.
    """
    chosen = choose_partitions(slurm, partitions)
    together = in_common(chosen)
    layout = plan_layout(slurm, together, nodes=nodes)
    found = [_check_partition(slurm, each, layout, partitions.values()) for each in chosen]
    short = [text for text in found if text]
    waits = short if len(short) == len(chosen) else []  # else it starts in another partition
    return together, [*waits, *_limit_warnings(slurm, together)]


def choose_partitions(slurm: Slurm, partitions: dict[str, Partition]) -> list[Partition]:
    """Return the partitions that a job may start in: those named, or the cluster's default.

    Raises `ValueError` if one is unknown, or starts no jobs.
    """
    names = ", ".join(sorted(partitions)) or "none"
    asked = [name.strip() for name in (slurm.partition or "").split(",") if name.strip()]
    default = [name for name, each in partitions.items() if each.is_default]
    if not (asked or default):
        raise ValueError(f"the cluster has no default partition; set slurm.partition: {names}")
    chosen: list[Partition] = []
    for name in dict.fromkeys(asked or default):
        if name not in partitions:
            raise ValueError(
                f"slurm.partition={slurm.partition}: unknown partition"
                f"{f' {name}' if len(asked) > 1 else ''}; {_hint(name, partitions)}"
            )
        if not partitions[name].is_up:
            raise ValueError(
                f"partition {name} is {partitions[name].state.lower()} and starts no jobs; set"
                f" slurm.partition to another of {names}, or wait for the administrator"
            )
        chosen.append(partitions[name])
    return chosen


def _check_partition(
    slurm: Slurm, partition: Partition, layout: JobLayout, others: Iterable[Partition]
) -> str:
    """Return a warning if too few nodes are in service; raise `ValueError` if it cannot start."""
    nodes = layout.nodes
    wanted = nodes + slurm.spare_nodes
    _expect_nodes(slurm, partition, nodes, others)
    _expect_time(slurm, partition)
    eligible = _eligible(slurm, partition)
    if len(eligible) < wanted:
        why = " and ".join(
            f"slurm.{name}={value}"
            for name, value in (("exclude", slurm.exclude), ("constraint", slurm.constraint))
            if value is not None
        )
        raise ValueError(
            f"{why} leaves {len(eligible)} of the {plural(len(partition.nodes), 'node')} of"
            f" partition {partition.name}, but the job needs {wanted}; exclude fewer, or ask for"
            " fewer"
        )
    usable = sum(node.is_usable for node in _expect_hardware(slurm, layout, partition, eligible))
    if usable >= wanted:
        return ""
    return (
        f"partition {partition.name} has only {plural(usable, 'suitable node')} in service, but the"
        f" job needs {wanted}: it waits until others come back"
    )


def expect_shared(path: Path, slurm: Slurm, partition: Partition) -> None:
    """Raise `ValueError` if nodes of the partition cannot see `path`."""
    answer, where = shared(path)
    if slurm.run_dir_is_shared is False:
        answer, where = False, "a local file system (slurm.run_dir_is_shared=false)"
    if answer is not False or slurm.run_dir_is_shared or partition.is_this_host:
        return
    raise ValueError(
        f"{path} is on {where}, which the nodes of partition {partition.name} cannot see; set"
        " runs_dir=... to a folder on a shared file system, or slurm.run_dir_is_shared=true if"
        " every node can see this one"
    )


def _expect_nodes(
    slurm: Slurm, partition: Partition, nodes: int, others: Iterable[Partition]
) -> None:
    wanted = nodes + slurm.spare_nodes
    asked = f"--nodes {nodes}"
    if slurm.spare_nodes:
        asked += f" and slurm.spare_nodes={slurm.spare_nodes}"
    limit = partition.max_nodes
    if wanted > len(partition.nodes):
        fault = f"has {len(partition.nodes)}"
    elif limit is not None and wanted > limit:
        fault = f"allows at most {limit} for a job"
    elif wanted < partition.min_nodes:
        fault = f"needs at least {partition.min_nodes} for a job"
    else:
        return
    sizes = ", ".join(f"{each.name} ({plural(len(each.nodes), 'node')})" for each in others)
    raise ValueError(
        f"{asked}: the job needs {plural(wanted, 'node')}, but partition {partition.name} {fault};"
        f" change --nodes, or set slurm.partition: {sizes}"
    )


def _expect_time(slurm: Slurm, partition: Partition) -> None:
    asked, limit = slurm.time_limit_minutes, partition.max_minutes
    own = partition.default_minutes or limit
    notice = slurm.stop_notice_seconds
    if asked is None and own is not None and notice >= 60 * own:
        raise ValueError(
            f"slurm.stop_notice_seconds={notice} must be shorter than the {limit_text(own)} that a"
            f" job of partition {partition.name} has; reduce it, or set a longer slurm.time_limit"
        )
    if asked is not None and limit is not None and asked > limit:
        raise ValueError(
            f"slurm.time_limit={slurm.time_limit} is more than the {limit_text(limit)} that"
            f" partition {partition.name} allows; set at most that: at each limit the run saves,"
            " requeues and resumes"
        )


def _eligible(slurm: Slurm, partition: Partition) -> list[Node]:
    """Return the nodes that are not excluded and have the requested features."""
    nodes = list(partition.nodes)
    if slurm.exclude is not None and "/" not in slurm.exclude:  # a slash means a file name
        excluded = set(host_names(slurm.exclude))
        nodes = [node for node in nodes if node.name not in excluded]
    if slurm.constraint is None:
        return nodes
    known = {feature for node in partition.nodes for feature in node.features}
    for feature in named_features(slurm.constraint):
        if feature not in known:
            raise ValueError(
                f"slurm.constraint={slurm.constraint}: no node of partition {partition.name} has"
                f" the feature {feature}; {_hint(feature, known)}"
            )
    return [node for node in nodes if node.meets(slurm.constraint)]


def _expect_hardware(
    slurm: Slurm, layout: JobLayout, partition: Partition, nodes: list[Node]
) -> list[Node]:
    """Return those of `nodes` that have all requested resources."""
    ranks, cpus, gpus = layout.ranks_per_node, layout.cpus_per_rank, layout.gpus_per_node
    if 0 < gpus < ranks:
        raise ValueError(
            f"slurm.ranks_per_node={ranks} is more than the {plural(gpus, 'GPU')} of a node; each"
            f" rank needs its own: set at most {gpus}, or slurm.gpus_per_node=0 to train on CPUs"
        )
    wanted = layout.nodes + layout.spare_nodes
    megabytes, kind = _megabytes(slurm.memory), slurm.gpu_type
    known = {each for node in nodes for each in gpu_types(node.resources)}
    if kind and kind not in known:
        raise ValueError(
            f"slurm.gpus_per_node={slurm.gpus_per_node}: partition {partition.name} has no GPUs of"
            f" type {kind}; {_hint(kind, known)}"
        )
    per_rank = f"slurm.cpus_per_rank={cpus} for {plural(ranks, 'rank')}"
    needs: list[tuple[str, int, Callable[[Node], int], str]] = [
        (
            f"slurm.gpus_per_node={slurm.gpus_per_node or gpus}",
            gpus,
            lambda node: node.gpus_of(kind),
            "GPU",
        ),
        (per_rank, ranks * cpus, lambda node: node.cpus, "CPU"),
        (f"slurm.memory={slurm.memory}", megabytes, lambda node: node.memory_megabytes, "MB"),
    ]
    for setting, amount, offered, unit in needs:
        best = sorted(map(offered, nodes), reverse=True)[wanted - 1]
        if best < amount:
            needed = f"{amount:,} MB" if unit == "MB" else plural(amount, unit)
            raise ValueError(
                f"{setting} needs {needed} per node, but partition {partition.name} has at most"
                f" {best:,} on {plural(wanted, 'node')}; ask for less, for fewer nodes, or set"
                " slurm.partition to another"
            )
        nodes = [node for node in nodes if offered(node) >= amount]
    return nodes


def _limit_warnings(slurm: Slurm, partition: Partition) -> list[str]:
    if slurm.time_limit is not None or partition.default_minutes is not None:
        return []
    limit = limit_text(partition.max_minutes)
    return [
        f"slurm.time_limit is not set, and partition {partition.name} has no default (its"
        f" maximum is {limit}); set one, because the scheduler starts shorter jobs earlier"
    ]


def _fair_cpus(node: Node, gpus: int, slurm: Slurm) -> int:
    """Return the same share of a node's CPUs as of its GPUs; all of an exclusive node."""
    if not gpus or gpus >= node.gpus or slurm.sbatch.get("exclusive"):
        return node.cpus
    return node.cpus * gpus // node.gpus


def _megabytes(memory: str | None) -> int:
    """Return megabytes, rounded up; 0 if no amount is requested."""
    if memory is None:
        return 0
    number = memory.rstrip("KMGT")
    return int(-(-int(number) * MEGABYTES[memory[len(number) :]] // 1))


def _hint(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, known, n=1)
    start = f"did you mean {near[0]}? " if near else ""
    return f"{start}known: {', '.join(sorted(known)) or 'none'}"
