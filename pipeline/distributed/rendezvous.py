"""How ranks on several nodes find each other: through a file that all of them see."""

import json
import os
import time
from datetime import timedelta
from pathlib import Path

from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from pipeline.system.durable import write_whole

RENDEZVOUS = "RENDEZVOUS_FILE"
"""Environment variable: where rank 0 writes at which address and port it can be reached."""
ADDRESS = "RENDEZVOUS_ADDRESS"
"""Environment variable: this rank's own address, as the others reach it."""
POLL_SECONDS = 0.1


def meet(rank: int, size: int, timeout: timedelta) -> TCPStore | None:
    """Return the store that all ranks share; None, for torch's own way, if no file is named.

    Rank 0 takes a port that is free at that moment; one agreed upon before might not be. Raises
    TimeoutError if rank 0 does not come.
    """
    if RENDEZVOUS not in os.environ:
        return None
    file = Path(os.environ[RENDEZVOUS])
    if rank == 0:
        address = os.environ[ADDRESS]
        store = TCPStore(address, 0, size, True, timeout, wait_for_workers=False)
        write_whole(file, json.dumps({"address": address, "port": store.port}).encode())
        return store
    place = json.loads(_await(file, timeout))
    return TCPStore(place["address"], place["port"], size, False, timeout)


def _await(file: Path, timeout: timedelta) -> bytes:
    deadline = time.monotonic() + timeout.total_seconds()
    while time.monotonic() < deadline:
        try:
            return file.read_bytes()
        except FileNotFoundError:
            time.sleep(POLL_SECONDS)
    raise TimeoutError(f"rank 0 did not come within {timeout}: {file} is not there")
