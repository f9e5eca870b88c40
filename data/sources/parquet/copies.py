"""Images of Parquet files that cannot be indexed in place, copied to tars.

The same images give the same bytes; a tar is either complete or missing.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from filecmp import cmp
from glob import escape
from pathlib import Path

from data.formats.tar_writer import TarWriter
from data.indexing.written_images import IMAGES, mark_as_own
from pipeline.dataset.index import MANIFEST, find_manifest
from pipeline.dataset.samples import file_state
from pipeline.dataset.writing import another_dataset
from pipeline.system.durable import replacing

SUFFIXES = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"RIFF": "webp", b"BM": "bmp"}
"""The ending of an image's name, by the first bytes of its content."""


def member_name(row: int, content: bytes) -> str:
    """Return the name of the image of a row in its tar."""
    kinds = (suffix for start, suffix in SUFFIXES.items() if content.startswith(start))
    return f"{row:06d}.{next(kinds, 'image')}"


@contextmanager
def open_copy(out: Path, name: str, *, replace: bool) -> Generator[TarWriter]:
    """Yield a tar that becomes `out/images/name` if, and only if, the body succeeds.

    If that exists with other bytes, the manifest of the dataset that it belonged to is removed, or
    `ValueError` is raised, unless `replace`.
    """
    path = out / IMAGES / name
    path.parent.mkdir(parents=True, exist_ok=True)
    mark_as_own(out / IMAGES)
    for left in path.parent.glob(f".{escape(path.name)}.*tmp"):  # by a killed process
        left.unlink()
    with replacing(path) as temporary:
        with temporary.open("wb") as stream:
            tar = TarWriter(stream)
            yield tar
            tar.finish()
        if path.exists():
            if cmp(temporary, path, shallow=False):
                _, mtime_ns = file_state(path)  # keep it: an index of this file stays valid
                os.utime(temporary, ns=(mtime_ns, mtime_ns))
            else:
                manifest = find_manifest(out)
                if manifest and not replace:
                    raise another_dataset(out, manifest)
                (out / MANIFEST).unlink(missing_ok=True)
