"""What Linux reports about this machine: cores, memory, network cards, free space."""

import os
import re
from pathlib import Path

ROOT = Path("/")


def format_ranges(numbers: set[int]) -> str:
    """Return whole numbers in Linux's notation: 0-3,8."""
    parts: list[str] = []
    for start in sorted(number for number in numbers if number - 1 not in numbers):
        end = start
        while end + 1 in numbers:
            end += 1
        parts.append(str(start) if start == end else f"{start}-{end}")
    return ",".join(parts)


def parse_ranges(text: str) -> set[int]:
    """Return the numbers that `text` stands for, in Linux's notation: 0-3,8."""
    numbers: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        numbers |= set(range(int(first), int(last or first) + 1))
    return numbers


def numa_nodes(cores: set[int], root: Path = ROOT) -> set[int]:
    """Return the NUMA nodes that `cores` belong to; empty if unknown."""
    return {
        int(folder.name.removeprefix("node"))
        for folder in (root / "sys/devices/system/node").glob("node[0-9]*")
        if parse_ranges(_read(folder / "cpulist")) & cores
    }


def memory(root: Path = ROOT) -> tuple[int, int]:
    """Return the available bytes of host memory, and the total that this process may use.

    A control group, such as that of a SLURM job, may allow less than the machine has.
    """
    kilobytes = dict(re.findall(r"(\w+):\s+(\d+) kB", _read(root / "proc/meminfo")))
    available, total = (1024 * int(kilobytes.get(key, 0)) for key in ("MemAvailable", "MemTotal"))
    for folder in _control_groups(root):
        limit, used = (_read(folder / name).strip() for name in ("memory.max", "memory.current"))
        if limit.isdecimal() and used.isdecimal():
            total = min(total, int(limit))
            available = min(available, max(0, int(limit) - int(used)))
    return available, total


def _control_groups(root: Path) -> list[Path]:
    """Return the folders of this process's control group and its parents (version 2)."""
    top = root / "sys/fs/cgroup"
    place = re.search(r"^0::/(.*)$", _read(root / "proc/self/cgroup"), re.MULTILINE)
    own = top / (place[1] if place else "")
    return [folder for folder in (own, *own.parents) if folder.is_relative_to(top)]


def interface_speed(name: str, root: Path = ROOT) -> str:
    """Return the link speed that the network card `name` reports; empty if it reports none."""
    megabits = _read(root / "sys/class/net" / name / "speed").strip()
    return f"{int(megabits) / 1000:g} Gbit/s" if megabits.isdecimal() else ""


def rdma_ports(root: Path = ROOT) -> list[str]:
    """Return the active InfiniBand or RoCE ports, with their speeds: mlx5_0 400 Gb/sec (4X NDR)."""
    ports = sorted((root / "sys/class/infiniband").glob("*/ports/*"))
    return [
        f"{port.parts[-3]} {_read(port / 'rate').strip()}"
        for port in ports
        if "ACTIVE" in _read(port / "state")
    ]


def free_bytes(path: Path) -> int | None:
    """Return the bytes free for this user at `path`, which may not exist yet; None if unknown."""
    existing = next((place for place in (path, *path.absolute().parents) if place.exists()), None)
    try:
        return None if existing is None else _free(os.statvfs(existing))
    except OSError:
        return None


def _free(status: os.statvfs_result) -> int:
    return status.f_bavail * status.f_frsize


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
