"""The losses that training can minimise; an engine only calls what `build_loss` returns."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from pipeline.config.schema import Train

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Logits, fp32 (n, classes), and labels, int64 (n,), to their mean loss, a scalar."""


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """The softmax cross-entropy, with the labels smoothed towards all classes alike."""

    label_smoothing: float = 0.0

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)


def build_loss(train: Train) -> Loss:
    """Return the loss that the configuration names."""
    return CrossEntropy(train.label_smoothing)
