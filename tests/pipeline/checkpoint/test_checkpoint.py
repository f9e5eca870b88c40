"""A checkpoint is read back bit for bit, and is complete or missing whenever its writer dies."""

import errno
import json
import os
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from pipeline.checkpoint import (
    CheckpointError,
    Checkpoints,
    Progress,
    Snapshot,
    expect_same_stream,
    expect_same_tensors,
    list_checkpoints,
    newest_checkpoint,
    read_checkpoint,
    verify_checkpoint,
    write_checkpoint,
)
from pipeline.runs.fence import Fence
from tests.support.snapshots import (
    PROGRESS_AT_1,
    flip_a_bit,
    newest_step,
    open_checkpoints,
    save_all,
    snapshot,
    steps,
)

# ---------------------------------------------------------------------------------- round trip


def test_a_checkpoint_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    documents = {"config.yaml": "name: é\n", "schedule.json": json.dumps({"epoch": 1.5})}
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
    assert save_all(tmp_path, [Snapshot(groups, progress, documents)]) == []
    loaded = read_checkpoint(tmp_path / "step-00000012")
    assert loaded.progress == progress
    assert loaded.documents == documents
    assert type(loaded.progress.scaler["growth_interval"]) is int
    assert loaded.tensors.keys() == groups.keys()
    for group, tensors in groups.items():
        assert loaded.tensors[group].keys() == tensors.keys()
        for name, tensor in tensors.items():
            copy = loaded.tensors[group][name]
            assert (copy.dtype, copy.shape) == (tensor.dtype, tensor.shape)
            bits = [value.detach().contiguous().reshape(-1) for value in (copy, tensor)]
            assert torch.equal(*(value.view(torch.uint8) for value in bits)), name


def test_other_programs_can_read_a_checkpoint(tmp_path: Path) -> None:
    """Its tensors are aligned, so that they can be mapped into memory."""
    odd = {f"{n}": torch.arange(n, dtype=torch.uint8) for n in range(1, 20)}
    wide = {f"w{n}": torch.full((n,), 1 / 3, dtype=torch.float64) for n in range(1, 4)}
    path = write_checkpoint(tmp_path, Snapshot({"model": odd | wide}, PROGRESS_AT_1))
    with safe_open(path / "model.safetensors", "pt") as file:
        assert set(file.keys()) == odd.keys() | wide.keys()
        for name, tensor in (odd | wide).items():
            assert torch.equal(file.get_tensor(name), tensor)
    content = (path / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    for name, entry in json.loads(content[8 : 8 + length]).items():
        assert (8 + length + entry["data_offsets"][0]) % (8 if name.startswith("w") else 1) == 0


def test_training_may_change_the_weights_during_a_write(tmp_path: Path) -> None:
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


def test_each_save_is_reported(tmp_path: Path) -> None:
    reported: list[tuple[int, Path]] = []
    with Checkpoints(
        tmp_path,
        keep_last=1,
        keep_best=False,
        saved=lambda step, path, seconds: reported.append((step, path)),
        warn=pytest.fail,
    ) as checkpoints:
        checkpoints.save(snapshot(3))
        checkpoints.wait()
        assert reported == [(3, tmp_path / "step-00000003")]
        verify_checkpoint(reported[0][1])


def test_another_stream_is_refused() -> None:
    expect_same_stream(PROGRESS_AT_1, replace(PROGRESS_AT_1, step=9), Path("x"))
    for change in ({"fingerprint": "g"}, {"seed": 1}, {"global_batch": 16}):
        with pytest.raises(CheckpointError, match=f"with {next(iter(change))} "):
            expect_same_stream(PROGRESS_AT_1, replace(PROGRESS_AT_1, **change), Path("x"))


def test_another_network_is_refused() -> None:
    weights = {"a": torch.ones(3), "b": torch.ones(1)}
    expected = {"model": weights, "momentum": {}}
    expect_same_tensors({**expected, "more": weights}, expected, Path("x"))
    for model, difference in (
        ({"a": torch.ones(3)}, "b is missing there and float32 (1,) here"),
        ({**weights, "c": torch.ones(1)}, "c is float32 (1,) there and missing here"),
        ({**weights, "a": torch.ones(1)}, "a is float32 (1,) there and float32 (3,) here"),
        ({**weights, "a": torch.ones(3).half()}, "a is float16 (3,) there and float32 (3,) here"),
    ):
        with pytest.raises(CheckpointError, match=re.escape(difference)):
            expect_same_tensors({"model": model, "momentum": {}}, expected, Path("x"))
    with pytest.raises(CheckpointError, match="checkpoint x has no momentum "):
        expect_same_tensors({"model": weights}, expected, Path("x"))


# ------------------------------------------------------------------------------------- retention


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


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    saved=st.lists(st.integers(1, 60), min_size=1, max_size=12, unique=True).map(sorted),
    interval=st.fractions(min_value=1, max_value=20, max_denominator=7),
)
def test_keeps_the_first_of_each_interval(
    tmp_path_factory: pytest.TempPathFactory, saved: list[int], interval: Fraction
) -> None:
    folder = tmp_path_factory.mktemp("run")
    warnings: list[str] = []
    with Checkpoints(
        folder,
        keep_last=1,
        keep_best=False,
        keep_every_steps=interval,
        saved=lambda *_: None,
        warn=warnings.append,
    ) as checkpoints:
        for step in saved:
            checkpoints.save(snapshot(step))
    milestones = {
        min((step for step in saved if step >= n * interval), default=saved[-1])
        for n in range(1, 61)
        if n * interval <= saved[-1]
    }
    assert set(steps(folder)) == milestones | {saved[-1]}
    assert warnings == []


def test_a_checkpoint_is_verified_before_older_ones_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk reports success but stores something else."""
    assert save_all(tmp_path, [snapshot(1)]) == []

    def write_badly(folder: Path, one: Snapshot, fence: Fence) -> Path:
        flip_a_bit(path := write_checkpoint(folder, one, fence))
        return path

    monkeypatch.setattr("pipeline.checkpoint.saving.write_checkpoint", write_badly)
    warnings = save_all(tmp_path, [snapshot(2)], keep_last=1)
    assert len(warnings) == 1
    assert "old checkpoints are not deleted" in warnings[0]
    assert newest_step(tmp_path) == 1


def identity(path: Path) -> list[tuple[str, int]]:
    return sorted((file.name, file.stat().st_ino) for file in path.iterdir())


def test_an_identical_checkpoint_is_not_written_again(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, snapshot(5, 10.0))
    before = identity(path)
    assert write_checkpoint(tmp_path, snapshot(5, 10.0)) == path
    assert identity(path) == before
    flip_a_bit(path)
    write_checkpoint(tmp_path, snapshot(5, 10.0))
    verify_checkpoint(path)
    write_checkpoint(tmp_path, snapshot(5, 9.0))  # evaluated meanwhile
    assert read_checkpoint(path).progress.top1_error_percent == 9.0
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_complete_checkpoint_that_cannot_be_renamed_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the next process has the same process id, as may happen in a container."""
    whole = write_checkpoint(tmp_path, snapshot(2))
    leftover = whole.rename(tmp_path / f".{whole.name}.{os.getpid()}.tmp")
    with monkeypatch.context() as patch:
        patch.setattr("os.rename", _fail)
        with pytest.raises(OSError, match="exists"):
            write_checkpoint(tmp_path, snapshot(2, 5.0))
    verify_checkpoint(leftover)


def _fail(*_: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_leftovers_of_a_killed_process_are_deleted(tmp_path: Path) -> None:
    leftover = tmp_path / ".step-00000001.12345.tmp"
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    assert newest_checkpoint(tmp_path, pytest.fail) is None
    assert save_all(tmp_path, [snapshot(2)]) == []
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]
