"""The network of a checkpoint in a form that others read: named tensors, or an ONNX graph."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from safetensors.torch import save  # pyright: ignore[reportUnknownVariableType]

from pipeline.checkpoint import Tensors
from pipeline.config.load import dump
from pipeline.config.schema import Config
from pipeline.dataset.index import Manifest, read_manifest
from pipeline.models.input import Normalized
from pipeline.system.durable import write_whole
from pipeline.weights.stored import StoredCheckpoint, network_of

Form = Literal["torchvision", "timm", "safetensors", "onnx"]
FORMS: tuple[Form, ...] = get_args(Form)


@dataclass(frozen=True, slots=True)
class Conversion:
    """What to write, and where."""

    form: Form
    out: Path
    live: bool = False
    """The weights that are trained, even where there is a moving average of them."""
    normalise: bool = True
    """An ONNX graph takes bytes, and normalises them itself."""


@dataclass(frozen=True, slots=True)
class Converted:
    """What came of a request, in words."""

    what: str
    remarks: tuple[str, ...]
    """What the file lacks, and why."""


def convert(stored: StoredCheckpoint, request: Conversion) -> Converted:
    """Write the network of a checkpoint to the new file `request.out`, whole or not at all.

    Raises `ValueError` if the network cannot be had in that form, the file exists or has another
    ending, or weights are not finite.
    """
    config = stored.require_config()
    _expect_counterpart(config, request.form)
    _expect_place(request)
    weights = stored.weights(live=request.live)
    network = network_of(config, weights, stored.path)
    _expect_finite(weights, stored.path)
    manifest, remarks = _manifest(stored, config)
    metadata = describe(stored, manifest, live=request.live)
    if request.form == "onnx":
        from pipeline.weights.onnx import Pixels, export

        size, data = config.data.eval.size, config.data
        if request.normalise:
            module = Normalized(network, mean=data.mean, std=data.std, channels_last=False)
            content = export(module.eval(), Pixels("uint8", (size, size, 3)), metadata)
        else:
            content = export(network, Pixels("float32", (3, size, size)), metadata)
    else:
        content = save(_contiguous(weights), metadata)
    write_whole(request.out, content)
    averaged = f"{metadata['weights']} weights of step {metadata['step']}"
    what = f"{config.model.name}, {averaged}, {len(content):,} bytes as {request.form}"
    return Converted(what, remarks)


def describe(stored: StoredCheckpoint, manifest: Manifest | None, *, live: bool) -> dict[str, str]:
    """Return what a user of the weights must know, as safetensors and ONNX keep it: words by name.

    Lists are JSON. `classes` and `class_names` are there if the dataset is at hand.
    """
    config, progress = stored.require_config(), stored.snapshot.progress
    data = config.data
    told = {
        "format": "pt",  # which libraries of others ask for
        "network": config.model.name,
        "weights": "ema" if stored.has_average() and not live else "live",
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
    if manifest:
        told["classes"] = json.dumps(manifest.classes)
        if manifest.class_names:
            told["class_names"] = json.dumps(manifest.class_names, ensure_ascii=False)
    return told


def _expect_counterpart(config: Config, form: Form) -> None:
    """Raise `ValueError` if torchvision or timm has no such network."""
    if form in ("torchvision", "timm") and config.model.family != "resnet":
        raise ValueError(
            f"{form} has no {config.model.name}; convert it --to onnx, which runs without this"
            " project, or --to safetensors, with this project's names"
        )


def _expect_place(request: Conversion) -> None:
    out = request.out
    ending = ".onnx" if request.form == "onnx" else ".safetensors"
    if out.suffix != ending:
        why = "" if request.form == "onnx" else "; no pickle, such as .pth, is written"
        raise ValueError(f"--out {out}: --to {request.form} writes a file NAME{ending}{why}")
    if out.exists():
        raise ValueError(f"--out {out} exists; delete it, or name another")
    if not out.absolute().parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}; make it first")
    if not request.normalise and request.form != "onnx":
        raise ValueError("--no-normalise goes with --to onnx; other forms never normalise")


def _expect_finite(weights: Tensors, path: Path) -> None:
    for name, value in weights.items():
        if not value.isfinite().all():
            raise ValueError(f"{path}: {name} has values that are not finite; take an earlier step")


def _manifest(stored: StoredCheckpoint, config: Config) -> tuple[Manifest | None, tuple[str, ...]]:
    """The manifest of the very dataset that the network was trained on, or why there is none."""
    try:
        manifest = read_manifest(config.data.dir)
    except ValueError:
        return None, (f"without names of classes: the dataset is not at {config.data.dir}",)
    if manifest.fingerprint != stored.snapshot.progress.fingerprint:
        return None, (f"without names of classes: {config.data.dir} is another dataset by now",)
    return manifest, ()


def _contiguous(weights: Tensors) -> Tensors:
    return {name: value.contiguous() for name, value in weights.items()}
