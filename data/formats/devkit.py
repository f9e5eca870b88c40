"""The development kit of ImageNet: the classes, and the label of each validation image.

The kit numbers classes with its own ids, ILSVRC2012_ID 1..1000, which are not in the order of the
sorted WordNet ids. Labels, here as everywhere in the field, are places among the sorted WordNet
ids; the ids of the kit never leave this file.
"""

import hashlib
import re
import signal
import tarfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from itertools import chain
from multiprocessing import get_context
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

KIT = "ILSVRC2012_devkit_t12"
MD5 = "fa75699e90414af021442c21a62c3abf"
"""The published MD5 of ILSVRC2012_devkit_t12.tar.gz, which torchvision checks, too."""
META = "data/meta.mat"
GROUND_TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"
LIMIT_BYTES = 16 << 20
"""Bytes of the largest file that is read; the official archive has a few MiB."""
NAMES_SHOWN = 5

_GIVE = f"give {KIT}.tar.gz"
_FETCH = f"fetch {KIT}.tar.gz again"
_WNID = re.compile(r"n[0-9]{8}")
_ID = re.compile(rb"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Devkit:
    """The classes in the order of their labels, and the labels of the validation images."""

    wnids: tuple[str, ...]
    """WordNet ids such as "n01440764", sorted: the place is the label."""
    class_names: tuple[str, ...]
    """The words of each class, "tench, Tinca tinca"; two classes may have the same words."""
    validation_labels: tuple[int, ...]
    """The label of ILSVRC2012_val_00000001.JPEG, of ILSVRC2012_val_00000002.JPEG, and so on."""


class _File(NamedTuple):
    place: str
    content: bytes


class _Synset(NamedTuple):
    """A node in the kit's tree of classes and their ancestors; a class has no children."""

    kit_id: int
    wnid: str
    words: str
    children: int


def read_devkit(path: Path, *, partial: bool = False) -> Devkit:
    """Read ILSVRC2012_devkit_t12.tar.gz, whose MD5 must be the published one.

    With `partial`, another kit in the same format is accepted, and an unpacked one. Raises
    `ValueError` if this is another file, or if the kit is damaged or contradicts itself.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist; {_GIVE}")
    official = _is_official(path)
    if not official and not partial:
        raise ValueError(
            f"{path} is not {KIT}.tar.gz as published, with MD5 {MD5}; {_FETCH}, or accept another"
            " kit with --partial"
        )
    meta, truth = _read_folder(path) if path.is_dir() else _read_archive(path)
    synsets = _read_synsets(meta) if official else _read_synsets_apart(meta)
    classes = sorted((each for each in synsets if not each.children), key=lambda each: each.wnid)
    if fault := _contradiction(classes):
        raise ValueError(f"{meta.place} {fault}; {_FETCH}")
    labels = {each.kit_id: label for label, each in enumerate(classes)}
    return Devkit(
        wnids=tuple(each.wnid for each in classes),
        class_names=tuple(each.words for each in classes),
        validation_labels=_validation_labels(truth, labels),
    )


def _is_official(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size > LIMIT_BYTES:
        return False
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == MD5


def _read_folder(path: Path) -> tuple[_File, _File]:
    """Return meta.mat and the ground truth from the folder of the kit, or from its parent."""
    root = path / KIT if (path / KIT).is_dir() else path
    meta, truth = (root / name for name in (META, GROUND_TRUTH))
    if not (meta.is_file() and truth.is_file()):
        folders = [folder for folder in (root, root / "data") if folder.is_dir()]
        entries = chain.from_iterable(folder.iterdir() for folder in folders)
        raise _missing(path, sorted(str(entry.relative_to(path)) for entry in entries))
    for file in (meta, truth):
        _require_size(str(file), file.stat().st_size)
    return _File(str(meta), meta.read_bytes()), _File(str(truth), truth.read_bytes())


def _read_archive(path: Path) -> tuple[_File, _File]:
    """Return meta.mat and the ground truth from the archive of the kit; write nothing."""
    if not path.is_file():  # opening a named pipe would wait forever
        raise ValueError(f"{path} is not a plain file; {_GIVE}")
    try:
        with tarfile.open(path) as tar:
            members = {str(PurePosixPath(member.name)): member for member in tar}
            return _extract(tar, path, members, META), _extract(tar, path, members, GROUND_TRUTH)
    except ValueError:
        raise
    except Exception as error:  # a damaged archive may break its reader in any way
        reason = str(error).partition(":\n")[0]
        raise ValueError(
            f"{path} is not a tar archive, or is damaged ({reason}); {_GIVE}"
        ) from error


def _extract(
    tar: tarfile.TarFile, path: Path, members: Mapping[str, tarfile.TarInfo], name: str
) -> _File:
    member = members.get(f"{KIT}/{name}")
    content = tar.extractfile(member) if member and member.isreg() else None
    if member is None or content is None:
        raise _missing(path, list(members))
    place = f"{path}: {KIT}/{name}"
    _require_size(place, member.size)
    return _File(place, content.read())


def _require_size(place: str, size: int) -> None:
    if size > LIMIT_BYTES:
        raise ValueError(f"{place} is over {LIMIT_BYTES >> 20} MiB, too large for {KIT}; {_GIVE}")


def _missing(path: Path, holds: Sequence[str]) -> ValueError:
    shown = ", ".join(holds[:NAMES_SHOWN]) + (", ..." if len(holds) > NAMES_SHOWN else "")
    return ValueError(
        f"{path} contains {shown or 'nothing'}, but not both {META} and {GROUND_TRUTH} of {KIT}; "
        f"{_GIVE}"
    )


def _read_synsets_apart(meta: _File) -> list[_Synset]:
    """Read meta.mat in another process: scipy may crash on a file that is not the official one."""
    try:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            # The child inherits this and ignores Ctrl-C, which is handled here.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                synsets = pool.submit(_read_synsets, meta)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            return synsets.result()
    except BrokenProcessPool as error:
        raise ValueError(f"{meta.place} cannot be read: scipy crashed; {_FETCH}") from error


def _read_synsets(meta: _File) -> list[_Synset]:
    loadmat: Any = import_module("scipy.io").loadmat  # it ships no types
    try:
        table = np.atleast_1d(loadmat(BytesIO(meta.content), squeeze_me=True)["synsets"])
        columns = [table[name] for name in ("ILSVRC2012_ID", "WNID", "words", "num_children")]
        return [
            _Synset(_whole(kit_id), _text(wnid), _text(words), _whole(children))
            for kit_id, wnid, words, children in zip(*columns, strict=True)
        ]
    except Exception as error:  # a damaged file may break its reader in any way
        raise ValueError(f"{meta.place} cannot be read: {error}; {_FETCH}") from error


def _whole(value: object) -> int:
    if isinstance(value, int | float) and float(value).is_integer():
        return int(value)
    raise ValueError(f"{value!r:.40} is not a whole number")


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise ValueError(f"{value!r:.40} is not text")


def _contradiction(classes: Sequence[_Synset]) -> str:
    """Return what is wrong with the sorted classes; empty if nothing is."""
    if not classes:
        return "has no classes"
    ids = sorted(each.kit_id for each in classes)
    if ids != list(range(1, len(classes) + 1)):
        return f"does not use each ILSVRC2012_ID in 1..{len(classes)} once"
    wnids = [each.wnid for each in classes]
    for wnid in wnids:
        if not _WNID.fullmatch(wnid):
            return f"has the WNID {wnid!r}, which is not n followed by 8 digits"
        if wnids.count(wnid) > 1:
            return f"has the WNID {wnid} more than once"
    return ""


def _validation_labels(truth: _File, labels: Mapping[int, int]) -> tuple[int, ...]:
    """Return the label of each image, whose kit id is on its line (`labels`: id -> label)."""
    lines = truth.content.splitlines()
    if not lines:
        raise ValueError(f"{truth.place} is empty; {_FETCH}")
    found: list[int] = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        label = labels.get(int(text)) if _ID.fullmatch(text) else None
        if label is None:
            shown = text[:40].decode("ascii", "backslashreplace")
            raise ValueError(
                f"{truth.place}:{number}: {shown!r} is not an ILSVRC2012_ID in 1..{len(labels)}; "
                f"{_FETCH}"
            )
        found.append(label)
    return tuple(found)
