"""The DALI loader: one pipeline, on the CPU or with decoding on the GPU.

The order of the images and their crops are computed in pipeline/dataset and pipeline/augment and
passed to DALI as inputs. DALI has no random state and no position, so a stream can start at any
step.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from pipeline.augment.crops import Integers
from pipeline.config.schema import (
    Dali,
    Data,
    Shuffled,
    Windowed,
)
from pipeline.dataset.index import Index
from pipeline.dataset.order import BatchIndices, evaluation_places, training_places
from pipeline.dataset.split import Split
from pipeline.dataset.windows import WindowedOrder, storage_places
from pipeline.distributed.world import World
from pipeline.loaders.resizing import Interpolation, Resizer
from pipeline.loaders.stream import (
    Decode,
    Encoded,
    OnCorrupt,
    RepairingStream,
)
from pipeline.loaders.views import evaluation_views_of, stages_of, training_views_of
from pipeline.storage.errors import ImageError
from pipeline.storage.window_reader import WindowReader, share_of_lane

IN_PIXELS = {"axis_names": "HW", "normalized_anchor": False, "normalized_shape": False}
"""How DALI's slices read their windows."""


@dataclass(frozen=True, slots=True)
class DaliDecoder:
    """How and where DALI decodes, crops and resizes."""

    device: torch.device
    decode: Literal["cpu", "mixed"]
    region_decode: bool
    threads: int
    read_threads: int
    prefetch_batches: int
    fill: tuple[float, float, float]
    """Colour of padding outside an image, from 0 to 255."""
    interpolation: Interpolation = "bilinear"
    exact: bool = False
    """Resize on the CPU exactly as Pillow does."""
    size: int = 224
    """Side of the finished square in pixels."""
    stages: tuple[str, ...] = ()
    """The stages of the graph, named as the fields of `Views`."""
    hw_decoder_load: float = 0.0
    """Share of the images that the hardware decoder of a GPU decodes."""
    measures: bool = False
    """Return the shapes of the decoded images, int64 (n, 3), in place of their pixels."""

    def start(self, feed: Callable[[], Encoded], *, batch: int, prefetch_batches: int) -> Decode:
        """Build a pipeline that pulls batches from `feed`; see `stream.Decoder`."""
        from nvidia import dali as untyped_dali

        dali: Any = untyped_dali
        pipe = dali.Pipeline(
            batch_size=batch,
            num_threads=self.threads,
            device_id=self.device.index,
            prefetch_queue_depth=prefetch_batches,
        )

        inside, after = self._stages_inside(), deque[dict[str, Integers]]()

        def pull() -> list[Any]:
            encoded = feed()
            rest = (name for name in self.stages if name not in inside)
            after.append({name: encoded.geometry[name] for name in rest})
            arrays = (encoded.geometry[name] for name in inside)
            # DALI requires anchors and shapes of the same type.
            return [encoded.contents, *(array.astype(np.int32) for array in arrays)]

        with pipe:
            inputs = dali.fn.external_source(pull, num_outputs=1 + len(inside), batch=True)
            geometry = dict(zip(inside, inputs[1:], strict=True))
            images = self._decoded(dali.fn, dali.types, inputs[0], geometry)
            pipe.set_outputs(self._finished(dali.fn, dali.types, images, geometry))
        pipe.build()
        if inside == self.stages:
            return partial(_next_batch, pipe, self.device)
        resizer = Resizer(
            size=self.size,
            interpolation=self.interpolation,
            exact=self.exact,
            fill=self.fill,
            threads=self.threads,
        )
        return partial(_next_resized, pipe, resizer, after)

    def _stages_inside(self) -> tuple[str, ...]:
        """Return the stages inside DALI's graph; on a CPU torch does those from the resize on."""
        if self.device.type == "cpu" and "resized" in self.stages:
            return self.stages[: self.stages.index("resized")]
        return self.stages

    def _decoded(self, fn: Any, types: Any, encoded: Any, geometry: dict[str, Any]) -> Any:
        """Build the first part of the graph: bytes -> decode -> region."""
        decode = {
            "device": self.decode,
            "output_type": types.RGB,
            "adjust_orientation": False,  # as in PIL and torchvision
        }
        if self.decode == "mixed":
            decode["hw_decoder_load"] = self.hw_decoder_load
        if "region_start" in geometry and self.region_decode:
            window = geometry["region_start"], geometry["region_shape"]
            return fn.decoders.image_slice(encoded, *window, **decode, **IN_PIXELS)
        images = fn.decoders.image(encoded, **decode)
        if self.measures:
            return images.shape()
        if "region_start" in geometry:
            window = geometry["region_start"], geometry["region_shape"]
            images = fn.slice(images, *window, **IN_PIXELS)
        return images

    def _finished(self, fn: Any, types: Any, images: Any, geometry: dict[str, Any]) -> Any:
        """Build the rest of the graph: resize -> crop -> flip -> uint8 NHWC."""
        if "resized" in geometry:
            # Triangular is bilinear with antialiasing, which PIL and torchvision call bilinear.
            filters = {"bilinear": types.INTERP_TRIANGULAR, "bicubic": types.INTERP_CUBIC}
            resized = fn.cast(geometry["resized"], dtype=types.FLOAT)
            images = fn.resize(images, size=resized, interp_type=filters[self.interpolation])
        if "crop_start" in geometry:
            outside = {"out_of_bounds_policy": "pad", "fill_values": list(self.fill)}
            images = fn.slice(
                images, geometry["crop_start"], [self.size, self.size], **IN_PIXELS, **outside
            )
        if "flip" in geometry:
            images = fn.flip(images, horizontal=geometry["flip"])
        if self.device.type == "cuda" and self.decode == "cpu":
            images = images.gpu()
        return images


def _next_batch(pipe: Any, device: torch.device) -> torch.Tensor:
    if device.type == "cpu":
        return torch.from_dlpack(pipe.run()[0].as_tensor())
    # The stream waits for the batch; `HeldBatches` keeps the batch until the stream has read it.
    return torch.from_dlpack(pipe.run(torch.cuda.current_stream(device))[0].as_tensor())


def _next_resized(pipe: Any, resizer: Resizer, after: deque[dict[str, Integers]]) -> torch.Tensor:
    decoded = pipe.run()[0]
    images = [torch.from_dlpack(decoded[at]) for at in range(len(decoded))]
    return resizer(images, after.popleft())


class DaliLoader:
    """Loads a dataset's images with DALI; see `Loader`."""

    def __init__(
        self,
        spec: Dali,
        data: Data,
        split: Split,
        *,
        seed: int,
        global_batch: int,
        batch_per_rank: int,
        world: World,
    ) -> None:
        self._data, self._split, self._world = data, split, world
        self._seed, self._global_batch, self._batch_per_rank = seed, global_batch, batch_per_rank
        self._decoder = _choose_decoder(spec, world, data.mean)

    def train(self, steps: range) -> RepairingStream:
        """See `Loader`."""
        index, crop = self._split.train, self._data.train
        make_views = training_views_of(index, crop, self._seed)
        batches, prefetcher = self._training_batches(steps)
        return RepairingStream(
            index,
            batches,
            make_views,
            decoder=replace(self._decoder, size=crop.size, stages=stages_of(make_views)),
            batch=self._global_batch // self._world.size,
            policy="fail" if self._data.on_corrupt == "fail" else "replace",
            prefetcher=prefetcher,
        )

    def evaluate(self) -> RepairingStream:
        """See `Loader`."""
        policy = "fail" if self._data.on_corrupt == "fail" else "count_as_error"
        return self._whole(self._split.val, policy)

    def verify(self) -> list[str]:
        """See `Loader`."""
        faults: dict[str, None] = {}
        for index in (self._split.train, self._split.val):
            with self._whole(index, "count_as_error") as stream:
                try:
                    for _ in stream:
                        pass
                except ImageError:
                    stream.faults.append(
                        f"{index.root}: too many corrupt images in a row; the rest of"
                        f" {index.split} was not checked"
                    )
                faults |= dict.fromkeys(stream.faults)
        return list(faults)

    def _training_batches(self, steps: range) -> tuple[Iterator[BatchIndices], WindowReader | None]:
        """Return this rank's batches of `steps`, and their prefetcher if the order has one."""
        index, part = self._split.train, self._world.part
        seed, batch = self._seed, self._global_batch
        match self._data.order:
            case Shuffled():
                indices_of = partial(
                    training_places, samples=len(index), seed=seed, global_batch=batch, part=part
                )
                return map(indices_of, steps), None
            case Windowed() as spec:
                order = WindowedOrder(index.stored, spec, seed, batch)
                reader = WindowReader(
                    index,
                    order.windows(steps, part=part),
                    share=partial(share_of_lane, lanes=spec.lanes, world=self._world),
                    read_threads=self._decoder.read_threads,
                )
                return map(partial(order.training_places, part=part), reader.follow(steps)), reader

    def _evaluation_batches(self, index: Index) -> list[BatchIndices]:
        """Return this rank's batches of a whole split."""
        part, batch = self._world.part, self._batch_per_rank
        match self._data.order:
            case Shuffled():
                return evaluation_places(len(index), part=part, batch=batch)
            case Windowed():
                return storage_places(index.stored, part=part, batch=batch)

    def _whole(self, index: Index, policy: OnCorrupt) -> RepairingStream:
        """Stream this rank's share of a whole split, cropped as in evaluation."""
        crop = self._data.eval
        make_views = evaluation_views_of(index, crop)
        return RepairingStream(
            index,
            self._evaluation_batches(index),
            make_views,
            decoder=replace(
                self._decoder,
                size=crop.size,
                stages=stages_of(make_views),
                region_decode=False,  # otherwise damage outside the region would not be noticed
                interpolation=crop.interpolation,
                exact=True,
            ),
            batch=self._batch_per_rank,
            policy=policy,
        )


def _choose_decoder(spec: Dali, world: World, mean: tuple[float, float, float]) -> DaliDecoder:
    on_gpu = world.device.type == "cuda"
    if spec.decode == "mixed" and not on_gpu:
        raise ValueError(
            "data.loader.decode=mixed needs a GPU, but none was found; use auto or cpu"
        )
    decode = "cpu" if spec.decode == "cpu" or not on_gpu else "mixed"
    return DaliDecoder(
        device=world.device,
        decode=decode,
        region_decode=decode == "cpu" if spec.region_decode is None else spec.region_decode,
        threads=spec.threads or world.cpu_threads,
        read_threads=spec.read_threads,
        prefetch_batches=spec.prefetch_batches,
        hw_decoder_load=spec.hw_decoder_load,
        fill=(round(mean[0] * 255), round(mean[1] * 255), round(mean[2] * 255)),
    )
