"""What the cluster offers, and whether a request fits it."""

import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

from launch.slurm.api.cli import host_names, show
from launch.slurm.api.partition import Node, Partition, partition_from
from launch.slurm.records.submission import Layout
from pipeline.config.schema import Slurm
from pipeline.system.mounts import shared

MEGABYTES = {"K": 1 / 1024, "": 1, "M": 1, "G": 1024, "T": 1024**2}
FEATURE = re.compile(r"[^&|\[\]()*,]+")
COUNT = re.compile(r"\*[0-9]+")


def read_partitions() -> dict[str, Partition]:
    """Return the cluster's partitions by their names."""
    nodes = show("node")
    partitions = (partition_from(record, nodes) for record in show("partition"))
    return {partition.name: partition for partition in partitions}


def plan_layout(slurm: Slurm, partition: Partition, *, nodes: int) -> Layout:
    """Return how many processes run where, on `nodes` nodes and the spare ones.

    What `slurm` leaves open follows from the least node that may be chosen: all its GPUs, a rank
    for each, and as large a share of the CPUs as of the GPUs.
    """
    machines = _candidates(slurm, partition)
    gpus = slurm.gpus_per_node
    if gpus is None:
        gpus = min((machine.gpus for machine in machines if machine.gpus), default=0)
    ranks = slurm.ranks_per_node or max(1, gpus)
    fitting = [machine for machine in machines if machine.gpus >= gpus] or machines
    cpus = min((_fair_cpus(machine, gpus, slurm) for machine in fitting), default=1)
    return Layout(
        nodes=nodes,
        spare_nodes=slurm.spare_nodes,
        ranks_per_node=ranks,
        cpus_per_rank=slurm.cpus_per_rank or max(1, cpus // ranks),
        gpus_per_node=gpus,
    )


def check_request(
    slurm: Slurm, partitions: dict[str, Partition], *, nodes: int
) -> tuple[Partition, list[str]]:
    """Return the partition that a run on `nodes` nodes would wait in, and what to be warned of.

    Raises `ValueError` if it would wait there forever.
    """
    partition = _choose(slurm, partitions)
    wanted = nodes + slurm.spare_nodes
    _expect_nodes(slurm, partition, nodes, partitions.values())
    _expect_time(slurm, partition)
    machines = _candidates(slurm, partition)
    if len(machines) < wanted:
        why = " and ".join(
            f"slurm.{name}={value}"
            for name, value in (("exclude", slurm.exclude), ("constraint", slurm.constraint))
            if value is not None
        )
        raise ValueError(
            f"{why} leaves {len(machines)} of the {len(partition.nodes)} nodes of partition"
            f" {partition.name}, but {wanted} are asked for; exclude less, or ask for fewer"
        )
    layout = plan_layout(slurm, partition, nodes=nodes)
    machines = _expect_hardware(slurm, layout, partition, machines)
    return partition, _warnings(slurm, partition, machines, wanted)


def expect_shared(path: Path, slurm: Slurm, partition: Partition) -> None:
    """Raise `ValueError` if nodes of the partition do not see `path`, the run's or the runs'."""
    answer, where = shared(path)
    if slurm.run_dir_is_shared is False:
        answer, where = False, "what slurm.run_dir_is_shared=false says is not shared"
    if answer is not False or slurm.run_dir_is_shared or partition.is_this_host:
        return
    raise ValueError(
        f"{path} lies on {where}, which the nodes of partition {partition.name} do not see; name a"
        " folder on a shared file system by runs_dir=..., or say slurm.run_dir_is_shared=true if"
        " every node sees this one"
    )


def limit_text(minutes: int | None) -> str:
    """Return a time limit as SLURM writes it."""
    if minutes is None:
        return "none"
    hours, rest = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{f'{days}-' if days else ''}{hours:02}:{rest:02}:00"


def _choose(slurm: Slurm, partitions: dict[str, Partition]) -> Partition:
    names = ", ".join(sorted(partitions)) or "none"
    if slurm.partition is None:
        partition = next((each for each in partitions.values() if each.is_default), None)
        if partition is None:
            raise ValueError(f"the cluster has no default partition; set slurm.partition: {names}")
    elif "," in slurm.partition:
        raise ValueError(
            f"slurm.partition={slurm.partition} is more than one; choose one of them, as what fits"
            " one may not fit another"
        )
    elif slurm.partition not in partitions:
        raise ValueError(
            f"slurm.partition={slurm.partition}: the cluster has none of that name;"
            f" {_hint(slurm.partition, partitions)}"
        )
    else:
        partition = partitions[slurm.partition]
    if not partition.is_up:
        raise ValueError(
            f"partition {partition.name} is {partition.state.lower()}: it starts no jobs; set"
            f" slurm.partition to another of {names}, or wait for the administrator"
        )
    return partition


def _expect_nodes(
    slurm: Slurm, partition: Partition, nodes: int, others: Iterable[Partition]
) -> None:
    wanted = nodes + slurm.spare_nodes
    asked = f"--nodes {nodes}"
    if slurm.spare_nodes:
        asked += f" and slurm.spare_nodes={slurm.spare_nodes}"
    limit = partition.max_nodes
    if wanted > len(partition.nodes):
        fault = f"partition {partition.name} has {len(partition.nodes)}"
    elif limit is not None and wanted > limit:
        fault = f"partition {partition.name} allows a job {limit}"
    elif wanted < partition.min_nodes:
        fault = f"partition {partition.name} starts no job with less than {partition.min_nodes}"
    else:
        return
    sizes = ", ".join(f"{other.name} ({len(other.nodes)} nodes)" for other in others)
    raise ValueError(
        f"{asked}: a job of {wanted} nodes, but {fault}; ask for another number, or set"
        f" slurm.partition: {sizes}"
    )


def _expect_time(slurm: Slurm, partition: Partition) -> None:
    asked, limit = slurm.time_limit_minutes, partition.max_minutes
    if asked is not None and limit is not None and asked > limit:
        raise ValueError(
            f"slurm.time_limit={slurm.time_limit} is more than the {limit_text(limit)} that"
            f" partition {partition.name} allows; set that: at each limit the run saves, queues"
            " again and goes on"
        )


def _candidates(slurm: Slurm, partition: Partition) -> list[Node]:
    """Return the nodes that are not excluded and have the features that are asked for."""
    machines = list(partition.nodes)
    if slurm.exclude is not None and "/" not in slurm.exclude:  # with one, it is a file's name
        excluded = set(host_names(slurm.exclude))
        machines = [machine for machine in machines if machine.name not in excluded]
    if slurm.constraint is None:
        return machines
    asked = FEATURE.findall(COUNT.sub("", slurm.constraint))
    known = {feature for machine in partition.nodes for feature in machine.features}
    for feature in asked:
        if feature not in known:
            raise ValueError(
                f"slurm.constraint={slurm.constraint}: no node of partition {partition.name} has"
                f" the feature {feature}; {_hint(feature, known)}"
            )
    if set(slurm.constraint) & set("|[]()*,"):  # alternatives, or counts: SLURM's affair
        return [machine for machine in machines if machine.features & set(asked)]
    return [machine for machine in machines if machine.features >= set(asked)]


def _expect_hardware(
    slurm: Slurm, layout: Layout, partition: Partition, machines: list[Node]
) -> list[Node]:
    """Return those of `machines` that have all that is asked for."""
    ranks, cpus, gpus = layout.ranks_per_node, layout.cpus_per_rank, layout.gpus_per_node
    if 0 < gpus < ranks:
        raise ValueError(
            f"slurm.ranks_per_node={ranks} is more than the {gpus} GPUs of a node; each rank needs"
            f" its own: set at most {gpus}, or slurm.gpus_per_node=0 to train on CPUs"
        )
    wanted = layout.nodes + layout.spare_nodes
    megabytes = _megabytes(slurm.memory)
    needs: list[tuple[str, int, Callable[[Node], int], str]] = [
        (f"slurm.gpus_per_node={gpus}", gpus, lambda machine: machine.gpus, "GPUs"),
        (
            f"slurm.cpus_per_rank={cpus} for {ranks} ranks",
            ranks * cpus,
            lambda machine: machine.cpus,
            "CPUs",
        ),
        (f"slurm.memory={slurm.memory}", megabytes, lambda node: node.memory_megabytes, "MB"),
    ]
    for setting, amount, offered, unit in needs:
        best = sorted(map(offered, machines), reverse=True)[wanted - 1]
        if best < amount:
            raise ValueError(
                f"{setting} is {amount:,} {unit} a node, but partition {partition.name} cannot give"
                f" {wanted} nodes with more than {best:,}; ask for at most that, for fewer nodes,"
                " or set slurm.partition to another"
            )
        machines = [machine for machine in machines if offered(machine) >= amount]
    return machines


def _warnings(
    slurm: Slurm, partition: Partition, machines: Sequence[Node], wanted: int
) -> list[str]:
    warnings: list[str] = []
    usable = sum(machine.is_usable for machine in machines)
    if usable < wanted:
        warnings.append(
            f"{usable} of the nodes that fit are in service in partition {partition.name}, and"
            f" {wanted} are asked for: the job waits until others come back"
        )
    if slurm.time_limit is None and partition.default_minutes is None:
        limit = limit_text(partition.max_minutes)
        warnings.append(
            f"no slurm.time_limit, and partition {partition.name} has none by default (its greatest"
            f" is {limit}): the scheduler fits in shorter jobs earlier; set one"
        )
    return warnings


def _fair_cpus(machine: Node, gpus: int, slurm: Slurm) -> int:
    """Return as large a share of a node's CPUs as of its GPUs; all, of a node for one job."""
    if not gpus or gpus >= machine.gpus or slurm.sbatch.get("exclusive"):
        return machine.cpus
    return machine.cpus * gpus // machine.gpus


def _megabytes(memory: str | None) -> int:
    """Return megabytes, rounded up; 0 for whatever a node has."""
    if memory is None:
        return 0
    number = memory.rstrip("KMGT")
    return int(-(-int(number) * MEGABYTES[memory[len(number) :]] // 1))


def _hint(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, known, n=1)
    start = f"did you mean {near[0]}? " if near else ""
    return f"{start}known: {', '.join(sorted(known)) or 'none'}"
