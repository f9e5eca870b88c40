"""What ranks train on, noted in files that outlive them: `taken_steps` reads all of them."""

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
from pipeline.loaders import Batch, Stream
from pipeline.loop import Run


@dataclass(frozen=True)
class Taken:
    """One step of one attempt: a digest of each image with its label, in the order of the batch."""

    attempt: int
    step: int
    digests: tuple[str, ...]
    began: float
    """When the first rank had its images; seconds, as `time.time` gives them."""


def taken_steps(notes: Path) -> list[Taken]:
    """Return the steps of all attempts in which every rank noted its images, in order."""
    parts = defaultdict[tuple[int, int], dict[int, tuple[list[str], float]]](dict)
    ranks = dict[int, int]()
    for path in sorted(notes.glob("*.jsonl")):
        attempt, rank = map(int, path.stem.split("-"))
        ranks[attempt] = max(ranks.get(attempt, 0), rank + 1)
        for line in path.read_text().splitlines():
            with suppress(ValueError):  # the last line of a rank that was killed
                step, digests, began = json.loads(line)
                parts[attempt, step][rank] = (digests, began)
    return [
        Taken(
            attempt,
            step,
            tuple(digest for rank in sorted(shares) for digest in shares[rank][0]),
            min(began for _, began in shares.values()),
        )
        for (attempt, step), shares in sorted(parts.items())
        if len(shares) == ranks[attempt]
    ]


def differing_steps(taken: list[Taken], expected: list[Taken]) -> list[int]:
    """Return the steps that got other images, or in another order, than in `expected`."""
    right = {each.step: each.digests for each in expected}
    return sorted({each.step for each in taken if each.digests != right[each.step]})


class Noting:
    """Stands in for `loop.train_step`: notes the images, and stops after `last_step`; 0 is never.

    Of attempt 3, rank 0 notes in `003-0.jsonl`.
    """

    def __init__(self, notes: Path, attempt: int, rank: int, *, last_step: int = 0) -> None:
        self._file = (notes / f"{attempt:03}-{rank}.jsonl").open("a", buffering=1)
        self._train_step = loop.train_step
        self._last_step = last_step

    def __call__(self, run: Run, batches: Stream, step: int) -> None:
        self._train_step(run, self._note(batches, step), step)  # pyright: ignore[reportArgumentType]
        if step == self._last_step:
            run.stopping.agreed = True

    def _note(self, batches: Stream, step: int) -> Iterator[Batch]:
        batch = next(batches)
        pairs = zip(batch.images, batch.labels, strict=True)
        digests = [_digest(image, label) for image, label in pairs]
        self._file.write(json.dumps([step, digests, time.time()]) + "\n")
        yield batch


def _digest(image: torch.Tensor, label: torch.Tensor) -> str:
    return xxhash.xxh64_hexdigest(image.contiguous().numpy().tobytes(), seed=int(label))
