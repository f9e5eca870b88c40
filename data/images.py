"""Image files read into samples: size in pixels from the header, digest from the bytes.

Nothing is decoded, so that preparing a dataset is as fast as reading it. Processes share the work.
"""

import signal
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from pipeline.dataset.index import Sample, digest

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "WEBP", "TIFF")
CHUNK_IMAGES = 64
BAD_SHOWN = 10

# Only headers are read here, so that an image of any size is safe.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file that should hold one image; `path` is relative to the dataset's root."""

    path: str
    label: int


@dataclass(frozen=True, slots=True)
class BadImage:
    """A file that cannot be used, and why."""

    path: str
    reason: str


def sample_from(content: bytes, *, file: str, label: int) -> Sample:
    """Return the sample of an image that fills `file`; raise `ValueError` if it is no image.

    Width and height are of the pixels as stored: an EXIF orientation does not swap them.
    """
    if not content:
        raise ValueError("empty")
    width, height = _size(content)
    return Sample(file, 0, len(content), label, width, height, digest(content))


def _size(content: bytes) -> tuple[int, int]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(BytesIO(content), formats=FORMATS) as image:
                return image.size
    except UnidentifiedImageError as error:
        raise ValueError(f"no image (of {', '.join(FORMATS)})") from error
    except Exception as error:  # a damaged header may break the parser in any way
        raise ValueError(f"damaged image header ({error})") from error


def read_images(root: Path, files: Sequence[ImageFile], *, workers: int) -> list[Sample | BadImage]:
    """Read every file under `root` and return a result for each, in the order of `files`."""
    chunks = [files[at : at + CHUNK_IMAGES] for at in range(0, len(files), CHUNK_IMAGES)]
    results: list[Sample | BadImage] = []
    with progress_bar() as progress, _mapper(min(workers, len(chunks))) as spread:
        task = progress.add_task("reading", total=len(files))
        for found in spread(partial(_read_chunk, root), chunks):
            results += found
            progress.advance(task, len(found))
    return results


def refusal(bad: Sequence[BadImage], *, total: int) -> str:
    """Say which files are bad, the first few by name, and the remedies."""
    return (
        f"{len(bad):,} of {total:,} image files cannot be used:\n{_listed(bad)}\n"
        "repair or remove them, or leave them out with --skip-bad"
    )


def left_out(bad: Sequence[BadImage]) -> str:
    """Say which files were left out because they are bad."""
    return f"{len(bad):,} bad image files left out:\n{_listed(bad)}"


def progress_bar() -> Progress:
    """A bar on standard error with images per second; silent where there is no terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _ImagesPerSecond(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


class _ImagesPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:,.0f} images/s")


def _listed(bad: Sequence[BadImage]) -> str:
    lines = [f"  {image.path}: {image.reason}" for image in bad[:BAD_SHOWN]]
    if len(bad) > BAD_SHOWN:
        lines.append(f"  and {len(bad) - BAD_SHOWN:,} more")
    return "\n".join(lines)


def _read_chunk(root: Path, files: Sequence[ImageFile]) -> list[Sample | BadImage]:
    return [_read(root, file) for file in files]


def _read(root: Path, file: ImageFile) -> Sample | BadImage:
    path = root / file.path
    try:
        file.path.encode()
        if not path.is_file():  # opening a named pipe would wait for ever
            return BadImage(file.path, "no regular file (a broken link?)")
        return sample_from(path.read_bytes(), file=file.path, label=file.label)
    except UnicodeEncodeError:
        return BadImage(file.path, "its name is not UTF-8")
    except ValueError as error:
        return BadImage(file.path, str(error))
    except OSError as error:
        return BadImage(file.path, f"cannot be read ({error.strerror})")


Found = list[Sample | BadImage]
Mapper = Callable[
    [Callable[[Sequence[ImageFile]], Found], Iterable[Sequence[ImageFile]]], Iterable[Found]
]


@contextmanager
def _mapper(workers: int) -> Generator[Mapper, None, None]:
    if workers <= 1:
        yield map
        return
    # Fresh interpreters: forking a process that has threads (as the progress bar does) may hang.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_leave_interrupts)
    try:
        yield pool.map
    except BrokenProcessPool as error:
        raise ValueError(
            f"one of {workers} reading processes was killed, perhaps for want of memory; "
            f"try --workers {max(1, workers // 2)}"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts() -> None:
    """Let the main process alone answer Ctrl-C, once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
