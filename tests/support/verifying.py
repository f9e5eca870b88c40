"""Datasets with images in archives, and the reports of verify.py about them."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data import verify
from data.checking.flaws import FAULTS, FINDINGS
from pipeline.dataset.index import Index, read_manifest
from pipeline.dataset.samples import Sample, StoredFile, collect, digest
from pipeline.dataset.writing import Dataset, write_dataset
from tests.support.images import Picture, make_images

CLASSES = 3
SIZE = (40, 32)
GAP = 512
"""Bytes between two images of an archive, as in a tar."""

Found = set[tuple[str, int, str]]
"""Split, sample and kind of each flaw."""


def verified(folder: Path, *options: object) -> int:
    return verify.main([str(folder), "--workers", "2", *map(str, options)])


@dataclass
class Outcome:
    code: int
    report: dict[str, Any]

    @property
    def faults(self) -> Found:
        return self._flaws("faults")

    @property
    def findings(self) -> Found:
        return self._flaws("findings")

    @property
    def files(self) -> set[tuple[str, str]]:
        return {(entry["file"], entry["damage"]) for entry in self.report["files"]}

    def _flaws(self, group: str) -> Found:
        return {
            (entry["split"], entry["sample"], kind)
            for kind, entries in self.report[group].items()
            for entry in entries
        }


def outcome(folder: Path, *options: object) -> Outcome:
    """Run the program with a report, which must be complete and consistent."""
    path = folder / "report.json"
    code = verified(folder, "--report", path, *options)
    report = json.loads(path.read_bytes())
    for split, counts in report["splits"].items():
        assert counts["images"] == read_manifest(folder).samples[split]
        assert counts["sound"] + sum(counts["faults"].values()) == counts["images"]
        for group, kinds in (("faults", FAULTS), ("findings", FINDINGS)):
            assert set(counts[group]) == set(report[group]) == set(kinds)
            for kind, entries in report[group].items():
                assert counts[group][kind] == sum(entry["split"] == split for entry in entries)
    assert report["sound"] == (code == 0)
    return Outcome(code, report)


def pack(folder: Path, name: str, pictures: Sequence[Picture]) -> tuple[list[Sample], StoredFile]:
    """Store pictures one after the other in one file, as an archive does."""
    content = bytearray()
    rows: list[Sample] = []
    for picture in pictures:
        content += bytes(GAP)
        size = len(picture.content)
        where = name, len(content), size
        rows.append(Sample(*where, picture.label, *picture.size, digest(picture.content)))
        content += picture.content
    path = folder / name
    path.write_bytes(content + bytes(GAP))
    return rows, StoredFile(name, len(content) + GAP, path.stat().st_mtime_ns)


def packed(folder: Path, archives: dict[str, Sequence[Picture]], classes: int = CLASSES) -> Path:
    """A dataset with training images in archives, and validation images in `v.tar`."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {name: pack(folder, name, pictures) for name, pictures in archives.items()}
    splits = {
        split: collect(
            [row for name in names for row in found[name][0]], [found[name][1] for name in names]
        )
        for split, names in {"train": sorted(archives.keys() - {"v.tar"}), "val": ["v.tar"]}.items()
    }
    names = tuple(f"class{number}" for number in range(classes))
    write_dataset(folder, Dataset("test", names, ".", splits))
    return folder


def pictures(count: int, seed: int) -> list[Picture]:
    return make_images(count, classes=CLASSES, size=SIZE, seed=seed)


def make_archives(folder: Path) -> Path:
    """Two archives with 9 training images each, and one with 6 validation images."""
    return packed(
        folder, {"a.tar": pictures(9, 1), "b.tar": pictures(9, 2), "v.tar": pictures(6, 3)}
    )


def in_file(folder: Path, name: str, split: str = "train") -> list[int]:
    """The samples in a file, in the order on disk."""
    index = Index.open(folder, split)
    return [s for s in index.stored.tolist() if index.path(s).name == name]


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


def stored(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def noise(size: tuple[int, int], seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(values)


ODD: dict[str, tuple[bytes, tuple[int, int]]] = {
    "corrupt-end": (stored(noise(SIZE, 1), "JPEG")[:-300], SIZE),
    "corrupt-text": (b"Here was an image. " * 9, SIZE),
    "corrupt-gif": (stored(noise(SIZE, 2), "GIF"), SIZE),
    "corrupt-header": (stored(noise(SIZE, 3), "JPEG")[:100], SIZE),
    "empty": (b"", SIZE),
    "not-jpeg-png": (stored(noise(SIZE, 4), "PNG"), SIZE),
    "not-jpeg-webp": (stored(noise(SIZE, 5), "WEBP"), SIZE),
    "cmyk": (stored(noise(SIZE, 6).convert("CMYK"), "JPEG"), SIZE),
    "large": (stored(noise((300, 300), 7), "JPEG"), (300, 300)),
    "small": (stored(noise((40, 15), 8), "JPEG"), (40, 15)),
    "wrong-size": (stored(noise(SIZE, 9), "JPEG"), (32, 40)),
}
"""Odd images by kind, with the size in pixels that the index has."""


def with_odd(folder: Path) -> dict[str, int]:
    """Make a dataset with all odd images among sound ones; return the sample of each."""
    odd = [
        Picture("odd", content, size, number % CLASSES)
        for number, (content, size) in enumerate(ODD.values())
    ]
    sound = pictures(40, 1)
    packed(folder, {"a.tar": [*sound[:20], *odd, *sound[20:]], "v.tar": pictures(6, 3)})
    return dict(zip(ODD, in_file(folder, "a.tar")[20 : 20 + len(ODD)], strict=True))
