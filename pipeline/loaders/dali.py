"""DALI as the loader: one pipeline, on the CPU or with the decoding on the GPU.

Which images come and how each is cut is computed before DALI sees them (pipeline/dataset) and
enters as input, so DALI holds no randomness and no position: a stream can start at any step.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from pipeline.augment.crops import Views, evaluation_views, training_views
from pipeline.config.schema import (
    Dali,
    Data,
    PadCrop,
    RandomResizedCrop,
    ResizeCenterCrop,
    Shuffled,
    Windowed,
)
from pipeline.dataset.index import Index
from pipeline.dataset.order import BatchIndices, evaluation_places, training_places
from pipeline.dataset.split import Split
from pipeline.dataset.windows import WindowedOrder, storage_places
from pipeline.distributed.world import World
from pipeline.loaders.stream import Decode, Encoded, OnCorrupt, RepairingStream
from pipeline.storage.errors import ImageError
from pipeline.storage.window_reader import WindowReader, share_of_lane
from pipeline.system.extras import import_extra


@dataclass(frozen=True, slots=True)
class DaliDecoder:
    """How and where DALI decodes and cuts; `cuts` are the stages of the graph."""

    device: torch.device
    decode: Literal["cpu", "mixed"]
    region_decode: bool
    threads: int
    read_threads: int
    prefetch_batches: int
    fill: tuple[float, float, float]
    """Colour of what lies outside an image, on a scale of 0 to 255."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    size: int = 224
    cuts: tuple[str, ...] = ()
    """The stages of the graph, named as in `Views`; `size` is the side of what comes out."""

    def start(self, feed: Callable[[], Encoded], *, batch: int, prefetch_batches: int) -> Decode:
        """Build a pipeline that pulls from `feed`; see `pipeline.loaders.stream.Decoder`."""
        dali = import_extra("nvidia.dali", needed_by="decoding with DALI")
        pipe = dali.Pipeline(
            batch_size=batch,
            num_threads=self.threads,
            device_id=self.device.index,
            prefetch_queue_depth=prefetch_batches,
        )

        def pull() -> list[Any]:
            encoded = feed()
            # DALI wants the anchors and shapes of one cut to be of one type.
            return [encoded.contents, *(encoded.cuts[name].astype(np.int32) for name in self.cuts)]

        with pipe:
            inputs = dali.fn.external_source(pull, num_outputs=1 + len(self.cuts), batch=True)
            cuts = dict(zip(self.cuts, inputs[1:], strict=True))
            pipe.set_outputs(self._graph(dali.fn, dali.types, inputs[0], cuts))
        pipe.build()
        return partial(_next_batch, pipe, self.device)

    def _graph(self, fn: Any, types: Any, encoded: Any, cuts: dict[str, Any]) -> Any:
        """Draw the graph: bytes -> decode -> region -> resize -> crop -> flip -> uint8 NHWC."""
        pixels = {"axis_names": "HW", "normalized_anchor": False, "normalized_shape": False}
        decode = {
            "device": self.decode,
            "output_type": types.RGB,
            "adjust_orientation": False,  # as PIL and torchvision read them
        }
        if "region_start" in cuts and self.region_decode:
            window = cuts["region_start"], cuts["region_shape"]
            images = fn.decoders.image_slice(encoded, *window, **decode, **pixels)
        else:
            images = fn.decoders.image(encoded, **decode)
            if "region_start" in cuts:
                images = fn.slice(images, cuts["region_start"], cuts["region_shape"], **pixels)
        if "resized" in cuts:
            # Triangular is bilinear with antialiasing: what PIL and torchvision call bilinear.
            filters = {"bilinear": types.INTERP_TRIANGULAR, "bicubic": types.INTERP_CUBIC}
            resized = fn.cast(cuts["resized"], dtype=types.FLOAT)
            images = fn.resize(images, size=resized, interp_type=filters[self.interpolation])
        if "crop_start" in cuts:
            outside = {"out_of_bounds_policy": "pad", "fill_values": list(self.fill)}
            images = fn.slice(
                images, cuts["crop_start"], [self.size, self.size], **pixels, **outside
            )
        if "flip" in cuts:
            images = fn.flip(images, horizontal=cuts["flip"])
        if self.device.type == "cuda" and self.decode == "cpu":
            images = images.gpu()
        return images


def _next_batch(pipe: Any, device: torch.device) -> torch.Tensor:
    if device.type == "cpu":
        return torch.from_dlpack(pipe.run()[0].as_tensor())
    # Bound to this stream, the batch's memory is not used again before the stream is done with it.
    return torch.from_dlpack(pipe.run(torch.cuda.current_stream(device))[0].as_tensor())


class DaliLoader:
    """Streams of a dataset's images through DALI."""

    def __init__(
        self,
        spec: Dali,
        data: Data,
        split: Split,
        *,
        seed: int,
        global_batch: int,
        rank_batch: int,
        world: World,
    ) -> None:
        self._data, self._split, self._world = data, split, world
        self._seed, self._global_batch, self._rank_batch = seed, global_batch, rank_batch
        self._decoder = _choose_decoder(spec, world, data.mean)

    def train(self, steps: range) -> RepairingStream:
        """See `Loader`."""
        index, cut = self._split.train, self._data.train
        views = partial(_training_cut, index, cut, self._seed)
        places, prefetcher = self._course(steps)
        return RepairingStream(
            index,
            places,
            views,
            decoder=replace(self._decoder, size=cut.size, cuts=_stages(views)),
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
                    rest = (
                        f"{index.root}: too many in a row; the rest of {index.split} is unchecked"
                    )
                    stream.faults.append(rest)
                faults |= dict.fromkeys(stream.faults)
        return list(faults)

    def _course(self, steps: range) -> tuple[Iterator[BatchIndices], WindowReader | None]:
        """Return the places of `steps`, and who reads ahead of them, if anybody does."""
        index, part = self._split.train, self._world.part
        seed, batch = self._seed, self._global_batch
        match self._data.order:
            case Shuffled():
                places_of = partial(
                    training_places, samples=len(index), seed=seed, global_batch=batch, part=part
                )
                return map(places_of, steps), None
            case Windowed() as spec:
                order = WindowedOrder(index.stored, spec, seed, batch)
                reader = WindowReader(
                    index,
                    order.windows(steps, part=part),
                    share=partial(share_of_lane, lanes=spec.lanes, world=self._world),
                    read_threads=self._decoder.read_threads,
                )
                return map(partial(order.training_places, part=part), reader.follow(steps)), reader

    def _share(self, index: Index) -> list[BatchIndices]:
        """This rank's batches of a whole split."""
        part, batch = self._world.part, self._rank_batch
        match self._data.order:
            case Shuffled():
                return evaluation_places(len(index), part=part, batch=batch)
            case Windowed():
                return storage_places(index.stored, part=part, batch=batch)

    def _whole(self, index: Index, policy: OnCorrupt) -> RepairingStream:
        """Stream this rank's share of a whole split as evaluation sees it."""
        cut = self._data.eval
        views = partial(_evaluation_cut, index, cut)
        return RepairingStream(
            index,
            self._share(index),
            views,
            decoder=replace(
                self._decoder,
                size=cut.size,
                cuts=_stages(views),
                interpolation=cut.interpolation,
            ),
            batch=self._rank_batch,
            policy=policy,
        )


def _stages(views: Callable[[BatchIndices], Views]) -> tuple[str, ...]:
    """Which cuts a rule makes: the stages that the graph needs."""
    nothing = np.empty(0, np.int64)
    return tuple(views(BatchIndices(nothing, nothing)).cuts())


def _choose_decoder(spec: Dali, world: World, mean: tuple[float, float, float]) -> DaliDecoder:
    on_gpu = world.device.type == "cuda"
    if spec.decode == "mixed" and not on_gpu:
        raise ValueError("data.loader.decode=mixed needs a GPU, and there is none; use auto or cpu")
    decode = "cpu" if spec.decode == "cpu" or not on_gpu else "mixed"
    return DaliDecoder(
        device=world.device,
        decode=decode,
        region_decode=decode == "cpu" if spec.region_decode is None else spec.region_decode,
        threads=spec.threads or world.cpu_threads,
        read_threads=spec.read_threads,
        prefetch_batches=spec.prefetch_batches,
        fill=(round(mean[0] * 255), round(mean[1] * 255), round(mean[2] * 255)),
    )


def _training_cut(
    index: Index, cut: RandomResizedCrop | PadCrop, seed: int, places: BatchIndices
) -> Views:
    high, wide = index.heights[places.samples], index.widths[places.samples]
    return training_views(cut, places, seed=seed, heights=high, widths=wide)


def _evaluation_cut(index: Index, cut: ResizeCenterCrop, places: BatchIndices) -> Views:
    high, wide = index.heights[places.samples], index.widths[places.samples]
    return evaluation_views(cut, heights=high, widths=wide)
