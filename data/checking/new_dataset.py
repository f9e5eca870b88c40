"""A dataset that is not written yet: its images are decoded, and the unusable ones refused."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from data.checking.exclusion import samples_without
from data.checking.verification import Verdict, verify_split
from data.indexing.reading import ReadingOptions, empty_classes, left_out, refusal
from data.indexing.unit import BadImage
from pipeline.dataset.index import Index
from pipeline.dataset.writing import Dataset, write_dataset
from pipeline.storage.errors import place_of
from pipeline.system.progress import byte_progress


def without_unusable(dataset: Dataset, options: ReadingOptions, *, out: Path) -> Dataset:
    """Decode all images; return the dataset without those that training could not use.

    Raises `ValueError` for all of them together, unless `options.skip_bad`, and, unless
    `options.partial`, for classes that would be left without a training image.
    """
    out.mkdir(parents=True, exist_ok=True)
    root = (out / dataset.root).resolve()
    with TemporaryDirectory(dir=out, prefix=".decoding-") as folder:
        write_dataset(Path(folder), replace(dataset, root=str(root)))
        verdicts = _verdicts(Path(folder), dataset, options.workers)
        bad = [image for verdict in verdicts for image in _bad_images(verdict)]
        if not bad:
            return dataset
        if not options.skip_bad:
            raise ValueError(refusal(bad, total=sum(len(verdict.index) for verdict in verdicts)))
        splits = {
            verdict.index.split: samples_without(
                verdict.index, verdict.samples_with(frozenset()), verdict.states
            )
            for verdict in verdicts
        }
    empty = empty_classes(splits, dataset.classes)
    if empty and not options.partial:
        raise ValueError(f"{empty[0]}; accept this with --partial")
    return replace(dataset, splits=splits, notes=(*dataset.notes, left_out(bad), *empty))


def _verdicts(folder: Path, dataset: Dataset, workers: int) -> list[Verdict]:
    total = sum(int(samples.columns["size"].sum()) for samples in dataset.splits.values())
    with byte_progress("decoding", total=total) as advance:
        return [
            verify_split(Index.open(folder, split), decode=True, workers=workers, advance=advance)
            for split in dataset.splits
        ]


def _bad_images(verdict: Verdict) -> list[BadImage]:
    return [
        BadImage(place_of(verdict.index, flaw.sample), flaw.reason)
        for flaw in verdict.flaws
        if flaw.is_fault
    ]
