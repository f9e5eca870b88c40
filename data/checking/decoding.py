"""Images that training could not use, found by decoding every image as training does.

Each is decoded as a whole and measured, cropped at random, and transformed as for evaluation, by
the decoder of training and with the sizes in the index.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from data.checking.examination import StoredImage
from data.checking.flaws import Flaw
from pipeline.config.schema import RandomResizedCrop, ResizeCenterCrop
from pipeline.dataset.index import Index
from pipeline.dataset.order import BatchIndices
from pipeline.distributed.world import CPU
from pipeline.loaders.dali import DaliDecoder
from pipeline.loaders.stream import Decode, Encoded, MakeViews
from pipeline.loaders.views import evaluation_views_of, stages_of, training_views_of
from pipeline.storage.errors import first_reason

CROPS = 2
"""Random crops of each image: regions are decoded by other code than whole images."""
SEED = 0

ImageBatch = Sequence[StoredImage]


def unusable(
    index: Index, batches: Iterator[ImageBatch], *, most: int, threads: int
) -> Iterator[Flaw]:
    """Decode batches of 1 to `most` images on the CPU; yield a flaw for each that fails."""
    trials = _trials(index, most=most, threads=threads)
    for batch in batches:
        rest = batch
        for trial in trials:
            flaws = trial.flaws(rest) if rest else []
            yield from flaws
            faulty = {flaw.sample for flaw in flaws}
            rest = [image for image in rest if image.sample not in faulty]


@dataclass
class _Trial:
    """One way in which training decodes images of a split."""

    index: Index
    decoder: DaliDecoder
    make_views: MakeViews | None
    """None to measure whole images."""
    most: int
    epoch: int = 0
    _decode: Decode | None = None
    _next: Encoded = field(default_factory=lambda: Encoded([], {}))

    def flaws(self, images: ImageBatch) -> list[Flaw]:
        """Decode 1 to `most` images; return a flaw for each that fails."""
        try:
            done = self._run(images)
        except RuntimeError as error:
            if not _is_about_images(error):
                raise
            if len(images) == 1:
                return [Flaw(images[0].sample, "corrupt", first_reason(str(error)))]
            flaws = [flaw for image in images for flaw in self.flaws([image])]
            if not flaws:
                raise
            return flaws
        return [] if self.make_views else _wrong_sizes(self.index, images, done)

    def _run(self, images: ImageBatch) -> torch.Tensor:
        samples = np.array([image.sample for image in images], np.int64)
        indices = BatchIndices(samples, np.full_like(samples, self.epoch))
        geometry = self.make_views(indices).geometry() if self.make_views else {}
        self._next = Encoded([np.frombuffer(image.content, np.uint8) for image in images], geometry)
        decode, self._decode = self._decode or self._start(), None
        done = decode()
        self._decode = decode  # a pipeline that has failed cannot be used again
        return done

    def _start(self) -> Decode:
        return self.decoder.start(lambda: self._next, batch=self.most, prefetch_batches=1)


def _trials(index: Index, *, most: int, threads: int) -> list[_Trial]:
    crop, central = RandomResizedCrop(), ResizeCenterCrop()
    cropped = training_views_of(index, crop, SEED)
    evaluated = evaluation_views_of(index, central)
    return [
        _Trial(index, _decoder(threads, measures=True), None, most),
        *(
            _Trial(index, _decoder(threads, cropped, crop.size), cropped, most, epoch)
            for epoch in range(CROPS)
        ),
        _Trial(
            index,
            _decoder(threads, evaluated, central.size, evaluates=True),
            evaluated,
            most,
        ),
    ]


def _decoder(
    threads: int,
    make_views: MakeViews | None = None,
    size: int = 0,
    *,
    evaluates: bool = False,
    measures: bool = False,
) -> DaliDecoder:
    return DaliDecoder(
        device=CPU,
        decode="cpu",
        region_decode=not evaluates,
        threads=threads,
        read_threads=1,
        prefetch_batches=1,
        fill=(0, 0, 0),
        size=size,
        stages=stages_of(make_views) if make_views else (),
        measures=measures,
        exact=evaluates,
    )


def _wrong_sizes(index: Index, images: ImageBatch, shapes: torch.Tensor) -> list[Flaw]:
    flaws: list[Flaw] = []
    for image, shape in zip(images, shapes.numpy(), strict=True):
        height, width = int(shape[0]), int(shape[1])
        indexed = int(index.widths[image.sample]), int(index.heights[image.sample])
        if (width, height) != indexed:
            reason = f"decoded to {width} x {height} pixels, but the index has "
            reason += f"{indexed[0]} x {indexed[1]}"
            flaws.append(Flaw(image.sample, "wrong-size", reason))
    return flaws


def _is_about_images(error: RuntimeError) -> bool:
    """Return whether DALI reports the error in an operator, all of which work on images."""
    return "nvidia.dali.fn." in str(error)
