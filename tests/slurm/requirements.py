"""What a cluster needs on this machine, and what is missing."""

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
    """Return why no cluster can run here; empty if one can."""
    absent = [
        package
        for program, package in PACKAGES.items()
        if shutil.which(program, path=search_path()) is None
    ]
    if absent:
        return f"a cluster needs the Debian packages {' '.join(absent)}"
    return "" if os.geteuid() == 0 else "a cluster's daemons need root"


def missing_for_lab() -> str:
    """Return why nodes in their own namespaces cannot run here; empty if they can."""
    if shutil.which("ip", path=search_path()) is None:
        return "a lab needs the Debian package iproute2"
    probe = "ip link add name one type bridge && ip link add name two type veth"
    answer = subprocess.run(
        ["unshare", *ISOLATED, "sh", "-c", probe],
        env=os.environ | {"PATH": search_path()},
        capture_output=True,
        text=True,
        check=False,
    )
    return f"namespaces are not permitted: {answer.stderr.strip()}" if answer.returncode else ""
