"""Files with one image each, read into samples: pixels from the header, digest of the bytes.

Nothing is decoded, so preparing a dataset is as fast as reading it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.formats.image_header import image_size
from data.indexing.unit import BadImage, UnitContent
from pipeline.dataset.samples import Sample, StoredFile, collect, digest

IMAGES_A_UNIT = 1024
EXTENSIONS = frozenset({"jpg", "jpeg", "png", "ppm", "pgm", "bmp", "webp", "tif", "tiff"})
"""The endings of image names, in lower case."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file that should be one image; `path` is relative to the root of the dataset.

    `size` in bytes and `mtime_ns` are those when it was listed, or -1 if unknown.
    """

    path: str
    label: int
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class FilesUnit:
    """Some image files, read together."""

    root: Path
    files: tuple[ImageFile, ...]

    @property
    def key(self) -> str:
        """See `ReadingUnit`."""
        listed = [[file.path, file.label, file.size, file.mtime_ns] for file in self.files]
        return json.dumps(["files", str(self.root), listed])

    @property
    def size(self) -> int:
        """See `ReadingUnit`."""
        return sum(max(0, file.size) for file in self.files)

    def read(self) -> UnitContent:
        """Read every file; those that cannot be used are listed as bad."""
        results = [_read(self.root, file) for file in self.files]
        samples = [result for result in results if isinstance(result, Sample)]
        bad = tuple(result for result in results if isinstance(result, BadImage))
        stored = [StoredFile(file.path, file.size, file.mtime_ns) for file in self.files]
        return UnitContent(collect(samples, stored if samples else ()), bad)


def in_units(root: Path, files: Sequence[ImageFile]) -> list[FilesUnit]:
    """Group files into units."""
    step = IMAGES_A_UNIT
    return [FilesUnit(root, tuple(files[at : at + step])) for at in range(0, len(files), step)]


def sample_from(content: bytes, *, file: str, label: int) -> Sample:
    """Return the sample of an image that fills `file`; raises `ValueError` if it is not an image.

    Width and height are of the pixels as stored: an orientation tag does not swap them.
    """
    width, height = image_size(content)
    return Sample(file, 0, len(content), label, width, height, digest(content))


def _read(root: Path, file: ImageFile) -> Sample | BadImage:
    path = root / file.path
    try:
        file.path.encode()  # otherwise an index cannot store it
        if not path.is_file():  # opening a named pipe would wait forever
            return BadImage(file.path, "not a regular file (a broken link?)")
        content = path.read_bytes()
        if len(content) != file.size:
            return BadImage(file.path, "it changed while it was being read")
        return sample_from(content, file=file.path, label=file.label)
    except UnicodeEncodeError:
        return BadImage(file.path, "its name is not UTF-8")
    except ValueError as error:
        return BadImage(file.path, str(error))
    except OSError as error:
        return BadImage(file.path, f"cannot be read ({error.strerror})")
