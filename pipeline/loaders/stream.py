"""A stream of batches that survives images which cannot be read or decoded.

The replacement of a corrupt image depends on that image alone, so the stream remains a function of
(dataset, seed, step), independent of the number of ranks and of where it was resumed.
"""

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.augment.crops import Integers, Views
from pipeline.dataset.index import Index
from pipeline.dataset.order import BatchIndices
from pipeline.loaders.base import Batch
from pipeline.loaders.held import HeldBatches, mark_on
from pipeline.storage.errors import ImageError, describe_fault, first_reason
from pipeline.storage.reader import Content, ReadAhead, SampleReader

MakeViews = Callable[[BatchIndices], Views]
Decode = Callable[[], torch.Tensor]
"""Returns the next batch, uint8 (n, height, width, 3). Raises StopIteration at the end, and
RuntimeError if an image cannot be decoded; after that it must not be called again."""
OnCorrupt = Literal["fail", "replace", "count_as_error"]

MOST_IN_A_ROW = 100
"""This many corrupt images in a row mean that a folder or an archive is lost."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """The stored bytes of a batch, and its crops, sizes and flips by stage, as in `Views`."""

    contents: list[Content]
    geometry: dict[str, Integers]


class Decoder(Protocol):
    """Starts decoding pipelines that pull their batches from `feed`."""

    @property
    def device(self) -> torch.device: ...
    @property
    def read_threads(self) -> int: ...
    @property
    def prefetch_batches(self) -> int: ...

    def start(
        self, feed: Callable[[], Encoded], *, batch: int, prefetch_batches: int
    ) -> Decode: ...


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """A batch that is read but not decoded."""

    indices: BatchIndices
    views: Views
    contents: list[Content]
    tries: NDArray[np.int64]
    """Corrupt samples tried before each of these; 0 if it is the requested one."""


class RepairingStream(AbstractContextManager["RepairingStream"]):
    """The batches of `batches`, in order; corrupt images are handled according to `policy`."""

    def __init__(
        self,
        index: Index,
        batches: Iterable[BatchIndices],
        make_views: MakeViews,
        *,
        decoder: Decoder,
        batch: int,
        policy: OnCorrupt,
        prefetcher: AbstractContextManager[object] | None = None,
    ) -> None:
        """`prefetcher` runs while the stream is open; `batches` may wait for it."""
        self.replaced = 0
        self.faults: list[str] = []
        self._index, self._make_views, self._policy = index, make_views, policy
        self._batch, self._decoder = batch, decoder
        self._again: deque[EncodedBatch] = deque()
        self._under_way: deque[EncodedBatch] = deque()
        mark = mark_on(decoder.device)
        self._held = HeldBatches(mark) if mark else None
        self._decode = self._start()  # first: if it fails, no thread is left running
        self._prefetcher = prefetcher or nullcontext()
        self._prefetcher.__enter__()
        self._reader = SampleReader(index, decoder.read_threads)
        self._ahead = ReadAhead(map(self._read, batches), decoder.prefetch_batches)

    def __iter__(self) -> "RepairingStream":
        return self

    def __next__(self) -> Batch:
        if self._held:
            self._held.release()
        images, batch = self._decode_next()
        if self._held:
            self._held.hold(images)
        self.replaced += int(np.count_nonzero(batch.tries))
        return Batch(images, self._labels(batch))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        try:
            if self._held and error is None:
                self._held.close()
        finally:  # an error of the GPU leaves no thread behind
            del self._decode  # ends its threads
            self._prefetcher.__exit__(kind, error, at)
            self._ahead.__exit__(kind, error, at)
            self._reader.__exit__(kind, error, at)

    def _decode_next(self) -> tuple[torch.Tensor, EncodedBatch]:
        while True:
            try:
                images = self._decode()
            except RuntimeError as error:
                self._recover(error)
            else:
                return images, self._under_way.popleft()

    def _labels(self, batch: EncodedBatch) -> torch.Tensor:
        labels = self._index.labels[batch.indices.samples].astype(np.int64)
        if self._policy == "count_as_error":
            labels[batch.tries > 0] = -1
        tensor = torch.from_numpy(labels)
        if self._decoder.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self._decoder.device, non_blocking=True)

    def _read(self, indices: BatchIndices) -> EncodedBatch:
        """Read the bytes of a batch, in the read-ahead thread."""
        return self._read_or_replace(indices, np.zeros_like(indices.samples))

    def _read_or_replace(self, indices: BatchIndices, tries: NDArray[np.int64]) -> EncodedBatch:
        while True:
            contents = self._reader.read(indices.samples)
            lost = {i: str(e) for i, e in enumerate(contents) if isinstance(e, OSError)}
            if not lost:
                return EncodedBatch(indices, self._make_views(indices), _readable(contents), tries)
            indices, tries = self._replace(indices, tries, lost)

    def _replace(
        self, indices: BatchIndices, tries: NDArray[np.int64], faults: dict[int, str]
    ) -> tuple[BatchIndices, NDArray[np.int64]]:
        """Replace each corrupt sample by the next one; raise `ImageError` if not allowed to."""
        lines = [
            describe_fault(self._index, int(indices.samples[i]), reason)
            for i, reason in faults.items()
        ]
        if self._policy == "fail":
            raise ImageError(lines)
        self.faults += lines
        at = list(faults)
        samples, tries = indices.samples.copy(), tries.copy()
        samples[at] = (samples[at] + 1) % len(self._index)
        tries[at] += 1
        if tries.max() >= min(MOST_IN_A_ROW, len(self._index)):
            remedy = "Too many in a row are corrupt: repair the dataset and prepare it again."
            raise ImageError(lines, remedy)
        return BatchIndices(samples, indices.epochs), tries

    def _start(self) -> Decode:
        depth = self._decoder.prefetch_batches
        return self._decoder.start(self._feed, batch=self._batch, prefetch_batches=depth)

    def _feed(self) -> Encoded:
        """Return the next batch; called whenever the decoder has room for one more."""
        batch = self._again.popleft() if self._again else next(self._ahead)
        self._under_way.append(batch)
        return Encoded(batch.contents, batch.views.geometry())

    def _recover(self, error: RuntimeError) -> None:
        """Find the corrupt images, replace them, and continue with a new decoder."""
        if not _is_about_images(error):
            raise error
        failed = self._under_way.popleft()
        faults = self._undecodable(failed)
        if not faults:
            raise error
        repaired = self._read_or_replace(*self._replace(failed.indices, failed.tries, faults))
        self._again.extendleft(reversed([repaired, *self._under_way]))
        self._under_way.clear()
        self._decode = self._start()

    def _undecodable(self, batch: EncodedBatch) -> dict[int, str]:
        """Decode the images of a failed batch one by one; return why each corrupt one failed."""
        faults: dict[int, str] = {}
        todo = iter(range(len(batch.contents)))
        at = -1

        def feed() -> Encoded:
            nonlocal at
            at = next(todo)
            geometry = {name: array[at : at + 1] for name, array in batch.views.geometry().items()}
            return Encoded(batch.contents[at : at + 1], geometry)

        while at + 1 < len(batch.contents):
            decode_one = self._decoder.start(feed, batch=1, prefetch_batches=1)
            try:
                while True:
                    decode_one()
            except StopIteration:
                break
            except RuntimeError as error:
                if not _is_about_images(error):
                    raise
                faults[at] = first_reason(str(error))
        return faults


def _readable(contents: list[Content | OSError]) -> list[Content]:
    return [content for content in contents if not isinstance(content, OSError)]


def _is_about_images(error: RuntimeError) -> bool:
    """Whether DALI says that the error occurred in decoding an image or cropping it.

    A crop fails if the image does not have the size in the index.
    """
    return any(operator in str(error) for operator in ("fn.decoders", "fn.slice"))
