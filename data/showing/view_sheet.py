"""The contact sheet of a dataset: images as stored, as training sees them and as evaluated."""

from collections.abc import Sequence
from dataclasses import asdict
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.formats.orientation import stored_pixels
from data.showing.contact_sheet import SheetSection, Strip, draw_sheet, enlargement
from data.showing.overview import class_title
from data.showing.views import SampleNumbers, evaluation_views, first_samples, training_views
from pipeline.config.schema import Config, PadCrop, RandomResizedCrop, ResizeCenterCrop
from pipeline.dataset.index import Index
from pipeline.storage.errors import ImageError, describe_fault
from pipeline.storage.reader import SampleReader

EPOCHS = 3
READ_THREADS = 4
REMEDY = "To leave out all such images: python data/verify.py DIR --decode --exclude OUT"

# The images come from a dataset, and may be of any size.
Image.MAX_IMAGE_PIXELS = None


def draw_views(splits: Sequence[Index], config: Config, count: int) -> Image.Image:
    """Draw up to `count` training images, and half as many validation images.

    Raises `ImageError` for an image that cannot be read or decoded, and `ValueError` if there are
    no images.
    """
    by_name = {index.split: index for index in splits if len(index)}
    sections: list[SheetSection] = []
    try:
        if "train" in by_name:
            sections.append(_training_section(by_name["train"], config, count))
        if "val" in by_name:
            sections.append(_validation_section(by_name["val"], config, -(-count // 2)))
    except ImageError as error:
        raise ImageError(error.faults, REMEDY) from error
    if not sections:
        raise ValueError("train and val have no images to show; prepare the dataset again")
    name = splits[0].manifest.name
    return draw_sheet(f"{name}, with recipe {config.name!r} and seed {config.seed}", sections)


def _training_section(index: Index, config: Config, count: int) -> SheetSection:
    samples = first_samples(index, config, count)
    views = training_views(index, config, samples, EPOCHS)
    central = evaluation_views(index, config, samples)
    factor = enlargement(config.data.train.size)
    stored = _as_stored(index, samples, config)
    strips: list[Strip] = []
    for at, sample in enumerate(samples.tolist()):
        seen = [_picture(view, factor) for view in [*views[at], central[at]]]
        strips.append(Strip(_caption(index, sample), [stored[at], *seen]))
    heads = ["as stored", *(f"epoch {epoch + 1}" for epoch in range(EPOCHS)), "evaluation"]
    first = f"the first images, {config.train.global_batch:,} a step"
    return SheetSection(f"Training, {first}: {_described(config.data.train)}", heads, strips)


def _validation_section(index: Index, config: Config, count: int) -> SheetSection:
    random = np.random.default_rng(config.seed)
    samples = random.choice(len(index), min(count, len(index)), replace=False).astype(np.int64)
    views = evaluation_views(index, config, samples)
    factor = enlargement(config.data.train.size)
    stored = _as_stored(index, samples, config)
    strips = [
        Strip(_caption(index, sample), [stored[at], _picture(views[at], factor)])
        for at, sample in enumerate(samples.tolist())
    ]
    return SheetSection(
        f"Validation: {_described(config.data.eval)}", ["as stored", "evaluation"], strips
    )


def _described(crop: RandomResizedCrop | PadCrop | ResizeCenterCrop) -> str:
    fields = {name: value for name, value in asdict(crop).items() if name != "name"}
    settings = ", ".join(f"{name} {_short(value)}" for name, value in fields.items())
    match crop:
        case RandomResizedCrop():
            return f"random resized crop ({settings})"
        case PadCrop():
            return f"random crop after padding ({settings})"
        case ResizeCenterCrop():
            return f"resize and centre crop ({settings})"


def _short(value: float | str | tuple[float, float]) -> str:
    match value:
        case bool():
            return "on" if value else "off"
        case float():
            return f"{value:.3g}"
        case tuple():
            return " to ".join(map(_short, value))
        case _:
            return str(value)


def _caption(index: Index, sample: int) -> str:
    title = class_title(index.manifest, int(index.labels[sample]))
    return f"{title}   sample {sample:,}, {index.widths[sample]} x {index.heights[sample]}"


def _picture(pixels: NDArray[np.uint8], factor: int) -> Image.Image:
    return Image.fromarray(pixels.repeat(factor, 0).repeat(factor, 1))


def _as_stored(index: Index, samples: SampleNumbers, config: Config) -> list[Image.Image]:
    """Decode images as they are, reduced to the size of the cells beside them."""
    size = max(config.data.train.size, config.data.eval.size)
    factor = enlargement(config.data.train.size)
    with SampleReader(index, READ_THREADS) as reader:
        contents = reader.read(samples)
    pictures: list[Image.Image] = []
    for sample, content in zip(samples.tolist(), contents, strict=True):
        if isinstance(content, OSError):
            raise ImageError([describe_fault(index, sample, str(content))])
        with Image.open(BytesIO(content.tobytes())) as image:
            pictures.append(_fit(stored_pixels(image).convert("RGB"), size * factor, factor))
    return pictures


def _fit(image: Image.Image, side: int, factor: int) -> Image.Image:
    if factor * max(image.size) <= side:
        return image.resize((factor * image.width, factor * image.height), Image.Resampling.NEAREST)
    scale = side / max(image.size)
    shape = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(shape, Image.Resampling.LANCZOS)
