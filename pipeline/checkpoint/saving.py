"""Saves checkpoints in the background while training continues."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from threading import Event
from types import TracebackType

from pipeline.checkpoint.host_memory import HostMemory
from pipeline.checkpoint.reading import list_checkpoints, name_of, step_of
from pipeline.checkpoint.retention import Retention
from pipeline.checkpoint.snapshot import MANIFEST, CheckpointError, Snapshot
from pipeline.checkpoint.writing import delete_all_but, write_checkpoint
from pipeline.runs.fence import OPEN, Fence
from pipeline.runs.folder import REMEDY
from pipeline.system.command import plural
from pipeline.system.exit_codes import NotSaved
from pipeline.system.patience import patiently

PATIENCE_SECONDS = 30.0
"""How long a save waits for the write of the checkpoint before it."""


class Checkpoints(AbstractContextManager["Checkpoints"]):
    """The checkpoints of one run. Leaving the block waits for the last write."""

    def __init__(
        self,
        folder: Path,
        *,
        keep_last: int,
        keep_best: bool,
        keep_every_steps: Fraction | None = None,
        fence: Fence = OPEN,
        saved: Callable[[int, Path, float], None],
        warn: Callable[[str], None],
    ) -> None:
        """`keep_every_steps` also keeps the first checkpoint at or after each multiple of it."""
        self._folder, self._retention = folder, Retention(keep_last, keep_best, keep_every_steps)
        self._fence, self._saved, self._warn = fence, saved, warn
        self._memory = HostMemory()
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None
        self._newer_waits = Event()
        self._lost: dict[int, str] = {}
        """Steps whose checkpoints were not written, and why."""

    @property
    def keep_best(self) -> bool:
        return self._retention.best

    def save(self, snapshot: Snapshot, *, last: bool = False) -> None:
        """Copy `snapshot` to host memory and write it in the background, one at a time.

        A write is repeated while the disk is full, until the next save. If it fails, or the write
        before takes too long, this warns and skips the checkpoint. The `last` checkpoint of a run
        waits for the write before, however long it takes.
        """
        self._newer_waits.set()
        try:
            self.wait(None if last else PATIENCE_SECONDS)
            copies = self._memory.copy(snapshot.tensors)
        except TimeoutError:
            self._lose(snapshot.progress.step, "the previous checkpoint is still being written")
            return
        except MemoryError as error:
            self._lose(snapshot.progress.step, str(error))
            return
        finally:
            self._newer_waits.clear()
        copy = Snapshot(copies, snapshot.progress, snapshot.documents)
        self._pending = self._writer.submit(self._write, copy)

    def wait(self, seconds: float | None = None) -> None:
        """Wait for the current write, if there is one; raise TimeoutError after `seconds`."""
        if self._pending is not None:
            self._pending.result(seconds)
            self._pending = None

    def expect_saved(self, step: int) -> None:
        """Wait for the last write; raise `NotSaved` unless the checkpoint of `step` is on disk."""
        self.wait()
        mark = self._folder / name_of(step) / MANIFEST
        try:
            reason = self._lost.get(step) or ("" if patiently(mark.is_file) else "it is missing")
        except OSError as error:
            reason = str(error)
        if reason:
            raise NotSaved(
                f"the run is not finished: its last checkpoint, of step {step}, is not in"
                f" {self._folder} ({reason}), {self._newest_in_words()}; {REMEDY}"
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.wait()
        self._writer.shutdown()
        if self._lost:
            self._warn(
                f"{plural(len(self._lost), 'checkpoint')} could not be written to {self._folder},"
                f" most recently of step {max(self._lost)}; {self._newest_in_words()}"
            )

    def _write(self, snapshot: Snapshot) -> None:
        started = time.perf_counter()
        step = snapshot.progress.step
        try:
            path = patiently(
                lambda: write_checkpoint(self._folder, snapshot, self._fence),
                give_up=self._newer_waits.is_set,
                warn=lambda why: self._warn(f"the checkpoint of step {step} is late: {why}"),
            )
        except (OSError, MemoryError) as error:
            self._lose(step, str(error) or type(error).__name__)
            return
        self._saved(step, path, time.perf_counter() - started)
        try:
            found = [p for p in list_checkpoints(self._folder) if step_of(p) <= step]
            delete_all_but(self._retention.kept(found), path)
        except (OSError, CheckpointError) as error:
            self._warn(f"old checkpoints are not deleted: {error}")

    def _newest_in_words(self) -> str:
        try:
            found = list_checkpoints(self._folder)
        except OSError as error:
            return f"the folder cannot be listed ({error})"
        return f"the newest is of step {step_of(found[-1])}" if found else "it has no checkpoint"

    def _lose(self, step: int, reason: str) -> None:
        self._lost[step] = reason
        self._warn(f"the checkpoint of step {step} could not be written: {reason}")
