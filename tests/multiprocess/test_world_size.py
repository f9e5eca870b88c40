"""Law 1 and the global batch: the number of ranks changes the speed, not the training."""

from pathlib import Path

import pytest
import torch

from tests.multiprocess.runs import (
    events,
    finish,
    newest,
    result,
    start,
    state,
    write_recipe,
)
from tests.multiprocess.stops import kill_all, succeed, torchrun, train_alone, wait_until
from tests.support.images import make_dataset


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    return write_recipe(folder, make_dataset(folder / "data", train=90, val=23))


@pytest.fixture(scope="module")
def alone(recipe: Path) -> Path:
    """A run of one rank, to compare others with."""
    finish(start(recipe, f"run_dir={recipe.parent / 'alone'}", "train.log_every_steps=1"))
    return recipe.parent / "alone"


def losses(run: Path) -> list[float]:
    return [event["loss"] for event in events(run, "progress")]


def test_two_ranks_equal_one(recipe: Path, alone: Path) -> None:
    """With a fixed batch-norm group, only the order of sums differs."""
    both = recipe.parent / "both"
    finish(start(recipe, f"run_dir={both}", "train.log_every_steps=1", ranks=2))
    assert losses(both)[0] == pytest.approx(losses(alone)[0], rel=1e-6)
    assert losses(both)[:10] == pytest.approx(losses(alone)[:10], rel=1e-4)
    assert result(both)["images_evaluated"] == result(alone)["images_evaluated"] == 23
    assert result(both)["world_size"] == 2
    expected, found = state(alone), state(both)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0.02, atol=0.02, msg=name)


def test_accumulation_equals_the_whole_batch(recipe: Path, alone: Path) -> None:
    """The micro batch changes neither gradients nor running statistics."""
    run = recipe.parent / "accumulated"
    finish(start(recipe, f"run_dir={run}", "train.log_every_steps=1", "train.accumulation=2"))
    assert losses(run)[:10] == pytest.approx(losses(alone)[:10], rel=1e-4)
    expected, found = state(alone), state(run)
    for name, tensor in expected.items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(found[name], tensor, rtol=0.02, atol=0.02, msg=name)


def test_a_run_resumes_on_another_number_of_ranks(recipe: Path, alone: Path) -> None:
    """Started with torchrun, and resumed on one rank, both in new processes."""
    run = recipe.parent / "moved"
    arguments = (recipe, f"run_dir={run}", "train.log_every_steps=1")
    process = torchrun(*arguments, ranks=2)
    wait_until(lambda: newest(run) > 0, process)
    kill_all(process)
    reached = newest(run)
    assert reached < 120, "the kill came too late"
    succeed(train_alone(*arguments))
    assert newest(run) == 120
    first_steps = [event["first_step"] for event in events(run, "run_started")]
    assert first_steps == [1, reached + 1]
    resumed = [event["loss"] for event in events(run, "progress")][-(120 - reached) :]
    assert resumed[:5] == pytest.approx(losses(alone)[reached : reached + 5], rel=1e-2)
