"""What a cluster needs of the machine, and what of it is missing."""

import os
import shutil
import subprocess

PACKAGES = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "srun": "slurm-client",
    "munged": "munge",
    "setpriv": "util-linux",
}
ADMINISTRATORS = "/usr/sbin:/sbin"  # not on every user's PATH
ISOLATED = ["--net", "--ipc", "--mount", "--uts", "--pid", "--fork", "--mount-proc"]


def search_path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:{ADMINISTRATORS}"


def missing_for_cluster() -> str:
    """Why no cluster can run here; empty if one can."""
    absent = [
        package
        for program, package in PACKAGES.items()
        if shutil.which(program, path=search_path()) is None
    ]
    if absent:
        return f"a cluster needs Debian's packages {' '.join(absent)}"
    return "" if os.geteuid() == 0 else "a cluster's daemons need root"


def missing_for_lab() -> str:
    """Why no nodes in namespaces of their own can run here; empty if they can."""
    if shutil.which("ip", path=search_path()) is None:
        return "a lab needs Debian's package iproute2"
    probe = "ip link add name one type bridge && ip link add name two type veth"
    answer = subprocess.run(
        ["unshare", *ISOLATED, "sh", "-c", probe],
        env=os.environ | {"PATH": search_path()},
        capture_output=True,
        text=True,
        check=False,
    )
    return f"namespaces are not permitted: {answer.stderr.strip()}" if answer.returncode else ""
