"""A dataset in figures: its splits, its classes and the sizes of its images."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.index import Index, Manifest
from pipeline.system.command import plural

QUANTILES = {"least": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "most": 1.0}
NAME_WIDTH, WIDTH = 14, 14


def overview(splits: Sequence[Index]) -> str:
    """Describe the splits of a dataset in a few lines and tables."""
    manifest = splits[0].manifest
    classes = len(manifest.classes)
    first, last = class_title(manifest, 0), class_title(manifest, classes - 1)
    lines = [
        f"{manifest.name}, fingerprint {manifest.fingerprint}",
        f"{plural(classes, 'class', 'classes')}: {first} .. {last}",
        "",
        _row("", [index.split for index in splits]),
        _row("images", [f"{len(index):,}" for index in splits]),
        _row("bytes", [f"{int(index.sizes.sum()):,}" for index in splits]),
        _row("files", [f"{len(index.files):,}" for index in splits]),
    ]
    for index in splits:
        lines += ["", *_of_split(index)]
    return "\n".join(lines)


def class_title(manifest: Manifest, label: int) -> str:
    """Return the name of a class, with its words if they are known."""
    words = manifest.class_names[label] if manifest.class_names else ""
    name = manifest.classes[label]
    return f"{name} ({words})" if words and words != name else name


def _of_split(index: Index) -> Iterator[str]:
    yield f"{index.split}, in {index.root.resolve()}"
    if not len(index):
        yield "no images"
        return
    yield from _class_lines(index)
    yield _row("", list(QUANTILES))
    measures: dict[str, NDArray[np.integer]] = {
        "width": index.widths,
        "height": index.heights,
        "shorter side": np.minimum(index.widths, index.heights),
        "bytes": index.sizes,
    }
    for name, values in measures.items():
        # Values of real images, not means of two: no image is 374.5 pixels high.
        found = np.quantile(values, list(QUANTILES.values()), method="inverted_cdf")
        yield _row(name, [f"{value:,}" for value in found.tolist()])


def _class_lines(index: Index) -> Iterator[str]:
    counts = np.bincount(index.labels, minlength=len(index.manifest.classes))
    if counts.min() == counts.max():
        yield f"{plural(int(counts.min()), 'image')} of every class"
        return
    for word, label in (("fewest", int(counts.argmin())), ("most", int(counts.argmax()))):
        alike = int((counts == counts[label]).sum()) - 1
        others = f" and {alike:,} more" if alike else ""
        title = class_title(index.manifest, label)
        yield f"{word} images of a class: {counts[label]:,}, {title}{others}"


def _row(name: str, values: Sequence[str]) -> str:
    return f"{name:<{NAME_WIDTH}}" + "".join(f"{value:>{WIDTH}}" for value in values)
