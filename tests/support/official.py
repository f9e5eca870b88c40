"""Small archives in the layouts and formats of ImageNet, always the same bytes."""

import gzip
import hashlib
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from scipy.io import savemat

KIT = "ILSVRC2012_devkit_t12"
FIELDS = (
    "ILSVRC2012_ID",
    "WNID",
    "words",
    "gloss",
    "num_children",
    "children",
    "wordnet_height",
    "num_train_images",
)
MAT_HEADER = b"MATLAB 5.0 MAT-file, Platform: GLNXA64, Created on: Mon May 14 12:00:00 2012"
README = b"This is the documentation of the ILSVRC2012 Development Kit.\n"


@dataclass(frozen=True)
class Synset:
    """A node in the kit's tree; a class if it has no `children` (ids of the kit)."""

    kit_id: int
    wnid: str
    words: str
    children: tuple[int, ...] = ()
    height: int = 0

    def row(self) -> tuple[Any, ...]:
        """The values of FIELDS, in the smallest types of MATLAB."""
        children = np.array([self.children], smallest(max(self.children, default=0)))
        numbers = [self.kit_id, len(self.children), self.height, 0 if self.children else 1300]
        kit_id, count, height, images = (np.array([[n]], smallest(n)) for n in numbers)
        gloss = f"the gloss of {self.words}"
        return kit_id, self.wnid, self.words, gloss, count, children, height, images


def smallest(number: int) -> np.dtype[Any]:
    return np.min_scalar_type(number)


def write_devkit(
    path: Path, *, wnids: Sequence[str], words: Sequence[str], validation_wnids: Sequence[str]
) -> Path:
    """Write the kit as a .tar.gz (`words[i]` of `wnids[i]`; the wnid of each validation image)."""
    synsets = make_synsets(dict(zip(wnids, words, strict=True)))
    kit_ids = {synset.wnid: synset.kit_id for synset in synsets}
    truth = "".join(f"{kit_ids[wnid]}\n" for wnid in validation_wnids)
    return pack_devkit(path, meta=encode_meta(synsets), truth=truth.encode())


def make_synsets(words: Mapping[str, str]) -> list[Synset]:
    """Number the classes, every second one of the sorted wnids first; two inner nodes follow."""
    wnids = sorted(words)
    order = wnids[1::2] + wnids[::2]
    leaves = [Synset(number, wnid, words[wnid]) for number, wnid in enumerate(order, 1)]
    inner = len(leaves) + 1
    kinds = tuple(range(1, inner))
    entity = Synset(inner + 1, "n00001740", "entity", (inner,), height=2)
    return [*leaves, Synset(inner, "n00001930", "physical entity", kinds, height=1), entity]


def encode_meta(synsets: Sequence[Synset], *, name: str = "synsets") -> bytes:
    """Encode meta.mat: one variable, a column of structs, compressed as MATLAB 7 does."""
    table = np.empty((len(synsets), 1), [(field, object) for field in FIELDS])
    for place, synset in enumerate(synsets):
        table[place, 0] = synset.row()
    content = BytesIO()
    savemat(content, {name: table}, do_compression=True)
    return MAT_HEADER.ljust(116) + content.getvalue()[116:]  # without the time of writing


def pack_devkit(path: Path, *, meta: bytes, truth: bytes, kit: str = KIT) -> Path:
    """Write the archive of a kit with these two files."""
    files = {
        f"{kit}/readme.txt": README,
        f"{kit}/data/ILSVRC2012_validation_ground_truth.txt": truth,
        f"{kit}/data/meta.mat": meta,
    }
    path.write_bytes(gzip.compress(tar(files), mtime=0))
    return path


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_train_archive(path: Path, images: Mapping[str, Mapping[str, bytes]]) -> Path:
    """Write the training archive: for each wnid a flat tar of images such as n01440764_1.JPEG.

    Everything keeps its order.
    """
    path.write_bytes(tar({f"{wnid}.tar": tar(members) for wnid, members in images.items()}))
    return path


def write_val_archive(path: Path, images: Sequence[bytes]) -> Path:
    """Write the validation archive: the first image is ILSVRC2012_val_00000001.JPEG."""
    names = (f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, len(images) + 1))
    path.write_bytes(tar(dict(zip(names, images, strict=True))))
    return path


def tar(files: Mapping[str, bytes]) -> bytes:
    """Pack files in the GNU format, each after the new folders that it needs."""
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as packed:
        folders: set[PurePosixPath] = set()
        for name, content in files.items():
            for folder in [*reversed(PurePosixPath(name).parents)][1:]:
                if folder not in folders:
                    packed.addfile(entry(str(folder), tarfile.DIRTYPE))
                    folders.add(folder)
            member = entry(name, tarfile.REGTYPE)
            member.size = len(content)
            packed.addfile(member, BytesIO(content))
    return archive.getvalue()


def entry(name: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    return member
