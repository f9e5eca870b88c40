"""Records the images of each step in files that outlive the ranks; `recorded_steps` reads them."""

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
import xxhash

from pipeline import loop
from pipeline.distributed.stopping import STOP
from pipeline.loaders import Batch, Stream
from pipeline.loop import Run


@dataclass(frozen=True)
class RecordedStep:
    """One step of one attempt: a digest of each image and its label, in the order of the batch."""

    attempt: int
    step: int
    digests: tuple[str, ...]
    started: float
    """When the first rank had its images: seconds, as `time.time` returns them."""


def recorded_steps(records: Path) -> list[RecordedStep]:
    """Return, in order, the steps of all attempts that every rank has recorded."""
    parts = defaultdict[tuple[int, int], dict[int, tuple[list[str], float]]](dict)
    ranks = dict[int, int]()
    for path in sorted(records.glob("*.jsonl")):
        attempt, rank = map(int, path.stem.split("-"))
        ranks[attempt] = max(ranks.get(attempt, 0), rank + 1)
        for line in path.read_text().splitlines():
            with suppress(ValueError):  # the last line of a rank that was killed
                step, digests, started = json.loads(line)
                parts[attempt, step][rank] = (digests, started)
    return [
        RecordedStep(
            attempt,
            step,
            tuple(digest for rank in sorted(shares) for digest in shares[rank][0]),
            min(started for _, started in shares.values()),
        )
        for (attempt, step), shares in sorted(parts.items())
        if len(shares) == ranks[attempt]
    ]


def differing_steps(recorded: list[RecordedStep], expected: list[RecordedStep]) -> list[int]:
    """Return the steps whose images, or their order, differ from those in `expected`."""
    right = {each.step: each.digests for each in expected}
    return sorted({each.step for each in recorded if each.digests != right[each.step]})


class Recorder:
    """Replaces `loop.train_step`: records the images, and stops after `last_step` unless it is 0.

    Rank 0 of attempt 3 writes to `003-0.jsonl`.
    """

    def __init__(self, records: Path, attempt: int, rank: int, *, last_step: int = 0) -> None:
        self._file = (records / f"{attempt:03}-{rank}.jsonl").open("a", buffering=1)
        self._train_step = loop.train_step
        self._last_step = last_step

    def __call__(self, run: Run, batches: Stream, step: int) -> None:
        self._train_step(run, self._record(batches, step), step)  # pyright: ignore[reportArgumentType]
        if step == self._last_step:
            run.stopping._verdict = STOP  # pyright: ignore[reportPrivateUsage]

    def _record(self, batches: Stream, step: int) -> Iterator[Batch]:
        batch = next(batches)
        pairs = zip(batch.images, batch.labels, strict=True)
        digests = [_digest(image, label) for image, label in pairs]
        self._file.write(json.dumps([step, digests, time.time()]) + "\n")
        yield batch


def _digest(image: torch.Tensor, label: torch.Tensor) -> str:
    return xxhash.xxh64_hexdigest(image.contiguous().numpy().tobytes(), seed=int(label))
