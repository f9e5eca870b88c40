"""ImageNet's official development kit: the classes, and the label of each validation image.

The kit counts classes by ids of its own, ILSVRC2012_ID 1..1000, whose order is not that of the
sorted WordNet ids. Labels, here and everywhere in the field, are places among the sorted WordNet
ids; the kit's ids never leave this file.
"""

import gzip
import re
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

from data.formats.matlab import read_struct_array, read_text, read_whole_number

KIT = "ILSVRC2012_devkit_t12"
META = "data/meta.mat"
GROUND_TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"
ARCHIVE_LIMIT_BYTES = 64 << 20
"""Bytes, decompressed, of the largest archive that is read; the official one has a few MiB."""
FILE_LIMIT_BYTES = 16 << 20
NAMES_SHOWN = 5

_GIVE = f"give {KIT}.tar.gz or the folder {KIT}"
_FETCH = f"fetch {KIT}.tar.gz again"
_OTHER_KIT = re.compile(rf"(?!{KIT})ILSVRC[0-9]{{4}}_devkit")
_WNID = re.compile(r"n[0-9]{8}")
_ID = re.compile(rb"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Devkit:
    """The classes in the order of their labels, and the labels of the validation images."""

    wnids: tuple[str, ...]
    """WordNet ids such as "n01440764", sorted: the place is the label."""
    class_names: tuple[str, ...]
    """The words of each class, "tench, Tinca tinca"; two classes may have the same."""
    validation_labels: tuple[int, ...]
    """The label of ILSVRC2012_val_00000001.JPEG, of ILSVRC2012_val_00000002.JPEG, and so on."""


@dataclass(frozen=True, slots=True)
class _File:
    place: str
    content: bytes


@dataclass(frozen=True, slots=True)
class _Class:
    kit_id: int
    wnid: str
    words: str


def read_devkit(path: Path) -> Devkit:
    """Read the kit from ILSVRC2012_devkit_t12.tar.gz or from its unpacked folder; write nothing.

    Any number of classes and of validation images is accepted. Raise `ValueError` for what is not
    this kit, is damaged, or contradicts itself.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist; {_GIVE}")
    files = _read_folder(path) if path.is_dir() else _read_archive(path)
    for file in files.values():
        _require_size(file.place, len(file.content), FILE_LIMIT_BYTES)
    classes = sorted(_read_classes(files[META]), key=lambda each: each.wnid)
    labels = {each.kit_id: label for label, each in enumerate(classes)}
    return Devkit(
        wnids=tuple(each.wnid for each in classes),
        class_names=tuple(each.words for each in classes),
        validation_labels=_read_validation_labels(files[GROUND_TRUTH], labels),
    )


def _read_folder(path: Path) -> dict[str, _File]:
    """Read the two files from the kit's folder, or from a folder that holds it."""
    root = path / KIT if (path / KIT).is_dir() else path
    if _OTHER_KIT.match(root.absolute().name):
        raise ValueError(f"{path} is the folder of another kit; {_GIVE}")
    paths = {name: root / name for name in (META, GROUND_TRUTH)}
    if not all(file.is_file() for file in paths.values()):
        folders = [folder for folder in (root, root / "data") if folder.is_dir()]
        holds = [str(entry.relative_to(path)) for folder in folders for entry in folder.iterdir()]
        raise _no_kit(path, sorted(holds))
    files: dict[str, _File] = {}
    for name, file in paths.items():
        with file.open("rb") as stream:
            files[name] = _File(str(file), stream.read(FILE_LIMIT_BYTES + 1))
    return files


def _read_archive(path: Path) -> dict[str, _File]:
    """Read the two files from the kit's archive, in memory."""
    members = _read_members(path)
    files: dict[str, _File] = {}
    for name in (META, GROUND_TRUTH):
        content = members.get(f"{KIT}/{name}")
        if content is None:
            raise _no_kit(path, list(members))
        files[name] = _File(f"{path}: {KIT}/{name}", content)
    return files


def _read_members(path: Path) -> Mapping[str, bytes | None]:
    """Return all names in the archive, and the content of the two files that are needed."""
    wanted = {f"{KIT}/{name}" for name in (META, GROUND_TRUTH)}
    archive = _decompressed(path)
    members: dict[str, bytes | None] = {}
    try:
        with tarfile.open(fileobj=BytesIO(archive), mode="r:") as tar:
            for member in tar:
                name = str(PurePosixPath(member.name))
                content = tar.extractfile(member) if name in wanted and member.isreg() else None
                members[name] = content.read(FILE_LIMIT_BYTES + 1) if content else None
    except Exception as error:  # a damaged archive may break its reader in any way
        raise ValueError(f"{path} is no tar archive, or is damaged ({error}); {_GIVE}") from error
    return members


def _decompressed(path: Path) -> bytes:
    """Return the tar archive in `path`, where it is compressed with gzip or not at all."""
    if not path.is_file():  # a named pipe would wait for ever
        raise ValueError(f"{path} is no plain file; {_GIVE}")
    try:
        with path.open("rb") as stream:
            is_gzip = stream.read(2) == b"\x1f\x8b"
            stream.seek(0)
            with gzip.open(stream) if is_gzip else stream as archive:
                content = archive.read(ARCHIVE_LIMIT_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error}); {_FETCH}") from error
    _require_size(str(path), len(content), ARCHIVE_LIMIT_BYTES)
    return content


def _require_size(place: str, size: int, limit: int) -> None:
    if size > limit:
        raise ValueError(f"{place} is over {limit >> 20} MiB, too large for {KIT}; {_GIVE}")


def _no_kit(path: Path, holds: Sequence[str]) -> ValueError:
    shown = ", ".join(holds[:NAMES_SHOWN]) + (", ..." if len(holds) > NAMES_SHOWN else "")
    return ValueError(
        f"{path} holds {shown or 'nothing'}, but not both {META} and {GROUND_TRUTH} of {KIT}; "
        f"{_GIVE}"
    )


def _read_classes(meta: _File) -> list[_Class]:
    try:
        classes = _parse_classes(meta.content)
    except ValueError as error:
        raise ValueError(f"{meta.place} cannot be read: {error}; {_FETCH}") from error
    fault = _contradiction(classes)
    if fault:
        raise ValueError(f"{meta.place} {fault}; {_FETCH}")
    return classes


def _parse_classes(content: bytes) -> list[_Class]:
    """Read the classes: the synsets without children, in the kit's tree of all their ancestors."""
    synsets = read_struct_array(content, "synsets")
    fields = ("ILSVRC2012_ID", "WNID", "words", "num_children")
    rows = zip(*map(synsets.column, fields), strict=True)
    return [
        _Class(read_whole_number(kit_id), read_text(wnid), read_text(words))
        for kit_id, wnid, words, num_children in rows
        if read_whole_number(num_children) == 0
    ]


def _contradiction(classes: Sequence[_Class]) -> str:
    """Say what is wrong with the classes; empty if they have wnids, and ids 1..N once each."""
    if not classes:
        return "has no classes"
    wnids: dict[int, str] = {}
    kit_ids: dict[str, int] = {}
    for each in classes:
        kit_id, wnid = each.kit_id, each.wnid
        if not _WNID.fullmatch(wnid):
            return f"has the WNID {wnid!r} of ILSVRC2012_ID {kit_id}, which is not n and 8 digits"
        if not 1 <= kit_id <= len(classes):
            return f"has the ILSVRC2012_ID {kit_id} of {wnid}, which is not in 1..{len(classes)}"
        if kit_id in wnids:
            return f"has the ILSVRC2012_ID {kit_id} twice, of {wnids[kit_id]} and of {wnid}"
        if wnid in kit_ids:
            return f"has the WNID {wnid} twice, of ILSVRC2012_ID {kit_ids[wnid]} and of {kit_id}"
        wnids[kit_id] = wnid
        kit_ids[wnid] = kit_id
    return ""


def _read_validation_labels(truth: _File, labels: Mapping[int, int]) -> tuple[int, ...]:
    """Read the kit's id of each image, one a line, and return their labels (`labels`: id -> label).

    An empty file is refused: it has lost its lines.
    """
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
                f"{truth.place}:{number}: {shown!r} is no ILSVRC2012_ID, which is a number in "
                f"1..{len(labels)}; {_FETCH}"
            )
        found.append(label)
    return tuple(found)
