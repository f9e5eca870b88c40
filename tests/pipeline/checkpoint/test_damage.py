"""A damaged checkpoint is skipped, and does not hinder later ones."""

import os
from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import pytest

from pipeline.checkpoint import (
    MANIFEST,
    PROGRESS,
    CheckpointError,
    newest_checkpoint,
    read_checkpoint,
    verify_checkpoint,
    write_checkpoint,
)
from tests.support.snapshots import flip_a_bit, newest_step, save_all, snapshot, steps


def truncate(path: Path) -> None:
    file = path / "momentum.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def empty(path: Path) -> None:
    for file in path.iterdir():
        file.unlink()


DAMAGES: list[Callable[[Path], None]] = [
    flip_a_bit,
    truncate,
    empty,
    lambda path: (path / "model.safetensors").unlink(),
    lambda path: (path / PROGRESS).unlink(),
    lambda path: (path / PROGRESS).write_text("{}"),
    lambda path: (path / MANIFEST).unlink(),
    lambda path: (path / MANIFEST).write_text(""),
    lambda path: (path / MANIFEST).write_text('{"sha256": {}}'),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    old = write_checkpoint(tmp_path, snapshot(1))
    new = write_checkpoint(tmp_path, snapshot(2))
    assert newest_checkpoint(tmp_path, pytest.fail) == new
    damage(new)
    warnings: list[str] = []
    assert newest_checkpoint(tmp_path, warnings.append) == old
    assert len(warnings) == 1
    assert str(new) in warnings[0]
    with pytest.raises(CheckpointError):
        read_checkpoint(new)
    damage(old)
    assert newest_checkpoint(tmp_path, warnings.append) is None


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("keep_best", [True, False])
def test_damaged_checkpoints_never_displace_undamaged_ones(
    tmp_path: Path, damage: Callable[[Path], None], keep_best: bool
) -> None:
    """A run that fell back from step 30 to step 10 saves steps 12, 14 ... and is killed."""
    write_checkpoint(tmp_path, snapshot(10, 50.0))
    damage(write_checkpoint(tmp_path, snapshot(30, 20.0)))
    for step in (12, 14, 30, 32):
        assert save_all(tmp_path, [snapshot(step)], keep_last=1, keep_best=keep_best) == []
        assert newest_step(tmp_path) == step
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_old_checkpoint_does_not_hinder_new_ones(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(write_checkpoint(tmp_path, snapshot(1, 1.0)))
    assert save_all(tmp_path, [snapshot(step, 9.0) for step in (2, 3, 4)], keep_last=2) == []
    assert set(steps(tmp_path)) >= {3, 4}
    assert newest_step(tmp_path) == 4


SPECIAL_FILES: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "link": lambda path: path.symlink_to(path.parents[1] / "kept" / path.name),
}


@pytest.mark.parametrize("kind", SPECIAL_FILES)
@pytest.mark.parametrize("name", ["model.safetensors", MANIFEST, PROGRESS])
def test_special_files_are_refused_without_waiting(tmp_path: Path, name: str, kind: str) -> None:
    path = write_checkpoint(tmp_path, snapshot(1, 1.0))
    copytree(path, tmp_path / "kept")
    (path / name).unlink()
    SPECIAL_FILES[kind](path / name)
    with pytest.raises(CheckpointError, match=f"{name} is not a plain file"):
        read_checkpoint(path)
    assert save_all(tmp_path, [snapshot(2), snapshot(3)], keep_last=1) == []
    assert newest_step(tmp_path) == 3


@pytest.mark.parametrize("kind", ["link", "dangling link", "file"])
def test_a_file_or_link_in_a_checkpoints_place_is_replaced(tmp_path: Path, kind: str) -> None:
    """The target of a link is unchanged."""
    elsewhere = write_checkpoint(tmp_path / "elsewhere", snapshot(1))
    folder = tmp_path / "run"
    folder.mkdir()
    for place in (folder / "step-00000001", folder / "step-00000002"):
        if kind == "file":
            place.write_text("not a checkpoint")
        else:
            place.symlink_to(elsewhere if kind == "link" else tmp_path / "nowhere")
    assert save_all(folder, [snapshot(2), snapshot(3)], keep_last=1) == []
    assert [path.name for path in folder.iterdir()] == ["step-00000003"]
    verify_checkpoint(elsewhere)


def test_a_warning_names_what_happens_next(tmp_path: Path) -> None:
    for step in (1, 2):
        flip_a_bit(write_checkpoint(tmp_path, snapshot(step)))
    warnings: list[str] = []
    assert newest_checkpoint(tmp_path, warnings.append) is None
    assert warnings[0].endswith("; falling back to the previous one")
    assert warnings[1].endswith("; it is the oldest one")


def test_a_new_run_has_no_checkpoint(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path, pytest.fail) is None
    assert newest_checkpoint(tmp_path / "nowhere", pytest.fail) is None


def test_folders_with_other_names_are_left_alone(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, snapshot(1))
    mine = tmp_path / "step-00000001-mine"
    (tmp_path / "step-00000001").rename(mine)
    assert save_all(tmp_path, [snapshot(step) for step in (2, 3)], keep_last=1) == []
    assert steps(tmp_path) == [3]
    verify_checkpoint(mine)
