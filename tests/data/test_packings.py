"""A dataset in many packings: the same index, the same batches, the same weights."""

import os
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest
import torch

from data.formats import devkit
from pipeline.dataset.index import Index, read_manifest
from pipeline.distributed.world import World
from pipeline.system.command import command_line
from pipeline.train import main
from tests.multiprocess.runs import result, state, write_recipe
from tests.support.loading import assert_equal, dali, evaluated, trained
from tests.support.official import md5
from tests.support.packings import PACKINGS, WNIDS, Command, Pictures, make_pictures, write_classes
from tests.support.preparing import INDEX_FILES, run

TRAIN, VAL = 42, 13
NAMED = {"official archives", "Kaggle", "class folders", "shards with .json", "Parquet"}
"""Packings that contain the names of the classes."""


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return make_pictures(TRAIN, VAL)


@pytest.fixture(scope="module")
def commands(pictures: Pictures, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Command]:
    folder = tmp_path_factory.mktemp("packed")
    return {name: pack(folder / name, pictures) for name, pack in PACKINGS.items()}


@pytest.fixture(scope="module", autouse=True)
def published_kit(commands: dict[str, Command]) -> Generator[None]:
    """The kit of these pictures is accepted as the published one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devkit, "MD5", md5(Path(str(commands["official archives"][-2]))))
        yield


@pytest.fixture(scope="module")
def datasets(
    commands: dict[str, Command], published_kit: None, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("datasets")
    for name, command in commands.items():
        assert run(*command, "--out", folder / name) == 0
    return {name: folder / name for name in commands}


def stored(folder: Path, split: str) -> list[tuple[int, bytes, int, int]]:
    """Label, bytes, width and height of every sample, in the order of the index."""
    index = Index.open(folder, split)
    found = []
    for sample in range(len(index)):
        offset, size = index.offsets[sample], index.sizes[sample]
        content = index.path(sample).read_bytes()[offset : offset + size]
        width, height = int(index.widths[sample]), int(index.heights[sample])
        found.append((int(index.labels[sample]), content, width, height))
    return found


def test_every_sample_is_where_the_index_says(
    datasets: dict[str, Path], pictures: Pictures
) -> None:
    for split, some in pictures.splits().items():
        packed = sorted((each.label, each.content, *each.size) for each in some)
        first = stored(datasets["class folders"], split)
        assert sorted(first) == packed
        for name, folder in datasets.items():
            assert stored(folder, split) == first, name


def test_the_fingerprint_depends_only_on_the_pictures(datasets: dict[str, Path]) -> None:
    assert len({read_manifest(folder).fingerprint for folder in datasets.values()}) == 1
    for name in NAMED:
        assert read_manifest(datasets[name]).classes == WNIDS
    assert read_manifest(datasets["shards with .cls"]).classes == ("0", "1", "2", "3")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PACKINGS if name != "class folders"])
def test_the_batches_are_the_same(datasets: dict[str, Path], name: str) -> None:
    ours, theirs = dali(datasets[name]), dali(datasets["class folders"])
    assert_equal(trained(ours, 1, 5), trained(theirs, 1, 5))
    assert_equal(evaluated(ours), evaluated(theirs))


def test_nothing_is_extracted_or_copied(
    commands: dict[str, Command], datasets: dict[str, Path], tmp_path: Path
) -> None:
    for folder in datasets.values():
        assert {path.name for path in folder.rglob("*")} == INDEX_FILES
    packed = next(each for each in commands["official archives"] if isinstance(each, Path)).parents
    before = {path: path.stat() for path in packed[1].rglob("*")}
    for name, command in commands.items():
        assert run(*command, "--out", tmp_path / name) == 0
    after = {path: path.stat() for path in packed[1].rglob("*")}
    assert after.keys() == before.keys()
    for path, now in after.items():
        assert (now.st_mtime_ns, now.st_size) == (before[path].st_mtime_ns, before[path].st_size)


def test_processes_and_their_number_change_nothing(
    commands: dict[str, Command],
    datasets: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("data.indexing.reading.FEW_BYTES", -1)
    name = "official archives"
    assert run(*commands[name], "--out", tmp_path, "--workers", 2) == 0
    assert {path.name for path in tmp_path.iterdir()} == INDEX_FILES
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (datasets[name] / path.name).read_bytes()


@pytest.fixture
def one_thread() -> Generator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(World, "cpu_threads", 1)
        yield


@pytest.mark.process
def test_training_from_the_archives_ends_with_the_weights_of_training_from_files(
    datasets: dict[str, Path], tmp_path: Path, one_thread: None
) -> None:
    settings = ["train.steps=10", "evaluate.every_steps=5", "train.log_every_steps=5"]
    runs: list[Path] = []
    for name in ("official archives", "class folders"):
        folder = tmp_path / name
        folder.mkdir()
        recipe = write_recipe(folder, datasets[name])
        runs.append(folder / "run")
        assert main([str(recipe), *settings, f"run_dir={runs[-1]}"]) == 0
    ours, theirs = map(state, runs)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    assert result(runs[0])["top1_error_percent"] == result(runs[1])["top1_error_percent"]


# ------------------------------------------------------------------------------- the second time


def blank(folder: Path, pictures: Pictures) -> None:
    """Blank all images; sizes and times of modification stay the same."""
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        before = path.stat()
        content = path.read_bytes()
        for picture in [*pictures.train, *pictures.val]:
            content = content.replace(picture.content, bytes(len(picture.content)))
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def written(folder: Path) -> dict[str, tuple[int, int]]:
    """The inode of each file, and when it was written."""
    stats = {path.name: path.stat() for path in folder.iterdir()}
    return {name: (status.st_ino, status.st_mtime_ns) for name, status in stats.items()}


def touch(folder: Path) -> None:
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        os.utime(path, ns=(0, 0))


@pytest.mark.parametrize("name", PACKINGS)
def test_the_second_time_no_image_is_read(
    name: str, pictures: Pictures, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    command = [*PACKINGS[name](source, pictures), "--out", out]
    assert run(*command) == 0
    before = written(out)
    capsys.readouterr()
    blank(source, pictures)
    assert run(*command) == 0
    nothing = f"nothing to do: {out} is complete\nnext: {command_line('launch/submit.py')}"
    assert capsys.readouterr().out.startswith(nothing)
    assert written(out) == before
    touch(source)
    assert run(*command) == 2
    assert f"{TRAIN + VAL} of {TRAIN + VAL} images cannot be used" in capsys.readouterr().err


@pytest.mark.parametrize("name", PACKINGS)
def test_touched_or_changed_files_are_indexed_again(
    name: str, pictures: Pictures, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    command = [*PACKINGS[name](source, pictures), "--out", out]
    assert run(*command) == 0
    touch(source)
    assert run(*command) == 0
    assert "(as before)" in capsys.readouterr().out
    assert Index.open(out, "train").file_mtimes_ns.tolist()[0] == 0
    shutil.rmtree(source)
    PACKINGS[name](source, Pictures(pictures.train, pictures.val[:-1]))
    assert run(*command) == 0
    assert "(changed)" in capsys.readouterr().out
    assert read_manifest(out).samples == {"train": TRAIN, "val": VAL - 1}


def test_other_options_give_other_datasets(
    pictures: Pictures, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    command = [*PACKINGS["shards with both"](source, pictures), "--out", out]
    named = ["--classes", write_classes(tmp_path / "classes.txt")]
    for options in ([], named, [*named, "--skip-bad"], [*named, "--json-field", "other"], []):
        capsys.readouterr()
        assert run(*command, *options) == 0
        assert "nothing to do" not in capsys.readouterr().out


def test_a_damaged_index_is_written_again(
    pictures: Pictures, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = [*PACKINGS["class folders"](tmp_path / "source", pictures), "--out", out]
    assert run(*command) == 0
    whole = (out / "val.arrow").read_bytes()
    (out / "val.arrow").write_bytes(whole[:-1])
    assert run(*command) == 0
    assert (out / "val.arrow").read_bytes() == whole
