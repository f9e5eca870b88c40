"""Images that the decoder of training refuses; each image is decoded as a whole."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from data.checking.examination import StoredImage
from data.checking.flaws import Flaw
from pipeline.distributed.world import CPU
from pipeline.loaders.dali import DaliDecoder
from pipeline.loaders.stream import Decode, Encoded
from pipeline.storage.errors import first_reason

ImageBatch = Sequence[StoredImage]


def undecodable(batches: Iterator[ImageBatch], *, most: int, threads: int) -> Iterator[Flaw]:
    """Decode batches of 1 to `most` images on the CPU; yield a flaw for each corrupt image."""
    under_way: deque[ImageBatch] = deque()
    again: deque[ImageBatch] = deque()

    def feed() -> Encoded:
        batch = again.popleft() if again else next(batches)
        under_way.append(batch)
        return _encoded(batch)

    decode = _start(feed, batch=most, threads=threads)
    while True:
        try:
            decode()
        except StopIteration:
            return
        except RuntimeError as error:
            flaws = _one_by_one(under_way.popleft(), error)
            yield from flaws
            again.extendleft(reversed(under_way))
            under_way.clear()
            decode = _start(feed, batch=most, threads=threads)
        else:
            under_way.popleft()


def _one_by_one(batch: ImageBatch, error: RuntimeError) -> list[Flaw]:
    """Find the images that made a batch fail with `error`; raises it if no image did."""
    flaws: list[Flaw] = []
    todo = iter(batch)
    current = batch[0]

    def feed() -> Encoded:
        nonlocal current
        current = next(todo)
        return _encoded([current])

    decode = None
    while True:
        decode = decode or _start(feed, batch=1, threads=1, prefetch_batches=1)
        try:
            decode()
        except StopIteration:
            break
        except RuntimeError as reason:
            if not _is_about_an_image(reason):
                raise
            flaws.append(Flaw(current.sample, "corrupt", first_reason(str(reason))))
            decode = None  # a pipeline that has failed cannot be used again
    if not flaws:
        raise error
    return flaws


def _start(
    feed: Callable[[], Encoded], *, batch: int, threads: int, prefetch_batches: int = 2
) -> Decode:
    """Start the decoder of training; one pixel of each decoded image is kept."""
    decoder = DaliDecoder(
        device=CPU,
        decode="cpu",
        region_decode=False,  # otherwise damage below the region would not be noticed
        threads=threads,
        read_threads=1,
        prefetch_batches=prefetch_batches,
        fill=(0, 0, 0),
        size=1,
        stages=("region_start", "region_shape"),
    )
    return decoder.start(feed, batch=batch, prefetch_batches=prefetch_batches)


def _encoded(batch: ImageBatch) -> Encoded:
    corner = np.zeros((len(batch), 2), np.int64)
    contents = [np.frombuffer(image.content, np.uint8) for image in batch]
    return Encoded(contents, {"region_start": corner, "region_shape": corner + 1})


def _is_about_an_image(error: RuntimeError) -> bool:
    """Return whether DALI reports the error in an image decoder."""
    return "fn.decoders" in str(error)
