"""The training command: its exit codes, its messages and the files it writes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import torch

from pipeline.config.load import load
from pipeline.distributed.world import World
from pipeline.runs.folder import hold_run_folder
from pipeline.train import main
from tests.multiprocess.runs import events, newest, result, write_recipe
from tests.support.images import make_dataset

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
QUICK = (
    "train.steps=12",
    "train.log_every_steps=4",
    "evaluate.every_steps=6",
    "checkpoint.every_steps=6",
)
DAMAGED = "00007.JPEG"

Train = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Generator[None]:
    """Threads that wait for each other are slow where tests share the cores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(World, "cpu_threads", 1)
        yield


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    return write_recipe(folder, make_dataset(folder / "data", train=90, val=23))


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe for a dataset with a corrupt image of its recorded size and time."""
    folder = tmp_path_factory.mktemp("damaged")
    recipe = write_recipe(folder, make_dataset(folder / "data", train=30, val=9))
    image = folder / "data" / "images" / "train" / DAMAGED
    before = image.stat()
    image.write_bytes(b"x" * before.st_size)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    return recipe


@pytest.fixture
def train(capsys: pytest.CaptureFixture[str]) -> Train:
    """Run the command in this process; return its exit code and its stderr."""

    def run(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        code = main([str(each) for each in arguments])
        errors = capsys.readouterr().err
        assert "Traceback" not in errors
        return code, errors

    return run


def submit(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Train on two ranks on this machine, on the CPU."""
    return subprocess.run(
        [sys.executable, ROOT / "launch" / "submit.py", "--local", "--ranks", "2"]
        + [str(each) for each in arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_store_that_mlflow_refuses_for_good_is_a_mistake(
    recipe: Path, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:./mlruns")
    code, said = train(recipe, *QUICK, f"runs_dir={tmp_path / 'runs'}", "tracking.mlflow=true")
    assert code == 2
    assert said.startswith("MLFLOW_TRACKING_URI=file:./mlruns is a folder")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------ run folder


@pytest.fixture(scope="module")
def finished(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run, which is also tracked in MLflow."""
    runs_dir = tmp_path_factory.mktemp("finished") / "runs"
    tracked = ("tracking.mlflow=true", f"tracking.uri=sqlite:///{runs_dir.parent}/mlflow.db")
    assert main([str(recipe), *QUICK, f"runs_dir={runs_dir}", *tracked]) == 0
    (folder,) = runs_dir.glob("[!.]*")
    return folder


def test_precision_is_decided_at_the_first_start_and_kept(
    recipe: Path, tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the run resumes in it even where another one would be faster."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    command = (recipe, *QUICK, "train.precision=auto", f"runs_dir={tmp_path}")
    assert train(*command)[0] == 0
    (run,) = tmp_path.glob("tiny-*")
    assert load(run / "config.yaml").train.precision == "fp32"
    assert events(run, "run_started")[0]["params"]["train.precision"] == "fp32"
    (run / "result.json").unlink()
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert train(*command)[0] == 0
    assert list(tmp_path.glob("tiny-*")) == [run]
    assert load(run / "config.yaml").train.precision == "fp32"


def test_doubts_are_reported_before_the_first_step(
    recipe: Path, tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    doubtful = ("schedule.warmup_steps=13", "train.precision=bf16", "train.global_batch=96")
    assert train(recipe, *QUICK, *doubtful, f"run_dir={tmp_path}")[0] == 0
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    kinds = [json.loads(line)["event"] for line in lines]
    said = [event["message"] for event in events(tmp_path, "warned")]
    assert kinds.index("warned") < kinds.index("progress")
    for part in ("schedule.warmup_steps=13", "train.precision=bf16", "train.global_batch=96"):
        assert sum(part in each for each in said) == 1


def test_the_run_folder(recipe: Path, finished: Path) -> None:
    name, _, run_id = finished.name.partition("-")
    assert name == "tiny"
    assert len(run_id) >= 6
    assert (finished / "config.yaml").is_file()
    expected = load(recipe, [*QUICK, f"runs_dir={finished.parent}"])
    assert (
        load(finished / "config.yaml", ["tracking.mlflow=false", "tracking.uri=null"]) == expected
    )
    assert newest(finished) == 12


def test_the_result(recipe: Path, finished: Path) -> None:
    found = result(finished)
    manifest = json.loads((recipe.parent / "data" / "manifest.json").read_text())
    assert 0 <= found["top5_error_percent"] <= found["top1_error_percent"] <= 100
    assert found["images_evaluated"] == 23
    assert found["steps"] == 12
    assert found["epochs"] == pytest.approx(12 * 16 / 90)
    assert found["images_per_second"] > 0
    assert found["parameters"] > 70_000
    assert found["world_size"] == 1
    assert found["dataset_fingerprint"] == manifest["fingerprint"]
    assert len(found["mlflow_run_id"]) == 32


def test_every_event_is_a_line_of_json(finished: Path) -> None:
    lines = (finished / "metrics.jsonl").read_text().splitlines()
    names = [json.loads(line)["event"] for line in lines]
    assert names[0] == "run_started"
    assert names[-1] == "run_ended"
    assert [event["step"] for event in events(finished, "progress")] == [4, 6, 8, 12]
    assert [event["step"] for event in events(finished, "evaluated")] == [6, 12]
    assert {"step", "loss", "lr", "images_per_second"} <= events(finished, "progress")[0].keys()
    assert events(finished, "run_ended")[0]["status"] == "finished"


# --------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "settings",
    [
        ["train.precision=bf16"],
        ["train.precision=fp16"],
        ["train.accumulation=2", "model.batch_norm_group=8"],
        ["train.ema.decay=0.5", "train.ema.every_steps=2"],
        ["train.ema=null", "train.channels_last=false", "train.deterministic=false"],
    ],
    ids=["bf16", "fp16", "accumulation", "ema", "plain"],
)
def test_the_loss_falls(recipe: Path, tmp_path: Path, train: Train, settings: list[str]) -> None:
    run = tmp_path / "run"
    assert train(recipe, *QUICK, "train.steps=40", f"run_dir={run}", *settings) == (0, "")
    losses = [event["loss"] for event in events(run, "progress")]
    assert losses[-1] < 0.7 * losses[0]
    assert result(run)["top1_error_percent"] < 60


def test_two_ranks(recipe: Path, tmp_path: Path) -> None:
    done = submit(recipe, *QUICK, f"run_dir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert result(tmp_path / "run")["world_size"] == 2
    assert result(tmp_path / "run")["images_evaluated"] == 23
    assert done.stdout.count("Top-1 error") == 1


# --------------------------------------------------------------------------------------- failures


def test_a_loss_that_is_not_finite_fails_the_run(
    recipe: Path, tmp_path: Path, train: Train
) -> None:
    run = tmp_path / "run"
    settings = (*QUICK, "optim.lr=1e30", "schedule.warmup_steps=0", f"run_dir={run}")
    code, errors = train(recipe, *settings)
    assert code == 1
    assert "between step 1 and step 4" in errors
    assert "optim.lr" in errors
    assert len(errors.splitlines()) == 1
    assert events(run, "run_ended")[0]["status"] == "failed"
    assert not (run / "result.json").exists()


def test_a_run_folder_in_use_is_refused(recipe: Path, tmp_path: Path, train: Train) -> None:
    settings = [*QUICK, f"run_dir={tmp_path / 'run'}"]
    with hold_run_folder(load(recipe, settings)):
        code, errors = train(recipe, *settings)
    assert code == 2
    assert "in use by a running process" in errors
    assert str(tmp_path / "run") in errors


def test_the_run_folder_of_another_configuration_is_refused(
    finished: Path, recipe: Path, train: Train
) -> None:
    code, errors = train(recipe, *QUICK, "seed=99", f"run_dir={finished}")
    assert code == 2
    assert "another configuration" in errors


def test_a_mistake_ends_both_ranks_with_2(finished: Path, recipe: Path) -> None:
    done = submit(recipe, *QUICK, "seed=99", f"run_dir={finished}")
    assert done.returncode == 2, done.stderr
    assert "another configuration" in done.stderr
    assert "Traceback" not in done.stderr


# ---------------------------------------------------------------------------------- corrupt images


def test_a_corrupt_image_is_found_before_the_first_step(
    damaged: Path, tmp_path: Path, train: Train
) -> None:
    run = tmp_path / "run"
    code, errors = train(damaged, *QUICK, "data.verify=decode", f"run_dir={run}")
    assert code == 2
    assert f"train/{DAMAGED} at offset 0" in errors
    assert "data.on_corrupt=skip" in errors
    assert newest(run) == 0
    assert not (run / "metrics.jsonl").exists() or not events(run, "progress")


def test_a_corrupt_image_ends_both_ranks(damaged: Path, tmp_path: Path) -> None:
    """Only the rank that reads the image reports it, but all ranks end with 2."""
    done = submit(damaged, *QUICK, "data.verify=off", f"run_dir={tmp_path / 'run'}")
    assert done.returncode == 2, done.stderr
    assert f"train/{DAMAGED} at offset 0" in done.stderr


def test_a_corrupt_image_can_be_replaced(damaged: Path, tmp_path: Path, train: Train) -> None:
    run = tmp_path / "run"
    settings = (*QUICK, "data.verify=decode", "data.on_corrupt=skip", f"run_dir={run}")
    assert train(damaged, *settings)[0] == 0
    replaced = events(run, "progress")[-1]["images_replaced"]
    assert replaced in (6, 7)  # 12 steps of 16 are 6.4 passes over 30 images


# ---------------------------------------------------------------------------------------- Ctrl-C


@pytest.mark.parametrize("ranks", [1, 2])
def test_ctrl_c_saves_and_the_same_command_continues(
    recipe: Path, tmp_path: Path, ranks: int
) -> None:
    """A terminal sends it to the whole process group. Nothing else saves before the end."""
    run = tmp_path / "run"
    command = [sys.executable, str(ROOT / "launch" / "submit.py"), "--local", "--ranks", str(ranks)]
    settings = [str(recipe), f"run_dir={run}", "train.steps=120", "checkpoint.every_steps=1000"]
    process = subprocess.Popen(
        [*command, *settings],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    deadline = time.monotonic() + 180
    while not (run / "metrics.jsonl").exists() or len(events(run, "progress")) < 4:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert errors.count("Ctrl-C again") == 1
    assert events(run, "run_ended")[-1]["status"] == "interrupted"
    reached = newest(run)
    assert 20 <= reached < 120
    assert events(run, "progress")[-1]["step"] == reached, "no step is lost"

    assert main(settings) == 0

    assert [each["first_step"] for each in events(run, "run_started")] == [1, reached + 1]
    assert result(run)["steps"] == 120
