"""A network as an ONNX graph, which gives the same logits as the network or is not given out."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

NEEDED = ("onnx", "onnxscript", "onnxruntime")
INPUT, OUTPUT, BATCH = "images", "logits", "batch"
CHECKED_BATCHES = (1, 3)
TOLERANCE = 1e-4
"""Of logits, relative to the largest: libraries add up in other orders."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """Images that a graph takes: their dtype, and their shape without the batch."""

    dtype: Literal["uint8", "float32"]
    shape: tuple[int, int, int]

    def noise(self, images: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(images)
        if self.dtype == "uint8":
            shape = (images, *self.shape)
            return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        return torch.randn(images, *self.shape, generator=generator)


def export(network: nn.Module, pixels: Pixels, metadata: Mapping[str, str]) -> bytes:
    """Return `network`, in evaluation mode, as an ONNX model: `images` to `logits` (n, classes).

    The batch is of any size; `metadata` goes along. Its logits on noise were compared with the
    network's in ONNX Runtime. Raises `ValueError` if a package for it is not installed.
    """
    for package in NEEDED:
        _expect_installed(package)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's words about its own future
        program: Any = torch.onnx.export(
            network,
            (pixels.noise(2),),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim(BATCH)},),
            dynamo=True,
            verbose=False,
        )
    model = program.model_proto
    _forget_origin(model)
    for name, value in metadata.items():
        model.metadata_props.add(key=name, value=value)
    content: bytes = model.SerializeToString()
    _expect_same_logits(content, network, pixels)
    return content


def _expect_installed(package: str) -> None:
    try:
        import_module(package)
    except ImportError as error:
        raise ValueError(
            f"--to onnx needs {package}, which cannot be imported ({error});"
            " install it: pip install 'imagenet-pipeline[export]'"
        ) from error


def _forget_origin(model: Any) -> None:
    """Drop what the exporter notes of our code on every node, the paths of its files included."""
    graph = model.graph
    for part in (graph.node, graph.input, graph.output, graph.value_info, graph.initializer):
        for noted in part:
            del noted.metadata_props[:]
            noted.doc_string = ""
    del graph.metadata_props[:]


def _expect_same_logits(content: bytes, network: nn.Module, pixels: Pixels) -> None:
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for count in CHECKED_BATCHES:
        images = pixels.noise(count)
        with torch.no_grad():
            ours = network(images).numpy()
        theirs = session.run([OUTPUT], {INPUT: images.numpy()})[0]
        difference = float(np.abs(ours - theirs).max())
        if not difference <= TOLERANCE * max(1.0, float(np.abs(ours).max())):
            raise RuntimeError(f"the ONNX graph's logits differ from the network's by {difference}")
