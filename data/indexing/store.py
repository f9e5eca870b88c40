"""Images that a source writes itself, in the folder `images` beside their index.

They appear all at once, in place of older ones: an interrupted run leaves what was there.
"""

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from data.indexing.images import sample_from
from pipeline.dataset.index import MANIFEST
from pipeline.dataset.samples import Sample, Samples, StoredFile, collect, file_state

IMAGES = "images"
MARKER = ".prepared"
"""A file in every `images` folder made here: no other folder is ever replaced."""


@contextmanager
def open_store(out: Path) -> Generator[Path, None, None]:
    """Yield an empty folder that becomes `out/images` if, and only if, the body succeeds.

    The dataset that an older `out/images` belonged to is then void, and its manifest is removed.
    Raise `ValueError` if `out/images` was not made here.
    """
    target = out / IMAGES
    if os.path.lexists(target) and not (target / MARKER).exists():
        raise ValueError(f"{target} was not made by prepare.py; move it, or choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out, prefix=".images-") as scratch:
        fresh = Path(scratch, IMAGES)
        fresh.mkdir()
        (fresh / MARKER).write_text("Written by data/prepare.py, which may replace this folder.\n")
        yield fresh
        os.sync()  # one for all files; the index must not outlive, in a power cut, its images
        (out / MANIFEST).unlink(missing_ok=True)
        if target.exists():
            target.rename(Path(scratch, "replaced"))
        fresh.rename(target)


def add_image(store: Path, content: bytes, *, file: str, label: int) -> Sample:
    """Write one image to `store/file` and return its sample, relative to the index's folder."""
    path = store / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return sample_from(content, file=f"{IMAGES}/{file}", label=label)


def stored(out: Path, splits: Mapping[str, Sequence[Sample]]) -> dict[str, Samples]:
    """Return the samples of each split by column, once their images are in `out/images`."""
    return {
        split: collect(rows, [StoredFile(row.file, *file_state(out / row.file)) for row in rows])
        for split, rows in splits.items()
    }
