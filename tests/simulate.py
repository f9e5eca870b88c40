"""`python -m tests.simulate PHOTOS OUT`: archives in the official formats of ImageNet, any size.

PHOTOS is a folder of JPEGs; they are used repeatedly, made unique by bytes after their end.
"""

import argparse
import tarfile
from collections.abc import Iterator
from io import BytesIO
from itertools import cycle, islice
from pathlib import Path

from tests.support.official import tar, write_devkit


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("photos", type=Path, help="a folder of JPEGs")
    parser.add_argument("out", type=Path)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--train-images", type=int, default=72_000)
    parser.add_argument("--val-images", type=int, default=8_000)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    photos = unique_photos(options.photos)
    wnids = [f"n{number:08}" for number in range(1, options.classes + 1)]
    each = options.train_images // options.classes
    with tarfile.open(options.out / "ILSVRC2012_img_train.tar", "w") as train:
        for wnid in wnids:
            images = {f"{wnid}_{number}.JPEG": next(photos) for number in range(each)}
            add(train, f"{wnid}.tar", tar(images))
    with tarfile.open(options.out / "ILSVRC2012_img_val.tar", "w") as val:
        for number in range(1, options.val_images + 1):
            add(val, f"ILSVRC2012_val_{number:08}.JPEG", next(photos))
    write_devkit(
        options.out / "ILSVRC2012_devkit_t12.tar.gz",
        wnids=wnids,
        words=[f"class {wnid}" for wnid in wnids],
        validation_wnids=list(islice(cycle(reversed(wnids)), options.val_images)),
    )


def unique_photos(folder: Path) -> Iterator[bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    for number, path in enumerate(cycle(paths)):
        yield path.read_bytes() + number.to_bytes(8, "big")


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, BytesIO(content))


if __name__ == "__main__":
    main()
