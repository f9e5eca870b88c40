"""One rank of a job, started by srun: `python -m launch.slurm.supervise.rank RUN_DIR TOKEN`.

It learns its rank from SLURM, finds the others through the attempt's folder, and trains. However it
ends, it leaves a record there.
"""

# Importing torch takes seconds; handle stop signals before that.
if __name__ == "__main__":
    from pipeline.system.signals import leave_at_once

    leave_at_once()

import json
import os
import socket
import sys
import time
import traceback
from pathlib import Path

import psutil

from launch.slurm.records.attempt import Attempt, RankExit
from pipeline.config.load import load
from pipeline.distributed.rendezvous import ADDRESS, RENDEZVOUS
from pipeline.distributed.world import CORES
from pipeline.runs.folder import CONFIG_FILE
from pipeline.system.exit_codes import FAILURE, STOPPED, Stopped, exit_code, report_error
from pipeline.system.output import lasting_output
from pipeline.system.secrets import hide_secrets

SETTLE_SECONDS = 15.0
POLL_SECONDS = 0.1
DISCARD_PORT = 9
"""Connecting a datagram socket sends nothing: it only asks the system for the route."""


def main(run_dir: Path, token: str) -> int:
    """Train as one rank of the attempt `token`; return the exit code.

    A rank that stopped when asked returns 0: srun would kill the ranks that are still saving.
    """
    attempt = Attempt(run_dir, token)
    os.environ |= rank_variables()
    rank, host = int(os.environ["RANK"]), os.environ["SLURMD_NODENAME"]
    try:
        os.environ |= rendezvous_variables(attempt)
        from pipeline.train import train  # imports torch, which reads the variables

        attempt.record_ready(rank)
        train(load(run_dir / CONFIG_FILE, [f"run_dir={json.dumps(str(run_dir))}"]))
    except BaseException as error:  # noqa: BLE001 - reported in the log and to the supervisor
        end = rank_exit(error, rank, host)
        report_error(error, rank)
        sys.stderr.write(end.traceback)
        attempt.record_exit(end)
        if end.code not in (0, STOPPED) and not end.traceback:  # all ranks may have this error
            await_exits(attempt, int(os.environ["WORLD_SIZE"]))
        return 0 if end.code == STOPPED else end.code
    attempt.record_exit(RankExit(rank, host, time.time(), code=0))
    return 0


def rank_exit(error: BaseException, rank: int, host: str) -> RankExit:
    """Return the record of a rank that ends with `error`."""
    # A scheduler may send any signal, SIGINT too.
    code = STOPPED if isinstance(error, Stopped) else exit_code(error)
    return RankExit(
        rank,
        host,
        time.time(),
        code=FAILURE if code is None else code,
        error="" if code == STOPPED else hide_secrets(f"{type(error).__name__}: {error}"),
        notes="; ".join(getattr(error, "__notes__", [])),
        traceback=hide_secrets(traceback.format_exc()) if code is None else "",
    )


def await_exits(attempt: Attempt, ranks: int) -> None:
    """Wait for the records of all ranks, for a while: srun ends the others once this one leaves.

    Whether all of them report an error decides whether it is the fault of a node.
    """
    deadline = time.monotonic() + SETTLE_SECONDS
    while len(attempt.rank_exits()) < ranks and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def rank_variables() -> dict[str, str]:
    """Return torch's variables for this process, from those of srun."""
    tasks, nodes = (int(os.environ[f"SLURM_STEP_NUM_{what}"]) for what in ("TASKS", "NODES"))
    return {
        "RANK": os.environ["SLURM_PROCID"],
        "WORLD_SIZE": str(tasks),
        "LOCAL_RANK": os.environ["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": str(tasks // nodes),
        CORES: os.environ.get("SLURM_CPUS_PER_TASK", ""),
    }


def rendezvous_variables(attempt: Attempt) -> dict[str, str]:
    """Return where the ranks meet, and the network interface that leads there."""
    node = os.environ["SLURMD_NODENAME"]
    own = own_address(node, attempt.addresses())
    variables = {RENDEZVOUS: str(attempt.rendezvous), ADDRESS: own}
    if interface := interface_of(own):
        variables["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", interface)
    return variables


def own_address(node: str, addresses: dict[str, str]) -> str:
    """Return the address of this node on its route to the others.

    The host name does not work: on Debian it may resolve to 127.0.1.1.
    """
    others = [address for name, address in addresses.items() if name != node]
    if not others:
        return "127.0.0.1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((others[0], DISCARD_PORT))
        return probe.getsockname()[0]


def interface_of(address: str) -> str | None:
    """Return the name of the network interface with `address`."""
    for name, entries in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in entries):
            return name
    return None


if __name__ == "__main__":
    with lasting_output():
        raise SystemExit(main(Path(sys.argv[1]), sys.argv[2]))
