"""Batch norm's running statistics, taken anew for weights that no training step has seen."""

import math

import torch
from torch import nn

from pipeline.checkpoint import Progress, Tensors
from pipeline.config.schema import Config
from pipeline.dataset.split import open_split
from pipeline.distributed.world import World
from pipeline.loaders import open_loader
from pipeline.models.input import Normalized


@torch.no_grad()
def recomputed_statistics(
    network: nn.Module, config: Config, progress: Progress, *, batches: int
) -> Tensors:
    """Return the network's state after the first `batches` global batches of the training stream.

    Each statistic is the mean over parts of `model.batch_norm_group` images, or of up to
    `evaluate.batch_per_rank`, which are loaded and augmented as in training, on the CPU. Raises
    `ValueError` if the dataset is missing or not that of the checkpoint, or an image cannot be
    read.
    """
    split = open_split(config.data)
    if split.train.manifest.fingerprint != progress.fingerprint:
        raise ValueError(
            f"{config.data.dir} is not the dataset of the checkpoint: its fingerprint is"
            f" {split.train.manifest.fingerprint}, not {progress.fingerprint}"
        )
    loader = open_loader(
        config.data,
        split,
        seed=progress.seed,
        global_batch=progress.global_batch,
        batch_per_rank=config.evaluate.batch_per_rank,
        world=World(),
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean over all that is seen
    module = Normalized(network, mean=config.data.mean, std=config.data.std).train()
    most = config.model.batch_norm_group or config.evaluate.batch_per_rank
    parts = math.ceil(progress.global_batch / most)
    with loader.train(range(1, batches + 1)) as stream:
        for batch in stream:
            for images in batch.images.tensor_split(parts):
                module(images)
    return network.eval().state_dict()
