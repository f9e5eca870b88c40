"""From indices of samples to batches of pixels on the training device.

open chooses the loader; dali decodes, crops and resizes real images, as views says; synthetic
repeats one random batch; stream feeds the decoder and replaces corrupt images; held keeps batches
until the GPU has read them; base has the types that all share.
"""

from pipeline.loaders.base import Batch, Loader, Stream
from pipeline.loaders.open import open_loader

__all__ = ["Batch", "Loader", "Stream", "open_loader"]
