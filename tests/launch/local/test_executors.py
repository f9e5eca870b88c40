"""Training as a job of submitit's own executors, on machines without SLURM."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.multiprocess.runs import result, write_recipe
from tests.support.images import make_dataset

ROOT = Path(__file__).parents[3]


def submit(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(ROOT / "launch" / "submit.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )


@pytest.mark.parametrize(("executor", "ranks"), [("local", 2), ("debug", 1)])
def test_a_job_of_submitit_trains_to_the_end(tmp_path: Path, executor: str, ranks: int) -> None:
    recipe = write_recipe(tmp_path, make_dataset(tmp_path / "data", train=30, val=9))
    places = (f"run_dir={tmp_path / 'run'}", f"runs_dir={tmp_path / 'runs'}")
    settings = (*places, "train.steps=8", "--ranks", ranks)
    done = submit("--executor", executor, recipe, *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert result(tmp_path / "run")["world_size"] == ranks
    logs = "".join(path.read_text() for path in (tmp_path / "runs/jobs").glob("*_log.out"))
    shown = logs if executor == "local" else done.stdout
    assert "Top-1 error" in shown


def test_the_exit_code_of_a_job_is_that_of_its_training(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, tmp_path / "nowhere")
    done = submit("--executor", "local", recipe, f"runs_dir={tmp_path / 'runs'}", "--ranks", 1)
    assert done.returncode == 2
