"""A SLURM cluster whose nodes have their own networks, addresses, host names and processes.

    with start_lab(tmp_path) as lab:
        job = lab.submit("srun train", "--nodes=4")
        lab.power_off("m3")

Each node m1, m2, ... runs in its own namespaces, and a virtual cable connects it to a switch: a
bridge in another network namespace. One more cable connects the switch to this host, where the
controller runs. The kernel removes every interface as soon as the processes have ended.
"""

import contextlib
import shlex
import subprocess
from collections.abc import Generator
from pathlib import Path

from tests.slurm.cluster import Cluster, kill, start_daemons, wait_until
from tests.slurm.keeper import Keeper, keep_daemons
from tests.slurm.requirements import ISOLATED
from tests.slurm.settings import Hardware, Node, controller_at, free_ports, write_settings

SLURMD_PORT = 6818
MOST_LABS = 200
BOOT = """
set -e
hostname {name}
mount --bind {hosts} /etc/hosts
mount -t tmpfs tmpfs /dev/shm
until ip link set eth0 up 2>/dev/null; do sleep 0.02; done
ip address add {address}/24 dev eth0
ip link set lo up
exec slurmd -D -N {name}
"""


class Lab(Cluster):
    """A running cluster whose nodes can be switched off and cut off the network."""

    def __init__(self, folder: Path, nodes: list[Node], keeper: Keeper, switch: int) -> None:
        super().__init__(folder, nodes, keeper)
        self._switch = switch
        self._holders: dict[str, int] = {}
        self._covered: set[str] = set()

    def cover(self, node: str, place: Path, *, by: Path | None = None) -> None:
        """Let a node see `by` in place of a file or folder; by default an empty folder.

        `restore` undoes it, by booting the node again.
        """
        empty = self.folder / "empty"
        empty.mkdir(exist_ok=True)
        enter = ("nsenter", f"--target={self._holders[node]}", "--mount")
        self.run(*enter, "mount", "--bind", str(by or empty), str(place))
        self._covered.add(node)

    def cut(self, node: str) -> None:
        """Cut a node's cable: its processes still run, but are unreachable."""
        self._wire(f"link set {node} down")

    def mend(self, node: str) -> None:
        """Reconnect a node's cable."""
        self._wire(f"link set {node} up")

    def power_off(self, node: str) -> None:
        """Switch a node off: its processes end, and no connection is closed."""
        # The cable goes first, so that the dying processes cannot send anything.
        self._wire(f"link delete {node}")
        kill(self._holders.pop(node))

    def power_on(self, node: str) -> None:
        """Boot a node that was switched off."""
        (described,) = (one for one in self.nodes if one.name == node)
        self._boot(described)

    def restore(self) -> None:
        for node in self._covered & self._holders.keys():
            self.power_off(node)
        self._covered.clear()
        for node in self.nodes:
            if node.name in self._holders:
                self.mend(node.name)
            else:
                self._boot(node)
        super().restore()

    def start_nodes(self) -> None:
        for node in self.nodes:
            self._boot(node)

    def _boot(self, node: Node) -> None:
        hosts = shlex.quote(str(self.folder / "hosts"))
        script = BOOT.format(name=node.name, address=node.address, hosts=hosts)
        boot = ["unshare", *ISOLATED, "--kill-child", "sh", "-c", script]
        holder = self.start_daemon(node.name, *boot)
        wait_for_network(holder)
        self._wire(
            f"link add {node.name} type veth peer name eth0 netns {holder}",
            f"link set {node.name} master bridge up",
        )
        self._holders[node.name] = holder

    def _wire(self, *lines: str) -> None:
        configure(*lines, inside=self._switch)


@contextlib.contextmanager
def start_lab(
    folder: Path,
    hardware: Hardware = Hardware(),  # noqa: B008 it is frozen
    **slurm_conf: object,
) -> Generator[Lab]:
    """Yield a lab of m1, m2, ... that is ready for jobs; after the block it is gone.

    `slurm_conf` replaces settings of slurm.conf, such as SlurmdTimeout=30.
    """
    with keep_daemons() as keeper:
        switch = keeper.start(["unshare", "--net", "sleep", "inf"], folder / "switch.log", {})
        wait_for_network(switch)
        with plug_in(switch) as subnet:
            nodes = [
                Node(f"m{index}", f"{subnet}.{index}", SLURMD_PORT)
                for index in range(1, hardware.nodes + 1)
            ]
            controller = controller_at(f"{subnet}.254", *free_ports(1))
            write_settings(folder, controller, nodes, hardware, slurm_conf)
            write_hosts(folder, nodes)
            lab = Lab(folder, nodes, keeper, switch)
            start_daemons(lab)
            yield lab


@contextlib.contextmanager
def plug_in(switch: int) -> Generator[str]:
    """Connect this host to the switch; yield the first three numbers of the subnet."""
    number = add_cable(switch)
    name, subnet = f"slurmlab{number}", f"10.77.{number}"
    try:
        configure(f"address add {subnet}.254/24 dev {name}", f"link set {name} up")
        configure(
            "link add bridge type bridge",
            "link set bridge up",
            "link set uplink master bridge up",
            inside=switch,
        )
        yield subnet
    finally:
        with contextlib.suppress(RuntimeError):  # it disappears with the switch
            configure(f"link delete {name}")


def add_cable(switch: int) -> int:
    """Connect `slurmlab<number>` on this host to the switch; return a free number."""
    # The name of an interface is unique, so it also locks the subnet.
    for number in range(1, MOST_LABS):
        with contextlib.suppress(RuntimeError):
            configure(f"link add slurmlab{number} type veth peer name uplink netns {switch}")
            return number
    raise AssertionError("no free interface name: see `ip link`")


def write_hosts(folder: Path, nodes: list[Node]) -> None:
    lines = ["127.0.0.1 localhost", *(f"{node.address} {node.name}" for node in nodes)]
    (folder / "hosts").write_text("\n".join(lines) + "\n")


def wait_for_network(holder: int) -> None:
    """Wait until a process has its own network namespace."""
    here, there = Path("/proc/self/ns/net"), Path(f"/proc/{holder}/ns/net")
    wait_until(
        lambda: there.readlink() != here.readlink(), lambda: "unshare does not start", seconds=10
    )


def configure(*lines: str, inside: int | None = None) -> None:
    """Run lines of `ip`, in the network of process `inside` if given.

    Raises `RuntimeError` if one fails.
    """
    enter = [] if inside is None else ["nsenter", "--net", f"--target={inside}"]
    answer = subprocess.run(
        [*enter, "ip", "-batch", "-"],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        raise RuntimeError(f"ip {lines}: {answer.stderr}")
