"""The same pictures in every packing that prepare.py reads, and the commands for them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.images import Picture, make_images
from tests.support.official import tar, write_devkit, write_train_archive, write_val_archive
from tests.support.preparing import run

WORDS = {
    "n01440764": "tench, Tinca tinca",
    "n02119789": "kit fox, Vulpes macrotis",
    "n04467665": "trailer truck, tractor trailer, trucking rig, rig, articulated lorry, semi",
    "n07753592": "banana",
}
"""Sorted by WordNet id: the place of a class is its label."""
WNIDS = tuple(WORDS)
OFFICIAL = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz")
KAGGLE = "ILSVRC/Data/CLS-LOC"

Command = list[object]
"""Source and arguments of prepare.py, without --out."""


@dataclass(frozen=True)
class Pictures:
    """The pictures to pack; labels are places among `WNIDS`."""

    train: Sequence[Picture]
    val: Sequence[Picture]

    def splits(self) -> dict[str, Sequence[Picture]]:
        return {"train": self.train, "val": self.val}


def make_pictures(train: int, val: int, *, size: tuple[int, int] = (40, 32)) -> Pictures:
    """The classes of validation images do not take turns."""
    classes = len(WNIDS)
    made = make_images(val, classes=classes, size=size, seed=1)
    return Pictures(
        make_images(train, classes=classes, size=size, seed=0),
        sorted(made, key=lambda p: p.content),
    )


def class_members(pictures: Sequence[Picture], label: int) -> dict[str, bytes]:
    """The files in the tar of a class, such as n01440764.tar."""
    of_class = [picture for picture in pictures if picture.label == label]
    return {f"{WNIDS[label]}_{n}.JPEG": each.content for n, each in enumerate(of_class, 1)}


def official(folder: Path, pictures: Pictures) -> Command:
    """The three official archives; the classes in the training archive are not in order."""
    folder.mkdir(parents=True, exist_ok=True)
    train, val, kit = (folder / name for name in OFFICIAL)
    labels = (2, 0, 3, 1)
    write_train_archive(train, {WNIDS[k]: class_members(pictures.train, k) for k in labels})
    write_val_archive(val, [picture.content for picture in pictures.val])
    shown = [WNIDS[picture.label] for picture in pictures.val]
    write_devkit(kit, wnids=WNIDS, words=list(WORDS.values()), validation_wnids=shown)
    return ["imagenet", "--train", train, "--val", val, "--devkit", kit, "--partial"]


def kaggle(folder: Path, pictures: Pictures) -> Command:
    """The tree in the archive of Kaggle, with its two tables."""
    for label, wnid in enumerate(WNIDS):
        write_files(folder / KAGGLE / "train" / wnid, class_members(pictures.train, label))
    names = [f"ILSVRC2012_val_{number:08d}" for number in range(1, len(pictures.val) + 1)]
    found = list(zip(names, pictures.val, strict=True))
    write_files(folder / KAGGLE / "val", {f"{name}.JPEG": each.content for name, each in found})
    boxes = [f"{name},{WNIDS[each.label]} 85 1 499 272 \n" for name, each in reversed(found)]
    (folder / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "".join(boxes))
    lines = [f"{wnid} {words}\n" for wnid, words in WORDS.items()]
    (folder / "LOC_synset_mapping.txt").write_text("".join(lines))
    return ["kaggle", folder, "--partial"]


def class_folders(folder: Path, pictures: Pictures) -> Command:
    for split, some in pictures.splits().items():
        for label, wnid in enumerate(WNIDS):
            write_files(folder / split / wnid, class_members(some, label))
    return ["imagefolder", folder]


def shards_with_cls(folder: Path, pictures: Pictures) -> Command:
    """Shards by the writer of WebDataset: image and class number of each key."""
    import webdataset

    folder.mkdir(parents=True)
    for split, some in pictures.splits().items():
        pattern = str(folder / f"{split}-%03d.tar")
        with webdataset.ShardWriter(pattern, maxcount=9, verbose=0) as writer:
            for number, picture in enumerate(some):
                key = f"{number:06d}"
                writer.write({"__key__": key, "jpg": picture.content, "cls": picture.label})
    last = (len(pictures.train) - 1) // 9
    val = folder / "val-*.tar"
    return ["webdataset", folder / f"train-{{000..{last:03d}}}.tar", "--val", val]


def shards_with_json(folder: Path, pictures: Pictures) -> Command:
    """Shards with all labels before the images, in reverse order, and keys in class folders."""
    folder.mkdir(parents=True)
    for split, some in pictures.splits().items():
        keys = [f"{WNIDS[each.label]}/deep.er/{number}" for number, each in enumerate(some)]
        said = [json.dumps({"class": each.label, "width": 3}).encode() for each in some]
        labels = {f"{key}.json": text for key, text in zip(keys, said, strict=True)}
        images = {f"{key}.JPEG": each.content for key, each in zip(keys, some, strict=True)}
        others = {"readme": b"what this is", "._0.jpg": b"of a Mac", "0.txt": b"a caption"}
        files = others | labels | dict(reversed(images.items()))
        (folder / f"{split}.tar").write_bytes(tar(files))
    named = write_classes(folder / "classes.txt")
    options = ["--val", folder / "val.tar", "--json-field", "class", "--classes", named]
    return ["webdataset", folder / "train.tar", *options]


def shards_with_both(folder: Path, pictures: Pictures) -> Command:
    """Image, .cls and .json of the same label, as large datasets on the hub have them."""
    folder.mkdir(parents=True)
    for split, some in pictures.splits().items():
        files: dict[str, bytes] = {}
        for number, each in enumerate(some):
            files[f"{number}.cls"] = b"%d\n" % each.label
            files[f"{number}.jpg"] = each.content
            files[f"{number}.json"] = json.dumps({"label": each.label}).encode()
        (folder / f"{split}.tar").write_bytes(tar(files))
    return ["webdataset", folder / "train.tar", "--val", folder / "val.tar"]


def shards_of_ours(folder: Path, pictures: Pictures) -> Command:
    """Shards that prepare.py writes itself."""
    files, shards = folder / "files", folder / "shards"
    assert run(*class_folders(folder, pictures), "--out", files) == 0
    assert run("shards", files, "--out", shards, "--shard-images", 10, "--workers", 1) == 0
    train, val = (shards / "shards" / f"{split}-*.tar" for split in ("train", "val"))
    return ["webdataset", train, "--val", val]


def parquet(folder: Path, pictures: Pictures) -> Command:
    from tests.support.parquet_files import write

    for split, some in pictures.splits().items():
        rows = [({"bytes": each.content, "path": each.name}, each.label) for each in some]
        write(folder / f"{split}-00000-of-00001.parquet", rows, names=list(WNIDS))
    return ["parquet", "--train", folder / "train-*", "--val", folder / "val-*"]


def write_classes(path: Path) -> Path:
    path.write_text("".join(f"{wnid}\n" for wnid in WNIDS))
    return path


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


PACKINGS: dict[str, Callable[[Path, Pictures], Command]] = {
    "official archives": official,
    "Kaggle": kaggle,
    "class folders": class_folders,
    "shards with .cls": shards_with_cls,
    "shards with .json": shards_with_json,
    "shards with both": shards_with_both,
    "shards of ours": shards_of_ours,
    "Parquet": parquet,
}
