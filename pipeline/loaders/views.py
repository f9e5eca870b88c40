"""The views of the samples of a split: crops and flips, from the sizes in the index."""

import numpy as np

from pipeline.augment.crops import Views, elongated, evaluation_views, training_views
from pipeline.config.schema import PadCrop, RandomResizedCrop, ResizeCenterCrop
from pipeline.dataset.index import Index
from pipeline.dataset.order import BatchIndices
from pipeline.loaders.stream import MakeViews


def training_views_of(index: Index, crop: RandomResizedCrop | PadCrop, seed: int) -> MakeViews:
    """Return what computes the training views of samples of a split."""

    def views(indices: BatchIndices) -> Views:
        high, wide = index.heights[indices.samples], index.widths[indices.samples]
        return training_views(crop, indices, seed=seed, heights=high, widths=wide)

    return views


def evaluation_views_of(index: Index, crop: ResizeCenterCrop) -> MakeViews:
    """Return what computes the evaluation views of samples of a split."""
    some_elongated = bool(elongated(index.heights, index.widths).any())

    def views(indices: BatchIndices) -> Views:
        high, wide = index.heights[indices.samples], index.widths[indices.samples]
        return evaluation_views(crop, heights=high, widths=wide, centre_only=some_elongated)

    return views


def stages_of(make_views: MakeViews) -> tuple[str, ...]:
    """Return the stages that the graph needs: those that the views of an empty batch have."""
    nothing = np.empty(0, np.int64)
    return tuple(make_views(BatchIndices(nothing, nothing)).geometry())
