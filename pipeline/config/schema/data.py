"""The section `data`: which images, how they are cut, in which order, and who loads them."""

from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from pipeline.config.schema.section import Count, Positive, section

Pixels = Annotated[int, Field(gt=0, le=4096)]
Channels = tuple[float, float, float]


def _all_positive(values: Channels) -> Channels:
    if min(values) <= 0:
        raise ValueError("every value must be greater than 0")
    return values


@section
class RandomResizedCrop:
    """A random window of random area and aspect, resized to a square (Inception style)."""

    name: Literal["random_resized_crop"] = "random_resized_crop"
    size: Pixels = 224
    """Side of the square that the network sees, in pixels."""
    scale: tuple[Positive, Positive] = (0.08, 1.0)
    """Range of the window's area, as a share of the image's."""
    ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    """Range of the window's aspect, width over height."""
    flip: bool = True
    """Mirror left to right with probability one half."""

    @model_validator(mode="after")
    def _ordered(self) -> "RandomResizedCrop":
        if self.scale[0] > self.scale[1] or self.scale[1] > 1:
            raise ValueError("scale must be [least, most] with least <= most <= 1")
        if self.ratio[0] > self.ratio[1]:
            raise ValueError("ratio must be [least, most] with least <= most")
        return self


@section
class PadCrop:
    """A random square out of the image padded with the mean colour (He et al. 2015, sec. 4.2)."""

    name: Literal["pad_crop"] = "pad_crop"
    size: Pixels = 32
    """Side of the square, in pixels."""
    pad: Annotated[int, Field(ge=0, le=1024)] = 4
    """Pixels added on each side."""
    flip: bool = True
    """Mirror left to right with probability one half."""


@section
class ResizeCenterCrop:
    """The shorter side to `resize`, then the central square of `size`: torchvision's, exactly."""

    resize: Pixels = 256
    """Length of the shorter side after resizing, in pixels."""
    size: Pixels = 224
    """Side of the central square, in pixels."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    @model_validator(mode="after")
    def _fits(self) -> "ResizeCenterCrop":
        if self.size > self.resize:
            raise ValueError(f"size={self.size} must not exceed resize={self.resize}")
        return self


@section
class Dali:
    """NVIDIA DALI: decode, crop and resize on the CPU, or decode on the GPU (`mixed`)."""

    name: Literal["dali"] = "dali"
    threads: Count | None = None
    """CPU threads of each rank; by default the rank's share of the machine's cores."""
    read_threads: Count = 4
    """Threads that read bytes from the file system; more help where a read takes long."""
    decode: Literal["auto", "cpu", "mixed"] = "auto"
    """Where JPEGs are decoded: auto is mixed on a GPU, cpu otherwise."""
    region_decode: bool | None = None
    """Decode only the crop window. By default on the CPU only: on GPUs some nvImageCodec releases
    fail at it, so there the whole image is decoded and cut on the GPU."""
    prefetch_batches: Count = 2
    """Batches that are ready or under way ahead of the training step."""


@section
class Synthetic:
    """One random batch over and over: how fast is everything but the loader?"""

    name: Literal["synthetic"] = "synthetic"


@section
class Shuffled:
    """Each epoch is shuffled as a whole: for local disks, and for what fits into memory."""

    name: Literal["shuffled"] = "shuffled"


@section
class Windowed:
    """Shuffled in windows that are read ahead in long runs: for network and spinning disks."""

    name: Literal["windowed"] = "windowed"
    shard_images: Count = 32
    """Consecutive images on disk that are read in one run. Images sorted by class need short ones,
    for batches in which the classes mix; shards of images that were shuffled may be long."""
    window_shards: Count = 512
    """Shards whose images are shuffled together; two windows of each lane should fit into the
    page cache."""
    lanes: Count = 1
    """Slices of the global batch, each of which goes through shards of its own; it must divide
    `train.global_batch`. With a lane for each node, no two nodes read the same shard."""


@section
class Data:
    """Which images, how they are cut for training and evaluation, and who loads them."""

    dir: Path
    """A dataset made by data/prepare.py: manifest.json and one index for each split."""
    root: Path | None = None
    """Where the images lie, if they moved since the dataset was prepared."""
    stage: Path | None = None
    """A folder on a disk of each node's own: the images are copied there once, each is checked, and
    all are read from there. Copies are used again by later runs, until somebody deletes them."""
    train: Annotated[RandomResizedCrop | PadCrop, Field(discriminator="name")] = field(
        default_factory=RandomResizedCrop
    )
    """How training images are cut."""
    eval: ResizeCenterCrop = field(default_factory=ResizeCenterCrop)
    """How validation images are cut."""
    mean: Channels = (0.485, 0.456, 0.406)
    """Mean of each channel (red, green, blue), on a scale of 0 to 1."""
    std: Annotated[Channels, AfterValidator(_all_positive)] = (0.229, 0.224, 0.225)
    """Standard deviation of each channel, on a scale of 0 to 1."""
    order: Annotated[Shuffled | Windowed, Field(discriminator="name")] = field(
        default_factory=Shuffled
    )
    """In which order the images come: shuffled anew in each epoch, either way."""
    loader: Annotated[Dali | Synthetic, Field(discriminator="name")] = field(default_factory=Dali)
    verify: Literal["off", "files", "decode"] = "files"
    """Checked before step 1: `files`, that every file is there at its recorded size, and that some
    images of those modified since are what they were; `decode`, that every image also decodes
    (reads the whole dataset once)."""
    on_corrupt: Literal["fail", "skip"] = "fail"
    """An image that cannot be read or decoded stops the run, or the next sample takes its place
    and the replacement is counted."""
