"""Training as a job of submitit's own executors, on machines without SLURM."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.multiprocess.runs import events, newest, result, write_recipe
from tests.multiprocess.stops import SECONDS, wait_until
from tests.support.images import make_dataset

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[3]


def start(*arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(ROOT / "launch" / "submit.py"), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        process_group=0,
    )


def submit(*arguments: object) -> tuple[int, str]:
    process = start(*arguments)
    output, _ = process.communicate()
    return process.returncode, output


@pytest.mark.exhaustive
@pytest.mark.parametrize(("executor", "ranks"), [("local", 2), ("debug", 1)])
def test_a_job_of_submitit_trains_to_the_end(tmp_path: Path, executor: str, ranks: int) -> None:
    recipe = write_recipe(tmp_path, make_dataset(tmp_path / "data", train=30, val=9))
    places = (f"run_dir={tmp_path / 'run'}", f"runs_dir={tmp_path / 'runs'}")
    settings = (*places, "train.steps=8", "--ranks", ranks)
    code, output = submit("--executor", executor, recipe, *settings)
    assert code == 0, output
    assert result(tmp_path / "run")["world_size"] == ranks
    logs = "".join(path.read_text() for path in (tmp_path / "runs/jobs").glob("*_log.out"))
    shown = logs if executor == "local" else output
    assert "Top-1 error" in shown


def test_ctrl_c_saves_in_a_job_of_submitit_too(tmp_path: Path) -> None:
    """Neither the terminal's signal nor submitit kills the ranks."""
    recipe = write_recipe(tmp_path, make_dataset(tmp_path / "data", train=30, val=9))
    run = tmp_path / "run"
    settings = (f"run_dir={run}", f"runs_dir={tmp_path / 'runs'}", "train.steps=1000000")
    settings += ("checkpoint.every_steps=1000000", "evaluate.every_steps=1000000")
    process = start("--executor", "local", recipe, *settings, "--ranks", 2)
    wait_until(lambda: (run / "metrics.jsonl").exists() and bool(events(run, "progress")), process)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert newest(run) == events(run, "progress")[-1]["step"]


def test_the_exit_code_of_a_job_is_that_of_its_training(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, tmp_path / "nowhere")
    code, _ = submit("--executor", "local", recipe, f"runs_dir={tmp_path / 'runs'}", "--ranks", 1)
    assert code == 2
