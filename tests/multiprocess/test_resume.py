"""Law 2: resume equals unbroken. Real processes, real SIGKILLs."""

from pathlib import Path

import pytest
import torch

from tests.multiprocess.runs import (
    events,
    finish,
    kill_between_checkpoints,
    newest,
    result,
    start,
    state,
    train_until,
    write_recipe,
)
from tests.support.images import make_dataset


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_killed_run_ends_with_the_weights_of_the_unbroken_run(tmp_path: Path, ranks: int) -> None:
    recipe = write_recipe(tmp_path, make_dataset(tmp_path / "data", train=90, val=23))
    batch = f"train.global_batch={48 if ranks == 3 else 16}"
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(start(recipe, f"run_dir={whole}", batch, ranks=ranks))

    for attempt in range(2):
        training = start(recipe, f"run_dir={broken}", batch, ranks=ranks)
        reached = kill_between_checkpoints(training, broken, seed=attempt)
        assert 0 < reached < 120, "the kill came too late"
    finish(start(recipe, f"run_dir={broken}", batch, ranks=ranks))

    expected, found = state(whole), state(broken)
    assert newest(whole) == newest(broken) == 120
    assert expected.keys() == found.keys()
    assert any(name.startswith("momentum/") for name in expected)
    assert any(name.startswith("ema/") for name in expected)
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), f"{name} differs"
    assert result(whole)["top1_error_percent"] == result(broken)["top1_error_percent"]


def test_the_same_command_continues_a_killed_run(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, make_dataset(tmp_path / "data", train=90, val=23))
    command = (recipe, f"runs_dir={tmp_path / 'runs'}")
    training = start(*command)
    train_until(lambda: any(tmp_path.glob("runs/tiny-*")), training)
    found = list(tmp_path.glob("runs/tiny-*"))
    reached = kill_between_checkpoints(training, found[0], seed=0)

    finish(start(*command))

    assert list(tmp_path.glob("runs/tiny-*")) == found
    first_steps = [event["first_step"] for event in events(found[0], "run_started")]
    assert first_steps == [1, reached + 1]
    assert result(found[0])["steps"] == 120


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, make_dataset(tmp_path / "data", train=30, val=9))
    command = (recipe, f"run_dir={tmp_path / 'run'}", "train.steps=8")
    finish(start(*command))
    written = (tmp_path / "run" / "metrics.jsonl").read_bytes()

    output = finish(start(*command))

    assert "Top-1 error" in output
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == written
