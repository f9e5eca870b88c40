"""A network as an ONNX graph, written only if it gives the same logits as the network."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from pipeline.system.extras import import_extra

EXPORTER = ("onnx", "onnxscript")
"""What torch's exporter imports."""
INPUT, OUTPUT, BATCH = "images", "logits", "batch"
CHECKED_BATCHES = (1, 3)
TOLERANCE = 1e-4
"""Tolerance of logits, relative to the largest: libraries sum in different orders."""


@dataclass(frozen=True, slots=True)
class GraphInput:
    """The images that a graph takes: dtype, and shape without the batch."""

    dtype: Literal["uint8", "float32"]
    shape: tuple[int, int, int]

    def noise(self, images: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(images)
        if self.dtype == "uint8":
            shape = (images, *self.shape)
            return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        return torch.randn(images, *self.shape, generator=generator)


def export(network: nn.Module, taken: GraphInput, metadata: Mapping[str, str]) -> bytes:
    """Return `network`, in evaluation mode, as an ONNX model: `images` to `logits` (n, classes).

    It takes batches of any size, and carries `metadata`. Its logits on noise are compared with the
    network's in ONNX Runtime: `RuntimeError` if they differ. Raises `ValueError` if a package for
    it is not installed.
    """
    for package in EXPORTER:
        import_extra(package, needed_by="--to onnx")
    runtime = import_extra("onnxruntime", needed_by="--to onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter announces its own deprecations
        program: Any = torch.onnx.export(
            network,
            (taken.noise(2),),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim(BATCH)},),
            dynamo=True,
            verbose=False,
        )
    model = program.model_proto
    _remove_origin(model)
    for name, value in metadata.items():
        model.metadata_props.add(key=name, value=value)
    content: bytes = model.SerializeToString()
    _expect_same_logits(runtime, content, network, taken)
    return content


def _remove_origin(model: Any) -> None:
    """Remove the exporter's notes about our code from every node, such as file paths."""
    graph = model.graph
    for part in (graph.node, graph.input, graph.output, graph.value_info, graph.initializer):
        for item in part:
            del item.metadata_props[:]
            item.doc_string = ""
    del graph.metadata_props[:]


def _expect_same_logits(
    runtime: Any, content: bytes, network: nn.Module, taken: GraphInput
) -> None:
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for count in CHECKED_BATCHES:
        images = taken.noise(count)
        with torch.no_grad():
            ours = network(images).numpy()
        theirs = session.run([OUTPUT], {INPUT: images.numpy()})[0]
        difference = float(np.abs(ours - theirs).max())
        if not difference <= TOLERANCE * max(1.0, float(np.abs(ours).max())):
            raise RuntimeError(
                f"logits of the ONNX graph differ from the network's by {difference}"
            )
