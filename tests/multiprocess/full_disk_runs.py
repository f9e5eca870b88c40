"""Programs for ranks on a disk that is full."""

from collections.abc import Sequence

from pipeline import train
from pipeline.system import patience


def impatient(arguments: Sequence[str]) -> int:
    """Train, and wait for a full disk only for a moment."""
    patience.PATIENCE_SECONDS = 1.0
    return train.main(arguments)
