"""A real file system of a few megabytes, which a test fills up and empties."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class SmallDisk:
    """A mounted tmpfs."""

    folder: Path

    @property
    def ballast(self) -> Path:
        return self.folder / "ballast"

    def fill(self) -> None:
        """Take all space that is left."""
        with suppress(OSError), self.ballast.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        assert shutil.disk_usage(self.folder).free == 0

    def empty(self) -> None:
        """Give the space back."""
        self.ballast.unlink()

    def resize(self, size: str) -> None:
        """Make it larger or smaller: `size` is, for example, 50m."""
        subprocess.run(["mount", "-o", f"remount,size={size}", self.folder], check=True)

    @contextmanager
    def full_for(self, seconds: float) -> Generator[None]:
        """Fill the disk, and empty it after `seconds`; leaving the block waits for that."""
        self.fill()
        thread = threading.Thread(target=lambda: (time.sleep(seconds), self.empty()))
        thread.start()
        try:
            yield
        finally:
            thread.join()


@contextmanager
def small_disk(folder: Path, size: str) -> Generator[SmallDisk]:
    """Mount a disk of `size`, such as 2m, at `folder`; skip the test where that is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
