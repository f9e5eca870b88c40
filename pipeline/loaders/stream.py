"""A stream of batches that survives images which cannot be read or decoded.

What stands in for a corrupt image depends on the image alone, so the stream stays the same function
of (dataset, seed, step) whatever the number of ranks and wherever it was resumed.
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
from pipeline.storage.errors import ImageError, describe_fault, first_reason
from pipeline.storage.reader import Content, ReadAhead, SampleReader

Cut = Callable[[BatchIndices], Views]
Decode = Callable[[], torch.Tensor]
"""Returns the next batch of uint8 (n, height, width, 3); StopIteration at the end, RuntimeError if
an image of it cannot be decoded, after which it is of no more use."""
OnCorrupt = Literal["fail", "replace", "count_as_error"]

MOST_IN_A_ROW = 100
"""So many corrupt images one after the other are no accident: a folder is lost, or an archive."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """The stored bytes of a batch, and the cuts to make: the arrays of `Views.cuts`."""

    contents: list[Content]
    cuts: dict[str, Integers]


class Decoder(Protocol):
    """Starts decoding pipelines, each of which pulls its batches from `feed`."""

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
    """A batch before it is decoded."""

    places: BatchIndices
    views: Views
    contents: list[Content]
    tries: NDArray[np.int64]
    """How many corrupt samples came before each of these; 0 where it is the one asked for."""


class RepairingStream(AbstractContextManager["RepairingStream"]):
    """Batches in the order of their places; corrupt images are dealt with as `policy` says."""

    def __init__(
        self,
        index: Index,
        places: Iterable[BatchIndices],
        cut: Cut,
        *,
        decoder: Decoder,
        batch: int,
        policy: OnCorrupt,
        prefetcher: AbstractContextManager[object] | None = None,
    ) -> None:
        """`prefetcher` works for as long as the stream is open; `places` may wait for it."""
        self.replaced = 0
        self.faults: list[str] = []
        self._index, self._cut, self._policy = index, cut, policy
        self._batch, self._decoder = batch, decoder
        self._again: deque[EncodedBatch] = deque()
        self._under_way: deque[EncodedBatch] = deque()
        self._decode = self._start()  # first: if it cannot be, no thread is left behind
        self._prefetcher = prefetcher or nullcontext()
        self._prefetcher.__enter__()
        self._reader = SampleReader(index, decoder.read_threads)
        self._ahead = ReadAhead(map(self._read, places), decoder.prefetch_batches)

    def __iter__(self) -> "RepairingStream":
        return self

    def __next__(self) -> Batch:
        while True:
            try:
                images = self._decode()
            except RuntimeError as error:
                self._recover(error)
            else:
                request = self._under_way.popleft()
                self.replaced += int(np.count_nonzero(request.tries))
                return Batch(images, self._labels(request))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        del self._decode  # its threads end with it
        self._prefetcher.__exit__(kind, error, at)
        self._ahead.__exit__(kind, error, at)
        self._reader.__exit__(kind, error, at)

    def _labels(self, request: EncodedBatch) -> torch.Tensor:
        labels = self._index.labels[request.places.samples].astype(np.int64)
        if self._policy == "count_as_error":
            labels[request.tries > 0] = -1
        tensor = torch.from_numpy(labels)
        if self._decoder.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self._decoder.device, non_blocking=True)

    def _read(self, places: BatchIndices) -> EncodedBatch:
        """Read a batch's bytes; runs in the read-ahead thread."""
        return self._read_or_replace(places, np.zeros_like(places.samples))

    def _read_or_replace(self, places: BatchIndices, tries: NDArray[np.int64]) -> EncodedBatch:
        while True:
            contents = self._reader.read(places.samples)
            lost = {i: str(e) for i, e in enumerate(contents) if isinstance(e, OSError)}
            if not lost:
                return EncodedBatch(places, self._cut(places), _readable(contents), tries)
            places, tries = self._stand_in(places, tries, lost)

    def _stand_in(
        self, places: BatchIndices, tries: NDArray[np.int64], faults: dict[int, str]
    ) -> tuple[BatchIndices, NDArray[np.int64]]:
        """Put the next sample in the place of each faulty one, or raise if that is not wanted."""
        lines = [
            describe_fault(self._index, int(places.samples[i]), reason)
            for i, reason in faults.items()
        ]
        if self._policy == "fail":
            raise ImageError(lines)
        self.faults += lines
        at = list(faults)
        samples, tries = places.samples.copy(), tries.copy()
        samples[at] = (samples[at] + 1) % len(self._index)
        tries[at] += 1
        if tries.max() >= min(MOST_IN_A_ROW, len(self._index)):
            remedy = "Too many in a row are corrupt: repair the dataset and prepare it again."
            raise ImageError(lines, remedy)
        return BatchIndices(samples, places.epochs), tries

    def _start(self) -> Decode:
        depth = self._decoder.prefetch_batches
        return self._decoder.start(self._feed, batch=self._batch, prefetch_batches=depth)

    def _feed(self) -> Encoded:
        """Hand over the next batch; called whenever the decoder has room for one more."""
        request = self._again.popleft() if self._again else next(self._ahead)
        self._under_way.append(request)
        return Encoded(request.contents, request.views.geometry())

    def _recover(self, error: RuntimeError) -> None:
        """Find what could not be decoded, deal with it, and go on with a new decoder."""
        if not _is_about_images(error):
            raise error
        request = self._under_way.popleft()
        faults = self._undecodable(request)
        if not faults:
            raise error
        mended = self._read_or_replace(*self._stand_in(request.places, request.tries, faults))
        self._again.extendleft(reversed([mended, *self._under_way]))
        self._under_way.clear()
        self._decode = self._start()

    def _undecodable(self, request: EncodedBatch) -> dict[int, str]:
        """Decode one by one the images of a batch that failed; return the reason for each fault."""
        faults: dict[int, str] = {}
        todo = iter(range(len(request.contents)))
        at = -1

        def feed() -> Encoded:
            nonlocal at
            at = next(todo)
            cuts = {name: array[at : at + 1] for name, array in request.views.geometry().items()}
            return Encoded(request.contents[at : at + 1], cuts)

        while at + 1 < len(request.contents):
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
    """Whether DALI names an image decoder as the place of the error."""
    return "fn.decoders" in str(error)
