"""Exact evaluation: each validation image is counted once, and errors are integer sums."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from pipeline.distributed.world import World
from pipeline.loaders import Batch


@dataclass(frozen=True, slots=True)
class Counts:
    """Integer counts over all ranks, the errors that follow from them, and the mean loss."""

    images: int
    top1_errors: int
    top5_errors: int
    loss: float

    @property
    def top1_error_percent(self) -> float:
        return 100 * self.top1_errors / self.images

    @property
    def top5_error_percent(self) -> float:
        return 100 * self.top5_errors / self.images


def evaluate(
    predict: Callable[[torch.Tensor], torch.Tensor],
    batches: Iterable[Batch],
    *,
    samples: int,
    world: World,
) -> Counts:
    """Count the errors of `predict` (images to logits (n, classes)) over the batches of all ranks.

    Ranks may have different numbers of batches: the collectives follow the last batch.
    """
    counts = torch.zeros(3, dtype=torch.int64, device=world.device)
    loss = torch.zeros((), dtype=torch.float64, device=world.device)
    for batch in batches:
        logits = predict(batch.images)
        loss += F.cross_entropy(logits, batch.labels, ignore_index=-1, reduction="sum")
        counts += count_errors(logits, batch.labels)
    images, top1_errors, top5_errors = map(int, world.all_reduce_sum_(counts))
    assert images == samples, f"{images} images were evaluated, but there are {samples}"
    return Counts(images, top1_errors, top5_errors, world.all_reduce_sum_(loss).item() / images)


def count_errors(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return (images, top-1 errors, top-5 errors) as int64, on the logits' device.

    With five classes or fewer there are no top-5 errors. Logits that are not finite, and labels of
    -1, count as errors.
    """
    best = logits.topk(min(5, logits.shape[1])).indices
    hits = (best == labels[:, None]) & logits.isfinite().all(1, keepdim=True)
    top1, top5 = hits[:, :1].sum(), hits.sum()
    images = torch.full_like(top1, len(labels))
    return torch.stack([images, images - top1, images - top5])
