"""The network of a checkpoint for other programs: named tensors, or an ONNX graph."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from safetensors.torch import save  # pyright: ignore[reportUnknownVariableType]

from pipeline.checkpoint import Tensors, TrainedOn
from pipeline.config.load import dump
from pipeline.config.schema import Config
from pipeline.models.input import Normalized
from pipeline.system.durable import write_whole
from pipeline.weights.onnx import GraphInput, export
from pipeline.weights.stored import StoredCheckpoint

Form = Literal["torchvision", "timm", "safetensors", "onnx"]
FORMS: tuple[Form, ...] = get_args(Form)


@dataclass(frozen=True, slots=True)
class Conversion:
    """What to write, and where."""

    form: Form
    out: Path
    live: bool = False
    """The trained weights, even if they have a moving average."""
    normalise: bool = True
    """The ONNX graph takes bytes and normalises them itself."""


def convert(stored: StoredCheckpoint, request: Conversion, dataset: TrainedOn | None) -> str:
    """Write the network of a checkpoint to the new file `request.out`; return a summary of it.

    The names of classes come from `dataset`. Raises `ValueError` if the network does not exist in
    that form, the file exists or has another extension, or weights are not finite; then no file is
    written.
    """
    config = stored.require_config()
    _expect_counterpart(config, request.form)
    _expect_place(request)
    weights = stored.weights(live=request.live)
    network = stored.network(live=request.live)
    _expect_finite(weights, stored.path)
    metadata = describe(stored, dataset, live=request.live)
    if request.form == "onnx":
        size, data = config.data.eval.size, config.data
        if request.normalise:
            module = Normalized(network, mean=data.mean, std=data.std, channels_last=False)
            content = export(module.eval(), GraphInput("uint8", (size, size, 3)), metadata)
        else:
            content = export(network, GraphInput("float32", (3, size, size)), metadata)
    else:
        content = save({name: value.contiguous() for name, value in weights.items()}, metadata)
    write_whole(request.out, content)
    which = f"{metadata['weights']} weights of step {metadata['step']}"
    return f"{config.model.name}, {which}, {len(content):,} bytes as {request.form}"


def describe(stored: StoredCheckpoint, dataset: TrainedOn | None, *, live: bool) -> dict[str, str]:
    """Return what a user of the weights must know, by name, as safetensors and ONNX keep it.

    Lists are JSON. `classes` and `class_names` are left out where they are not known.
    """
    config, progress = stored.require_config(), stored.snapshot.progress
    data = config.data
    metadata = {
        "format": "pt",  # other libraries expect it
        "network": config.model.name,
        "weights": "ema" if stored.has_ema and not live else "live",
        "step": str(progress.step),
        "channels": "RGB",
        "mean": json.dumps(data.mean),
        "std": json.dumps(data.std),
        "image_size": str(data.eval.size),
        "resize": str(data.eval.resize),
        "interpolation": data.eval.interpolation,
        "dataset_fingerprint": progress.fingerprint,
        "config": dump(config),
    }
    if dataset:
        metadata["classes"] = json.dumps(dataset.classes)
        if dataset.class_names:
            metadata["class_names"] = json.dumps(dataset.class_names, ensure_ascii=False)
    return metadata


def _expect_counterpart(config: Config, form: Form) -> None:
    """Raise `ValueError` if torchvision or timm does not have this network."""
    if form in ("torchvision", "timm") and config.model.family != "resnet":
        raise ValueError(
            f"{form} does not have {config.model.name}; convert it --to onnx, which runs without"
            " this project, or --to safetensors, with this project's names"
        )


def _expect_place(request: Conversion) -> None:
    out = request.out
    extension = ".onnx" if request.form == "onnx" else ".safetensors"
    if out.suffix != extension:
        why = "" if request.form == "onnx" else "; pickles, such as .pth, are not written"
        raise ValueError(f"--out {out}: --to {request.form} writes a file NAME{extension}{why}")
    if out.exists():
        raise ValueError(f"--out {out} exists; delete it, or choose another")
    if not out.absolute().parent.is_dir():
        raise ValueError(f"--out {out}: folder {out.parent} is missing; create it first")
    if not request.normalise and request.form != "onnx":
        raise ValueError("--no-normalise only works with --to onnx; other forms never normalise")


def _expect_finite(weights: Tensors, path: Path) -> None:
    for name, value in weights.items():
        if not value.isfinite().all():
            raise ValueError(f"{path}: {name} has values that are not finite; take an earlier step")
