"""The section `data`: which images, how they are cropped, in which order, and what loads them."""

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
    """A random part of the image, resized to a square (Szegedy et al. 2015, sec. 6)."""

    name: Literal["random_resized_crop"] = "random_resized_crop"
    size: Pixels = 224
    """Side of the square that the network sees, in pixels."""
    scale: tuple[Positive, Positive] = (0.08, 1.0)
    """Least and greatest area of the crop, as a fraction of the image."""
    ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    """Least and greatest aspect ratio of the crop: width over height."""
    flip: bool = True
    """Mirror half of the images, left to right."""

    @model_validator(mode="after")
    def _ordered(self) -> "RandomResizedCrop":
        if self.scale[0] > self.scale[1] or self.scale[1] > 1:
            raise ValueError("scale must be [least, most] with least <= most <= 1")
        if self.ratio[0] > self.ratio[1]:
            raise ValueError("ratio must be [least, most] with least <= most")
        return self


@section
class PadCrop:
    """Pad with the mean colour, then take a random square (He et al. 2015, sec. 4.2)."""

    name: Literal["pad_crop"] = "pad_crop"
    size: Pixels = 32
    """Side of the square, in pixels."""
    pad: Annotated[int, Field(ge=0, le=1024)] = 4
    """Padding on each side, in pixels."""
    flip: bool = True
    """Mirror half of the images, left to right."""


@section
class ResizeCenterCrop:
    """Resize the shorter side, then take the central square, as torchvision does."""

    resize: Pixels = 256
    """Shorter side after resizing, in pixels."""
    size: Pixels = 224
    """Side of the central square, in pixels."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """How pixels are interpolated in the resize."""

    @model_validator(mode="after")
    def _fits(self) -> "ResizeCenterCrop":
        if self.size > self.resize:
            raise ValueError(f"size={self.size} must not exceed resize={self.resize}")
        return self


@section
class Dali:
    """NVIDIA DALI: decodes on the CPU or the GPU, then crops and resizes."""

    name: Literal["dali"] = "dali"
    threads: Count | None = None
    """CPU threads of each rank. By default the rank's share of the machine's cores."""
    read_threads: Count = 4
    """Threads of each rank that read files. More of them help where reads are slow."""
    decode: Literal["auto", "cpu", "mixed"] = "auto"
    """Where JPEGs are decoded. `mixed` is CPU and GPU; `auto` is `mixed` on a GPU, else `cpu`."""
    region_decode: bool | None = None
    """Decode only the crop instead of the whole image. By default only on the CPU: some releases
    of nvImageCodec cannot do it on a GPU."""
    prefetch_batches: Count = 2
    """Batches that each rank prepares ahead of the training step."""
    hw_decoder_load: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the images that a GPU's hardware decoder for JPEGs decodes, with `decode: mixed`.
    0 turns it off: on an H100 it was reported to ignore stream order (pytorch/vision#9606)."""


@section
class Synthetic:
    """The same random batch in every step: measures the speed of everything but the loader."""

    name: Literal["synthetic"] = "synthetic"


@section
class Shuffled:
    """Shuffle each epoch as a whole: for local SSDs, or a dataset that fits into memory."""

    name: Literal["shuffled"] = "shuffled"


@section
class Windowed:
    """Shuffle within windows that are read ahead: for network file systems and spinning disks."""

    name: Literal["windowed"] = "windowed"
    shard_images: Count = 32
    """Images of a shard. They are consecutive on disk and read together. If images are sorted by
    class, keep shards short, so that each batch mixes classes."""
    window_shards: Count = 512
    """Shards whose images are shuffled together. Memory should hold two windows per lane."""
    lanes: Count = 1
    """Slices of the global batch, each of which reads different shards. Must divide
    `train.global_batch`. With one lane per node, no two nodes read the same shard."""


@section
class Data:
    """Which images, how they are cropped, in which order, and what loads them."""

    dir: Path
    """Folder of a dataset that data/prepare.py made."""
    root: Path | None = None
    """Folder of the images, if they moved since the dataset was prepared."""
    stage: Path | None = None
    """Folder on a local disk of each node. The images are copied there once, checked, and read from
    there. Later runs use the same copies, which are never deleted."""
    train: Annotated[RandomResizedCrop | PadCrop, Field(discriminator="name")] = field(
        default_factory=RandomResizedCrop
    )
    """How training images are cropped."""
    eval: ResizeCenterCrop = field(default_factory=ResizeCenterCrop)
    """How validation images are cropped."""
    mean: Channels = (0.485, 0.456, 0.406)
    """Mean of each channel (red, green, blue), on a scale from 0 to 1."""
    std: Annotated[Channels, AfterValidator(_all_positive)] = (0.229, 0.224, 0.225)
    """Standard deviation of each channel, on a scale from 0 to 1."""
    order: Annotated[Shuffled | Windowed, Field(discriminator="name")] = field(
        default_factory=Shuffled
    )
    """How each epoch of training images is shuffled."""
    loader: Annotated[Dali | Synthetic, Field(discriminator="name")] = field(default_factory=Dali)
    """What loads the images."""
    verify: Literal["off", "files", "decode"] = "files"
    """Check before the first step. `files`: each file has its recorded size, and some images of
    files modified since are compared with their checksums. `decode`: each image also decodes; this
    reads the whole dataset once."""
    on_corrupt: Literal["fail", "skip"] = "fail"
    """What to do with an image that cannot be read or decoded. `fail` stops the run. `skip` counts
    it and trains on the next sample instead; in evaluation it counts as an error."""
