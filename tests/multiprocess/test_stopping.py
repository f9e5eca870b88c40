"""A run that is asked to stop saves, stops on all ranks, and resumes as if it had not stopped."""

import json
import signal
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest
import torch

from pipeline.checkpoint import TrainedOn, list_checkpoints, read_checkpoint, trained_on
from pipeline.config.load import load
from pipeline.system.exit_codes import STOPPED
from pipeline.system.signals import code_of
from pipeline.train import main
from tests.multiprocess.runs import (
    events,
    finish,
    newest,
    result,
    start,
    state,
    train_until,
    write_recipe,
)
from tests.multiprocess.stops import (
    SECONDS,
    end,
    ranks_of,
    submit,
    succeed,
    train_alone,
    wait_until,
)
from tests.support.images import make_dataset

NEVER = "checkpoint.every_steps=1000"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopping")
    return write_recipe(folder, make_dataset(folder / "data", train=90, val=23))


def reached(run: Path, event: str, step: int) -> bool:
    """Whether the run has reported `event` at `step` or later."""
    found = events(run, event) if (run / "metrics.jsonl").exists() else []
    return any(each["step"] >= step for each in found)


def is_statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var"))


@pytest.mark.parametrize(
    ("ranks", "number"), [(1, signal.SIGTERM), (2, signal.SIGUSR2), (2, signal.SIGINT)]
)
def test_a_stopped_run_ends_with_the_weights_of_the_unbroken_run(
    recipe: Path, tmp_path: Path, ranks: int, number: signal.Signals
) -> None:
    """The last rank is asked, at any step; running statistics may differ by rounding.

    The stopped run, and the two ranks that resume, are started from the command line.
    """
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(start(recipe, f"run_dir={whole}", NEVER, ranks=ranks))
    process = submit(recipe, f"run_dir={broken}", NEVER, ranks=ranks)
    wait_until(lambda: reached(broken, "progress", 30), process)
    ranks_of(process)[-1].send_signal(number)
    code, output = end(process)
    assert code == code_of(number), output
    assert "Traceback" not in output
    assert 30 <= newest(broken) < 120
    if ranks == 1:
        finish(start(recipe, f"run_dir={broken}", NEVER))
    else:
        succeed(submit(recipe, f"run_dir={broken}", NEVER, ranks=ranks))

    ends = [each["status"] for each in events(broken, "run_ended")]
    assert ends == ["interrupted", "finished"]
    expected, found = state(whole), state(broken)
    assert newest(whole) == newest(broken) == 120
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        if ranks == 1 or not is_statistic(name):
            assert torch.equal(tensor, found[name]), f"{name} differs"
        else:  # averaged over the ranks once more, and so rounded differently
            torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6, msg=name)


def test_an_interrupted_evaluation_is_repeated_on_resume(tmp_path: Path) -> None:
    """A signal to one of two ranks stops the run in an evaluation."""
    recipe = write_recipe(tmp_path, make_dataset(tmp_path / "data", train=30, val=300))
    run = tmp_path / "run"
    arguments = (recipe, f"run_dir={run}", "train.steps=12", "evaluate.every_steps=6")
    arguments += ("evaluate.batch_per_rank=1", "train.log_every_steps=6", NEVER)
    training = start(*arguments, ranks=2)
    train_until(lambda: reached(run, "progress", 6), training)
    training.ranks.send(signal.SIGTERM, training.ranks.pids[:1])
    codes, output = training.end(SECONDS)
    assert codes == [STOPPED, STOPPED], output
    assert events(run, "evaluated") == [], "the signal came too late"
    (path,) = list_checkpoints(run / "checkpoints")
    assert read_checkpoint(path).progress.step == 6
    assert read_checkpoint(path).progress.top1_error_percent is None

    finish(start(*arguments, ranks=2))
    assert [event["step"] for event in events(run, "evaluated")] == [6, 12]
    assert [event["images"] for event in events(run, "evaluated")] == [300, 300]
    errors = [event["top1_error_percent"] for event in events(run, "evaluated")]
    assert result(run)["best_top1_error_percent"] == min(errors)


def catches_sigterm(process: psutil.Process) -> bool:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    (caught,) = (int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def test_a_program_that_is_loading_stops_at_once(recipe: Path, tmp_path: Path) -> None:
    process = train_alone(recipe, f"run_dir={tmp_path / 'run'}")
    wait_until(lambda: catches_sigterm(psutil.Process(process.pid)), process)
    process.send_signal(signal.SIGTERM)
    assert end(process) == (STOPPED, "")
    assert not (tmp_path / "run").exists()


def test_a_run_stops_at_once_before_the_first_step(recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = submit(recipe, f"run_dir={run}", ranks=2)
    wait_until((run / "config.yaml").exists, process)
    process.send_signal(signal.SIGTERM)
    code, output = end(process)
    assert code == STOPPED, output
    assert "before the first step" in output
    assert "Traceback" not in output
    assert newest(run) == 0


def test_a_checkpoint_describes_its_run(recipe: Path, tmp_path: Path) -> None:
    settings = [f"run_dir={tmp_path / 'run'}", "train.steps=12", "checkpoint.every_steps=5"]
    assert main([str(recipe), *settings]) == 0
    path = tmp_path / "run" / "checkpoints" / "step-00000010"
    assert load(path / "config.yaml") == load(recipe, settings)
    schedule = json.loads((path / "schedule.json").read_text())
    assert (schedule["step"], schedule["last_step"], schedule["world_size"]) == (10, 12, 1)
    assert schedule["epoch"] == pytest.approx(10 * 16 / 90)
    assert 0 < schedule["next_lr"] < 0.05
    provenance = json.loads((path / "provenance.json").read_text())
    manifest = json.loads((recipe.parent / "data" / "manifest.json").read_text())
    assert provenance["dataset_fingerprint"] == manifest["fingerprint"]
    dataset = trained_on(read_checkpoint(path))
    assert dataset == TrainedOn(
        manifest["name"], manifest["fingerprint"], tuple(manifest["classes"])
    )
    assert provenance["torch"] == version("torch")
    assert {"git_commit", "git_dirty", "config_hash", "python"} <= provenance.keys()
