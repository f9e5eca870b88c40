"""Unpacking: plain files are restored exactly, and everything else is refused."""

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from data.formats.unpacking import unpack
from tests.support.preparing import run


def pack(archive: Path, *members: tarfile.TarInfo, mode: Any = "w") -> Path:
    with tarfile.open(archive, mode) as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return archive


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0
) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, link, size
    return made


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_plain_files_are_restored_exactly(tmp_path: Path, mode: Any) -> None:
    root = tmp_path / "root"
    files = {"a.bin": b"", "deep/er/\u00e4 b.bin": b"12", "deep/" + "n" * 150: b"\0" * 20_000}
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "empty").mkdir()
    with tarfile.open(tmp_path / "archive", mode) as tar:
        tar.add(root, ".")
    (tmp_path / "out").mkdir()
    unpack(tmp_path / "archive", tmp_path / "out")
    found = sorted((tmp_path / "out").rglob("*"))
    assert {
        str(path.relative_to(tmp_path / "out")): path.read_bytes()
        for path in found
        if path.is_file()
    } == files
    assert (tmp_path / "out/empty").is_dir()


LEAVES = {
    "absolute": member("/tmp/evil"),
    "above": member("../evil"),
    "above at last": member("train/../../evil"),
    "folder above": member("../evil", tarfile.DIRTYPE),
    "absolute folder": member("/evil", tarfile.DIRTYPE),
}
NOT_PLAIN = {
    "symbolic link": member("evil", tarfile.SYMTYPE, "/etc/passwd"),
    "link within": member("evil", tarfile.SYMTYPE, "train"),
    "hard link": member("evil", tarfile.LNKTYPE, "first"),
    "named pipe": member("evil", tarfile.FIFOTYPE),
    "character device": member("evil", tarfile.CHRTYPE),
    "block device": member("evil", tarfile.BLKTYPE),
    "no name": member("."),
}


@pytest.mark.parametrize("hostile", [*LEAVES, *NOT_PLAIN])
def test_other_members_are_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], hostile: str
) -> None:
    evil = (LEAVES | NOT_PLAIN)[hostile]
    archive = pack(tmp_path / "archive.tar", member("first", size=3), evil)
    before = set(tmp_path.rglob("*"))
    assert run("cifar10", archive, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    reason = "leads out of" if hostile in LEAVES else "is neither a plain file nor a folder"
    assert said.startswith(f"prepare.py: {archive} cannot be unpacked: {evil.name!r} {reason}")
    assert said.count("\n") == 1
    assert set(tmp_path.rglob("*")) == before | {tmp_path / "out"}, "nothing is left over"


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "target").mkdir()
    link = member("way", tarfile.SYMTYPE, "../target")
    archive = pack(tmp_path / "archive.tar", link, member("way/evil", size=3))
    with pytest.raises(ValueError, match="'way' is neither a plain file nor a folder"):
        unpack(archive, tmp_path / "out")
    assert not list((tmp_path / "target").iterdir())


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("damage", ["cut", "changed", "text"])
def test_a_damaged_archive_is_refused(tmp_path: Path, mode: Any, damage: str) -> None:
    archive = pack(tmp_path / "archive", member("first", size=30_000), mode=mode)
    content = bytearray(archive.read_bytes())
    match damage:
        case "cut":
            del content[len(content) // 2 :]
        case "changed":
            content[20:200] = b"\xff" * 40
        case _:
            content[:] = b"no archive at all"
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"archive cannot be unpacked \(.*\); fetch it again"):
        unpack(archive, tmp_path)


def test_colliding_names_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = pack(tmp_path / "archive.tar", member("one", size=3), member("one/two", size=3))
    assert run("cifar10", archive, "--out", tmp_path / "out") == 2
    assert "one" in capsys.readouterr().err
