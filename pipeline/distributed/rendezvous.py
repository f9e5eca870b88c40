"""How ranks on several nodes find each other: through a file on a shared file system."""

import json
import os
import time
from datetime import timedelta
from pathlib import Path

from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from pipeline.system.durable import write_whole
from pipeline.system.patience import patiently

RENDEZVOUS = "RENDEZVOUS_FILE"
"""Environment variable: the file in which rank 0 publishes its address and port."""
ADDRESS = "RENDEZVOUS_ADDRESS"
"""Environment variable: the address at which other ranks reach this one."""
POLL_SECONDS = 0.1


def meet(rank: int, size: int, timeout: timedelta) -> TCPStore | None:
    """Return the store that all ranks share; None if RENDEZVOUS_FILE is not set.

    Rank 0 takes any free port, since a port chosen in advance might be taken by now. Raises
    `TimeoutError` if rank 0 does not publish its address in time.
    """
    if RENDEZVOUS not in os.environ:
        return None
    file = Path(os.environ[RENDEZVOUS])
    if rank == 0:
        address = os.environ[ADDRESS]
        store = TCPStore(address, 0, size, True, timeout, wait_for_workers=False)
        place = json.dumps({"address": address, "port": store.port}).encode()
        patiently(lambda: write_whole(file, place))
        return store
    place = json.loads(_await(file, timeout))
    return TCPStore(place["address"], place["port"], size, False, timeout)


def _await(file: Path, timeout: timedelta) -> bytes:
    deadline = time.monotonic() + timeout.total_seconds()
    while time.monotonic() < deadline:
        try:
            return patiently(file.read_bytes)
        except FileNotFoundError:
            time.sleep(POLL_SECONDS)
    raise TimeoutError(f"rank 0 did not start within {timeout}: {file} is missing")
