"""Checkpoints: a folder of safetensors and JSON, whole and hashed, or not there at all.

    checkpoints/step-00004000/
        model.safetensors  momentum.safetensors  ema.safetensors    tensors by their names
        progress.json                                               step, best error, loss scale ...
        manifest.json                                               SHA-256 of each file

Each is written under a temporary name, flushed to disk and renamed, in the background, from a copy
in host memory. No pickle is read or written.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType

import torch
from pydantic import ConfigDict, TypeAdapter, with_config
from safetensors import SafetensorError
from safetensors.torch import load_file, save  # pyright: ignore[reportUnknownVariableType]

from pipeline.durable import sync_folder, write_durably

Tensors = dict[str, torch.Tensor]

MANIFEST = "manifest.json"
PROGRESS = "progress.json"
REQUIRED = {PROGRESS, "model.safetensors"}
TEMPORARY = ".step-*.tmp"
STRICT = ConfigDict(extra="forbid", strict=True)


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands, besides its tensors."""

    step: int
    fingerprint: str
    """Of the dataset; with seed and global batch, what the stream of images depends on."""
    seed: int
    global_batch: int
    seconds: float = 0.0
    """Time spent training so far."""
    top1_error_percent: float | None = None
    """Of this very step, if it was evaluated."""
    best_top1_error_percent: float | None = None
    scaler: dict[str, int | float] = field(default_factory=dict[str, int | float])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a checkpoint holds: groups of tensors, and the progress."""

    tensors: Mapping[str, Tensors]
    progress: Progress


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Manifest:
    """What a whole checkpoint consists of."""

    sha256: dict[str, str]
    """File name to hex digest."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used, and why."""


class Checkpoints(AbstractContextManager["Checkpoints"]):
    """The checkpoints of one run. One process writes; leaving the block awaits the last write."""

    def __init__(
        self,
        folder: Path,
        *,
        keep_last: int,
        keep_best: bool,
        saved: Callable[[int, Path, float], None],
        warn: Callable[[str], None],
    ) -> None:
        self._folder, self._keep_last, self.keep_best = folder, keep_last, keep_best
        self._saved, self._warn = saved, warn
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    def save(self, snapshot: Snapshot) -> None:
        """Copy `snapshot` to host memory and write it in the background, one at a time.

        A write that fails is reported through `warn` and costs no more than that checkpoint.
        """
        self.wait()
        copies = {group: _host_copy(tensors) for group, tensors in snapshot.tensors.items()}
        job = Snapshot(copies, snapshot.progress)
        self._pending = self._writer.submit(self._write, job)

    def wait(self) -> None:
        """Return once no write is under way."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.wait()
        self._writer.shutdown()

    def _write(self, snapshot: Snapshot) -> None:
        started = time.perf_counter()
        step = snapshot.progress.step
        try:
            path = write_checkpoint(self._folder, snapshot)
        except (OSError, MemoryError) as error:
            self._warn(f"the checkpoint of step {step} could not be written: {error}")
            return
        self._saved(step, path, time.perf_counter() - started)
        try:
            self._prune(path)
        except OSError as error:
            self._warn(f"an old checkpoint could not be deleted: {error}")

    def _prune(self, newest: Path) -> None:
        """Delete what is neither among the last up to `newest` nor the best.

        Later ones were damaged when the run resumed: they must not crowd out those that are whole.
        """
        found = list_checkpoints(self._folder)
        found = found[: found.index(newest) + 1]
        keep = set(found[-self._keep_last :])
        if self.keep_best:
            keep |= set(_best(found))
        for path in found:
            if path not in keep:
                _delete(path)


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in `folder`, oldest first."""
    found = [path for path in folder.glob("step-*") if path.name[5:].isdecimal()]
    return sorted(found, key=lambda path: int(path.name[5:]))


def newest_checkpoint(folder: Path, warn: Callable[[str], None]) -> Path | None:
    """Return the newest checkpoint that is whole, or None; `warn` of those that are not."""
    for path in reversed(list_checkpoints(folder)):
        try:
            verify_checkpoint(path)
        except CheckpointError as error:
            warn(f"{error}; falling back to the one before")
        else:
            return path
    return None


def verify_checkpoint(path: Path) -> list[str]:
    """Return the names of a checkpoint's files if each matches its hash, or raise."""
    try:
        manifest = TypeAdapter(Manifest).validate_json((path / MANIFEST).read_bytes())
        if missing := REQUIRED - manifest.sha256.keys():
            raise ValueError(f"{MANIFEST} does not name {' or '.join(sorted(missing))}")
        for name, digest in manifest.sha256.items():
            if Path(name).name != name:
                raise ValueError(f"{MANIFEST} names {name!r}, which is not a plain file name")
            if _sha256((path / name).read_bytes()) != digest:
                raise ValueError(f"{name} does not match its SHA-256")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path} is damaged ({error})") from error
    return list(manifest.sha256)


def read_checkpoint(path: Path) -> Snapshot:
    """Read and verify one checkpoint; raise `CheckpointError` if anything is amiss."""
    names = verify_checkpoint(path)
    try:
        progress = TypeAdapter(Progress).validate_json((path / PROGRESS).read_bytes())
        tensors = {
            name.removesuffix(".safetensors"): load_file(path / name)
            for name in names
            if name.endswith(".safetensors")
        }
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise CheckpointError(f"checkpoint {path} cannot be read ({error})") from error
    return Snapshot(tensors, progress)


def expect_same_stream(saved: Progress, expected: Progress, path: Path) -> None:
    """Raise `CheckpointError` if going on from `saved` would bring other images than before."""
    for name in ("fingerprint", "seed", "global_batch"):
        was, now = getattr(saved, name), getattr(expected, name)
        if was != now:
            raise CheckpointError(
                f"checkpoint {path} was trained with {name} {was}, and this run has {now};"
                " use the same, or another run_dir"
            )


def write_checkpoint(folder: Path, snapshot: Snapshot) -> Path:
    """Write `snapshot` into `folder` so that it is there whole or not at all; return its path."""
    path = folder / f"step-{snapshot.progress.step:08d}"
    temporary = folder / f".{path.name}.{os.getpid()}.tmp"
    for leftover in folder.glob(TEMPORARY):  # what a killed process left makes room first
        shutil.rmtree(leftover, ignore_errors=True)
    contents = {
        f"{group}.safetensors": save(tensors) for group, tensors in snapshot.tensors.items()
    }
    contents[PROGRESS] = _json(asdict(snapshot.progress))
    digests = {name: _sha256(content) for name, content in contents.items()}
    contents[MANIFEST] = _json({"sha256": digests})
    try:
        temporary.mkdir(parents=True)
        for name, content in contents.items():
            write_durably(temporary / name, content)
        sync_folder(temporary)
        if path.exists():  # an earlier attempt at the same step, damaged or the same
            _delete(path)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # a full disk is not left any fuller
    sync_folder(folder)
    return path


def _delete(path: Path) -> None:
    """Remove a checkpoint; it is gone for every reader before its first file is."""
    doomed = path.with_name(f".{path.name}.{os.getpid()}.old.tmp")
    path.rename(doomed)
    shutil.rmtree(doomed)


def _best(found: list[Path]) -> list[Path]:
    errors: list[tuple[float, Path]] = []
    for path in found:
        with suppress(OSError, ValueError):  # a damaged one is not the best
            progress = TypeAdapter(Progress).validate_json((path / PROGRESS).read_bytes())
            if progress.top1_error_percent is not None:
                errors.append((progress.top1_error_percent, path))
    return [min(errors)[1]] if errors else []


def _host_copy(tensors: Tensors) -> Tensors:
    """Copy to host memory, contiguous, as safetensors stores them."""
    return {
        name: torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
        for name, tensor in tensors.items()
    }


def _json(value: object) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
