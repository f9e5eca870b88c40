"""Helpers for tests of staged files."""

from pathlib import Path

from pipeline.config.schema import Data
from pipeline.dataset.split import Split
from pipeline.storage.staging import stage_split
from tests.support.loading import open_split


def staged(folder: Path, stage: Path) -> Split:
    return stage_split(Data(dir=folder, stage=stage), open_split(folder))


def paths(split: Split) -> list[Path]:
    """The files of both halves."""
    return [
        index.root / name for index in (split.train, split.val) for name in index.files.to_pylist()
    ]


def identities(split: Split) -> list[tuple[int, int]]:
    """Inode and change time of each file: different once a file is written again."""
    return [(path.stat().st_ino, path.stat().st_ctime_ns) for path in paths(split)]


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
