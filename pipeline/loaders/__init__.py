"""From places in the stream to batches of pixels on the training device."""

from pipeline.loaders.base import Batch, Loader, Stream
from pipeline.loaders.open import open_loader

__all__ = ["Batch", "Loader", "Stream", "open_loader"]
