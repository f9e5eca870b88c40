"""A run may change its engine and its number of ranks when it resumes. Real processes."""

import shutil
from pathlib import Path

import pytest
import torch

from tests.multiprocess.runs import events, finish, result, start, state, write_recipe
from tests.support.images import make_dataset


def test_zero_on_two_ranks_continues_a_run_of_ddp_on_four(tmp_path: Path) -> None:
    """It resumes within an epoch, with the same images in the same order."""
    recipe = write_recipe(tmp_path, make_dataset(tmp_path / "data", train=90, val=23))
    command = (recipe, "train.global_batch=32", "train.log_every_steps=1", "train.steps=20")
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    finish(start(*command, f"run_dir={whole}", ranks=4))
    shutil.copytree(whole, moved)
    shutil.rmtree(moved / "checkpoints" / "step-00000020")
    (moved / "result.json").unlink()
    (moved / "metrics.jsonl").unlink()

    zero = "engine={name: deepspeed, zero_stage: 2}"
    finish(start(*command, f"run_dir={moved}", zero, ranks=2))

    expected, found = ([e["loss"] for e in events(run, "progress")] for run in (whole, moved))
    assert len(found) == 10
    assert found == pytest.approx(expected[10:], rel=1e-4)
    assert result(moved)["images_evaluated"] == result(whole)["images_evaluated"] == 23
    for name, tensor in state(whole).items():
        torch.testing.assert_close(state(moved)[name], tensor, rtol=1e-2, atol=1e-3, msg=name)
