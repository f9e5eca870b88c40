"""The configuration chooses the loss."""

import pytest
import torch
from torch.nn import functional as F

from pipeline.config.schema import Train
from pipeline.losses import build_loss


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(smoothing: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(8, 5, generator=generator), torch.arange(8) % 5
    loss = build_loss(Train(steps=1, global_batch=8, label_smoothing=smoothing))(logits, labels)
    logs = logits.double().log_softmax(1)
    targets = (1 - smoothing) * F.one_hot(labels, 5) + smoothing / 5
    assert loss.ndim == 0
    assert loss.item() == pytest.approx(-(targets * logs).sum(1).mean().item(), rel=1e-6)
