"""A cluster to work with by hand: `python -m tests.slurm [--lab] [--nodes 4]`, as root.

It prints a line to paste into another shell, so that sinfo, sbatch and the project's programs use
this cluster. Ctrl-C removes the cluster completely.
"""

import argparse
import contextlib
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.slurm.cluster import start_cluster
from tests.slurm.lab import start_lab
from tests.slurm.requirements import missing_for_cluster, missing_for_lab
from tests.slurm.settings import Hardware


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.slurm", description=__doc__)
    parser.add_argument("--lab", action="store_true", help="run each node in its own namespaces")
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--cpus", type=int, default=4, help="CPUs that each node claims to have")
    parser.add_argument(
        "--gpus", type=int, default=0, help="fake GPUs that each node claims to have"
    )
    options = parser.parse_args()
    if missing := missing_for_cluster() or (missing_for_lab() if options.lab else ""):
        sys.exit(missing)
    start = start_lab if options.lab else start_cluster
    hardware = Hardware(options.nodes, options.cpus, options.gpus)
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, start(Path(folder), hardware):
        print(f"export SLURM_CONF={folder}/slurm.conf", flush=True)
        signal.pause()


def leave(*_: Any) -> None:
    sys.exit()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, leave)
    with contextlib.suppress(KeyboardInterrupt):
        main()
