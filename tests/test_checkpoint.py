"""A checkpoint comes back bit for bit, and is whole or not there, whenever its writer dies."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.checkpoint import (
    CheckpointError,
    Checkpoints,
    Progress,
    Snapshot,
    expect_same_stream,
    list_checkpoints,
    newest_checkpoint,
    read_checkpoint,
    verify_checkpoint,
)
from tests.snapshots import PROGRESS_AT_1, newest_step, open_checkpoints, save_all, snapshot, steps

# ---------------------------------------------------------------------------------- round trip


def test_comes_back_bit_for_bit(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    photograph = torch.randn(2, 3, 5, 7, generator=generator)
    model = {
        "channels_last": photograph.to(memory_format=torch.channels_last),
        "transposed": photograph.transpose(0, 3),
        "view": photograph[:, 1:2, ::2],
        "parameter": torch.nn.Parameter(torch.randn(4, generator=generator)),
        "bf16": photograph.bfloat16(),
        "fp16": photograph.half(),
        "double": photograph.double() / 3,
        "buffer": torch.tensor([2**62 + 1, -1]),
        "0-d": torch.tensor(7),
        "empty": torch.empty(0, 3),
        "not finite": torch.tensor([float("nan"), float("inf"), -0.0]),
        "shared": photograph,
        "bool": torch.tensor([True, False]),
    }
    progress = Progress(
        step=12,
        fingerprint="abc",
        seed=2**63 - 1,
        global_batch=256,
        seconds=1 / 3,
        top1_error_percent=100 / 3,
        best_top1_error_percent=0.1 + 0.2,
        scaler={"scale": 65536.0, "growth_interval": 2000, "backoff_factor": 0.1},
    )
    groups = {"model": model, "momentum": {}, "ema": {"a.b": torch.ones(2)}}
    assert save_all(tmp_path, [Snapshot(groups, progress)]) == []
    loaded = read_checkpoint(tmp_path / "step-00000012")
    assert loaded.progress == progress
    assert type(loaded.progress.scaler["growth_interval"]) is int
    assert loaded.tensors.keys() == groups.keys()
    for group, tensors in groups.items():
        assert loaded.tensors[group].keys() == tensors.keys()
        for name, tensor in tensors.items():
            copy = loaded.tensors[group][name]
            assert (copy.dtype, copy.shape) == (tensor.dtype, tensor.shape)
            bits = [value.detach().contiguous().reshape(-1) for value in (copy, tensor)]
            assert torch.equal(*(value.view(torch.uint8) for value in bits)), name


def test_training_may_go_on_while_it_is_written(tmp_path: Path) -> None:
    weight = torch.zeros(1000)
    with open_checkpoints(tmp_path, pytest.fail, keep_last=9) as checkpoints:
        for step in range(1, 6):
            weight.fill_(step)
            checkpoints.save(Snapshot({"model": {"w": weight}}, replace(PROGRESS_AT_1, step=step)))
            weight.fill_(-1)
    for path in list_checkpoints(tmp_path):
        loaded = read_checkpoint(path)
        assert (loaded.tensors["model"]["w"] == loaded.progress.step).all()
    assert steps(tmp_path) == [1, 2, 3, 4, 5]


def test_says_what_was_saved(tmp_path: Path) -> None:
    told: list[tuple[int, Path]] = []
    with Checkpoints(
        tmp_path,
        keep_last=1,
        keep_best=False,
        saved=lambda step, path, seconds: told.append((step, path)),
        warn=pytest.fail,
    ) as checkpoints:
        checkpoints.save(snapshot(3))
        checkpoints.wait()
        assert told == [(3, tmp_path / "step-00000003")]
        verify_checkpoint(told[0][1])


def test_another_stream_is_refused() -> None:
    expect_same_stream(PROGRESS_AT_1, replace(PROGRESS_AT_1, step=9), Path("x"))
    for change in ({"fingerprint": "g"}, {"seed": 1}, {"global_batch": 16}):
        with pytest.raises(CheckpointError, match=f"with {next(iter(change))} "):
            expect_same_stream(PROGRESS_AT_1, replace(PROGRESS_AT_1, **change), Path("x"))


# ---------------------------------------------------------------------------------- what is kept


@settings(max_examples=15, deadline=None)
@given(
    errors=st.lists(st.none() | st.integers(0, 5), min_size=1, max_size=7),
    keep_last=st.integers(1, 3),
    keep_best=st.booleans(),
)
def test_keeps_the_last_and_the_best(
    tmp_path_factory: pytest.TempPathFactory,
    errors: list[int | None],
    keep_last: int,
    keep_best: bool,
) -> None:
    folder = tmp_path_factory.mktemp("run")
    with open_checkpoints(
        folder, pytest.fail, keep_last=keep_last, keep_best=keep_best
    ) as checkpoints:
        for step, error in enumerate(errors, start=1):
            checkpoints.save(snapshot(step, None if error is None else error / 3))
            checkpoints.wait()
            known = [(e, at) for at, e in enumerate(errors[:step], start=1) if e is not None]
            best = {min(known)[1]} if known and keep_best else set()
            assert set(steps(folder)) == set(range(1, step + 1)[-keep_last:]) | best
    for path in list_checkpoints(folder):
        verify_checkpoint(path)
    assert len(list(folder.iterdir())) == len(steps(folder))


def test_leftovers_of_a_killed_process_go(tmp_path: Path) -> None:
    leftover = tmp_path / ".step-00000001.12345.tmp"
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    assert newest_checkpoint(tmp_path, pytest.fail) is None
    assert save_all(tmp_path, [snapshot(2)]) == []
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


# ------------------------------------------------------------------------------ writes that fail


def test_a_write_that_fails_warns_and_the_next_one_succeeds(tmp_path: Path) -> None:
    folder, aside = tmp_path / "checkpoints", tmp_path / "aside"
    assert save_all(folder, [snapshot(1)]) == []
    folder.rename(aside)
    folder.write_text("in the way")
    warnings: list[str] = []
    with open_checkpoints(folder, warnings.append) as checkpoints:
        checkpoints.save(snapshot(2))
        checkpoints.wait()
        assert len(warnings) == 1
        assert "the checkpoint of step 2 could not be written" in warnings[0]
        folder.unlink()
        aside.rename(folder)
        assert newest_step(folder) == 1
        checkpoints.save(snapshot(3))
    assert len(warnings) == 1
    assert newest_step(folder) == 3


FULL_DISK = """
import json, resource, sys
from pathlib import Path
from tests.snapshots import newest_step, save_all, snapshot

folder = Path(sys.argv[1])
assert save_all(folder, [snapshot(1)]) == []
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # the model takes 1,200 bytes
warnings = save_all(folder, [snapshot(2), snapshot(3)])
names = [path.name for path in folder.iterdir()]
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
print(json.dumps([warnings, names, newest_step(folder)]))
"""


def run_script(script: str, *arguments: str) -> Any:
    """Run a script in a process of its own; return the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    return json.loads(done.stdout)


def test_a_full_disk_costs_no_more_than_the_checkpoint(tmp_path: Path) -> None:
    warnings, names, newest = run_script(FULL_DISK, str(tmp_path))
    assert [warning.split(" could not be written")[0] for warning in warnings] == [
        "the checkpoint of step 2",
        "the checkpoint of step 3",
    ]
    assert names == ["step-00000001"]  # and what was begun takes no room
    assert newest == 1


KILLS = """
import json, os, sys
from pathlib import Path
from tests.snapshots import flip_a_bit, newest_step, save_all, snapshot
from pipeline.checkpoint import write_checkpoint

CALLS = ("mkdir", "open", "fsync", "rename", "replace", "unlink", "rmdir")

def dying(name, countdown):
    call = getattr(os, name)
    def wrapped(*arguments, **keywords):
        if countdown[0] == 0:
            os._exit(9)
        countdown[0] -= 1
        return call(*arguments, **keywords)
    return wrapped

def saves_until(folder, k):
    # Whether a process lives to save step 2, if it is killed right before its k-th call.
    child = os.fork()
    if child == 0:
        countdown = [k]
        for name in CALLS:
            setattr(os, name, dying(name, countdown))
        save_all(folder, [snapshot(2)], keep_last=1, keep_best=False)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0

seen = []
for damaged in (False, True):
    for k in range(1000):
        folder = Path(sys.argv[1]) / f"{damaged}-{k}"
        write_checkpoint(folder, snapshot(1))
        if damaged:  # an earlier attempt at the same step is in the way
            flip_a_bit(write_checkpoint(folder, snapshot(2)))
        lived = saves_until(folder, k)
        first = newest_step(folder)
        assert save_all(folder, [snapshot(3)], keep_last=1) == []
        left = [path.name for path in folder.iterdir()]
        seen.append([damaged, k, lived, first, newest_step(folder), left])
        if lived:
            break
print(json.dumps(seen))
"""


def test_killed_at_any_moment_the_old_one_is_whole_or_the_new_one_is(tmp_path: Path) -> None:
    seen = run_script(KILLS, str(tmp_path))
    for damaged in (False, True):
        newest = [entry[3] for entry in seen if entry[0] == damaged]
        assert len(newest) > 10
        assert set(newest) == {1, 2}
        assert newest == sorted(newest)  # once the new one is there it stays
        assert newest[-1] == 2
    for *_, after, left in seen:
        assert after == 3
        assert left == ["step-00000003"]
    assert [entry[2] for entry in seen].count(True) == 2
