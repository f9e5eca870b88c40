"""Parquet files of images as Hugging Face writes them, and datasets prepared from them."""

import json
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.indexing.journal import forget_journal
from data.indexing.listing import Listing
from data.indexing.reading import ReadingOptions, read_listing
from data.sources.parquet import SOURCE
from pipeline.dataset.writing import Dataset, write_dataset
from tests.support.images import Picture, make_images

CLASSES = 3
NAMES = ("ant", "bee", "cat")
SPLITS = ("train", "val")
Options = Mapping[str, Any]
PLAIN: Options = {"compression": "none", "use_dictionary": False}
SNAPPY: Options = {"compression": "snappy"}


def pictures(split: str) -> list[Picture]:
    """58 or 17 images of different sizes in bytes, some of them more than once."""
    count, seed = {"train": (50, 1), "val": (9, 2)}[split]
    made = make_images(count, classes=CLASSES, size=(24, 20), seed=seed)
    made += make_images(3, classes=CLASSES, size=(90, 70), seed=seed)
    return [*made[:20], *made[3:6], *made[20:], made[0], made[-1]]


def rows(split: str) -> list[tuple[Any, Any]]:
    return [
        ({"bytes": picture.content, "path": picture.name}, picture.label)
        for picture in pictures(split)
    ]


def write(
    path: Path,
    content: Sequence[tuple[Any, Any]],
    options: Options = PLAIN,
    *,
    names: Sequence[str] | None = NAMES,
    label_type: Any = None,
) -> Path:
    """Write a file as Hugging Face does, with row groups of 16 rows and pages of about 2 kB."""
    image = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
    columns = {
        "id": pa.array(range(len(content))),
        "image": pa.array([image for image, _ in content], image),
        "label": pa.array([label for _, label in content], label_type or pa.int64()),
    }
    table = pa.table(columns)
    if names is not None:
        label = {"names": list(names), "_type": "ClassLabel"}
        info = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=16, data_page_size=2000, **options)
    return path


def write_both(folder: Path, options: Options = PLAIN, **more: Any) -> Path:
    for split in ("train", "val"):
        write(folder / f"{split}-00000-of-00001.parquet", rows(split), options, **more)
    return folder


def listed(folder: Path, out: Path, *options: object) -> tuple[Listing, ReadingOptions]:
    parser = ArgumentParser()
    SOURCE.add_arguments(parser)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--replace", action="store_true", dest="may_replace")
    files = ["--train", folder / "train-*", "--val", folder / "val-*"]
    given = [*files, "--out", out, "--workers", 1, *options]
    arguments = parser.parse_args([str(argument) for argument in given])
    found = SOURCE.prepare(arguments)
    assert isinstance(found, Listing)
    return found, ReadingOptions.of(arguments)


def prepare(folder: Path, out: Path, *options: object) -> Dataset:
    dataset = read_listing(*listed(folder, out, *options), out=out)
    write_dataset(out, dataset)
    forget_journal(out)
    return dataset
