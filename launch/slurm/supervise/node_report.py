"""Reports what a rank would find on this node, with the standard library alone.

The supervisor sends it to each node as text, because the code's folder may be missing there. It
prints lines of JSON: `doing` before each check, since one may hang, and at the end the report.
"""

import ctypes
import errno
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FEW_BYTES = {"the run folder": 2**30, "the folder for temporary files": 100 * 2**20}


def main(wanted: dict[str, str]) -> None:
    """Check this node; `wanted` has run_dir, config_file, dataset and images (may be empty)."""
    run_dir = Path(wanted["run_dir"])
    faults: list[str] = []
    for what, check in (
        (f"the run folder {run_dir}", lambda: run_folder_faults(run_dir, wanted["config_file"])),
        (f"the dataset {wanted['dataset']}", lambda: dataset_faults(wanted)),
    ):
        say({"doing": what})
        try:
            faults += check()
        except OSError as error:
            faults.append(f"{what}: {error.strerror}")
        except (KeyError, ValueError) as error:
            faults.append(f"{what} is damaged: {error}")
    say({"doing": "the free space"})
    warnings = list(space_warnings(run_dir))
    say({"doing": "the GPUs"})
    gpus = count_gpus()
    say({"faults": faults, "warnings": warnings, "gpus": gpus, "time": time.time()})


def say(message: dict[str, Any]) -> None:
    """Print a line about this node."""
    print(json.dumps({"node": os.environ["SLURMD_NODENAME"], **message}), flush=True)


def run_folder_faults(run_dir: Path, config_file: str) -> Iterator[str]:
    """Yield what is wrong with the run folder; raise `OSError` if it cannot be written.

    A full disk is not the fault of this node; the run waits for room.
    """
    if not (run_dir / config_file).is_file():
        yield f"the run folder {run_dir} is missing"
        return
    probe = run_dir / f".{os.environ['SLURMD_NODENAME']}.{os.getpid()}.tmp"
    try:
        probe.write_bytes(b"1")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
    finally:
        probe.unlink(missing_ok=True)


def dataset_faults(wanted: dict[str, str]) -> Iterator[str]:
    """Yield what is wrong with the dataset; raise `OSError` if it cannot be read."""
    folder = Path(wanted["dataset"])
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        yield f"the dataset {folder} is missing"
        return
    root = folder / (wanted["images"] or json.loads(manifest.read_bytes())["root"])
    if is_missing_or_empty(root):
        yield f"the images of the dataset are missing: {root} is missing or empty"


def is_missing_or_empty(folder: Path) -> bool:
    """Whether a folder has no entries. It reads only the first: there may be millions."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except (FileNotFoundError, NotADirectoryError):
        return True
    except PermissionError:  # its files may be readable, although it cannot be listed
        return False


def space_warnings(run_dir: Path) -> Iterator[str]:
    """Yield a sentence for each folder in which little space is left."""
    temporary = Path(os.environ.get("TMPDIR", "/tmp"))  # noqa: S108 - only looked at
    places = zip(FEW_BYTES.items(), (run_dir, temporary), strict=True)
    for (what, few), folder in places:
        try:
            status = os.statvfs(folder)
        except OSError as error:
            yield f"{what} {folder}: {error.strerror}"
            continue
        free = status.f_bavail * status.f_frsize
        if status.f_flag & os.ST_RDONLY:
            yield f"{what} {folder} is read-only"
        elif free < few:
            yield f"{what} {folder} has only {free / 2**20:,.0f} MiB free"
        elif status.f_ffree == 0 < status.f_files:
            yield f"{what} {folder} has no free inodes"


def count_gpus() -> int:
    """Return how many GPUs, or parts of one (MIG), can be used here; 0 without NVIDIA's driver."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if "MIG" in visible:  # the driver would count whole GPUs
        return len(visible.split(","))
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return 0
    if library.nvmlInit_v2():
        return 0
    count, handle = ctypes.c_uint(), ctypes.c_void_p()
    library.nvmlDeviceGetCount_v2(ctypes.byref(count))
    usable = [
        index
        for index in range(count.value)
        if library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) == 0
    ]
    library.nvmlShutdown()
    return len(usable)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
