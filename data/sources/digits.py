"""The 1,797 handwritten digits of scikit-learn as JPEGs: real images in a second, without network.

They are the smallest real dataset that a whole training run can be tried on.
"""

from argparse import ArgumentParser, Namespace
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.indexing.source import Source
from data.indexing.written_images import add_image, collect_written, new_images_folder
from pipeline.dataset.samples import Sample
from pipeline.dataset.writing import Dataset, refuse_other

SIDE_PIXELS = 16
BRIGHTEST = 16
"""The grey levels of the digits are 0..16."""
VALIDATION_EVERY = 5


def write_digits(out: Path, *, replace: bool = False) -> Dataset:
    """Write the digits below `out/images`; every fifth image of each class is for validation.

    Raises `ValueError` if `out` has another dataset, unless `replace`.
    """
    load_digits: Any = import_module("sklearn.datasets").load_digits  # it ships no types
    bunch = load_digits()
    classes = tuple(str(name) for name in bunch.target_names)
    splits: dict[str, list[Sample]] = {"train": [], "val": []}
    seen = [0] * len(classes)
    with new_images_folder(out) as folder:
        for number, (grey, label) in enumerate(zip(bunch.images, bunch.target, strict=True)):
            seen[label] += 1
            split = "train" if seen[label] % VALIDATION_EVERY else "val"
            file = f"{split}/{classes[label]}/{number:04d}.jpg"
            splits[split].append(add_image(folder, _jpeg(grey), file=file, label=int(label)))
        dataset = Dataset("digits", classes, ".", collect_written(folder, splits))
        if not replace:
            refuse_other(out, dataset)
    return dataset


def _jpeg(grey: NDArray[np.float64]) -> bytes:
    """Return a JPEG of 16 x 16 pixels from 8 x 8 levels of grey."""
    small = Image.fromarray(np.round(grey * (255 / BRIGHTEST)).astype(np.uint8))
    content = BytesIO()
    large = small.resize((SIDE_PIXELS, SIDE_PIXELS), Image.Resampling.BICUBIC)
    large.save(content, "JPEG", quality=95)
    return content.getvalue()


def _add_arguments(parser: ArgumentParser) -> None:
    """Add nothing: the digits come with scikit-learn."""


def _prepare(arguments: Namespace) -> Dataset:
    return write_digits(arguments.out, replace=arguments.may_replace)


SOURCE = Source("digits", "the handwritten digits of scikit-learn", _add_arguments, _prepare)
