"""Runs that read from a stage give the same results as runs that do not."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from launch.submit import main as submit
from pipeline.distributed.world import World
from pipeline.train import main
from tests.multiprocess.runs import result, state, write_recipe
from tests.support.archives import make_archives

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[3]
QUICK = ("train.steps=12", "evaluate.every_steps=6", "checkpoint.every_steps=6")


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    return tmp_path / "local" / "disk"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    return write_recipe(folder, make_archives(folder / "data", images=90, shards=5))


def test_training_from_a_stage_gives_the_same_weights(
    recipe: Path, tmp_path: Path, stage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(World, "cpu_threads", 1)
    runs = [tmp_path / "without", tmp_path / "with"]
    assert main([str(recipe), *QUICK, f"run_dir={runs[0]}"]) == 0
    moved = recipe.parent / "data" / "shards"
    assert main([str(recipe), *QUICK, f"run_dir={runs[1]}", f"data.stage={stage}"]) == 0
    one, other = map(state, runs)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    errors = [result(run)["top1_error_percent"] for run in runs]
    assert errors[0] == errors[1]
    hidden = moved.rename(moved.with_name("hidden"))
    try:
        again = [f"run_dir={tmp_path / 'again'}", f"data.stage={stage}", "data.verify=decode"]
        assert main([str(recipe), *QUICK, *again]) == 0
    finally:
        hidden.rename(moved)


def submit_two(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "launch" / "submit.py", "--local", "--ranks", "2"]
    return subprocess.run(
        [str(each) for each in (*command, *arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_two_ranks_share_a_stage(recipe: Path, tmp_path: Path, stage: Path) -> None:
    run = tmp_path / "run"
    done = submit_two(recipe, *QUICK, f"run_dir={run}", f"data.stage={stage}")
    assert done.returncode == 0, done.stderr
    assert result(run)["world_size"] == 2
    assert len(list(stage.glob("*/*/*.bin"))) == 6


def test_a_stage_that_fails_ends_all_ranks(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = submit_two(
        recipe, *QUICK, f"run_dir={tmp_path / 'run'}", f"data.stage={tmp_path / 'file'}"
    )
    assert done.returncode == 2, done.stderr
    assert f"data.stage={tmp_path / 'file'} cannot be used" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_dry_run_stages_nothing(
    recipe: Path, stage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit(["--dry-run", "--local", "--ranks", "1", str(recipe), f"data.stage={stage}"]) == 0
    shown = capsys.readouterr().out
    assert re.search(rf"staging:         [1-9][\d.]* KB per node, in {stage}/", shown)
    assert not stage.exists()
    inside = recipe.parent / "data" / "shards" / "stage"
    assert submit(["--dry-run", "--local", str(recipe), f"data.stage={inside}"]) == 2
    assert "is inside the dataset's own folder" in capsys.readouterr().err
