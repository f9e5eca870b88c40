"""A trained network that names what is in an image."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from pipeline.config.schema import ResizeCenterCrop
from pipeline.models.input import Normalized
from pipeline.weights.find import find_one
from pipeline.weights.pixels import evaluation_pixels
from pipeline.weights.stored import StoredCheckpoint, open_stored


@dataclass(frozen=True, slots=True)
class Prediction:
    """The probability of each class for one image."""

    names: tuple[str, ...]
    probabilities: Tensor
    """float32 (classes,), on the CPU; they sum to 1."""

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Return the `count` most probable classes, or all if there are fewer, best first."""
        best = self.probabilities.topk(min(count, len(self.names))).indices
        return [(self.names[number], float(self.probabilities[number])) for number in best]


@dataclass(frozen=True, slots=True)
class Classifier:
    """A network in evaluation mode, how images are prepared for it, and the names of its classes.

    Call it with an image. `module.to("cuda")` moves it to a GPU.
    """

    module: Normalized
    """uint8 images (n, size, size, 3) to float32 logits (n, classes)."""
    view: ResizeCenterCrop
    names: tuple[str, ...]

    @torch.inference_mode()
    def __call__(self, image: str | Path | Image.Image) -> Prediction:
        """Classify one image, or the file that it is in.

        Raises `OSError` if the file cannot be read, or Pillow cannot decode it.
        """
        if isinstance(image, Image.Image):
            pixels = evaluation_pixels(image, self.view)
        else:
            with Image.open(image) as opened:
                pixels = evaluation_pixels(opened, self.view)
        logits = self.module(pixels[None].to(self.module.mean.device))[0]
        return Prediction(self.names, logits.softmax(0).cpu())


def open_classifier(
    place: str | Path,
    *,
    step: int | None = None,
    best: bool = False,
    live: bool = False,
    config: Path | None = None,
    names: Sequence[str] = (),
    warn: Callable[[str], None] = warnings.warn,
) -> Classifier:
    """Open the classifier of a run, a checkpoint or an average, on the CPU.

    For a run, it opens the newest undamaged checkpoint, that of `step`, or the `best`. The moving
    average of the weights is used if there is one, unless `live`. `config` replaces the run's
    configuration. `names` are the class names, in order, for checkpoints without `dataset.json`;
    without either, classes are named by their numbers. Raises `ValueError` if `place` does not have
    a checkpoint that can be used.
    """
    path = find_one(Path(place), step=step, best=best, warn=warn)
    stored = open_stored(path, config)
    data = stored.require_config().data
    network = stored.network(live=live)
    module = Normalized(network, mean=data.mean, std=data.std, channels_last=False)
    classes = len(stored.weights(live=live)["fc.bias"])
    return Classifier(module.eval(), data.eval, _names(stored, names, classes))


def _names(stored: StoredCheckpoint, given: Sequence[str], classes: int) -> tuple[str, ...]:
    """The given names, else the checkpoint's (words if known, else ids), else numbers."""
    dataset = stored.dataset
    known = given or (dataset.class_names or dataset.classes if dataset else ())
    if known and len(known) != classes:
        raise ValueError(f"{stored.path} has {classes} classes, got {len(known)} names")
    return tuple(known) or tuple(map(str, range(classes)))
