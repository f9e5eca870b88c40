"""A batch stays in memory until the device has passed the step that read it."""

import gc
import threading
import weakref
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from pipeline.loaders.held import HeldBatches, mark_on
from tests.support.images import make_images, write_pictures
from tests.support.loading import dali


@dataclass
class Device:
    """A device that executes what is queued when told to."""

    queued: int = 0
    done: int = 0
    waits: int = field(default=0)

    def mark(self) -> "Mark":
        self.queued += 1
        return Mark(self, self.queued)


@dataclass(frozen=True)
class Mark:
    device: Device
    number: int

    def query(self) -> bool:
        return self.device.done >= self.number

    def synchronize(self) -> None:
        self.device.waits += 1
        self.device.done = max(self.device.done, self.number)


def batch() -> tuple[torch.Tensor, "weakref.ref[torch.Tensor]"]:
    images = torch.zeros(1)
    return images, weakref.ref(images)


def test_a_batch_is_held_until_the_device_has_passed_its_step() -> None:
    device = Device()
    batches = HeldBatches(device.mark)
    seen: list[weakref.ref[torch.Tensor]] = []
    for _ in range(4):
        batches.release()
        images, reference = batch()
        batches.hold(images)
        seen.append(reference)
        del images
    assert [each() is not None for each in seen] == [True] * 4  # three steps are queued
    device.done = 2
    batches.release()
    assert [each() is not None for each in seen] == [False, False, True, True]
    device.done = 4
    batches.release()
    assert [each() is not None for each in seen] == [False] * 4
    assert device.waits == 0


def test_the_batch_in_use_has_no_mark_before_its_step_is_queued() -> None:
    device = Device()
    batches = HeldBatches(device.mark)
    images, reference = batch()
    batches.hold(images)
    del images
    assert device.queued == 0
    device.done = 100
    assert reference() is not None


def test_closing_waits_for_the_device_and_lets_go_of_all() -> None:
    device = Device()
    batches = HeldBatches(device.mark)
    references: list[weakref.ref[torch.Tensor]] = []
    for _ in range(3):
        batches.release()
        images, reference = batch()
        batches.hold(images)
        references.append(reference)
        del images
    batches.close()
    assert (device.waits, device.done) == (1, 3)
    assert [each() for each in references] == [None] * 3
    batches.close()
    assert device.waits == 1


def test_the_cpu_queues_nothing() -> None:
    assert mark_on(torch.device("cpu")) is None


def test_a_stream_holds_what_it_gives_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device falls three steps behind, and passes all of them in the end."""
    pictures = make_images(8, classes=2, size=(20, 16), seed=0)
    folder = write_pictures(tmp_path, {"train": pictures, "val": pictures}, classes=2)
    device = Device()
    monkeypatch.setattr("pipeline.loaders.stream.mark_on", lambda _: device.mark)
    references: list[weakref.ref[torch.UntypedStorage]] = []
    with dali(folder).train(range(1, 7)) as stream:
        for step in range(1, 7):
            images = next(stream).images
            references.append(weakref.ref(images))
            del images
            gc.collect()
            alive = [each() is not None for each in references]
            assert alive == [number >= step - 3 for number in range(1, step + 1)], step
            device.done = max(0, step - 3)
        assert len(references) == 6
    assert device.waits == 1
    assert [each() for each in references] == [None] * 6


def test_an_error_of_the_device_leaves_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = make_images(8, classes=2, size=(20, 16), seed=0)
    folder = write_pictures(tmp_path, {"train": pictures, "val": pictures}, classes=2)

    def fail() -> Mark:
        raise RuntimeError("the device is lost")

    monkeypatch.setattr("pipeline.loaders.stream.mark_on", lambda _: fail)
    with pytest.raises(RuntimeError, match="is lost"), dali(folder).train(range(1, 7)) as stream:
        next(stream)
    assert "read-ahead" not in {thread.name for thread in threading.enumerate()}
