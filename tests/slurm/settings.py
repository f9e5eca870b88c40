"""SLURM's configuration files for a test cluster, with short timeouts."""

import contextlib
import random
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PORTS = range(10_000, 20_000)  # below the ports that the kernel and torch choose
LONGEST_SOCKET = 107  # bytes in the path of a Unix socket


@dataclass(frozen=True)
class Node:
    """One node for SLURM."""

    name: str
    address: str
    port: int


@dataclass(frozen=True)
class Hardware:
    """What a cluster claims to have; SLURM does not check it."""

    nodes: int = 4
    cpus: int = 4  # of each node
    gpus: int = 0  # of each node


def write_settings(
    folder: Path,
    controller: Node,
    nodes: Sequence[Node],
    hardware: Hardware,
    overrides: Mapping[str, object],
) -> None:
    """Write slurm.conf, gres.conf and cgroup.conf into `folder`.

    `main` is the default partition. Jobs of partition `urgent` preempt (requeue) jobs of `main`,
    which get their `--signal` and 10 s of grace; a job that ends within the grace is not requeued.
    """
    values = {**defaults(folder, controller), **overrides}
    gpus = f"Gres=gpu:{hardware.gpus}" if hardware.gpus else ""
    lines = [
        *(f"{key}={value}" for key, value in values.items()),
        f"NodeName=DEFAULT CPUs={hardware.cpus} RealMemory=6000 {gpus}",
        *(f"NodeName={node.name} NodeAddr={node.address} Port={node.port}" for node in nodes),
        "PartitionName=main Nodes=ALL Default=YES PriorityTier=1 GraceTime=10",
        "PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF",
    ]
    (folder / "slurm.conf").write_text("\n".join(lines) + "\n")
    (folder / "gres.conf").write_text(gres(folder, hardware.gpus))
    # Nothing uses it, but slurmd does not start if it has to guess the plugin.
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")


def defaults(folder: Path, controller: Node) -> dict[str, object]:
    munge = folder / "munge.socket"
    assert len(str(munge)) <= LONGEST_SOCKET, f"too long for a socket: {munge}"
    return {
        "ClusterName": f"test{random.randrange(10**9)}",  # distinguishes equal job ids
        "SlurmctldHost": f"{controller.name}({controller.address})",
        "SlurmctldPort": controller.port,
        "SlurmUser": "root",
        "StateSaveLocation": folder / "state",
        "SlurmctldPidFile": folder / "slurmctld.pid",
        "SlurmdSpoolDir": folder / "%n",
        "SlurmdPidFile": folder / "%n.pid",
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={munge},cred_expire=5",  # a requeued job waits one second longer
        "MpiDefault": "none",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "SwitchType": "switch/none",
        "JobAcctGatherType": "jobacct_gather/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core",
        "SlurmdParameters": "config_overrides",  # nodes may claim more than the machine has
        "GresTypes": "gpu",
        "ReturnToService": 1,  # for silent nodes, not for those set down
        "JobRequeue": 1,
        "KillWait": 5,
        "MessageTimeout": 5,
        "SlurmdTimeout": 10,
        "SchedulerType": "sched/backfill",
        "SchedulerParameters": "sched_interval=1,bf_interval=1,batch_sched_delay=0",
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
        "SlurmctldParameters": "preempt_send_user_signal",
    }


def gres(folder: Path, gpus: int) -> str:
    """Return gres.conf with fake GPUs: SLURM needs device files, and sets CUDA_VISIBLE_DEVICES."""
    for index in range(gpus):
        (folder / f"gpu{index}").symlink_to("/dev/null")
    return f"Name=gpu File={folder}/gpu[0-{gpus - 1}]\n" if gpus else ""


def controller_at(address: str, port: int) -> Node:
    """Return the controller, which runs on this host."""
    return Node(socket.gethostname().partition(".")[0], address, port)


def free_ports(count: int) -> list[int]:
    """Return random free TCP ports, because several clusters may start at once."""
    ports: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            ports.append(port)
        if len(ports) == count:
            return ports
    raise AssertionError("no free port is left")
