"""A real SLURM cluster from Debian's packages, with all nodes on this host.

    with start_cluster(tmp_path) as cluster:
        job = cluster.submit("srun hostname", "--nodes=4")
        cluster.wait_for(job, "COMPLETED")

The project's programs use it with `env=cluster.environment`. For nodes that can be switched off or
cut off the network, see `tests.slurm.lab`; to work by hand, run `python -m tests.slurm`.
"""

import contextlib
import os
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Generator
from pathlib import Path

import psutil

from tests.slurm.keeper import Keeper, keep_daemons
from tests.slurm.requirements import search_path
from tests.slurm.settings import Hardware, Node, controller_at, free_ports, write_settings

SECONDS_TO_ANSWER = 60
SECONDS_TO_START = 60
SECONDS_TO_SAVE = 6  # slurmctld delays writing its state by up to 5 s


class Cluster:
    """A running cluster, with the logs of its daemons in `folder`."""

    def __init__(self, folder: Path, nodes: list[Node], keeper: Keeper) -> None:
        self.folder = folder
        self.nodes = nodes
        self.environment = clean_environment() | {"SLURM_CONF": str(folder / "slurm.conf")}
        self._keeper = keeper
        self._controller = 0

    def run(self, *command: str) -> str:
        """Return the output of a command, such as squeue; raise `RuntimeError` if it fails."""
        answer = subprocess.run(
            command,
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=SECONDS_TO_ANSWER,
            check=False,
        )
        if answer.returncode:
            raise RuntimeError(f"{' '.join(command)}: {answer.stdout}{answer.stderr}")
        return answer.stdout.strip()

    def submit(self, script: str, *options: str) -> str:
        """Submit shell lines with options of sbatch; return the job id."""
        return self.run("sbatch", "--parsable", *options, "--wrap", script)

    def job(self, job_id: str) -> dict[str, str]:
        """Return the fields of `scontrol show job`: JobState, Restarts, Reason, NodeList ..."""
        text = self.run("scontrol", "--oneliner", "show", "job", job_id)
        return dict(field.split("=", 1) for field in text.split() if "=" in field)

    def wait_for(self, job_id: str, state: str, seconds: float = 30) -> dict[str, str]:
        """Wait for a job's state, such as RUNNING; return its fields, or raise `TimeoutError`."""
        wait_until(
            lambda: self.job(job_id)["JobState"] == state,
            lambda: f"job {job_id} is not {state}: {self.job(job_id)}",
            seconds,
        )
        return self.job(job_id)

    def node_states(self) -> dict[str, str]:
        """Return the states by node: `idle`, `mixed`, `down` ...; with `*` if it is silent."""
        lines = self.run("sinfo", "--noheader", "--Node", "--partition=main", "--format=%N %T")
        return dict(line.split() for line in lines.splitlines())

    def wait_for_node(self, node: str, state: str, seconds: float = 60) -> None:
        """Wait until a node's state, as in `node_states`, matches the expression `state`."""
        wait_until(
            lambda: re.fullmatch(state, self.node_states()[node]) is not None,
            lambda: f"{node} is not {state}: {self.node_states()}",
            seconds,
        )

    def set_down(self, node: str) -> None:
        """Set a node down, as an administrator does: SLURM ends or requeues its jobs."""
        self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")

    def resume(self, node: str) -> None:
        """Return a node to service."""
        self.run("scontrol", "update", f"nodename={node}", "state=resume")

    def stop_controller(self) -> None:
        """Kill slurmctld without warning.

        It waits 6 s first, so that the controller has saved all of its jobs.
        """
        time.sleep(SECONDS_TO_SAVE)
        kill(self._controller)

    def restart_controller(self) -> None:
        """Kill slurmctld without warning and start it again; return when it answers."""
        self.stop_controller()
        self.start_controller()
        self.wait_for_nodes("idle", "mixed", "allocated")

    def rank_processes(self, job_id: str) -> list[psutil.Process]:
        """Return the processes of a job's ranks on all nodes, with their children."""
        wanted = {"SLURM_JOB_ID": job_id, "SLURM_CONF": self.environment["SLURM_CONF"]}
        return [
            process
            for process in psutil.process_iter()
            if (variables := environment_of(process)).items() >= wanted.items()
            and "SLURM_STEP_ID" in variables  # the batch script has rank 0, but no step
        ]

    def rank_process(self, job_id: str, rank: int) -> psutil.Process:
        """Return the process that srun started as a rank, not its children."""
        (process,) = (
            process
            for process in self.rank_processes(job_id)
            if environment_of(process).get("SLURM_PROCID") == str(rank)
            and (parent := process.parent()) is not None
            and parent.name() == "slurmstepd"
        )
        return process

    def supervisor_process(self, job_id: str) -> psutil.Process:
        """Return the process that runs in a job's batch script."""
        wanted = {"SLURM_JOB_ID": job_id, "SLURM_CONF": self.environment["SLURM_CONF"]}
        (process,) = (
            process
            for process in psutil.process_iter()
            if (variables := environment_of(process)).items() >= wanted.items()
            and "SLURM_STEP_ID" not in variables
            and process.name().startswith("python")
        )
        return process

    def restore(self) -> None:
        """Cancel all jobs and make all nodes idle."""
        self.run("scancel", "--quiet", "--user=root")
        for node, state in self.node_states().items():
            if not re.fullmatch(r"idle|mixed|allocated|completing", state):
                self.set_down(node)
                self.resume(node)
        self.wait_for_nodes("idle")

    def wait_for_nodes(self, *states: str) -> None:
        """Wait until every node is in one of these states."""
        wait_until(
            lambda: set(self._states_if_any().values()) <= set(states),
            lambda: f"not ready: {self._states_if_any()}, see {self.folder}/*.log",
            SECONDS_TO_START,
        )

    def start_munge(self) -> None:
        """Start munged with its own key and socket."""
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        names = {"socket": "munge.socket", "pid-file": "munge.pid", "seed-file": "munge.seed"}
        files = [f"--{option}={self.folder / name}" for option, name in names.items()]
        # Without --force, munged rejects the permissions of a test folder.
        command = ["munged", "--foreground", "--force", f"--key-file={key}", *files]
        self.start_daemon("munged", *command)
        wait_until((self.folder / "munge.socket").exists, lambda: "munged does not start", 10)

    def start_controller(self) -> None:
        self._controller = self.start_daemon("slurmctld", "slurmctld", "-D")

    def start_nodes(self) -> None:
        for node in self.nodes:
            self.start_daemon(node.name, "slurmd", "-D", "-N", node.name)

    def start_daemon(self, name: str, *command: str) -> int:
        """Start a daemon that writes `name`.log; return its process id."""
        return self._keeper.start(command, self.folder / f"{name}.log", self.environment)

    def _states_if_any(self) -> dict[str, str]:
        try:
            return self.node_states()
        except RuntimeError as error:
            return {"controller": str(error)}


@contextlib.contextmanager
def start_cluster(
    folder: Path,
    hardware: Hardware = Hardware(),  # noqa: B008 it is frozen
    **slurm_conf: object,
) -> Generator[Cluster]:
    """Yield a cluster of n1, n2, ... that is ready for jobs; after the block it is gone.

    `slurm_conf` replaces settings of slurm.conf, such as SlurmdTimeout=30.
    """
    port, *ports = free_ports(1 + hardware.nodes)
    nodes = [Node(f"n{index}", "127.0.0.1", port) for index, port in enumerate(ports, 1)]
    controller = controller_at("127.0.0.1", port)
    write_settings(folder, controller, nodes, hardware, slurm_conf)
    with keep_daemons() as keeper:
        cluster = Cluster(folder, nodes, keeper)
        start_daemons(cluster)
        yield cluster


def start_daemons(cluster: Cluster) -> None:
    (cluster.folder / "state").mkdir()
    cluster.start_munge()
    cluster.start_controller()
    cluster.start_nodes()
    cluster.wait_for_nodes("idle")


def clean_environment() -> dict[str, str]:
    """Return this process's environment without the variables of a surrounding job."""
    strange = ("SLURM_", "SBATCH_", "SRUN_", "SUBMITIT_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    return kept | {"PATH": search_path()}


def environment_of(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


def kill(pid: int) -> None:
    """Kill a process and wait until it is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        process.kill()
        process.wait(10)


def wait_until(holds: Callable[[], bool], problem: Callable[[], str], seconds: float) -> None:
    """Wait until `holds`; raise `TimeoutError` with the problem if that takes too long."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {seconds} s {problem()}")
        time.sleep(0.1)
