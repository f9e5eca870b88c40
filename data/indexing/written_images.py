"""Images that prepare.py writes itself, in the folder `images` beside their index.

The folder is replaced as a whole: an interrupted run leaves the old one.
"""

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from data.indexing.image_files import sample_from
from pipeline.dataset.index import MANIFEST
from pipeline.dataset.samples import Sample, Samples, StoredFile, collect, file_state

IMAGES = "images"
_MARKER = ".prepared"
"""A file in every `images` folder made here: other folders are never replaced."""


@contextmanager
def new_images_folder(out: Path) -> Generator[Path]:
    """Yield an empty folder that becomes `out/images` if, and only if, the body succeeds.

    The manifest of the dataset that an older `out/images` belonged to is removed; the body calls
    `refuse_other` before that. Raises `ValueError` if `out/images` was not made here.
    """
    target = out / IMAGES
    require_own_images(out)
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out, prefix=".images-") as scratch:
        fresh = Path(scratch, IMAGES)
        fresh.mkdir()
        mark_as_own(fresh)
        yield fresh
        os.sync()  # once for all files: after a power cut, an index must not be without its images
        (out / MANIFEST).unlink(missing_ok=True)
        if target.exists():
            target.rename(Path(scratch, "replaced"))
        fresh.rename(target)


def require_own_images(out: Path) -> None:
    """Raises `ValueError` if there is an `out/images` that was not made here."""
    folder = out / IMAGES
    own = folder.is_dir() and ((folder / _MARKER).exists() or not any(folder.iterdir()))
    if os.path.lexists(folder) and not own:
        raise ValueError(f"{folder} was not made by prepare.py; move it, or choose another --out")


def mark_as_own(folder: Path) -> None:
    """Allow prepare.py to replace a folder of images."""
    (folder / _MARKER).write_text("Written by data/prepare.py, which may replace this folder.\n")


def add_image(folder: Path, content: bytes, *, file: str, label: int) -> Sample:
    """Write an image to `folder/file`; return its sample, relative to the folder of the index."""
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return sample_from(content, file=f"{IMAGES}/{file}", label=label)


def collect_written(folder: Path, splits: Mapping[str, Sequence[Sample]]) -> dict[str, Samples]:
    """Return the samples of each split by column; their images are in `folder`, made above."""
    parent = folder.parent
    return {
        split: collect(rows, [StoredFile(row.file, *file_state(parent / row.file)) for row in rows])
        for split, rows in splits.items()
    }
