"""Run folders with checkpoints of networks that have seen real images: scikit-learn's digits."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn

from launch import checkpoint
from pipeline.checkpoint import (
    DATASET_FILE,
    Snapshot,
    TrainedOn,
    describe_dataset,
    write_checkpoint,
)
from pipeline.config.load import dump
from pipeline.config.schema import Config, Data, Model, RandomResizedCrop, ResizeCenterCrop
from pipeline.models import build
from pipeline.models.input import Normalized
from pipeline.runs.folder import CONFIG_FILE
from tests.support.run_folders import config
from tests.support.snapshots import PROGRESS_AT_1

SIDE, CLASSES = 32, 10
MEAN, STD = (0.2, 0.3, 0.4), (0.5, 0.6, 0.7)
TENSORS = dict[str, Tensor]


def digits(count: int) -> Tensor:
    """The first handwritten digits, enlarged: uint8 (count, SIDE, SIDE, 3)."""
    drawn = load_digits().images[:count]
    pixels = [
        np.asarray(Image.fromarray((image * 15).astype(np.uint8)).resize((SIDE, SIDE)))
        for image in drawn
    ]
    return torch.from_numpy(np.stack(pixels))[..., None].expand(-1, -1, -1, 3).contiguous()


def experienced(model: Model, seed: int = 0) -> nn.Module:
    """A network whose batch norms have random parameters, and the statistics of digits."""
    network = build(model, classes=CLASSES, generator_seed=seed)
    generator = torch.Generator().manual_seed(seed)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
        nn.init.uniform_(norm.bias, -0.5, 0.5, generator=generator)
        norm.momentum = 1.0
    with torch.no_grad():
        normalized(network)(digits(8))
    for norm in norms:
        norm.momentum = 0.1
    return network.eval()


def normalized(network: nn.Module) -> Normalized:
    return Normalized(network, mean=MEAN, std=STD, channels_last=False)


def floats(images: Tensor) -> Tensor:
    """What a network sees of uint8 (n, h, w, 3): normalised float32 (n, 3, h, w)."""
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (MEAN, STD))
    return (images.permute(0, 3, 1, 2).float() / 255 - mean) / std


def logits(network: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return network.eval()(images)


@dataclass(frozen=True)
class Run:
    """A run folder, made without training."""

    folder: Path
    config: Config

    def save(
        self,
        step: int,
        groups: dict[str, TENSORS],
        dataset: TrainedOn | None = None,
        **progress: Any,
    ) -> Path:
        documents = {DATASET_FILE: describe_dataset(dataset)} if dataset else {}
        snapshot = Snapshot(groups, replace(PROGRESS_AT_1, step=step, **progress), documents)
        return write_checkpoint(self.folder / "checkpoints", snapshot)


def make_run(folder: Path, model: Model, dataset: Path = Path("nowhere")) -> Run:
    cut = RandomResizedCrop(size=SIDE)
    whole = ResizeCenterCrop(resize=SIDE, size=SIDE)
    data = Data(dir=dataset, train=cut, eval=whole, mean=MEAN, std=STD)
    settings = config(folder.parent, name="tiny", model=model, data=data)
    (folder / "checkpoints").mkdir(parents=True)
    (folder / CONFIG_FILE).write_text(dump(settings))
    return Run(folder, settings)


def program(*arguments: object) -> int:
    return checkpoint.main([str(argument) for argument in arguments])
