"""A run finds its folder again, and only one process at a time holds it."""

import errno
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.checkpoint import Snapshot, verify_checkpoint, write_checkpoint
from pipeline.config.load import dump, load
from pipeline.config.schema import Tracking
from pipeline.runs import folder as run_folder
from pipeline.runs.folder import (
    CONFIG_FILE,
    LOCK,
    RESULT,
    SEARCH_LOCK,
    hold_run_folder,
    new_run_dir,
    read_result,
)
from pipeline.system import patience
from pipeline.system.durable import write_whole
from pipeline.system.exit_codes import NotSaved
from pipeline.system.locks import open_locked
from tests.support.run_folders import config, hold_once
from tests.support.small_disk import small_disk
from tests.support.snapshots import PROGRESS_AT_1

# --------------------------------------------------------------------------------------- finding


def test_a_new_run_gets_a_new_folder_with_its_configuration(tmp_path: Path) -> None:
    mine = config(tmp_path / "deep" / "runs")
    with hold_run_folder(mine) as folder:
        assert folder.parent == mine.runs_dir
        assert folder.name.startswith("test-")
        assert load(folder / CONFIG_FILE) == mine
        assert (folder / "checkpoints").is_dir()
        assert read_result(folder) is None


def test_an_unfinished_run_of_the_same_configuration_is_continued(tmp_path: Path) -> None:
    mine = config(tmp_path)
    assert hold_once(mine) == hold_once(mine)


def test_a_run_is_found_through_another_path(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    first = hold_once(config(tmp_path / "runs"))
    assert hold_once(config(tmp_path / "link")) == tmp_path / "link" / first.name
    assert hold_once(config(tmp_path / "elsewhere", run_dir=first)) == first


def test_a_failed_run_is_continued(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), hold_run_folder(config(tmp_path)) as folder:
        raise ZeroDivisionError
    assert hold_once(config(tmp_path)) == folder


def test_a_finished_run_is_not_continued(tmp_path: Path) -> None:
    with hold_run_folder(config(tmp_path)) as finished:
        write_whole(finished / RESULT, b'{"steps": 3}\n')
    assert read_result(finished) == {"steps": 3}
    assert hold_once(config(tmp_path)) != finished


def test_a_held_run_is_refused_with_its_process_and_not_started_again(tmp_path: Path) -> None:
    here = f"process {os.getpid()} on {platform.node()}"
    with hold_run_folder(config(tmp_path)) as held:
        with pytest.raises(ValueError, match=f"{held} is already in use .*: {here}; .* --new"):
            hold_once(config(tmp_path))
        another = hold_once(config(tmp_path, run_dir=new_run_dir(config(tmp_path))))
        assert another != held
        hold_once(config(tmp_path, seed=1))
    assert hold_once(config(tmp_path)) in (held, another)


@pytest.mark.process
def test_a_run_is_found_although_the_disk_is_full_for_a_while(tmp_path: Path) -> None:
    """No second folder is made, and the first is not mistaken for another run's."""
    with small_disk(tmp_path / "disk", "1m") as disk:
        mine = config(disk.folder / "runs")
        with disk.full_for(0.7), hold_run_folder(mine) as folder:
            assert load(folder / CONFIG_FILE) == mine
        with disk.full_for(0.7):
            assert hold_once(mine) == folder


def test_a_disk_that_stays_full_at_the_start_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr("pipeline.runs.folder.write_whole", fail)
    with pytest.raises(NotSaved, match=r"cannot be saved in .*: Disk quota exceeded; free space"):
        hold_once(config(tmp_path))


@pytest.mark.parametrize("kind", ["file", "empty folder", "incomplete folder", "cannot be locked"])
def test_other_files_and_folders_are_skipped(tmp_path: Path, kind: str) -> None:
    strange = tmp_path / "test-000000"
    if kind == "file":
        strange.write_text("a file")
    else:
        strange.mkdir()
    if kind == "incomplete folder":
        (strange / f".{CONFIG_FILE}.1.tmp").write_text("name: te")
    if kind == "cannot be locked":  # like another user's folder, which cannot be locked
        write_whole(strange / CONFIG_FILE, (hold_once(config(tmp_path)) / CONFIG_FILE).read_bytes())
        (strange / LOCK).mkdir()
    first = hold_once(config(tmp_path))
    assert first != strange
    assert hold_once(config(tmp_path)) == first


# -------------------------------------------------------------------------------------- run_dir


def test_a_run_dir_is_created_and_continued(tmp_path: Path) -> None:
    mine = config(tmp_path / "runs", run_dir=tmp_path / "deep" / "mine")
    assert hold_once(mine) == hold_once(mine) == mine.run_dir
    assert not mine.runs_dir.exists()


def test_a_finished_run_dir_keeps_its_result_and_configuration(tmp_path: Path) -> None:
    mine = config(tmp_path, run_dir=tmp_path / "mine")
    with hold_run_folder(mine) as folder:
        write_whole(folder / RESULT, b"{}")
    with hold_run_folder(replace(mine, tracking=Tracking(mlflow=False))) as folder:
        assert read_result(folder) == {}
    assert load(folder / CONFIG_FILE) == mine, "the configuration of the result"


def test_a_run_dir_in_use_is_refused(tmp_path: Path) -> None:
    mine = config(tmp_path, run_dir=tmp_path / "mine")
    with (
        hold_run_folder(mine),
        pytest.raises(ValueError, match=r"run_dir=.*/mine is in use by a running process; wait"),
    ):
        hold_once(mine)
    hold_once(mine)


@pytest.mark.parametrize("obstacle", ["mine", f"mine/{LOCK}"])
def test_a_run_dir_that_cannot_be_created_or_locked_is_refused(
    tmp_path: Path, obstacle: str
) -> None:
    place = tmp_path / obstacle
    if obstacle == "mine":
        place.write_text("a file")
    else:
        place.mkdir(parents=True)
    with pytest.raises(ValueError, match=r"run_dir=.*/mine cannot be created or locked: "):
        hold_once(config(tmp_path, run_dir=tmp_path / "mine"))


def test_a_checkpoint_is_refused_as_run_dir_and_stays_unchanged(tmp_path: Path) -> None:
    """So is an average, which also has the configuration of a run."""
    mine = config(tmp_path)
    run = hold_once(mine)
    content = {CONFIG_FILE: (run / CONFIG_FILE).read_text()}
    checkpoint = write_checkpoint(tmp_path, Snapshot({"model": {}}, PROGRESS_AT_1, content))
    average = checkpoint.rename(tmp_path / "test-average")
    with pytest.raises(ValueError, match=r"run_dir=.*test-average is a checkpoint or an average"):
        hold_once(replace(mine, run_dir=average))
    write_whole(run / RESULT, b"{}")
    assert hold_once(mine) not in (run, average)
    verify_checkpoint(average)
    assert not (average / LOCK).exists()


# ------------------------------------------------------------------------------------- processes

HOLDER = """
import sys
from pathlib import Path
from pipeline.config.load import dump, load
from pipeline.runs.folder import hold_run_folder

settings = load(Path(sys.argv[1]))
sys.stdin.readline()
try:
    with hold_run_folder(settings) as folder:
        print(folder, flush=True)
        sys.stdin.readline()
except ValueError:
    print("refused", flush=True)
"""


@contextmanager
def holders(recipe: Path, count: int) -> Generator[list[subprocess.Popen[str]]]:
    """Processes that each hold a folder for this recipe after their first line of input."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(recipe)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        for _ in range(count)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def start(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def answer_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.process
def test_of_processes_that_start_together_one_makes_a_folder_and_the_others_are_refused(
    tmp_path: Path,
) -> None:
    """A killed process releases its folder."""
    mine = config(tmp_path / "runs")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump(mine))
    with holders(recipe, 4) as processes:
        for process in processes:
            start(process)
        answers = [answer_of(process) for process in processes]
        assert sorted(answers)[1:] == ["refused"] * 3
        (folder,) = mine.runs_dir.glob("test-*")
        holder = processes[answers.index(str(folder))]
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert hold_once(mine) == folder


# ---------------------------------------------------------------------------------- replaced files


def test_a_process_that_hangs_while_it_looks_for_its_run_does_not_block_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "SEARCH_SECONDS", 0.2)
    with open_locked(tmp_path / SEARCH_LOCK) or nullcontext():
        assert hold_once(config(tmp_path)).parent == tmp_path


def test_a_result_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    for number in (1, 2):
        write_whole(path, json.dumps({"n": number}).encode())
        assert read_result(tmp_path) == {"n": number}
        assert list(tmp_path.iterdir()) == [path]
