"""Other loaders on the same images, each with random crops and flips, written as usual for it.

A peer whose library is not installed is left out: `pip install timm turboloader` adds two. All of
them read copies of up to MOST_IMAGES images, as files and as one tar, from the page cache.
"""

import importlib.util
import tarfile
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler

from launch.benchmarks.turns import Side
from pipeline.config.schema import Data, RandomResizedCrop
from pipeline.dataset.index import Index
from pipeline.system.command import plural

ENDLESS = 10**9
"""Images in an epoch of a peer; long, because its workers run out of work at the end of each."""
MOST_IMAGES = 2000


class ImageFiles(Dataset[Any]):
    """Files and their labels, each image read and transformed by `view`."""

    def __init__(self, files: list[Path], labels: list[int], view: Callable[[Path], Any]) -> None:
        self._files, self._labels, self._view = files, labels, view

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, at: int) -> tuple[Any, int]:
        return self._view(self._files[at]), self._labels[at]


class Peers:
    """Other loaders of images that were copied from an index to `folder`."""

    def __init__(self, data: Data, index: Index, folder: Path, *, batch: int, workers: int) -> None:
        assert isinstance(data.train, RandomResizedCrop), "the only crop that all peers have"
        self._data, self._crop, self._batch, self._workers = data, data.train, batch, workers
        self._folder = folder
        self._files = _copy_images(index, folder)
        self._labels: list[int] = index.labels[: len(self._files)].tolist()

    def sides(self, device: torch.device, *, as_bytes: bool) -> dict[str, Side]:
        """Return a side for each peer that is installed and can deliver bytes, or floats."""
        workers = plural(self._workers, "worker")
        made = {
            f"torchvision over PIL, {workers}": self._torchvision_pil,
            f"torchvision.io and v2, {workers}": self._torchvision_io,
            f"timm, {workers}": self._timm,
            "plain DALI": self._dali,
            "turboloader": self._turboloader,
        }
        streams = {name: make(as_bytes=as_bytes) for name, make in made.items()}
        return {name: _side(stream, device) for name, stream in streams.items() if stream}

    def _torchvision_pil(self, *, as_bytes: bool) -> Iterator[Any]:
        from torchvision import transforms

        crop = self._crop
        floats = [transforms.ToTensor(), transforms.Normalize(self._data.mean, self._data.std)]
        transform: Any = transforms.Compose(
            [
                transforms.RandomResizedCrop(crop.size, scale=crop.scale, ratio=crop.ratio),
                transforms.RandomHorizontalFlip(),
                *([transforms.PILToTensor()] if as_bytes else floats),
            ]
        )
        return self._torch_loader(lambda file: transform(_opened(file)))

    def _torchvision_io(self, *, as_bytes: bool) -> Iterator[Any]:
        from torchvision import io
        from torchvision.transforms import v2

        crop = self._crop
        floats = [
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(list(self._data.mean), list(self._data.std)),
        ]
        transform = v2.Compose(
            [
                v2.RandomResizedCrop(crop.size, scale=crop.scale, ratio=crop.ratio, antialias=True),
                v2.RandomHorizontalFlip(),
                *([] if as_bytes else floats),
            ]
        )
        return self._torch_loader(
            lambda file: transform(io.decode_image(io.read_file(str(file)), io.ImageReadMode.RGB))
        )

    def _timm(self, *, as_bytes: bool) -> Iterator[Any] | None:
        if not importlib.util.find_spec("timm"):
            return None
        import timm.data  # pyright: ignore[reportMissingImports]

        timm_data: Any = timm.data  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        transform = timm_data.create_transform(
            self._crop.size,
            is_training=True,
            use_prefetcher=as_bytes,
            color_jitter=None,
            scale=self._crop.scale,
            ratio=self._crop.ratio,
            interpolation="bilinear",
            mean=self._data.mean,
            std=self._data.std,
        )
        collate = timm_data.loader.fast_collate if as_bytes else None
        return self._torch_loader(lambda file: transform(_opened(file)), collate)

    def _dali(self, *, as_bytes: bool) -> Iterator[Any]:
        from nvidia import dali as untyped_dali

        dali: Any = untyped_dali
        crop, data = self._crop, self._data
        pipe = dali.Pipeline(batch_size=self._batch, num_threads=self._workers, device_id=None)
        with pipe:
            files = [str(file) for file in self._files]
            encoded, _ = dali.fn.readers.file(files=files, random_shuffle=True)
            images = dali.fn.decoders.image_random_crop(
                encoded, random_area=list(crop.scale), random_aspect_ratio=list(crop.ratio)
            )
            images = dali.fn.resize(images, size=[crop.size, crop.size])
            mirror = dali.fn.random.coin_flip()
            if as_bytes:
                images = dali.fn.flip(images, horizontal=mirror)
            else:
                mean, std = ([255 * each for each in values] for values in (data.mean, data.std))
                images = dali.fn.crop_mirror_normalize(images, mirror=mirror, mean=mean, std=std)
            pipe.set_outputs(images)
        pipe.build()
        while True:
            yield torch.from_dlpack(pipe.run()[0].as_tensor())

    def _turboloader(self, *, as_bytes: bool) -> Iterator[Any] | None:
        if as_bytes or not importlib.util.find_spec("turboloader"):  # it delivers floats alone
            return None
        import turboloader  # pyright: ignore[reportMissingImports]

        library: Any = turboloader
        normalize = library.ImageNetNormalize()

        def stream() -> Iterator[Any]:
            loader = library.DataLoader(
                str(self._folder / "images.tar"),
                batch_size=self._batch,
                num_workers=self._workers,
                shuffle=True,
                image_size=self._crop.size,
                output_format="pytorch",
                transform=normalize,
                train_aug=True,
                antialias=True,
                drop_last=True,
            )
            while True:
                for images, *_ in loader:
                    yield torch.as_tensor(images)

        return stream()

    def _torch_loader(
        self, view: Callable[[Path], Any], collate: Any | None = None
    ) -> Iterator[Any]:
        images = ImageFiles(self._files, self._labels, view)
        loader = DataLoader(
            images,
            batch_size=self._batch,
            sampler=RandomSampler(images, num_samples=ENDLESS),
            num_workers=self._workers,
            collate_fn=collate,
        )
        for pixels, _labels in loader:
            yield pixels


def _side(stream: Iterator[Any], device: torch.device) -> Side:
    def run(batches: int) -> None:
        for pixels in islice(stream, batches):
            pixels.to(device)

    return run


def _opened(file: Path) -> Image.Image:
    with file.open("rb", buffering=0) as stream:
        content = stream.read()
    with Image.open(BytesIO(content)) as image:
        return image.convert("RGB")


def _copy_images(index: Index, folder: Path) -> list[Path]:
    """Write the first images of an index to files, and to images.tar."""
    files: list[Path] = []
    with tarfile.open(folder / "images.tar", "w") as tar:
        for at in np.arange(min(len(index), MOST_IMAGES)).tolist():
            with index.path(at).open("rb", buffering=0) as stream:
                stream.seek(int(index.offsets[at]))
                content = stream.read(int(index.sizes[at]))
            file = folder / f"{at:06}.jpg"
            file.write_bytes(content)
            tar.add(file, file.name)
            files.append(file)
    return files
